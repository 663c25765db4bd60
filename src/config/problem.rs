//! Where values come from, and everything that is wrong with them, in one message.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A configuration file.
    File {
        /// Its path, as given.
        path: Arc<str>,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
    },
    /// A configuration file as a whole.
    WholeFile(Arc<str>),
    /// An environment variable.
    Environment(String),
    /// A flag, such as `--port`.
    Flag(String),
}

/// The source as `check-config` shows it: no column.
impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, line, .. } => write!(formatter, "{path}:{line}"),
            Self::WholeFile(path) => formatter.write_str(path),
            Self::Environment(name) => write!(formatter, "env {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which source is to blame.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => {}
            Origin::File { path, line, column } => write!(formatter, "{path}:{line}:{column}: ")?,
            origin => write!(formatter, "{origin}: ")?,
        }
        formatter.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order file, environment, flags; then what does not fit together.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "error" } else { "errors" };
        write!(formatter, "{} {plural} in the configuration", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(formatter, "\n  {problem}"))
    }
}

impl Error for ConfigError {}

/// Something that a user should know about a configuration that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Good to know.
    Info(String),
    /// Perhaps not what was meant.
    Warning(String),
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info(text) => write!(formatter, "note: {text}"),
            Self::Warning(text) => write!(formatter, "warning: {text}"),
        }
    }
}
