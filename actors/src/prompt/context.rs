//! The variables of a template: the conversation as Jinja values, what came from outside marked.

use std::borrow::Cow;
use std::time::SystemTime;

use minijinja::Value as Jinja;
use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::{ChatPrompt, ROLES, TemplateError, clock};

/// Deepest nesting of what a client sends.
const MAX_DEPTH: usize = 200;

/// Variables that are the server's to set.
const RESERVED: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];

/// Applied to every string from outside.
pub(super) type Mark<'a> = &'a dyn for<'t> Fn(&'t str) -> Cow<'t, str>;

/// Texts of the model's special tokens that templates write.
#[derive(Debug)]
pub(super) struct SpecialTexts {
    /// `bos_token`.
    pub(super) bos: String,
    /// `eos_token`.
    pub(super) eos: String,
}

/// What one rendering is made of.
pub(super) struct Inputs<'a> {
    pub(super) chat: &'a ChatPrompt,
    pub(super) specials: &'a SpecialTexts,
    pub(super) dialect: Dialect,
    pub(super) now: SystemTime,
}

/// The template's variables.
///
/// # Errors
/// `Rejected` for messages nested too deep, `BadVariables` for variables that are, or are not the client's to set.
pub(super) fn build(inputs: &Inputs<'_>, mark: Mark<'_>) -> Result<Jinja, TemplateError> {
    let chat = inputs.chat;
    let now = inputs.now;
    let messages: Vec<Jinja> =
        chat.messages.iter().map(|entry| message(entry, inputs.dialect, mark)).collect::<Result<_, _>>()?;
    let tools = match chat.tools.as_slice() {
        [] => Jinja::from(()),
        tools => tools.iter().map(|tool| value(tool, mark, 1)).collect::<Result<Vec<_>, _>>()?.into(),
    };
    let mut variables = vec![
        ("messages", Jinja::from(messages)),
        ("tools", tools),
        ("documents", Jinja::from(())),
        ("add_generation_prompt", chat.add_generation_prompt.into()),
        ("bos_token", inputs.specials.bos.as_str().into()),
        ("eos_token", inputs.specials.eos.as_str().into()),
        ("strftime_now", Jinja::from_function(move |format: String| clock::format(now, &format))),
    ];
    for (name, content) in &chat.variables {
        if RESERVED.contains(&name.as_str()) {
            let message = format!("`{name}` cannot be set as a variable of the chat template");
            return Err(TemplateError::BadVariables { message });
        }
        let content = value(content, mark, 1).map_err(|_| TemplateError::BadVariables {
            message: format!("the variable `{name}` is nested deeper than {MAX_DEPTH} levels"),
        })?;
        variables.push((name.as_str(), content));
    }
    Ok(Jinja::from_pairs(variables))
}

/// A message. Its role is not marked if it is one of those we know: templates write roles between control tokens.
fn message(message: &Value, dialect: Dialect, mark: Mark<'_>) -> Result<Jinja, TemplateError> {
    let Value::Object(fields) = message else {
        return value(message, mark, 1);
    };
    let mut pairs = Vec::with_capacity(fields.len());
    for (name, field) in fields {
        let jinja = match (name.as_str(), field) {
            ("role", Value::String(role)) if ROLES.contains(&role.as_str()) => role.as_str().into(),
            ("content", content) => value(&dialect.content(content), mark, 2)?,
            _ => value(field, mark, 2)?,
        };
        pairs.push((mark(name).into_owned(), jinja));
    }
    Ok(Jinja::from_pairs(pairs))
}

fn value(json: &Value, mark: Mark<'_>, depth: usize) -> Result<Jinja, TemplateError> {
    if depth > MAX_DEPTH {
        return Err(rejected(format!("the messages are nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(match json {
        Value::Null => Jinja::from(()),
        Value::Bool(flag) => Jinja::from(*flag),
        Value::Number(number) => self::number(number),
        Value::String(text) => Jinja::from(mark(text)),
        Value::Array(items) => {
            Jinja::from(items.iter().map(|item| value(item, mark, depth + 1)).collect::<Result<Vec<_>, _>>()?)
        }
        Value::Object(fields) => object(fields, mark, depth)?,
    })
}

fn object(fields: &Map<String, Value>, mark: Mark<'_>, depth: usize) -> Result<Jinja, TemplateError> {
    let mut pairs = Vec::with_capacity(fields.len());
    for (name, field) in fields {
        pairs.push((mark(name).into_owned(), value(field, mark, depth + 1)?));
    }
    Ok(Jinja::from_pairs(pairs))
}

fn number(number: &serde_json::Number) -> Jinja {
    match (number.as_i64(), number.as_u64()) {
        (Some(signed), _) => Jinja::from(signed),
        (None, Some(unsigned)) => Jinja::from(unsigned),
        (None, None) => Jinja::from(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn rejected(message: String) -> TemplateError {
    TemplateError::Rejected { message }
}
