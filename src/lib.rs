//! The server's parts as a library, so that tests can use them. To embed the engine, use the crate `cllm-actors`.

pub mod api;
pub mod bench;
pub mod config;
pub mod http;
pub mod logging;
pub mod serve;
pub mod ui;
