//! Tests of the configuration as a whole: what a user writes, and what comes of it.

mod files;
mod merging;
mod refusals;
mod table;

use super::*;

/// A file with this text.
fn file(text: &str) -> Option<File> {
    Some(File { path: "cllm.yaml".to_owned(), text: Ok(text.to_owned()) })
}

/// Sources of a file, variables and arguments of `--set`.
fn sources(text: &str, variables: &[(&str, &str)], set: &[&str]) -> Sources {
    Sources {
        file: file(text),
        environment: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: set.iter().map(|argument| Flag::set(argument)).collect(),
        default_model: None,
    }
}

/// Loads what must be accepted.
fn accepted(text: &str, variables: &[(&str, &str)], set: &[&str]) -> Loaded {
    load(&sources(text, variables, set), Purpose::Check).unwrap()
}

/// The message about what must be refused.
fn refused(text: &str, variables: &[(&str, &str)], set: &[&str]) -> String {
    load(&sources(text, variables, set), Purpose::Check).unwrap_err().to_string()
}
