//! What a run came to: the JSON report, documented in `docs/bench/README.md`. Keys are added, never renamed; a change
//! that breaks readers raises [`SCHEMA`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::load::Wave;
use super::machine::Machine;
use super::shot::{Ending, Resent, Seen};
use super::stats::{Spread, Summary};
use super::targets::Verdict;

pub(super) mod charts;
pub(super) mod html;
pub(super) mod svg;
pub(super) mod terminal;

#[cfg(test)]
pub(super) mod tests;

/// Version of the JSON report's shape.
pub(super) const SCHEMA: u32 = 1;

/// Everything that was measured, where, and on what.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    /// Name and version of this program.
    pub(super) tool: String,
    /// When it ended, UTC.
    pub(super) date: String,
    pub(super) machine: Machine,
    pub(super) servers: Vec<ServerFacts>,
    /// Requests that failed, in all scenarios and on all servers.
    pub(super) failed_requests: u64,
    /// The largest share of one core that this program took in a case; near 1.0 it was a bottleneck itself.
    pub(super) client_cpu_max: Option<f64>,
    pub(super) scenarios: Vec<ScenarioReport>,
    /// The project's own goals; only when asked for.
    pub(super) targets: Vec<Verdict>,
}

/// A server that was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ServerFacts {
    pub(super) url: String,
    pub(super) model: Option<String>,
    /// What it says of itself.
    pub(super) version: String,
    /// What was said of it on the command line.
    pub(super) note: Option<String>,
}

impl ServerFacts {
    /// Its note behind a comma, or nothing.
    pub(super) fn note_after_comma(&self) -> String {
        self.note.as_ref().map_or_else(String::new, |note| format!(", {note}"))
    }
}

/// One scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ScenarioReport {
    pub(super) name: String,
    /// What was done, in one or two sentences.
    pub(super) about: String,
    pub(super) cases: Vec<Case>,
    pub(super) measures: Vec<Measure>,
    /// The seed's table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed_table: Option<SeedTable>,
}

/// The same load on each server.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Case {
    pub(super) label: String,
    /// Requests at a time; `None` in an open loop.
    pub(super) at_once: Option<usize>,
    /// Requests per second of an open loop.
    pub(super) rate: Option<f64>,
    pub(super) sides: Vec<Side>,
    /// The first side's tokens per second over each other one's.
    pub(super) ratios: Vec<Ratio>,
}

/// One server's part of a case.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Side {
    /// Index into `servers`; `None` for one that this program started itself.
    pub(super) server: Option<usize>,
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// Cancelled by us, on purpose.
    pub(super) cancelled: u64,
    /// Sent a second time, because the server closed a kept connection under the first. No failures.
    pub(super) resent: u64,
    /// How many failed for which reason.
    pub(super) failures: BTreeMap<String, u64>,
    /// Mean length of the prompts by the server's count.
    pub(super) prompt_tokens: Option<f64>,
    pub(super) completion_tokens: u64,
    /// Tokens over wall time, per round.
    pub(super) tokens_per_second: Option<Spread>,
    /// From sending to the first text.
    pub(super) first_token_ms: Option<Summary>,
    /// Between two pieces of text of one answer.
    pub(super) gap_ms: Option<Summary>,
    /// From sending to the end, of complete answers.
    pub(super) answer_ms: Option<Summary>,
    /// This program's CPU time over wall time.
    pub(super) client_cpu: Option<f64>,
}

/// How the first server compares with another one.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ratio {
    /// The other one: index into `servers`.
    pub(super) server: Option<usize>,
    pub(super) tokens_per_second: Spread,
}

/// A further figure of a scenario.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    /// What it means.
    pub(super) about: &'static str,
    pub(super) unit: &'static str,
    /// Index into `servers`; `None` for one that this program started itself.
    pub(super) server: Option<usize>,
    pub(super) value: Spread,
}

/// One of the seed's two tables: what it published, and what was measured now by its formulas.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SeedTable {
    pub(super) rows: Vec<SeedRow>,
}

/// A row of the seed's table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SeedRow {
    pub(super) name: &'static str,
    /// Published on 2026-01-19, on another machine with another model.
    pub(super) published_before: Option<f64>,
    pub(super) published_after: Option<f64>,
    /// Medians over the rounds, one for each side of the case.
    pub(super) measured: Vec<Option<f64>>,
}

impl Case {
    /// What these waves, per server, came to.
    pub(super) fn new(label: impl Into<String>, sides: Vec<(Option<usize>, Vec<&Wave>)>) -> Self {
        let rates = |waves: &[&Wave]| waves.iter().map(|wave| wave.tokens_per_second()).collect::<Vec<_>>();
        let ratio = |(server, waves): &(Option<usize>, Vec<&Wave>)| {
            let tokens_per_second = Spread::ratios(&rates(&sides.first()?.1), &rates(waves))?;
            Some(Ratio { server: *server, tokens_per_second })
        };
        let ratios = sides.iter().skip(1).filter_map(ratio).collect();
        let sides = sides.iter().map(|(server, waves)| Side::of(*server, waves)).collect();
        Self { label: label.into(), at_once: None, rate: None, sides, ratios }
    }

    /// Says that it was a closed loop.
    pub(super) fn at_once(self, count: usize) -> Self {
        Self { at_once: Some(count), ..self }
    }
}

impl Side {
    fn of(server: Option<usize>, waves: &[&Wave]) -> Self {
        let all = || waves.iter().flat_map(|wave| &wave.seen);
        let mut failures = BTreeMap::new();
        for seen in all() {
            if let Ending::Failed(reason) = &seen.ending {
                *failures.entry(reason.clone()).or_insert(0) += 1;
            }
        }
        let complete = || all().filter(|seen| seen.ending == Ending::Complete);
        let prompts: Vec<f64> = all().filter_map(|seen| seen.prompt_tokens.map(f64::from)).collect();
        let cpu: Vec<f64> = waves.iter().filter_map(|wave| wave.client_cpu).collect();
        Self {
            server,
            requests: all().count() as u64,
            failed: all().filter(|seen| seen.failed()).count() as u64,
            cancelled: all().filter(|seen| seen.ending == Ending::Left).count() as u64,
            resent: all().filter(|seen| seen.resent == Resent::Yes).count() as u64,
            failures,
            prompt_tokens: Summary::of(prompts).map(|summary| summary.mean),
            completion_tokens: waves.iter().map(|wave| wave.tokens()).sum(),
            tokens_per_second: Spread::of(waves.iter().map(|wave| wave.tokens_per_second())),
            first_token_ms: Summary::of(all().filter_map(Seen::first_token).map(ms)),
            gap_ms: Summary::of(all().flat_map(Seen::all_gaps).map(ms)),
            answer_ms: Summary::of(complete().map(Seen::total).map(ms)),
            client_cpu: Summary::of(cpu).map(|summary| summary.mean),
        }
    }
}

impl Report {
    /// Counts what all cases have in common.
    pub(super) fn add_up(&mut self) {
        let sides = || self.scenarios.iter().flat_map(|scenario| &scenario.cases).flat_map(|case| &case.sides);
        let failed = sides().map(|side| side.failed).sum();
        let busiest = sides().filter_map(|side| side.client_cpu).reduce(f64::max);
        self.failed_requests = failed;
        self.client_cpu_max = busiest;
    }

    /// What a server is called in tables and charts; no two alike.
    pub(super) fn server_name(&self, server: Option<usize>) -> String {
        let Some((index, facts)) = server.and_then(|index| Some((index, self.servers.get(index)?))) else {
            return "fake engine".to_owned();
        };
        match self.servers.iter().filter(|other| other.version == facts.version).count() {
            1 => facts.version.clone(),
            _ => format!("{} [{}]", facts.version, index + 1),
        }
    }
}

impl ScenarioReport {
    /// Nothing measured yet.
    pub(super) fn new(name: &str, about: impl Into<String>) -> Self {
        Self { name: name.to_owned(), about: about.into(), ..Self::default() }
    }

    /// Adds a figure, if there is one.
    pub(super) fn measure(
        &mut self,
        (name, unit): (&'static str, &'static str),
        about: &'static str,
        server: Option<usize>,
        value: Option<Spread>,
    ) {
        self.measures.extend(value.map(|value| Measure { name, about, unit, server, value }));
    }
}

/// Milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
