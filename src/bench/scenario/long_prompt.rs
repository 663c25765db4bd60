//! A long prompt arrives among running streams: what it does to them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use tokio::sync::Semaphore;

use crate::bench::load::{Pace, Wave};
use crate::bench::prompts;
use crate::bench::report::{Case, ScenarioReport, ms};
use crate::bench::runner::Runner;
use crate::bench::server::Server;
use crate::bench::shot::Shot;
use crate::bench::stats::{Spread, Summary};

const STREAMS: usize = 8;
const STREAM_TOKENS: u32 = 256;
/// With the template about 2,000 tokens, which together with the answer fit into a context of 2,048.
const LONG_WORDS: usize = 1_950;
const LONG_ANSWER: u32 = 8;
/// The long prompt is sent when every stream has so many pieces of text.
const RUNNING_AFTER: usize = 12;

/// Median of the streams' token gap before the long prompt arrives.
const CALM_P50: (&str, &str) = ("gap_p50_before", "ms");
/// The same from its arrival on.
const DISTURBED_P50: (&str, &str) = ("gap_p50_beside", "ms");
/// 99th percentile of the streams' token gap from its arrival on, over the median before.
pub(in crate::bench) const GAP_P99_RATIO: (&str, &str) = ("gap_p99_over_median", "x");
/// Longest token gap over the median before.
pub(in crate::bench) const GAP_MAX_RATIO: (&str, &str) = ("gap_max_over_median", "x");

/// One round: the streams, and the long prompt among them.
type Disturbed = (Wave, Wave);

/// Runs it.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let streams = runner.at_once(STREAMS);
    let about = format!(
        "{streams} streams run; when each has {RUNNING_AFTER} pieces of text, a prompt of {LONG_WORDS} words arrives. \
         Gaps count while all streams run, and are compared with the median before that prompt."
    );
    let mut report = ScenarioReport::new("long-prompt", about);
    let (max_tokens, rounds) = (runner.max_tokens(STREAM_TOKENS), runner.rounds(3));
    let prepare = |rng: &mut Rng| {
        let short = (0..streams).map(|_| Shot::chat(prompts::short(rng), max_tokens)).collect::<Vec<_>>();
        (short, Shot::chat(prompts::words(rng, LONG_WORDS), LONG_ANSWER))
    };
    let run = async |runner: &Runner<'_>, server: &Arc<Server>, round: u32, (short, long): &(Vec<Shot>, Shot)| {
        disturb(runner, server, round, short, long).await
    };
    let results = runner.alternate(on, rounds, prepare, run).await;
    for (server, rounds) in on.iter().zip(&results) {
        let gaps: Vec<Gaps> = rounds.iter().filter_map(Gaps::of).collect();
        let mut measure = |name, about, figure: fn(&Gaps) -> f64| {
            report.measure(name, about, Some(*server), Spread::of(gaps.iter().map(figure)));
        };
        let about = "median time between two pieces of text of a running stream, before the long prompt";
        measure(CALM_P50, about, |gaps| gaps.before.p50);
        measure(DISTURBED_P50, "that median from the long prompt's arrival on", |gaps| gaps.beside.p50);
        let about = "99th percentile of that time from the arrival on, over the median before";
        measure(GAP_P99_RATIO, about, |gaps| gaps.beside.p99 / gaps.before.p50);
        let about = "the longest such time from the arrival on, over the median before";
        measure(GAP_MAX_RATIO, about, |gaps| gaps.beside.max / gaps.before.p50);
    }
    report.cases.push(case("streams", on, &results, |(streams, _)| streams).at_once(streams));
    report.cases.push(case("long prompt", on, &results, |(_, long)| long));
    report
}

async fn disturb(runner: &Runner<'_>, server: &Arc<Server>, round: u32, short: &[Shot], long: &Shot) -> Disturbed {
    let running = Arc::new(Semaphore::new(0));
    let announce = |shot: &Shot| Shot { announce: Some((RUNNING_AFTER, Arc::clone(&running))), ..shot.clone() };
    let short: Vec<Shot> = short.iter().map(announce).collect();
    let count = short.len();
    let mut streams = pin!(runner.wave(server, ("long-prompt", round), short, Pace::AtOnce(count)));
    let over = tokio::select! {
        wave = &mut streams => Some(wave),
        _ = running.acquire_many(count as u32) => None,
    };
    let arrival = async {
        let began = Instant::now();
        let seen = server.ask(long).await;
        Wave { seen: vec![seen], wall: began.elapsed(), client_cpu: None }
    };
    match over {
        // They were too short, or failed, which counts.
        Some(streams) => (streams, arrival.await),
        None => tokio::join!(streams, arrival),
    }
}

/// The streams' token gaps in milliseconds, from the moment when every stream has begun to the moment when the first one
/// ends; those open then count with their time so far, if their stream goes on.
struct Gaps {
    before: Summary,
    beside: Summary,
}

impl Gaps {
    fn of((streams, long): &Disturbed) -> Option<Self> {
        let firsts: Option<Vec<Instant>> = streams.seen.iter().map(|seen| seen.arrivals.first().copied()).collect();
        let (from, to) = (firsts?.into_iter().max()?, streams.seen.iter().map(|seen| seen.ended).min()?);
        let arrival = long.seen.first().map(|long| long.sent).filter(|arrival| *arrival < to)?;
        let within = |from, to| streams.seen.iter().flat_map(move |seen| seen.gaps(from, to)).map(ms);
        // A gap that the arrival cuts ends in the second window; one that the end cuts would count nowhere.
        let open = streams.seen.iter().filter_map(|seen| seen.gap_open_at(to)).map(ms);
        Some(Self {
            before: Summary::of(within(from, arrival))?,
            beside: Summary::of(within(arrival, to).chain(open))?,
        })
    }
}

fn case(label: &str, on: &[usize], results: &[Vec<Disturbed>], which: impl Fn(&Disturbed) -> &Wave) -> Case {
    let sides = on.iter().zip(results).map(|(server, rounds)| (Some(*server), rounds.iter().map(&which).collect()));
    Case::new(label, sides.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::shot::{Ending, Seen};

    #[test]
    fn a_gap_that_the_end_of_the_window_cuts_counts_with_its_time_so_far() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let seen = |sent: u64, arrivals: &[u64], ended: u64| Seen {
            sent: at(sent),
            arrivals: arrivals.iter().map(|ms| at(*ms)).collect(),
            ended: at(ended),
            ending: Ending::Complete,
            ..Seen::begin("")
        };
        let wave = |seen| Wave { seen, wall: Duration::from_secs(1), client_cpu: None };
        let stalled = seen(0, &[0, 10, 20, 30, 900], 910);
        let first = seen(0, &[0, 10, 20, 30, 40], 130);
        let long = wave(vec![seen(25, &[400], 500)]);
        let gaps = Gaps::of(&(wave(vec![first.clone(), stalled]), long.clone())).expect("there are gaps");
        assert_eq!((gaps.before.max, gaps.beside.max), (10.0, 100.0), "from 30 to the end of the first at 130");
        let done = seen(0, &[0, 10, 20, 30], 910);
        let gaps = Gaps::of(&(wave(vec![first, done]), long)).expect("there are gaps");
        assert_eq!(gaps.beside.max, 10.0, "its text was over: nothing was kept waiting");
        let (early, late) = (seen(0, &[0, 10, 20], 24), seen(0, &[0, 10, 20, 30, 40], 910));
        let undisturbed = (wave(vec![early, late]), wave(vec![seen(25, &[400], 500)]));
        assert!(Gaps::of(&undisturbed).is_none(), "a stream was over before the long prompt came");
    }
}
