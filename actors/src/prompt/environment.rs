//! The Jinja environment that Hugging Face templates are written for, with bounds on work and depth.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use super::{TemplateError, json, methods};

/// How much work a rendering may do, in instructions, where 64 bytes of text count as one. A chat of a hundred messages
/// takes some thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Some milliseconds.
    Brief,
    /// Well under a second.
    Full,
}

impl Effort {
    const fn fuel(self) -> u64 {
        match self {
            Self::Brief => 50_000,
            Self::Full => 5_000_000,
        }
    }
}

/// Depth of loops, conditions and macros (ten each) within each other.
const RECURSION_LIMIT: usize = 400;

const NAME: &str = "chat_template";

/// Compiles the template.
///
/// # Errors
/// If it does not parse.
pub(super) fn build(source: &str, effort: Effort) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(effort.fuel()));
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter("tojson", json::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_template_owned(NAME, without_generation_tags(source))?;
    Ok(environment)
}

/// Renders the template of [`build`].
///
/// # Errors
/// `Rejected` with the words of `raise_exception`, or with what failed where; `TooMuchWork`.
pub(super) fn render(environment: &Environment<'static>, context: Value) -> Result<String, TemplateError> {
    let rendered = environment.get_template(NAME).and_then(|template| template.render(context));
    rendered.map_err(|error| match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::TooMuchWork,
        _ => TemplateError::Rejected { message: explain(&error) },
    })
}

/// The words of a template that refuses its messages.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn explain(error: &Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return message.clone();
        }
        cause = current.source();
    }
    format!("the chat template failed on these messages: {error}")
}

/// Turns `{% generation %}` blocks into conditions that always hold. They mark the assistant's text for training
/// and mean nothing here; a condition has the same whitespace rules.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[..end];
        let replacement = match inner.trim_matches(['-', '+']).trim() {
            "generation" => inner.replacen("generation", "if true", 1),
            "endgeneration" => inner.replacen("endgeneration", "endif", 1),
            _ => continue,
        };
        out.push_str(&replacement);
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}
