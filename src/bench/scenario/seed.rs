//! The two tables of the report that started this project (2026-01-19): prompts, counts and formulas of the script that
//! made them, `tools/unified_benchmark.py`, and the honest figures beside them.
//!
//! Its "generated tokens" are an estimate, the rate that the server claims times the time that the client waited: where
//! the two do not cover the same time (a queue before the server's clock, prefill outside of it), it is wrong.

use std::sync::Arc;

use crate::bench::load::{Pace, Wave};
use crate::bench::prompts::SEED_PROMPTS;
use crate::bench::report::{ScenarioReport, SeedRow, SeedTable};
use crate::bench::runner::{Runner, case};
use crate::bench::server::Server;
use crate::bench::shot::{Ask, Delivery, Ending, Seen, Shot};
use crate::bench::stats::{Spread, Summary};

const REQUESTS: usize = 10;
const CONCURRENCY: usize = 5;
const MAX_TOKENS: u32 = 50;
const TEMPERATURE: f32 = 0.7;

/// Rows of the table with what the seed published, before and after its change; the last two rows are the honest
/// ones, computed from its 50 tokens for each successful request.
const ROWS: [(&str, [f64; 2], [f64; 2]); 14] = [
    ("requests", [10.0, 10.0], [10.0, 10.0]),
    ("successful", [10.0, 10.0], [9.0, 10.0]),
    ("failed", [0.0, 0.0], [1.0, 0.0]),
    ("success rate, %", [100.0, 100.0], [90.0, 100.0]),
    ("mean answer time, s", [1.25, 1.22], [4.90, 4.66]),
    ("shortest answer time, s", [1.10, 1.13], [2.23, 1.20]),
    ("longest answer time, s", [1.43, 1.28], [6.77, 5.29]),
    ("whole test, s", [12.48, 12.23], [10.95, 10.04]),
    ("tokens processed (old formula)", [928.0, 928.0], [915.0, 928.0]),
    ("throughput, tokens/s (old formula)", [40.06, 40.89], [48.13, 49.82]),
    ("tokens/s of one request (claimed)", [40.34, 41.03], [12.65, 13.09]),
    ("tokens of an answer (old formula)", [50.0, 50.0], [58.56, 50.0]),
    ("completion tokens (counted)", [500.0, 500.0], [450.0, 500.0]),
    (HONEST_ROW, [40.06, 40.89], [41.10, 49.80]),
];

/// The row that charts show.
pub(in crate::bench) const HONEST_ROW: &str = "throughput, tokens/s (counted)";

/// The first table.
pub(in crate::bench) async fn sequential(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let published = ROWS.map(|(name, sequential, _)| (name, sequential));
    run(runner, on, "seed-sequential", 1, published).await
}

/// The second table.
pub(in crate::bench) async fn concurrent(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let published = ROWS.map(|(name, _, concurrent)| (name, concurrent));
    let at_once = runner.at_once(CONCURRENCY);
    run(runner, on, "seed-concurrent", at_once, published).await
}

async fn run(
    runner: &mut Runner<'_>,
    on: &[usize],
    name: &str,
    at_once: usize,
    published: [(&'static str, [f64; 2]); ROWS.len()],
) -> ScenarioReport {
    let requests = runner.requests(REQUESTS);
    let about = format!(
        "The seed's {requests} requests of its five Chinese prompts, not streamed, temperature {TEMPERATURE}, \
         {at_once} at a time. cLLM's servers are asked at /generate, others at /v1/completions."
    );
    let mut report = ScenarioReport::new(name, about);
    let (max_tokens, rounds) = (runner.max_tokens(MAX_TOKENS), runner.rounds(3));
    let run = async |runner: &Runner<'_>, server: &Arc<Server>, round: u32, (): &()| {
        let shots = (0..requests).map(|index| shot(index, max_tokens, server.speaks_cllm)).collect();
        runner.wave(server, (name, round), shots, Pace::AtOnce(at_once)).await
    };
    let waves = runner.alternate(on, rounds, |_| (), run).await;
    let figures: Vec<Vec<Vec<f64>>> = waves.iter().map(|rounds| rounds.iter().map(figures).collect()).collect();
    let row = |(index, (name, published)): (usize, (&'static str, [f64; 2]))| {
        let median = |rounds: &Vec<Vec<f64>>| Spread::of(rounds.iter().map(|row| row[index])).map(|row| row.median);
        let measured = figures.iter().map(median).collect();
        SeedRow { name, published_before: Some(published[0]), published_after: Some(published[1]), measured }
    };
    report.seed_table = Some(SeedTable { rows: published.into_iter().enumerate().map(row).collect() });
    report.cases.push(case(format!("{at_once} at a time"), on, &waves).at_once(at_once));
    report
}

fn shot(index: usize, max_tokens: u32, speaks_cllm: bool) -> Shot {
    let prompt = SEED_PROMPTS[index % SEED_PROMPTS.len()].to_owned();
    let ask = if speaks_cllm { Ask::Generate(prompt) } else { Ask::Text(prompt) };
    Shot { ask, temperature: TEMPERATURE, delivery: Delivery::Whole, ..Shot::chat(String::new(), max_tokens) }
}

/// The rows of the table for one round, in the order of [`ROWS`].
fn figures(wave: &Wave) -> Vec<f64> {
    let done: Vec<&Seen> = wave.seen.iter().filter(|seen| seen.ending == Ending::Complete).collect();
    let times = Summary::of(done.iter().map(|seen| seen.total().as_secs_f64()));
    let time = |figure: fn(&Summary) -> f64| times.as_ref().map_or(f64::NAN, figure);
    let estimates: Vec<f64> = done.iter().map(|seen| estimate(seen)).collect();
    let generated: f64 = estimates.iter().sum();
    let processed = generated + done.iter().map(|seen| seen.asked.chars().count() as f64).sum::<f64>();
    let first = done.iter().map(|seen| seen.sent).min();
    let last = done.iter().map(|seen| seen.ended).max();
    let span = first.zip(last).map_or(f64::NAN, |(first, last)| (last - first).as_secs_f64());
    let counted: f64 = done.iter().map(|seen| f64::from(seen.tokens)).sum();
    let (all, good) = (wave.seen.len() as f64, done.len() as f64);
    vec![
        all,
        good,
        all - good,
        100.0 * good / all,
        time(|times| times.mean),
        time(|times| times.min),
        time(|times| times.max),
        wave.wall.as_secs_f64(),
        processed,
        generated / span,
        done.iter().map(|seen| seen.claimed_rate.unwrap_or(0.0)).sum::<f64>() / good,
        generated / good,
        counted,
        counted / wave.wall.as_secs_f64(),
    ]
}

/// The seed's estimate of generated tokens: claimed rate times time; without a rate, characters of a text that is not
/// ASCII, or words of one that is.
fn estimate(seen: &Seen) -> f64 {
    match seen.claimed_rate {
        Some(rate) if rate > 0.0 => (rate * seen.total().as_secs_f64()).floor(),
        _ if !seen.text.is_ascii() => seen.text.chars().count() as f64,
        _ => seen.text.split_whitespace().count() as f64,
    }
}

#[cfg(test)]
mod tests;
