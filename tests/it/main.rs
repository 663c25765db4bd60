//! The one integration binary: the real server as a child process on port 0, spoken to over sockets.
#![cfg(test)]

mod client;
mod expected;
mod server;

mod actors;
mod auth_cors_ids;
mod chaos;
mod chat;
mod cllm_api;
mod command_line;
mod completions;
mod cut_characters;
mod engine_process;
mod errors;
mod failures;
mod isolation;
mod kv_files;
mod priorities;
mod start;
mod tidy;
mod ui;
