//! Runs the scenarios one after the other and alternates between the servers.

use std::sync::Arc;

use fastrand::Rng;

use super::load::{Pace, Wave, drive};
use super::machine::{self, Machine};
use super::options::{Options, Scenario, Selection};
use super::progress::Progress;
use super::report::{Case, Report, SCHEMA, ScenarioReport, ServerFacts};
use super::server::{Server, Settings};
use super::shot::Shot;
use super::{BenchError, prompts, scenario, targets};

/// Fewest requests of a round of a closed loop.
const LEAST_REQUESTS: usize = 10;
/// How often each place of a closed loop is filled in a round.
const FILLS: usize = 2;

/// What scenarios work with.
#[derive(Debug)]
pub(super) struct Runner<'o> {
    pub(super) options: &'o Options,
    pub(super) servers: Vec<Arc<Server>>,
    pub(super) progress: Progress,
    rng: Rng,
}

impl<'o> Runner<'o> {
    /// Runs everything.
    pub(super) async fn measure(options: &'o Options) -> Result<Report, BenchError> {
        let mut runner = Self { options, servers: Vec::new(), progress: Progress::new(), rng: Rng::new() };
        runner.check()?;
        for url in &options.urls {
            let server = Server::meet(url, options.model.as_deref(), runner.settings()).await?;
            runner.servers.push(Arc::new(server));
        }
        runner.warm_up().await;
        let mut scenarios = Vec::new();
        for selection in &options.scenarios {
            scenarios.push(runner.scenario(*selection).await?);
        }
        runner.progress.clear();
        Ok(runner.report(scenarios))
    }

    /// How this run's clients ask.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            api_key: self.options.api_key.clone(),
            patience: self.options.patience,
            accept_short: self.options.accept_short,
        }
    }

    fn check(&self) -> Result<(), BenchError> {
        let Options { scenarios, urls, notes, server_pid, rate, .. } = self.options;
        if notes.len() > urls.len() {
            let bad = format!("there are {} of --note for {} of --url", notes.len(), urls.len());
            return Err(BenchError::BadOptions(bad));
        }
        for Selection { scenario, only } in scenarios {
            let name = scenario.name();
            let needs_process = *scenario == Scenario::Survival || (*scenario == Scenario::Capacity && only.is_some());
            let open_loop = matches!(scenario, Scenario::Throughput | Scenario::Mixed);
            let bad = match only {
                _ if rate.is_some() && !open_loop => {
                    Some(format!("`{name}` has no open loop: --rate is for `throughput` and `mixed`"))
                }
                Some(number) if *number > urls.len() => {
                    Some(format!("`{name}@{number}`: there are {} URLs", urls.len()))
                }
                None if *scenario == Scenario::Capacity => None,
                _ if urls.is_empty() => Some(format!("`{name}` needs --url")),
                _ if needs_process && server_pid.is_none() => Some(format!("`{name}` needs --server-pid")),
                Some(2..) if needs_process => Some(format!("`{name}` is for the first URL, whose process is named")),
                _ => None,
            };
            if let Some(bad) = bad {
                return Err(BenchError::BadOptions(bad));
            }
        }
        Ok(())
    }

    /// One request for each server, which counts nowhere: the first one after a start pays for page faults.
    async fn warm_up(&mut self) {
        for server in self.servers.clone() {
            server.ask(&Shot::chat(prompts::short(&mut self.rng), 8)).await;
        }
    }

    async fn scenario(&mut self, selection: Selection) -> Result<ScenarioReport, BenchError> {
        let on: Vec<usize> = match selection.only {
            Some(number) => vec![number - 1],
            None => (0..self.servers.len()).collect(),
        };
        Ok(match selection.scenario {
            Scenario::SeedSequential => scenario::seed::sequential(self, &on).await,
            Scenario::SeedConcurrent => scenario::seed::concurrent(self, &on).await,
            Scenario::Throughput => scenario::throughput::run(self, &on).await,
            Scenario::SharedPrefix => scenario::shared_prefix::run(self, &on).await,
            Scenario::Repeat => scenario::repeat::run(self, &on).await,
            Scenario::LongPrompt => scenario::long_prompt::run(self, &on).await,
            Scenario::Mixed => scenario::mixed::run(self, &on).await,
            Scenario::Contention => scenario::contention::run(self, &on).await?,
            Scenario::Capacity => scenario::capacity::run(self, selection.only).await?,
            Scenario::Survival => scenario::survival::run(self).await,
        })
    }

    fn report(&self, scenarios: Vec<ScenarioReport>) -> Report {
        let note = |index: usize| self.options.notes.get(index).filter(|note| !note.is_empty()).cloned();
        let facts = |(index, server): (usize, &Arc<Server>)| ServerFacts {
            url: server.url.clone(),
            model: server.model.clone(),
            version: server.version.clone(),
            note: note(index),
        };
        let mut report = Report {
            schema: SCHEMA,
            tool: format!("cllm bench {}", env!("CARGO_PKG_VERSION")),
            date: machine::now(),
            machine: Machine::here(),
            servers: self.servers.iter().enumerate().map(facts).collect(),
            failed_requests: 0,
            client_cpu_max: None,
            scenarios,
            targets: Vec::new(),
        };
        report.add_up();
        if self.options.targets {
            report.targets = targets::judge(&report);
        }
        report
    }

    /// Rounds of a scenario that has this many by itself; at least 1.
    pub(super) fn rounds(&self, own: u32) -> u32 {
        self.options.rounds.unwrap_or(own).max(1)
    }

    /// Requests of a round.
    pub(super) fn requests(&self, own: usize) -> usize {
        self.options.requests.map_or(own, |requests| requests.max(1) as usize)
    }

    /// Requests of a round with so many at a time, in which most places are filled again; at least one for each place.
    pub(super) fn refilled(&self, at_once: usize) -> usize {
        self.requests(refilled(at_once)).max(at_once)
    }

    /// Tokens of an answer.
    pub(super) fn max_tokens(&self, own: u32) -> u32 {
        self.options.max_tokens.unwrap_or(own).max(1)
    }

    /// Requests at a time, of a scenario that has one number: several numbers are for `throughput`.
    pub(super) fn at_once(&self, own: usize) -> usize {
        match self.options.concurrency.as_slice() {
            [count] => (*count).max(1) as usize,
            _ => own,
        }
    }

    /// Runs `rounds` rounds on each of these servers, which go first in turn. Every server of a round gets the same
    /// input. Returns the results for each server, round by round.
    pub(super) async fn alternate<I, T>(
        &mut self,
        on: &[usize],
        rounds: u32,
        mut prepare: impl FnMut(&mut Rng) -> I,
        mut run: impl AsyncFnMut(&Self, &Arc<Server>, u32, &I) -> T,
    ) -> Vec<Vec<T>> {
        let mut results: Vec<Vec<T>> = on.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            let input = prepare(&mut self.rng);
            for place in order(on.len(), round) {
                let server = Arc::clone(&self.servers[on[place]]);
                results[place].push(run(self, &server, round, &input).await);
            }
        }
        results
    }

    /// The same for one load on each server.
    pub(super) async fn waves(
        &mut self,
        on: &[usize],
        title: &str,
        rounds: u32,
        prepare: impl FnMut(&mut Rng) -> (Vec<Shot>, Pace),
    ) -> Vec<Vec<Wave>> {
        let run = async |runner: &Self, server: &Arc<Server>, round: u32, (shots, pace): &(Vec<Shot>, Pace)| {
            runner.wave(server, (title, round), shots.clone(), pace.clone()).await
        };
        self.alternate(on, rounds, prepare, run).await
    }

    /// One round on one server.
    pub(super) async fn wave(
        &self,
        server: &Arc<Server>,
        (title, round): (&str, u32),
        shots: Vec<Shot>,
        pace: Pace,
    ) -> Wave {
        self.progress.begin(format!("{title}, round {}, {}", round + 1, server.url), shots.len());
        drive(server, shots, pace, &self.progress).await
    }
}

/// A case of the waves that [`Runner::waves`] returned.
pub(super) fn case(label: impl Into<String>, on: &[usize], waves: &[Vec<Wave>]) -> Case {
    let sides = on.iter().zip(waves).map(|(server, waves)| (Some(*server), waves.iter().collect()));
    Case::new(label, sides.collect())
}

/// A round is more than one burst, where all begin and end together: each place is filled twice.
fn refilled(at_once: usize) -> usize {
    if at_once > 1 { (FILLS * at_once).max(LEAST_REQUESTS) } else { LEAST_REQUESTS }
}

/// Who goes first changes from round to round: whatever drifts hits all alike.
fn order(count: usize, round: u32) -> Vec<usize> {
    let forward = 0..count;
    if round.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_go_first_in_turn() {
        assert_eq!([order(2, 0), order(2, 1), order(2, 2)], [[0, 1], [1, 0], [0, 1]]);
        assert_eq!(order(1, 1), [0]);
    }

    #[test]
    fn several_at_a_time_are_filled_again() {
        assert_eq!([1, 2, 4, 10, 16].map(refilled), [10, 10, 10, 20, 32]);
    }
}
