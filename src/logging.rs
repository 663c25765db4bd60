//! The log: `tracing` events to stderr, as text or as JSON lines.

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, Logging};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error("failed to read `logging.level` `{level}`")]
    Filter {
        /// What was given.
        level: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// The process has a log already.
    #[error("failed to install the log")]
    Install(#[from] TryInitError),
}

/// Installs the log of this process. Colours only on a terminal, and not with `NO_COLOR`.
///
/// # Errors
/// A filter that does not parse, or a second call.
pub fn init(settings: &Logging) -> Result<(), LoggingError> {
    // Of ractor's spans only the actor's number would show, in front of every line.
    let filter = EnvFilter::builder()
        .parse(format!("ractor=warn,{}", settings.level))
        .map_err(|source| LoggingError::Filter { level: settings.level.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
        // On a terminal the builder itself looks at NO_COLOR.
        LogFormat::Text if io::stderr().is_terminal() => builder.finish().try_init()?,
        LogFormat::Text => builder.with_ansi(false).finish().try_init()?,
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A panic is an event like any other: one line, in the log's format. A supervisor says what becomes of its actor.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        location = panic.location().map(tracing::field::display),
        message = panic.payload_as_str().unwrap_or("no text"),
        "panicked"
    );
}
