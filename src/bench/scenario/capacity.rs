//! What the server itself costs: CPU time per streamed token, with an engine that computes nothing.

use std::sync::Arc;

use crate::bench::fake_server::FakeServer;
use crate::bench::load::{Pace, Wave, drive};
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

/// CPU time of the server per streamed token.
pub(in crate::bench) const CPU_PER_TOKEN: (&str, &str) = ("cpu_per_token", "us");
/// Pieces of text over tokens.
const PIECES_PER_TOKEN: (&str, &str) = ("pieces_per_token", "x");

/// Runs it, on a server of its own unless a URL is chosen, whose process the options name.
///
/// # Errors
/// No server.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, only: Option<usize>) -> Result<ScenarioReport, BenchError> {
    let streams = runner.at_once(STREAMS);
    let about = format!("{streams} streams at a time through HTTP; CPU time of the server's process per token.");
    let mut report = ScenarioReport::new("capacity", about);
    let max_tokens = runner.max_tokens(MAX_TOKENS);
    let (server, pid, index, _own) = match runner.options.server_pid.filter(|_| only.is_some()) {
        Some(pid) => (Arc::clone(&runner.servers[0]), pid, Some(0), None),
        None => {
            let own = FakeServer::start(&settings(streams)).await?;
            let server = Server::meet(&own.url, None, runner.settings()).await?;
            (Arc::new(server), own.pid, None, Some(own))
        }
    };
    let shots = |rng: &mut fastrand::Rng| -> Vec<Shot> {
        (0..runner.requests(streams)).map(|_| Shot::chat(prompts::short(rng), max_tokens)).collect()
    };
    let (mut rng, mut waves, mut costs) = (fastrand::Rng::new(), Vec::new(), Vec::new());
    for round in 0..runner.rounds(3) {
        let shots = shots(&mut rng);
        runner.progress.begin(format!("capacity, round {}, {}", round + 1, server.url), shots.len());
        let before = cpu::of(pid);
        let wave = drive(&server, shots, Pace::AtOnce(streams), &runner.progress).await;
        let spent = before.zip(cpu::of(pid)).map(|(before, after)| after.saturating_sub(before));
        costs.extend(spent.map(|spent| spent.as_secs_f64() * 1e6 / wave.tokens() as f64));
        waves.push(wave);
    }
    report.measure(CPU_PER_TOKEN, "CPU time of the server's process per streamed token", index, Spread::of(costs));
    let about = "pieces of text that arrived, over tokens; 1 when each token came by itself (bytes that are half a \
                 character wait for the other half)";
    report.measure(PIECES_PER_TOKEN, about, index, Spread::of(waves.iter().map(pieces_per_token)));
    report.cases.push(Case::new(format!("{streams} streams"), vec![(index, waves.iter().collect())]).at_once(streams));
    Ok(report)
}

fn settings(streams: usize) -> Vec<String> {
    // The fake engine's tokens are bytes: a prompt has about a hundred.
    let tokens = streams.max(16) * 2_048;
    vec![
        format!("scheduler.max_batch_size={}", streams.clamp(1, 256)),
        "resources.kv_cache_max_size=0".to_owned(),
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
