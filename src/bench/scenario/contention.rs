//! Ten at a time while another process burns one core, against the same load alone.

use std::sync::Arc;

use fastrand::Rng;

use crate::bench::burner::Burner;
use crate::bench::load::{Pace, Wave};
use crate::bench::report::{Case, ScenarioReport};
use crate::bench::runner::Runner;
use crate::bench::server::Server;
use crate::bench::shot::Shot;
use crate::bench::stats::Spread;
use crate::bench::{BenchError, prompts};

const AT_ONCE: usize = 10;
const MAX_TOKENS: u32 = 50;

/// Speed beside a busy process over speed alone.
pub(in crate::bench) const BESIDE_OVER_ALONE: (&str, &str) = ("beside_over_alone", "x");

/// One round: alone, and beside the burner.
type Both = (Wave, Wave);

/// Runs it.
///
/// # Errors
/// The burner does not start.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, on: &[usize]) -> Result<ScenarioReport, BenchError> {
    let at_once = runner.at_once(AT_ONCE);
    let requests = runner.refilled(at_once);
    let about = format!("{at_once} at a time, alone and while another process burns one core.");
    let mut report = ScenarioReport::new("contention", about);
    let (max_tokens, rounds) = (runner.max_tokens(MAX_TOKENS), runner.rounds(5));
    let load =
        |rng: &mut Rng| -> Vec<Shot> { (0..requests).map(|_| Shot::chat(prompts::short(rng), max_tokens)).collect() };
    let prepare = |rng: &mut Rng| (load(rng), load(rng));
    let run = async |runner: &Runner<'_>, server: &Arc<Server>, round: u32, (alone, beside): &(Vec<_>, Vec<_>)| {
        let wave = |title, shots: &Vec<Shot>| runner.wave(server, (title, round), shots.clone(), Pace::AtOnce(at_once));
        let alone_first = round.is_multiple_of(2);
        let before = if alone_first { Some(wave("contention, alone", alone).await) } else { None };
        let burner = Burner::start().map_err(|source| BenchError::Start { what: "the burner", source })?;
        let beside = wave("contention, beside a busy process", beside).await;
        drop(burner);
        let alone = match before {
            Some(alone) => alone,
            None => wave("contention, alone", alone).await,
        };
        Ok((alone, beside))
    };
    let results = runner.alternate(on, rounds, prepare, run).await;
    let results: Vec<Vec<Both>> =
        results.into_iter().map(|rounds| rounds.into_iter().collect()).collect::<Result<_, BenchError>>()?;
    for (server, rounds) in on.iter().zip(&results) {
        let ratios = rounds.iter().map(|(alone, beside)| beside.tokens_per_second() / alone.tokens_per_second());
        let about = "tokens per second beside the busy process over those alone";
        report.measure(BESIDE_OVER_ALONE, about, Some(*server), Spread::of(ratios));
    }
    report.cases.push(case("alone", on, &results, |(alone, _)| alone).at_once(at_once));
    report.cases.push(case("beside a busy process", on, &results, |(_, beside)| beside).at_once(at_once));
    Ok(report)
}

fn case(label: &str, on: &[usize], results: &[Vec<Both>], which: impl Fn(&Both) -> &Wave) -> Case {
    let sides = on.iter().zip(results).map(|(server, rounds)| (Some(*server), rounds.iter().map(&which).collect()));
    Case::new(label, sides.collect())
}
