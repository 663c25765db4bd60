//! The actors of cLLM: supervised session, scheduler, KV-cache and backend actors around an LLM engine.
//!
//! Reading order:
//! [`request`] and [`sampling`] say what can be asked for, [`system`] is the handle through which it is asked;
//! [`session`], [`response_cache`], [`scheduler`], [`kv_cache`] and [`backend`] are the actors that answer, one file each;
//! [`supervision`] restarts them, [`inspector`] shows what they do; [`engine`] is the blocking side that computes; [`prompt`] and [`text`] turn
//! messages into prompts and tokens into text.
//!
//! This crate knows models and actors. It knows no HTTP, no command line and no file format of configuration.

pub mod admission;
pub mod backend;
pub mod boards;
pub mod chaos;
pub mod engine;
pub mod error;
pub mod inspector;
pub mod kv_cache;
pub mod layouts;
pub mod ledger;
pub mod meters;
pub mod names;
pub mod priority;
pub mod prompt;
pub mod pulse;
pub mod quarantine;
pub mod request;
pub mod response_cache;
pub mod sampling;
pub mod scheduler;
pub mod session;
pub mod supervision;
pub mod system;
pub mod text;
pub mod wiring;

pub use error::{Counted, GenerateError};
pub use request::{FinishReason, GenerateRequest, GenerationEvent, Prompt};
pub use sampling::SamplingParams;
pub use system::{Generation, System, SystemArgs, SystemBuilder};
