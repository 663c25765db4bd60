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
        if !heading.is_empty() && !key.section().contains('.') {
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
    SECTIONS.iter().flat_map(|keys| {
        keys.iter()
            .enumerate()
            .map(|(index, key)| (key, if index == 0 { heading(key.section()) } else { String::new() }))
    })
}

fn heading(section: &str) -> String {
    let name = section.rsplit('.').next().unwrap_or(section);
    format!("{}{name}:\n", indent(section))
}

fn indent(path: &str) -> String {
    "  ".repeat(path.matches('.').count())
}
