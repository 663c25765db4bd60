//! Why a generation can fail, as the caller is told. One enum; HTTP maps it to statuses elsewhere.

use std::time::Duration;

/// The end of a generation without success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The caller's mistake; `param` is the request field.
    #[error("{message}")]
    InvalidRequest {
        /// The field at fault.
        param: String,
        /// What is wrong, with the allowed range.
        message: String,
    },
    /// The prompt does not fit.
    #[error("the prompt has {counted}{prompt_tokens} tokens, the context holds {context_tokens}")]
    ContextLengthExceeded {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// Whether they are all of them.
        counted: Counted,
        /// Most tokens of one request.
        context_tokens: u32,
    },
    /// No admission permit is free.
    #[error("the server is at its limit of {limit} requests; try again in {} s", retry_after.as_secs())]
    Overloaded {
        /// Permits in all.
        limit: u32,
        /// A computed guess.
        retry_after: Duration,
    },
    /// Those that go first take longer than the request may wait.
    #[error(
        "the queue is too long to begin within {} ms; try again in {} s",
        longest_wait.as_millis(),
        retry_after.as_secs_f64().ceil()
    )]
    QueueTooLong {
        /// How long it may wait, so that there is time for its answer.
        longest_wait: Duration,
        /// A computed guess.
        retry_after: Duration,
    },
    /// The tenant has its share of the permits.
    #[error("this API key is at its limit of {limit} requests; try again in {} s", retry_after.as_secs())]
    OverQuota {
        /// Its permits in all.
        limit: u32,
        /// A computed guess.
        retry_after: Duration,
    },
    /// The engine loads for the first time.
    #[error("the model is loading")]
    ModelLoading,
    /// The engine is down and held.
    #[error("the engine is down: {cause}")]
    EngineDown {
        /// Why it is down.
        cause: String,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// The engine died over this request, more than once.
    #[error("the request was refused: the engine ended each time it worked on it")]
    EngineCrashed,
    /// A deadline passed.
    #[error("deadline exceeded: {which} took longer than {} ms", limit.as_millis())]
    DeadlineExceeded {
        /// `queue`, `first_token` or `total`.
        which: &'static str,
        /// The deadline.
        limit: Duration,
    },
    /// The system is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The receiver went away or stopped reading; nobody is there to see it but the log.
    #[error("the client is gone")]
    ClientGone,
    /// The session vanished or an invariant broke.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What a number of tokens says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// So many.
    Exactly,
    /// So many or more: a text that is far too long is not tokenized to find out.
    AtLeast,
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Exactly => "",
            Self::AtLeast => "at least ",
        })
    }
}
