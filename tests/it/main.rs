//! The one integration binary: the real server as a child process on port 0, spoken to over sockets.
#![cfg(test)]

mod client;
mod expected;
mod server;

mod actors;
mod auth_cors_ids;
mod bench;
mod benchmark;
mod chaos;
mod chat;
mod cllm_api;
mod command_line;
mod completions;
mod cut_characters;
#[cfg(feature = "llama")]
mod dead_engine;
mod engine_process;
mod errors;
mod failures;
mod isolation;
mod kv_files;
mod log_bills;
mod overload;
mod priorities;
mod readiness;
mod response_cache;
mod start;
mod tidy;
mod tuner;
mod ui;
