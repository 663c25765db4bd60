//! The sources of configuration, file, environment and flags, and the assignments they make.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::problem::{Note, Origin, Problem};
use super::schema::{Key, variable};
use super::sections::SECTIONS;
use super::suggest::nearest;
use super::yaml::{self, Name, Node, Place, SyntaxError, Value};

/// What every variable of ours begins with.
const PREFIX: &str = "CLLM_";

/// The variable that names the configuration file.
const FILE_VARIABLE: &str = "CLLM_CONFIG";

/// Everything a configuration is made from, beside the defaults. Later sources win: file, environment, flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The configuration file, if one is named.
    pub file: Option<File>,
    /// Environment variables; those that don't begin with `CLLM_` are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, in their order.
    pub flags: Vec<Flag>,
    /// GGUF file to serve when none of these names one and the engine needs one.
    pub default_model: Option<String>,
}

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, as messages show it.
    pub path: String,
    /// Its text, or why it could not be read.
    pub text: Result<String, String>,
}

/// A flag that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as written, `--port` or `--set`.
    pub name: &'static str,
    /// The key's path.
    pub key: String,
    /// Its value; `None` when the equals sign of `--set` is missing.
    pub value: Option<String>,
}

impl Sources {
    /// Reads the process's environment and the file that `path`, or else `CLLM_CONFIG`, names.
    pub fn of_process(path: Option<String>, flags: Vec<Flag>) -> Self {
        let environment: Vec<_> = std::env::vars_os().collect();
        let named = || environment.iter().find(|(name, _)| name == FILE_VARIABLE);
        let path = path.or_else(|| named().map(|(_, value)| value.to_string_lossy().into_owned()));
        Self { file: path.filter(|path| !path.is_empty()).map(File::read), environment, flags, default_model: None }
    }
}

impl File {
    /// Reads a file; a failure is kept, to be reported with all other errors.
    pub fn read(path: String) -> Self {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("failed to read the file: {error}"));
        Self { path, text }
    }
}

impl Flag {
    /// A flag of its own for one key.
    pub fn new(name: &'static str, key: &str, value: String) -> Self {
        Self { name, key: key.to_owned(), value: Some(value) }
    }

    /// The argument of `--set`.
    pub fn set(argument: &str) -> Self {
        let (key, value) = match argument.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (argument, None),
        };
        Self { name: "--set", key: key.trim().to_owned(), value }
    }
}

/// A value that a source gives to a key.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) key: &'static Key,
    pub(super) node: Node,
    pub(super) origin: Origin,
}

/// What the sources say, lowest precedence first.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) assignments: Vec<Assignment>,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Note>,
}

/// Reads all sources to the end, whatever is wrong with them.
pub(super) fn collect(sources: &Sources) -> Collected {
    let mut collected = Collected::default();
    if let Some(file) = &sources.file {
        collected.file(file);
    }
    collected.environment(&sources.environment);
    collected.flags(&sources.flags);
    collected
}

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    SECTIONS.iter().copied().flatten().find(|key| key.path == path)
}

/// A key in the section, for messages.
fn example(section: &str) -> Option<&'static Key> {
    let inside = |path: &str| path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    SECTIONS.iter().copied().flatten().find(|key| inside(key.path))
}

impl Collected {
    fn problem(&mut self, origin: Origin, message: impl Into<String>) {
        self.problems.push(Problem { origin, message: message.into() });
    }

    fn file(&mut self, file: &File) {
        let path: Arc<str> = Arc::from(file.path.as_str());
        let root = match &file.text {
            Ok(text) => yaml::parse(text),
            Err(message) => Err(SyntaxError { place: None, message: message.clone() }),
        };
        match root {
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(Node { value: Value::Map(entries), .. }) => self.mapping(&path, "", entries),
            Ok(Node { value, place }) => {
                let message = format!("the file must be a mapping of sections, not {}", value.kind());
                self.problem(in_file(&path, place), message);
            }
            Err(SyntaxError { place, message }) => {
                let origin = place.map_or_else(|| Origin::WholeFile(path.clone()), |place| in_file(&path, place));
                self.problem(origin, message);
            }
        }
    }

    fn mapping(&mut self, file: &Arc<str>, section: &str, entries: Vec<(Name, Node)>) {
        let mut first_lines = HashMap::new();
        for (name, node) in entries {
            let path = if section.is_empty() { name.text.clone() } else { format!("{section}.{}", name.text) };
            let origin = in_file(file, name.place);
            if let Some(line) = first_lines.get(&name.text) {
                self.problem(origin, format!("`{path}` stands twice: first in line {line}"));
                continue;
            }
            self.entry(file, &path, &name, node);
            first_lines.insert(name.text, name.place.line);
        }
    }

    fn entry(&mut self, file: &Arc<str>, path: &str, name: &Name, node: Node) {
        let origin = in_file(file, name.place);
        if name.text.contains('.') {
            let message = format!("`{}` must be written as nested sections, without dots", name.text);
            self.problem(origin, message);
        } else if let Some(key) = find(path) {
            let origin = in_file(file, node.place);
            self.assignments.push(Assignment { key, node, origin });
        } else if let Some(example) = example(path) {
            match node.value {
                Value::Null => {}
                Value::Map(entries) => self.mapping(file, path, entries),
                value => self.problem(
                    in_file(file, node.place),
                    format!("`{path}` is a section with keys such as `{}`, not {}", example.path, value.kind()),
                ),
            }
        } else {
            self.problem(origin, unknown(path, |name| name.to_owned()));
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let mut ours: Vec<_> = variables.iter().filter_map(|(name, value)| Some((name.to_str()?, value))).collect();
        ours.retain(|(name, _)| name.starts_with(PREFIX) && *name != FILE_VARIABLE);
        ours.sort();
        let mut ignored = Vec::new();
        for (name, value) in ours {
            if name.contains("__") {
                self.variable(name, value);
            } else if let Some(key) = misspelt(name) {
                let message = format!("unknown variable; did you mean `{}`?", key.variable());
                self.problem(Origin::Environment(name.to_owned()), message);
            } else {
                ignored.push(name);
            }
        }
        if !ignored.is_empty() {
            // Not an error: Kubernetes, for one, sets `CLLM_PORT` and others for a service that is called `cllm`.
            let text = format!("these environment variables name no key and are ignored: {}", ignored.join(", "));
            self.notes.push(Note::Info(text));
        }
    }

    fn variable(&mut self, name: &str, value: &OsStr) {
        let path = name.trim_start_matches(PREFIX).replace("__", ".").to_lowercase();
        let origin = Origin::Environment(name.to_owned());
        match value.to_str() {
            Some(text) => self.text(&path, text, origin, variable),
            None => self.problem(origin, "the value is not UTF-8"),
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        for (index, flag) in flags.iter().enumerate() {
            let origin = Origin::Flag(flag.name.to_owned());
            let Some(value) = &flag.value else {
                self.problem(origin, format!("`{}` has no value: it takes `key=value`", flag.key));
                continue;
            };
            if let Some(earlier) = flags.iter().take(index).find(|earlier| earlier.key == flag.key) {
                self.problem(origin, format!("`{}` is set twice: first by {}", flag.key, earlier.name));
                continue;
            }
            self.text(&flag.key, value, origin, str::to_owned);
        }
    }

    /// A value given as text: as it is for keys that take a text, as YAML for all others.
    fn text(&mut self, path: &str, text: &str, origin: Origin, spell: fn(&str) -> String) {
        let Some(key) = find(path) else {
            let message = match example(path) {
                Some(key) => format!("`{path}` is a section: set one of its keys, such as `{}`", spell(key.path)),
                None => unknown(path, spell),
            };
            return self.problem(origin, message);
        };
        match parse_text(key, text) {
            Ok(node) => self.assignments.push(Assignment { key, node, origin }),
            Err(message) => self.problem(origin, message),
        }
    }
}

fn parse_text(key: &Key, text: &str) -> Result<Node, String> {
    let kind = (key.kind)();
    let is_unset = kind.is_optional && ["", "~", "null"].contains(&text);
    if kind.is_text && !is_unset {
        return Ok(Node { value: Value::Text(text.to_owned()), place: Place { line: 1, column: 1 } });
    }
    yaml::parse(text).map_err(|error| {
        // The parser's message may show the value.
        let reason = if kind.is_secret { String::new() } else { format!(" ({})", error.message) };
        format!("`{}` takes {} in YAML; the value can't be read{reason}", key.path, key.takes())
    })
}

/// The key that a variable with single underscores most likely means.
fn misspelt(name: &str) -> Option<&'static Key> {
    SECTIONS.iter().copied().flatten().find(|key| key.variable().replace("__", "_") == name)
}

fn in_file(path: &Arc<str>, place: Place) -> Origin {
    Origin::File { path: path.clone(), line: place.line, column: place.column }
}

fn unknown(path: &str, spell: impl Fn(&str) -> String) -> String {
    match nearest(path) {
        Some(name) => format!("unknown key `{path}`; did you mean `{}`?", spell(name)),
        None => format!("unknown key `{path}`"),
    }
}
