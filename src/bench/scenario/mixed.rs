//! A mixture as a chat server sees it: short and long prompts and answers, and people who leave.

use fastrand::Rng;

use crate::bench::load::Pace;
use crate::bench::report::{Case, ScenarioReport};
use crate::bench::runner::{Runner, case};
use crate::bench::shot::Shot;
use crate::bench::{prompts, schedule};

const AT_ONCE: usize = 16;
const REQUESTS: usize = 48;

/// One in so many leaves in mid-answer.
const LEAVES: usize = 10;
const LEAVES_AFTER: usize = 8;

/// Share in percent, words of the prompt, tokens of the answer.
const KINDS: [(u32, usize, u32); 3] = [(60, 12, 40), (25, 150, 80), (15, 700, 60)];

/// Runs it.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>, on: &[usize]) -> ScenarioReport {
    let about = "60 % prompts of 12 words, 25 % of 150, 15 % of 700, answers of 40 to 80 tokens; one client in ten \
                 leaves after 8 pieces of text.";
    let mut report = ScenarioReport::new("mixed", about);
    let (at_once, requests, rate) = (runner.at_once(AT_ONCE), runner.requests(REQUESTS), runner.options.rate);
    let (max_tokens, rounds) = (runner.options.max_tokens, runner.rounds(3));
    let waves = runner
        .waves(on, "mixed", rounds, |rng| {
            let shots = (0..requests).map(|index| shot(rng, index, max_tokens)).collect();
            let pace = match rate {
                Some(rate) => Pace::Arrivals(schedule::poisson(rng, rate, requests)),
                None => Pace::AtOnce(at_once),
            };
            (shots, pace)
        })
        .await;
    let label = rate.map_or_else(|| format!("{at_once} at a time"), |rate| format!("{rate} requests/s"));
    let case = case(label, on, &waves);
    report.cases.push(if rate.is_some() { Case { rate, ..case } } else { case.at_once(at_once) });
    report
}

fn shot(rng: &mut Rng, index: usize, max_tokens: Option<u32>) -> Shot {
    let mut draw = rng.u32(..100);
    let (_, words, tokens) = KINDS[KINDS.iter().position(|(share, ..)| take(&mut draw, *share)).unwrap_or(0)];
    let mut shot = Shot::chat(prompts::words(rng, words), max_tokens.unwrap_or(tokens));
    shot.leave_after = (index % LEAVES == LEAVES - 1).then_some(LEAVES_AFTER);
    shot
}

/// Whether the draw falls into this share; if not, it is reduced to the rest.
fn take(draw: &mut u32, share: u32) -> bool {
    match draw.checked_sub(share) {
        None => true,
        Some(rest) => {
            *draw = rest;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_has_its_shares() {
        assert_eq!(KINDS.iter().map(|(share, ..)| share).sum::<u32>(), 100);
        let mut rng = Rng::with_seed(3);
        let shots: Vec<Shot> = (0..1000).map(|index| shot(&mut rng, index, None)).collect();
        let share = |tokens: u32| shots.iter().filter(|shot| shot.max_tokens == tokens).count();
        assert!((550..650).contains(&share(40)) && (200..300).contains(&share(80)), "{} {}", share(40), share(80));
        assert_eq!(shots.iter().filter(|shot| shot.leave_after.is_some()).count(), 100);
    }
}
