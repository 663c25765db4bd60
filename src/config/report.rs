//! The schema and the configuration as text: what `cllm check-config` prints, and the file `config/cllm.yaml`.

use std::fmt;

use super::problem::Origin;
use super::schema::Key;
use super::sections::SECTIONS;
use super::{Config, Loaded};

/// Prints YAML that gives the same configuration again: a line `key: value  # source` for each key, then the notes
/// as comments.
impl fmt::Display for Loaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, heading) in rows() {
            formatter.write_str(&heading)?;
            let origin = self.origins.get(key.path).unwrap_or(&Origin::Default);
            let value = (key.show)(&self.config);
            writeln!(formatter, "{}{}: {value}  # {origin}", indent(key.path), key.leaf())?;
        }
        self.notes.iter().try_for_each(|note| writeln!(formatter, "# {note}"))
    }
}

/// A configuration file that documents every key at its default: the text of `config/cllm.yaml`.
pub fn documented_defaults() -> String {
    let config = Config::default();
    let mut text = INTRODUCTION.to_owned();
    for (key, heading) in rows() {
        if heading.starts_with(|first: char| first != ' ') {
            text.push('\n');
        }
        text.push_str(&heading);
        let indent = indent(key.path);
        for line in key.doc {
            text.push_str(&format!("{indent}#{line}\n"));
        }
        text.push_str(&format!("{indent}# Takes {}.\n", key.takes()));
        text.push_str(&format!("{indent}{}: {}\n", key.leaf(), (key.show)(&config)));
    }
    text
}

const INTRODUCTION: &str = "\
# Every key of cLLM's configuration at its default.
#
# A key can also be set by an environment variable (server.port: CLLM_SERVER__PORT) and by a flag
# (--set server.port=8081). Flags win over the environment, the environment over the file.
# `cllm check-config FILE` shows the result, and where each value comes from.
";

/// All keys, each with the heading lines before it: those of its section, where it is the section's first.
fn rows() -> impl Iterator<Item = (&'static Key, String)> {
    let mut before = "";
    SECTIONS.iter().copied().flatten().map(move |key| {
        let heading = if key.section() == before { String::new() } else { heading(before, key.section()) };
        before = key.section();
        (key, heading)
    })
}

/// The heading of a section, and before it that of the one around it if no key has opened that.
fn heading(before: &str, section: &str) -> String {
    let line = |section: &str| format!("{}{}:\n", indent(section), section.rsplit('.').next().unwrap_or(section));
    match section.split_once('.') {
        Some((around, _)) if before.split('.').next() != Some(around) => line(around) + &line(section),
        _ => line(section),
    }
}

fn indent(path: &str) -> String {
    "  ".repeat(path.matches('.').count())
}
