//! Faults against failures, from the server's log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// An actor and one of its lives.
type Life = (String, u64);

/// Actors that only their own failures end: the root restarts each of them alone.
const ALONE: [&str; 4] = ["cllm/engine-0", "cllm/inspector", "cllm/response-cache", "cllm/http"];

/// What was done to the actors, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Books {
    faults: BTreeMap<String, usize>,
    /// Lives that were hit by something deadly, by one fault or several.
    doomed: BTreeSet<Life>,
    /// Lives that ended by themselves, and the cause.
    failed: BTreeMap<Life, String>,
}

impl Books {
    pub(super) fn of(log: &str) -> Self {
        let mut books = Self::default();
        for line in log.lines().filter(|line| line.contains("\"actor\"")) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            books.enter(&line);
        }
        books
    }

    fn enter(&mut self, line: &Value) {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let life = (text("actor"), line["epoch"].as_u64().unwrap_or(0));
        match line["message"].as_str() {
            Some("fault injected") => {
                let fault = text("fault");
                if !fault.contains("slow") {
                    self.doomed.insert(life);
                }
                let kind = fault.split(" for ").next().unwrap_or_default().to_owned();
                *self.faults.entry(kind).or_default() += 1;
            }
            Some("actor exited") => {
                let twice = self.failed.insert(life.clone(), text("cause"));
                assert_eq!(twice, None, "{life:?} ends twice");
            }
            _ => {}
        }
    }

    /// All faults.
    pub(super) fn faults(&self) -> usize {
        self.faults.values().sum()
    }

    /// Every failure has its fault, and every deadly fault its failure. Two faults may hit one life, which ends once. A
    /// life that was hit may be ended by somebody else first: it is stopped because one before it in `rest_for_one` has
    /// failed, or goes with `engine-0`; then it must have a successor.
    pub(super) fn balance(&self, tree: &Value) {
        for (life, cause) in &self.failed {
            assert!(self.doomed.contains(life), "{life:?} failed, which nobody did: {cause}");
        }
        for life in self.doomed.iter().filter(|life| !self.failed.contains_key(life)) {
            let (path, epoch) = life;
            assert!(!ALONE.contains(&path.as_str()), "{life:?} was hit and did not fail");
            assert!(facts(tree, path)["epoch"].as_u64() > Some(*epoch), "{life:?} was hit and lives");
        }
        for path in ALONE {
            let failed = self.failed.keys().filter(|(failed, _)| failed == path).count() as u64;
            assert_eq!(facts(tree, path)["restarts_total"].as_u64(), Some(failed), "restarts of {path}");
        }
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overtaken = self.doomed.len() - self.failed.len();
        write!(f, "{} faults {:?}; ", self.faults(), self.faults)?;
        write!(f, "{} lives hit by deadly ones, {} failed, ", self.doomed.len(), self.failed.len())?;
        write!(f, "{overtaken} were stopped for another's failure first")
    }
}

fn facts<'a>(tree: &'a Value, path: &str) -> &'a Value {
    let actors = tree["actors"].as_array().expect("a list");
    actors.iter().find(|actor| actor["path"] == path).unwrap_or_else(|| panic!("no {path}"))
}
