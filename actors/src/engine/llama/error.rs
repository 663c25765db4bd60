//! Why a model cannot be loaded: one line for the operator.

use std::path::PathBuf;

use super::gguf::GgufError;

/// The end of an unsuccessful load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is missing, unreadable, cut short or no GGUF file.
    #[error("model file `{path}`: {source}")]
    File {
        /// The file, or the part of a split model at fault.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A parameter is out of its range.
    #[error("{0}")]
    Parameter(String),
    /// llama.cpp refused the model.
    #[error("llama.cpp cannot load model `{path}`: {reason}")]
    Model {
        /// The file.
        path: PathBuf,
        /// llama.cpp's own words.
        reason: String,
    },
    /// The model loads but cannot generate text here.
    #[error("model `{path}` is not supported: {reason}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The context could not be created or does not compute.
    #[error("cannot create a context of {n_ctx} cells and {n_seq_max} sequences: {reason}")]
    Context {
        /// Cells asked for.
        n_ctx: u32,
        /// Sequences asked for.
        n_seq_max: u32,
        /// llama.cpp's own words.
        reason: String,
    },
    /// The progress callback asked for it.
    #[error("loading was cancelled")]
    Cancelled,
}
