//! Configuration: defaults, YAML file, environment and flags, merged and checked as a whole.
//!
//! `sections.rs` is the one place where keys, types, defaults, ranges and documentation stand. Validation, names of
//! environment variables, suggestions, `cllm check-config` and `config/cllm.yaml` follow from it.
//!
//! A value is looked for in the flags first, then in the environment (`server.port` is `CLLM_SERVER__PORT`), in the
//! file, and in the defaults. All errors of all sources are reported together.

mod api_key;
mod check;
mod field;
mod problem;
mod report;
mod rule;
mod schema;
mod sections;
mod sources;
mod spec;
mod suggest;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::{HashMap, HashSet};

pub use api_key::ApiKey;
pub use problem::{ConfigError, Note, Origin, Problem};
pub use report::documented_defaults;
pub use sections::{
    Backend, Cache, Chaos, Engine, EngineRestarts, Fake, KvStore, LlamaCpp, LogFormat, Logging, Model, Resources,
    RootRestarts, Scheduler, Server, Supervision,
};
pub use sources::{File, Flag, Sources};

use check::Check;
use schema::Fault;
use sources::{Assignment, Collected};

/// Most sequences of a context, running and retained.
const MAX_SEQUENCES: u32 = 256;

/// The whole configuration. Its default is that of an empty file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The HTTP server.
    pub server: Server,
    /// The model.
    pub model: Model,
    /// Who runs next, and for how long.
    pub scheduler: Scheduler,
    /// What the model's context may hold.
    pub resources: Resources,
    /// Finished answers kept for equal requests.
    pub cache: Cache,
    /// Prefixes in files.
    pub kv_store: KvStore,
    /// The engine.
    pub backend: Backend,
    /// When actors are restarted.
    pub supervision: Supervision,
    /// Faults injected on purpose.
    pub chaos: Chaos,
    /// The server's log.
    pub logging: Logging,
}

/// What a configuration is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve: a model must be named.
    Serve,
    /// To be looked at: that no model is named is a warning.
    Check,
}

/// An accepted configuration. Its `Display` is what `cllm check-config` prints.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What its user should know.
    pub notes: Vec<Note>,
    /// Of the keys that are set, by path.
    origins: HashMap<&'static str, Origin>,
}

/// Merges the sources and checks the result.
///
/// # Errors
/// Everything that is wrong in any of the sources, also in values that a later source replaces.
pub fn load(sources: &Sources, purpose: Purpose) -> Result<Loaded, ConfigError> {
    let Collected { assignments, mut problems, mut notes } = sources::collect(sources);
    let mut merged = Merged::default();
    for assignment in assignments {
        merged.take(assignment);
    }
    merged.name_model(sources.default_model.as_deref());
    problems.append(&mut merged.problems);
    problems.sort_by_key(|problem| rank(&problem.origin));
    let mut check = Check {
        config: &merged.config,
        origins: &merged.origins,
        failed: &merged.failed,
        purpose,
        problems: Vec::new(),
        notes: Vec::new(),
    };
    check.run();
    problems.append(&mut check.problems);
    notes.append(&mut check.notes);
    if problems.is_empty() {
        Ok(Loaded { config: merged.config, notes, origins: merged.origins })
    } else {
        Err(ConfigError { problems })
    }
}

/// The sources so far.
#[derive(Debug, Default)]
struct Merged {
    config: Config,
    origins: HashMap<&'static str, Origin>,
    failed: HashSet<&'static str>,
    problems: Vec<Problem>,
}

impl Merged {
    /// The model of last resort; the fake engine has no use for one.
    fn name_model(&mut self, path: Option<&str>) {
        if let Some(path) = path
            && self.config.model.path.is_none()
            && self.config.backend.engine != Engine::Fake
        {
            self.config.model.path = Some(path.into());
            self.origins.insert("model.path", Origin::Flag("--default-model".to_owned()));
        }
    }

    fn take(&mut self, Assignment { key, node, origin }: Assignment) {
        match key.store(&mut self.config, &node) {
            Ok(()) => {
                self.origins.insert(key.path, origin);
            }
            Err(Fault { place, message }) => {
                let origin = match origin {
                    Origin::File { path, .. } => Origin::File { path, line: place.line, column: place.column },
                    other => other,
                };
                self.failed.insert(key.path);
                self.problems.push(Problem { origin, message });
            }
        }
    }
}

/// Sorts problems by source, those of a file by place; the order of environment and flags is kept.
const fn rank(origin: &Origin) -> (u8, u64, u64) {
    match origin {
        Origin::WholeFile(_) => (0, 0, 0),
        Origin::File { line, column, .. } => (0, *line, *column),
        Origin::Environment(_) => (1, 0, 0),
        Origin::Flag(_) => (2, 0, 0),
        Origin::Default => (3, 0, 0),
    }
}
