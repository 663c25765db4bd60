//! The same request again: what a response cache is for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::bench::load::Wave;
use crate::bench::prompts;
use crate::bench::report::{Case, ScenarioReport};
use crate::bench::runner::Runner;
use crate::bench::server::Server;
use crate::bench::shot::{Caching, Seen, Shot};
use crate::bench::stats::{Spread, Summary};

const PROMPT_WORDS: usize = 300;
const MAX_TOKENS: u32 = 100;
const REPETITIONS: usize = 5;

/// Time of a repeated answer over that of the first.
pub(in crate::bench) const REPEATED_SHARE: (&str, &str) = ("repeated_share", "%");
/// Repeated answers that are not the first one.
const DIFFERENT: (&str, &str) = ("different_answers", "of 5");

/// One round: the first time, and again.
type Again = (Wave, Wave);

/// Runs it.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let about = format!(
        "A new greedy request with a prompt of {PROMPT_WORDS} words, and the very same {REPETITIONS} times more, one \
         after another. Caches are allowed."
    );
    let mut report = ScenarioReport::new("repeat", about);
    let (max_tokens, rounds) = (runner.max_tokens(MAX_TOKENS), runner.rounds(5));
    let prepare =
        |rng: &mut Rng| Shot { caching: Caching::Allowed, ..Shot::chat(prompts::words(rng, PROMPT_WORDS), max_tokens) };
    let run = async |runner: &Runner<'_>, server: &Arc<Server>, round: u32, shot: &Shot| {
        runner.progress.begin(format!("repeat, round {}, {}", round + 1, server.url), 1 + REPETITIONS);
        (ask(runner, server, shot, 1).await, ask(runner, server, shot, REPETITIONS).await)
    };
    let results = runner.alternate(on, rounds, prepare, run).await;
    for (server, rounds) in on.iter().zip(&results) {
        let about = "time of the repeated answer (median of a round) over that of the first";
        report.measure(REPEATED_SHARE, about, Some(*server), Spread::of(rounds.iter().filter_map(share)));
        let about = "repeated answers that differ from the first";
        report.measure(DIFFERENT, about, Some(*server), Spread::of(rounds.iter().map(different)));
    }
    report.cases.push(case("first time", on, &results, |(first, _)| first));
    report.cases.push(case("again", on, &results, |(_, again)| again));
    report
}

async fn ask(runner: &Runner<'_>, server: &Arc<Server>, shot: &Shot, times: usize) -> Wave {
    let began = Instant::now();
    let mut seen = Vec::new();
    for _ in 0..times {
        seen.push(server.ask(shot).await);
        runner.progress.advance();
    }
    Wave { seen, wall: began.elapsed(), client_cpu: None }
}

fn case(label: &str, on: &[usize], results: &[Vec<Again>], which: impl Fn(&Again) -> &Wave) -> Case {
    let sides = on.iter().zip(results).map(|(server, rounds)| (Some(*server), rounds.iter().map(&which).collect()));
    Case::new(label, sides.collect()).at_once(1)
}

/// In percent; `None` when a request failed.
fn share((first, again): &Again) -> Option<f64> {
    let seconds = |seen: &Seen| (!seen.failed()).then(|| Duration::as_secs_f64(&seen.total()));
    let first = seconds(first.seen.first()?)?;
    let again: Option<Vec<f64>> = again.seen.iter().map(seconds).collect();
    Some(100.0 * Summary::of(again?)?.p50 / first)
}

fn different((first, again): &Again) -> f64 {
    let text = first.seen.first().map(|seen| &seen.text);
    again.seen.iter().filter(|seen| Some(&seen.text) != text).count() as f64
}
