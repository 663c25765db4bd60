//! The blocking side: everything that runs on the engine's own threads, and the protocol to reach it.
//!
//! `protocol` is all that the actors see. A host runs two threads, here or in a process of their own: the loop,
//! generic over a `Model`, and the vocabulary thread.

mod progress;
pub mod protocol;
pub mod spec;
pub(crate) mod store;

pub mod model;

pub mod batch;
mod child;
mod disk_reads;
mod engine_loop;
pub mod fake;
mod frames;
pub mod host;
#[cfg(feature = "llama")]
pub mod llama;
pub mod logprobs;
mod runs;
mod sample_rows;
pub mod sampler;
pub mod vocabulary_thread;

pub use child::run_if_child;
