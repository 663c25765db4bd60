//! What a value has to be beside its type: ranges, and checks of text.

use std::fmt;

use tracing_subscriber::EnvFilter;

use super::field::Refusal;
use super::yaml::{Node, Value};

/// A limit on a key's values; on a list it holds for every item.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// None.
    Any,
    /// From, to.
    Integer(i128, i128),
    /// From, to.
    Number(f64, f64),
    /// At least.
    NumberFrom(f64),
    /// The reason against a text.
    Text(fn(&str) -> Result<(), String>),
}

impl Rule {
    /// # Errors
    /// The first node that breaks the rule. Values of another type pass: their type is the field's business.
    pub(super) fn check<'node>(&self, node: &'node Node) -> Result<(), Refusal<'node>> {
        if let Value::List(items) = &node.value {
            return items.iter().try_for_each(|item| self.check(item));
        }
        match (self, &node.value) {
            (Self::Text(check), Value::Text(text)) => check(text).map_err(|reason| Refusal::Because(node, reason)),
            _ if self.allows(&node.value) => Ok(()),
            _ => Err(Refusal::Unexpected(node)),
        }
    }

    fn allows(&self, value: &Value) -> bool {
        let (integer, number) = match *value {
            #[expect(clippy::cast_precision_loss, reason = "compared with small bounds only")]
            Value::Integer(value) => (value, value as f64),
            Value::Float(value) => (0, value),
            _ => return true,
        };
        match *self {
            Self::Any | Self::Text(_) => true,
            Self::Integer(from, to) => (from..=to).contains(&integer),
            Self::Number(from, to) => (from..=to).contains(&number),
            Self::NumberFrom(from) => number >= from && number.is_finite(),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any | Self::Text(_) => Ok(()),
            Self::Integer(from, to) => write!(formatter, " from {from} to {to}"),
            Self::Number(from, to) => write!(formatter, " from {from} to {to}"),
            Self::NumberFrom(from) => write!(formatter, " of at least {from}"),
        }
    }
}

/// A host name or an IP address, without scheme and port.
pub(super) fn host(text: &str) -> Result<(), String> {
    let legal = |character: char| character.is_alphanumeric() || ".-_:%".contains(character);
    if text.is_empty() || !text.chars().all(legal) {
        return Err(format!("`{}` is no host name or IP address", text.escape_debug()));
    }
    let names_port = text.matches(':').count() == 1;
    if names_port { Err(format!("`{text}` has a port in it: that is `server.port`")) } else { Ok(()) }
}

/// `*`, or an origin as browsers send it: scheme, host and perhaps a port.
pub(super) fn origin(text: &str) -> Result<(), String> {
    if text == "*" || is_origin(text) {
        return Ok(());
    }
    let shown = text.escape_debug();
    Err(format!("`{shown}` is no origin: it takes `*` or `scheme://host[:port]`, without path and final slash"))
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else {
        return false;
    };
    let legal = |character: char| character.is_ascii_alphanumeric() || ".-_:[]".contains(character);
    let port_is_number = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().is_ok(),
        _ => true,
    };
    scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
        && !authority.is_empty()
        && !authority.starts_with(':')
        && authority.chars().all(legal)
        && port_is_number
}

/// Levels that `tracing` knows.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A filter as `tracing-subscriber` reads it.
pub(super) fn log_filter(text: &str) -> Result<(), String> {
    // A bare word that is no level would be taken for the name of a crate and log nothing.
    let bare = text.chars().all(|character| character.is_ascii_alphanumeric());
    if bare && !LEVELS.contains(&text.to_ascii_lowercase().as_str()) {
        let levels = LEVELS.join(", ");
        return Err(format!("`{text}` is no level: it takes {levels}, or a filter such as `warn,cllm=debug`"));
    }
    EnvFilter::builder().parse(text).map(drop).map_err(|error| format!("`{}`: {error}", text.escape_debug()))
}

/// Any text but the empty one.
pub(super) fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("it must not be empty".to_owned()) } else { Ok(()) }
}
