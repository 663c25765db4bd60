//! Requests for what this server cannot do yet. Ignoring them would give a wrong answer, so they are refused.

use serde_json::Value;

use crate::api::fields::{Fields, wrong_type};
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// Fields that constrain or change the answer and that nothing here implements. Empty values ask for nothing.
const UNSUPPORTED: &[&str] = &[
    "tools",
    "functions",
    "grammar",
    "json_schema",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "suffix",
    "audio",
];

/// Takes the fields that this server refuses out of the request.
///
/// # Errors
/// One of them asks for something: 400 `unsupported_parameter`.
pub(crate) fn check(fields: &mut Fields) -> Result<(), ApiError> {
    for name in UNSUPPORTED {
        match fields.any(&[name]) {
            Some((_, value)) if !is_empty(&value) => return Err(unsupported(name, "")),
            _ => {}
        }
    }
    check_tool_choice(fields)?;
    check_response_format(fields)?;
    match fields.integer(&["best_of"], 1..=20)? {
        Some(best_of) if best_of > 1 => Err(unsupported("best_of", " beyond 1")),
        _ => Ok(()),
    }
}

/// Without tools, `none` and `auto` come to the same.
fn check_tool_choice(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.any(&["tool_choice"]) {
        None => Ok(()),
        Some((_, Value::String(choice))) if choice == "none" || choice == "auto" => Ok(()),
        Some((name, Value::String(_) | Value::Object(_))) => Err(unsupported(name, " other than none and auto")),
        Some((name, other)) => Err(wrong_type(name, "a string or an object", &other)),
    }
}

fn check_response_format(fields: &mut Fields) -> Result<(), ApiError> {
    let Some(format) = fields.object(&["response_format"])? else {
        return Ok(());
    };
    match Fields::within("response_format", format).string(&["type"])?.as_deref() {
        None | Some("text") => Ok(()),
        Some("json_object" | "json_schema") => Err(unsupported("response_format", " of a type other than text")),
        Some(other) => {
            let message = format!("`response_format.type` must be text, json_object or json_schema, got `{other}`");
            Err(ApiError::invalid("response_format.type".to_owned(), "invalid_value", message))
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn unsupported(name: &str, which: &str) -> ApiError {
    let message = format!("`{name}`{which} is not supported by this server");
    ApiError::invalid(name.to_owned(), "unsupported_parameter", message)
}
