//! `cllm bench`: measures servers as their clients see them, over HTTP, and writes down what it saw.
//!
//! It knows nothing of the inside of a server. Two scenarios look at a process from outside: `capacity` reads its CPU
//! time, `survival` kills its engine. Prompts are new in every request, so that caches help only where a scenario is
//! about them, and every failure is counted and shown.

mod answer;
mod burner;
mod cpu;
mod fake_server;
mod load;
mod machine;
mod options;
mod probe;
mod progress;
mod prompts;
mod report;
mod runner;
mod scenario;
mod schedule;
mod server;
mod shot;
mod sse;
mod stats;
mod targets;

use std::io::{self, Write as _};
use std::path::PathBuf;

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

pub use burner::{BURN_COMMAND, burn};
pub use options::{Options, Scenario, Selection};
pub use stats::{Spread, Summary};

use report::{Report, html, terminal};
use runner::Runner;

/// Threads of the clients. They wait most of the time; the report says how much they took.
const CLIENT_THREADS: usize = 2;

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Not a URL that can be asked.
    #[error("`{url}` is no base URL: {reason}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Options that do not go together.
    #[error("{0}")]
    BadOptions(String),
    /// Nobody answers.
    #[error("no server at {url}: {reason}")]
    Unreachable {
        /// The base URL.
        url: String,
        /// The cause.
        reason: String,
    },
    /// A helper process did not start.
    #[error("failed to start {what}")]
    Start {
        /// Which one.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A report could not be written.
    #[error("failed to write `{path}`")]
    Write {
        /// Where to.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The client's runtime did not start.
    #[error("failed to start the client's threads")]
    Runtime(#[source] io::Error),
    /// By a signal.
    #[error("interrupted")]
    Interrupted,
}

/// Runs the scenarios, prints a table to standard output and writes the reports. Returns how many requests failed.
///
/// Starts a runtime of its own: not to be called from within one.
///
/// # Errors
/// Nothing could be measured, or written.
pub fn run(options: &Options) -> Result<u64, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CLIENT_THREADS)
        .thread_name("cllm-bench")
        .enable_all()
        .build()
        .map_err(BenchError::Runtime)?;
    let report = runtime.block_on(async {
        tokio::select! {
            report = Runner::measure(options) => report,
            () = interrupted() => Err(BenchError::Interrupted),
        }
    })?;
    publish(&report, options)?;
    Ok(report.failed_requests)
}

/// Helper processes end with the runtime, which this ends.
async fn interrupted() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else { return std::future::pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn publish(report: &Report, options: &Options) -> Result<(), BenchError> {
    let written = io::stdout().lock().write_all(terminal::table(report).as_bytes());
    written.map_err(|source| BenchError::Write { path: "standard output".into(), source })?;
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> String| match path {
        Some(path) => std::fs::write(path, text()).map_err(|source| BenchError::Write { path: path.clone(), source }),
        None => Ok(()),
    };
    let json = || serde_json::to_string_pretty(report).expect("its keys are strings") + "\n";
    write(&options.json, &json)?;
    write(&options.html, &|| html::page(report))
}
