//! The binary `cllm`: reads the command line and the configuration, and runs the command.
//!
//! Exit codes: 0 fine, 2 bad usage or configuration, 1 everything else.

mod cli;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use cllm::bench::BenchError;
use cllm::config::{self, ConfigError, Note, Purpose, Sources};
use cllm::serve::{Announcement, Stopped};
use cllm::{api, bench, logging, serve};

use cli::{Cli, Command};

/// Exit code for bad usage and bad configuration.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    if let Some(code) = cllm_actors::engine::run_if_child() {
        return code;
    }
    let result = match Cli::parse().command {
        Command::Serve { config, default_model, hints, overrides } => {
            run_server(&Sources { default_model, ..overrides.sources(config) }, Announcement::with_hints(hints))
        }
        Command::CheckConfig { config, overrides } => check_config(&overrides.sources(config)),
        Command::Bench(args) => measure(&args.options()),
        Command::Burn => {
            bench::burn();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if is_bad_usage(&error) { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}

fn is_bad_usage(error: &anyhow::Error) -> bool {
    let bench = error.downcast_ref::<BenchError>();
    error.is::<ConfigError>() || matches!(bench, Some(BenchError::BadUrl { .. } | BenchError::BadOptions(_)))
}

fn run_server(sources: &Sources, announcement: Announcement) -> anyhow::Result<()> {
    let loaded = config::load(sources, Purpose::Serve)?;
    logging::init(&loaded.config.logging)?;
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
    match runtime.block_on(serve::run(&loaded.config, api::routes, announcement))? {
        Stopped::InOrder => Ok(()),
        Stopped::AtOnce(signal) => exit_at_once(signal.exit_code()),
    }
}

/// Waits for nothing: not for a thread in the middle of a decode, not for an open stream.
#[expect(clippy::disallowed_methods, reason = "a second signal means now")]
fn exit_at_once(code: u8) -> ! {
    std::process::exit(code.into())
}

fn measure(options: &bench::Options) -> anyhow::Result<()> {
    match bench::run(options)? {
        0 => Ok(()),
        failed => anyhow::bail!("{failed} requests failed"),
    }
}

fn check_config(sources: &Sources) -> anyhow::Result<()> {
    let loaded = config::load(sources, Purpose::Check)?;
    write!(io::stdout().lock(), "{loaded}").context("failed to print the configuration")
}
