//! What the server itself costs: CPU time per streamed token, with an engine that computes nothing.

use std::sync::Arc;

use crate::bench::fake_server::FakeServer;
use crate::bench::load::{Pace, Wave};
use crate::bench::report::{Case, ScenarioReport};
use crate::bench::runner::Runner;
use crate::bench::server::Server;
use crate::bench::shot::Shot;
use crate::bench::stats::Spread;
use crate::bench::{BenchError, cpu, prompts};

const STREAMS: usize = 256;
const MAX_TOKENS: u32 = 200;
/// A step of the fake engine: 256 streams at 50 tokens per second each. Without it the engine outruns every client,
/// and tokens gather in fewer, larger pieces, which would flatter the figure.
const STEP_TIME_US: u32 = 20_000;

type Name = (&'static str, &'static str);

/// CPU time of the server per streamed token; of a server of its own, with the engine in a thread.
const CPU_PER_TOKEN: Name = ("cpu_per_token", "us");
/// The same of a server of its own with the engine in a process, as `serve` runs a real model unless told otherwise.
pub(in crate::bench) const CPU_PER_TOKEN_PROCESS: Name = ("cpu_per_token_process_host", "us");
/// Pieces of text over tokens.
const PIECES_PER_TOKEN: Name = ("pieces_per_token", "x");
const PIECES_PER_TOKEN_PROCESS: Name = ("pieces_per_token_process_host", "x");

/// Where a server of its own has its engine: the name in the configuration, what the case is called behind the number
/// of streams, and the names of cost and pieces.
type Host = (&'static str, &'static str, Name, Name);

const HOSTS: [Host; 2] = [
    ("process", ", engine in a process", CPU_PER_TOKEN_PROCESS, PIECES_PER_TOKEN_PROCESS),
    ("thread", ", engine in a thread", CPU_PER_TOKEN, PIECES_PER_TOKEN),
];

/// A server and its process.
struct Subject {
    server: Arc<Server>,
    pid: u32,
    /// Index into the report's servers; `None`: a server of its own.
    index: Option<usize>,
}

/// Runs it, on servers of its own unless a URL is chosen, whose process the options name.
///
/// # Errors
/// No server.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, only: Option<usize>) -> Result<ScenarioReport, BenchError> {
    let streams = runner.at_once(STREAMS);
    let about = format!(
        "{streams} streams at a time through HTTP; CPU time of the server's process per token, without that of an \
         engine in a process of its own."
    );
    let mut report = ScenarioReport::new("capacity", about);
    if let Some(pid) = runner.options.server_pid.filter(|_| only.is_some()) {
        let subject = Subject { server: Arc::clone(&runner.servers[0]), pid, index: Some(0) };
        measure(runner, &mut report, &subject, ("", CPU_PER_TOKEN, PIECES_PER_TOKEN)).await;
        return Ok(report);
    }
    for (host, label, cost, pieces) in HOSTS {
        let own = FakeServer::start(&settings(streams, host)).await?;
        let server = Arc::new(Server::meet(&own.url, None, runner.settings()).await?);
        let subject = Subject { server, pid: own.pid, index: None };
        measure(runner, &mut report, &subject, (label, cost, pieces)).await;
    }
    Ok(report)
}

async fn measure(
    runner: &Runner<'_>,
    report: &mut ScenarioReport,
    subject: &Subject,
    (label, cost, pieces): (&str, Name, Name),
) {
    let (streams, max_tokens) = (runner.at_once(STREAMS), runner.max_tokens(MAX_TOKENS));
    let Subject { server, pid, index } = subject;
    let (mut rng, mut waves, mut costs) = (fastrand::Rng::new(), Vec::new(), Vec::new());
    for round in 0..runner.rounds(3) {
        let shots = (0..runner.requests(streams)).map(|_| Shot::chat(prompts::short(&mut rng), max_tokens)).collect();
        let before = cpu::of(*pid);
        let wave = runner.wave(server, ("capacity", round), shots, Pace::AtOnce(streams)).await;
        let spent = before.zip(cpu::of(*pid)).map(|(before, after)| after.saturating_sub(before));
        costs.extend(spent.map(|spent| spent.as_secs_f64() * 1e6 / wave.tokens() as f64));
        waves.push(wave);
    }
    report.measure(cost, "CPU time of the server's process per streamed token", *index, Spread::of(costs));
    let about = "pieces of text that arrived, over tokens; 1 when each token came by itself (bytes that are half a \
                 character wait for the other half)";
    report.measure(pieces, about, *index, Spread::of(waves.iter().map(pieces_per_token)));
    let case = Case::new(format!("{streams} streams{label}"), vec![(*index, waves.iter().collect())]);
    report.cases.push(case.at_once(streams));
}

fn settings(streams: usize, host: &str) -> Vec<String> {
    // The fake engine's tokens are bytes: a prompt has about a hundred.
    let tokens = streams.max(16) * 2_048;
    vec![
        format!("scheduler.max_batch_size={}", streams.clamp(1, 256)),
        "resources.kv_cache_max_size=0".to_owned(),
        format!("backend.fake.host={host}"),
        format!("backend.fake.n_ctx={tokens}"),
        "backend.fake.n_batch=8192".to_owned(),
        "scheduler.step_tokens=8192".to_owned(),
        format!("backend.fake.step_time_us={STEP_TIME_US}"),
        "logging.level=warn".to_owned(),
    ]
}

fn pieces_per_token(wave: &Wave) -> f64 {
    let pieces: usize = wave.seen.iter().map(|seen| seen.arrivals.len()).sum();
    pieces as f64 / wave.tokens() as f64
}
