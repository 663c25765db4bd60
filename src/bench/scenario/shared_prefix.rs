//! Many at a time whose prompts begin alike, and no cache knows the beginning yet.

use crate::bench::load::Pace;
use crate::bench::prompts;
use crate::bench::report::ScenarioReport;
use crate::bench::runner::{Runner, case};
use crate::bench::shot::{Ask, Shot};

const AT_ONCE: usize = 16;
const SHARED_TOKENS: usize = 400;
const OWN_TOKENS: usize = 30;
const MAX_TOKENS: u32 = 50;

/// Runs it.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let at_once = runner.at_once(AT_ONCE);
    let requests = runner.requests(at_once);
    let about = format!(
        "{requests} requests, {at_once} at a time: a system message of {SHARED_TOKENS} words that all of a round share \
         and no earlier one had, and {OWN_TOKENS} words of their own."
    );
    let mut report = ScenarioReport::new("shared-prefix", about);
    let (max_tokens, rounds) = (runner.max_tokens(MAX_TOKENS), runner.rounds(5));
    let waves = runner
        .waves(on, "shared-prefix", rounds, |rng| {
            let shared = prompts::words(rng, SHARED_TOKENS);
            let mut shot = || {
                let ask = Ask::Chat { system: Some(shared.clone()), user: prompts::words(rng, OWN_TOKENS) };
                Shot { ask, ..Shot::chat(String::new(), max_tokens) }
            };
            ((0..requests).map(|_| shot()).collect(), Pace::AtOnce(at_once))
        })
        .await;
    report.cases.push(case(format!("{at_once} at a time"), on, &waves).at_once(at_once));
    report
}
