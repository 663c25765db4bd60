//! The engine's process is killed under load: what its clients notice.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::bench::load::{Pace, Wave};
use crate::bench::report::{Case, ScenarioReport};
use crate::bench::runner::Runner;
use crate::bench::shot::{Seen, Shot};
use crate::bench::stats::Spread;
use crate::bench::{cpu, prompts};

const AT_ONCE: usize = 16;
const MAX_TOKENS: u32 = 100;

/// Tokens that clients got too few or too many, net for each request, counted by their log-probabilities. One that is
/// lost and one that comes twice in the same answer cancel out. The server's own count says nothing of what arrived.
pub(in crate::bench) const WRONG_TOKENS: (&str, &str) = ("wrong_tokens", "tokens");
/// Engines that were killed.
pub(in crate::bench) const KILLS: (&str, &str) = ("kills", "engines");
/// Answers with the same text as without a kill.
const SAME_TEXT: (&str, &str) = ("same_text", "%");

/// Runs it against the first server, whose process the options name.
pub(in crate::bench) async fn run(runner: &mut Runner<'_>) -> ScenarioReport {
    let at_once = runner.at_once(AT_ONCE);
    let about = format!(
        "{at_once} greedy streams, undisturbed, and then the same again with `kill -9` of the engine's process in the \
         middle."
    );
    let mut report = ScenarioReport::new("survival", about);
    let (max_tokens, rounds) = (runner.max_tokens(MAX_TOKENS), runner.rounds(3));
    let prepare =
        |rng: &mut fastrand::Rng| (0..at_once).map(|_| counted(prompts::short(rng), max_tokens)).collect::<Vec<_>>();
    let run = async |runner: &Runner<'_>, server: &Arc<_>, round: u32, shots: &Vec<Shot>| {
        let (shots, pace) = (shots.clone(), Pace::AtOnce(at_once));
        let calm = runner.wave(server, ("survival, undisturbed", round), shots.clone(), pace.clone()).await;
        let half = calm.wall / 2;
        let killed = runner.wave(server, ("survival, with a kill", round), shots, pace);
        let (killed, kills) = tokio::join!(killed, kill_after(half, runner.options.server_pid));
        (calm, killed, kills)
    };
    let results = runner.alternate(&[0], rounds, prepare, run).await.pop().unwrap_or_default();
    let measured = |figure: &dyn Fn(&(Wave, Wave, u32)) -> f64| Spread::of(results.iter().map(figure));
    let kills = measured(&|(_, _, kills)| f64::from(*kills));
    report.measure(KILLS, "engines killed in the middle of a round", Some(0), kills);
    let wrong = measured(&|(_, killed, _)| wrong_tokens(killed, max_tokens));
    let about = "tokens missing or too many, net for each request, by the log-probabilities that came with them";
    report.measure(WRONG_TOKENS, about, Some(0), wrong);
    let same = measured(&|(calm, killed, _)| same_text(calm, killed));
    let about = "answers with the very text of the undisturbed round (the arithmetic of other batches may differ)";
    report.measure(SAME_TEXT, about, Some(0), same);
    let side = |which: fn(&(Wave, Wave, u32)) -> &Wave| vec![(Some(0), results.iter().map(which).collect())];
    report.cases.push(Case::new("undisturbed", side(|(calm, ..)| calm)).at_once(at_once));
    report.cases.push(Case::new("with a kill", side(|(_, killed, _)| killed)).at_once(at_once));
    report
}

/// Kills the children of the server's process; returns how many.
async fn kill_after(wait: Duration, server: Option<u32>) -> u32 {
    tokio::time::sleep(wait).await;
    let children = server.map(cpu::children).unwrap_or_default();
    let kill =
        |pid: &u32| Command::new("kill").args(["-9", &pid.to_string()]).status().is_ok_and(|done| done.success());
    children.iter().filter(|pid| kill(pid)).count() as u32
}

/// A request whose client can count the tokens that come.
fn counted(prompt: String, max_tokens: u32) -> Shot {
    Shot { logprobs: true, ..Shot::chat(prompt, max_tokens) }
}

fn wrong_tokens(killed: &Wave, max_tokens: u32) -> f64 {
    killed.seen.iter().map(|seen| f64::from(seen.tokens_with_logprobs.abs_diff(max_tokens))).sum()
}

fn same_text(calm: &Wave, killed: &Wave) -> f64 {
    let texts: BTreeMap<&str, &str> = calm.seen.iter().map(|seen| (seen.asked.as_str(), seen.text.as_str())).collect();
    let same = |seen: &&Seen| texts.get(seen.asked.as_str()) == Some(&seen.text.as_str());
    100.0 * killed.seen.iter().filter(same).count() as f64 / killed.seen.len().max(1) as f64
}
