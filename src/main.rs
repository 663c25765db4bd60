//! The binary `cllm`: reads the command line and the configuration, and runs the command.
//!
//! Exit codes: 0 fine, 2 bad usage or configuration, 1 everything else.

mod cli;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use cllm::config::{self, ConfigError, Note, Purpose, Sources};

use cli::{Cli, Command};

/// Exit code for bad usage and bad configuration.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve { config, overrides } => serve(&overrides.sources(config)),
        Command::CheckConfig { config, overrides } => check_config(&overrides.sources(config)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}

fn serve(sources: &Sources) -> anyhow::Result<()> {
    let loaded = config::load(sources, Purpose::Serve)?;
    for note in &loaded.notes {
        match note {
            Note::Info(text) => tracing::info!("{text}"),
            Note::Warning(text) => tracing::warn!("{text}"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(loaded.config.server.worker_threads())
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(serve::run(loaded.config))
}

fn check_config(sources: &Sources) -> anyhow::Result<()> {
    let loaded = config::load(sources, Purpose::Check)?;
    write!(io::stdout().lock(), "{loaded}").context("failed to print the configuration")
}
