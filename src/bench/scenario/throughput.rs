//! Short different prompts, some at a time or at a rate.

use std::sync::Arc;

use fastrand::Rng;

use crate::bench::load::{Pace, Wave};
use crate::bench::probe::Probe;
use crate::bench::report::{Case, ScenarioReport};
use crate::bench::runner::{Runner, case};
use crate::bench::server::Server;
use crate::bench::shot::Shot;
use crate::bench::stats::{Spread, Summary};
use crate::bench::{prompts, schedule};

const AT_ONCE: [u32; 6] = [1, 2, 4, 8, 10, 16];
/// Requests of a round of an open loop.
const RATE_REQUESTS: usize = 10;
const MAX_TOKENS: u32 = 50;

/// From here on a server counts as saturated.
const SATURATING: usize = 8;

/// Share of the whole answer's time until its first token, for one request at a time.
pub(in crate::bench) const FIRST_TOKEN_SHARE: (&str, &str) = ("first_token_share", "%");
/// Time of `/livez` while the most requests at a time run.
pub(in crate::bench) const LIVEZ_P99: (&str, &str) = ("livez_p99", "ms");

/// One round, and the times of `/livez` meanwhile, where there is such a thing.
type Probed = (Wave, Option<Vec<f64>>);

/// Runs it.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let mut report = ScenarioReport::new(
        "throughput",
        "Short different prompts, streamed. Tokens per second are completion tokens by the server's count over wall \
         time.",
    );
    if let Some(rate) = runner.options.rate {
        let results = probed(runner, on, None).await;
        let case = Case { rate: Some(rate), ..probed_case(format!("{rate} requests/s"), on, &results) };
        // Whether the rate saturates the server nobody knows: no claim about `/livez`.
        add(&mut report, on, case, &results, 0);
        return report;
    }
    let chosen =
        if runner.options.concurrency.is_empty() { AT_ONCE.to_vec() } else { runner.options.concurrency.clone() };
    let most = chosen.iter().copied().max().unwrap_or(1);
    for count in chosen {
        let at_once = count.max(1) as usize;
        let results = probed(runner, on, Some(at_once)).await;
        let case = probed_case(format!("{at_once} at a time"), on, &results).at_once(at_once);
        let saturated = if count == most { at_once } else { 0 };
        add(&mut report, on, case, &results, saturated);
    }
    report
}

/// Rounds at a number of requests at a time or, without one, at the rate of the options, with `/livez` asked meanwhile.
async fn probed(runner: &mut Runner<'_>, on: &[usize], at_once: Option<usize>) -> Vec<Vec<Probed>> {
    let requests = at_once.map_or_else(|| runner.requests(RATE_REQUESTS), |count| runner.refilled(count));
    let (max_tokens, rate, rounds) = (runner.max_tokens(MAX_TOKENS), runner.options.rate, runner.rounds(5));
    let prepare = |rng: &mut Rng| {
        let shots: Vec<Shot> = (0..requests).map(|_| Shot::chat(prompts::short(rng), max_tokens)).collect();
        let pace = match (at_once, rate) {
            (None, Some(rate)) => Pace::Arrivals(schedule::poisson(rng, rate, requests)),
            (count, _) => Pace::AtOnce(count.unwrap_or(1)),
        };
        (shots, pace)
    };
    let title =
        at_once.map_or_else(|| "throughput at a rate".to_owned(), |count| format!("throughput, {count} at a time"));
    let run = async |runner: &Runner<'_>, server: &Arc<Server>, round: u32, (shots, pace): &(Vec<Shot>, Pace)| {
        let probe = Probe::begin(server);
        let wave = runner.wave(server, (&title, round), shots.clone(), pace.clone()).await;
        (wave, probe.map(Probe::end))
    };
    runner.alternate(on, rounds, prepare, run).await
}

fn probed_case(label: String, on: &[usize], results: &[Vec<Probed>]) -> Case {
    let waves: Vec<Vec<Wave>> =
        results.iter().map(|rounds| rounds.iter().map(|(wave, _)| wave.clone()).collect()).collect();
    case(label, on, &waves)
}

fn add(report: &mut ScenarioReport, on: &[usize], case: Case, results: &[Vec<Probed>], saturated: usize) {
    for (server, rounds) in on.iter().zip(results) {
        if case.at_once == Some(1) {
            let shares = rounds.iter().filter_map(|(wave, _)| first_token_share(wave));
            let about = "time to the first token over the time of the whole answer, one request at a time";
            report.measure(FIRST_TOKEN_SHARE, about, Some(*server), Spread::of(shares));
        }
        if saturated >= SATURATING {
            let times = rounds.iter().filter_map(|(_, times)| times.as_ref());
            let p99 = times.filter_map(|times| Summary::of(times.iter().copied())).map(|times| times.p99);
            let about = "99th percentile of the time that /livez takes while the server is saturated";
            report.measure(LIVEZ_P99, about, Some(*server), Spread::of(p99));
        }
    }
    report.cases.push(case);
}

fn first_token_share(wave: &Wave) -> Option<f64> {
    let shares = wave.seen.iter().filter(|seen| !seen.failed()).filter_map(|seen| {
        let first = seen.first_token()?;
        Some(100.0 * first.as_secs_f64() / seen.total().as_secs_f64())
    });
    Summary::of(shares).map(|shares| shares.p50)
}
