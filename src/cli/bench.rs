//! The command line of `cllm bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cllm::bench::{Options, Selection};

/// What to measure, and on what.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Scenarios, in this order; NAME@N runs against the N-th URL alone. seed-sequential, seed-concurrent, throughput,
    /// shared-prefix, repeat, long-prompt, mixed, contention, capacity, survival
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',', required = true)]
    scenarios: Vec<Selection>,
    /// Base URL of an OpenAI-compatible server; several take turns and are compared with the first
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// What reports say beside a server, such as how it was built; one for each --url, in their order
    #[arg(long = "note", value_name = "TEXT")]
    notes: Vec<String>,
    /// API key, sent as a bearer token
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Model to ask for; by default the first that the server lists
    #[arg(long)]
    model: Option<String>,
    /// Rounds of each case
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Requests at a time; several numbers, with commas, are for `throughput` alone
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: Vec<u32>,
    /// Requests of each round
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: Option<u32>,
    /// Tokens of each answer
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_tokens: Option<u32>,
    /// Requests per second, arriving at random (Poisson) whatever the server does, for `throughput` and `mixed`
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Seconds after which an answer counts as failed
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// Process of the first server, for `survival` and `capacity@1`; plain `capacity` starts a server of its own
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Answers shorter than asked for are no failures: for servers that do not know `ignore_eos`
    #[arg(long)]
    accept_short: bool,
    /// Compare with the numbers that cLLM set itself; the first URL is cLLM, the second its peer
    #[arg(long)]
    targets: bool,
    /// Write a report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report as one HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl BenchArgs {
    /// The same for the library.
    pub(crate) fn options(self) -> Options {
        Options {
            scenarios: self.scenarios,
            urls: self.urls,
            notes: self.notes,
            api_key: self.api_key,
            model: self.model,
            rounds: self.rounds,
            concurrency: self.concurrency,
            requests: self.requests,
            max_tokens: self.max_tokens,
            rate: self.rate,
            patience: Duration::from_secs(self.patience),
            server_pid: self.server_pid,
            accept_short: self.accept_short,
            targets: self.targets,
            json: self.json,
            html: self.html,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("must be a number from 0.001 to 100000".to_owned()),
    }
}
