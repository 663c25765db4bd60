//! The cLLM server: HTTP in front of the actors of `cllm-actors`.

pub mod api;
pub mod http;
