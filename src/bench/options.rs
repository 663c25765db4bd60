//! What `cllm bench` can be told.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What to measure, on what, and where to write it.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to run, in this order.
    pub scenarios: Vec<Selection>,
    /// Base URLs of the servers, with or without `/v1` at the end. Two or more alternate round by round; ratios are
    /// those of the first one to each other one.
    pub urls: Vec<String>,
    /// What is to be known of each server and it does not say itself, such as how it was built, in the order of
    /// `urls`; shown beside it. Fewer are allowed, an empty one is none.
    pub notes: Vec<String>,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// The model to ask for; `None`: what the server lists first.
    pub model: Option<String>,
    /// Rounds of each case, at least 1; `None`: the scenario's own number.
    pub rounds: Option<u32>,
    /// Requests at a time: one number for all scenarios, or several for `throughput`; empty: each scenario's own.
    pub concurrency: Vec<u32>,
    /// Requests of one round; `None`: the scenario's own number.
    pub requests: Option<u32>,
    /// Tokens of one answer; `None`: the scenario's own number.
    pub max_tokens: Option<u32>,
    /// Requests per second of an open loop, in place of a fixed number at a time: of `throughput` and `mixed` alone.
    pub rate: Option<f64>,
    /// Longest wait for one answer; what takes longer has failed.
    pub patience: Duration,
    /// Process of the first server, for the scenarios that look at it from outside.
    pub server_pid: Option<u32>,
    /// Answers with fewer tokens than asked for are no failures: for servers that do not know `ignore_eos`.
    pub accept_short: bool,
    /// Compare with the numbers that the project set itself, the first URL being ours.
    pub targets: bool,
    /// Where the JSON report goes.
    pub json: Option<PathBuf>,
    /// Where the HTML report goes.
    pub html: Option<PathBuf>,
}

/// A scenario, and the servers it runs against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// What to run.
    pub scenario: Scenario,
    /// Run it against this URL alone, counted from 1; `None`: against all.
    pub only: Option<usize>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The seed's first table: ten requests, one after another.
    SeedSequential,
    /// The seed's second table: ten requests, five at a time.
    SeedConcurrent,
    /// Short different prompts, some at a time.
    Throughput,
    /// Prompts that begin with the same 400 tokens.
    SharedPrefix,
    /// The same request again.
    Repeat,
    /// A long prompt arrives among running streams.
    LongPrompt,
    /// Short and long prompts and answers, some of them cancelled.
    Mixed,
    /// Ten at a time while another process burns one core.
    Contention,
    /// Server CPU per streamed token: of servers with the fake engine that it starts itself, one with the engine in a
    /// process of its own and one with it in a thread, or of the first URL's process if that is selected.
    Capacity,
    /// The engine of the first server, whose process is named, is killed under load.
    Survival,
}

impl Scenario {
    /// All, with their names on the command line.
    pub const ALL: [(&'static str, Self); 10] = [
        ("seed-sequential", Self::SeedSequential),
        ("seed-concurrent", Self::SeedConcurrent),
        ("throughput", Self::Throughput),
        ("shared-prefix", Self::SharedPrefix),
        ("repeat", Self::Repeat),
        ("long-prompt", Self::LongPrompt),
        ("mixed", Self::Mixed),
        ("contention", Self::Contention),
        ("capacity", Self::Capacity),
        ("survival", Self::Survival),
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, scenario)| *scenario == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Selection {
    type Err = String;

    /// `name`, or `name@N` for the N-th URL alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, only) = match text.split_once('@') {
            None => (text, None),
            Some((name, number)) => match number.parse::<usize>() {
                Ok(number @ 1..) => (name, Some(number)),
                _ => return Err(format!("`{number}` is not the number of a URL, counted from 1")),
            },
        };
        let known = Scenario::ALL.iter().find(|(known, _)| *known == name);
        let (_, scenario) = known.ok_or_else(|| {
            let names = Scenario::ALL.map(|(name, _)| name).join(", ");
            format!("there is no scenario `{name}`; there are {names}")
        })?;
        Ok(Self { scenario: *scenario, only })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_a_name_and_perhaps_the_number_of_a_url() {
        assert_eq!("repeat".parse(), Ok(Selection { scenario: Scenario::Repeat, only: None }));
        assert_eq!("contention@1".parse(), Ok(Selection { scenario: Scenario::Contention, only: Some(1) }));
        for wrong in ["", "repeatt", "repeat@", "repeat@0", "repeat@x"] {
            assert!(wrong.parse::<Selection>().is_err(), "{wrong}");
        }
        for (name, scenario) in Scenario::ALL {
            assert_eq!(scenario.name(), name);
        }
    }
}
