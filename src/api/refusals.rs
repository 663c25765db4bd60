//! Requests for what this server cannot do yet. Ignoring them would give a wrong answer, so they are refused.

use serde_json::Value;

use crate::api::fields::{Fields, wrong_type};
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// Fields that constrain or change the answer and that nothing here implements. Empty values ask for nothing, but for
/// objects: an empty schema wants JSON, and empty search options want a search.
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
    "web_search_options",
    // vLLM: with 0 the log-probability of each prompt token is wanted.
    "prompt_logprobs",
];

/// Options that change the answer and that nothing here implements. 0, `false` and everything empty ask for nothing: many
/// clients send all options they know.
const OPTIONS: &[&str] = &[
    // vLLM.
    "stop_token_ids",
    "min_tokens",
    "bad_words",
    "allowed_token_ids",
    "include_stop_str_in_output",
    "continue_final_message",
    "truncate_prompt_tokens",
    "chat_template",
    "use_beam_search",
    // llama.cpp; what else shapes these does nothing without them.
    "mirostat",
    "dynatemp_range",
    "n_probs",
    "lora",
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
    for name in OPTIONS {
        match fields.any(&[name]) {
            Some((_, value)) if !is_neutral(&value) => return Err(unsupported(name, "")),
            _ => {}
        }
    }
    check_cache_prompt(fields)?;
    check_top_n_sigma(fields)?;
    check_modalities(fields)?;
    check_choice(fields, "tool_choice")?;
    check_choice(fields, "function_call")?;
    check_response_format(fields)?;
    match fields.integer(&["best_of"], 1..=20)? {
        Some(best_of) if best_of > 1 => Err(unsupported("best_of", " beyond 1")),
        _ => Ok(()),
    }
}

/// Without tools, `none` and `auto` come to the same.
fn check_choice(fields: &mut Fields, field: &'static str) -> Result<(), ApiError> {
    match fields.any(&[field]) {
        None => Ok(()),
        Some((_, Value::String(choice))) if choice == "none" || choice == "auto" => Ok(()),
        Some((name, Value::String(_) | Value::Object(_))) => Err(unsupported(name, " other than none and auto")),
        Some((name, other)) => Err(wrong_type(name, "a string or an object", &other)),
    }
}

/// llama.cpp's way to have a prompt computed anew; here prefixes are always reused.
fn check_cache_prompt(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.boolean(&["cache_prompt"])? {
        Some(false) => Err(unsupported("cache_prompt", " = false")),
        _ => Ok(()),
    }
}

/// llama.cpp's clients send -1 for "off".
fn check_top_n_sigma(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.float(&["top_n_sigma"])? {
        Some(sigma) if sigma > 0.0 => Err(unsupported("top_n_sigma", " over 0")),
        _ => Ok(()),
    }
}

fn check_modalities(fields: &mut Fields) -> Result<(), ApiError> {
    let wanted = fields.array(&["modalities"])?.unwrap_or_default();
    if wanted.iter().all(|modality| modality == "text") {
        Ok(())
    } else {
        Err(unsupported("modalities", " beyond text"))
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

fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(fields) => fields.is_empty(),
        other => is_empty(other),
    }
}

fn unsupported(name: &str, which: &str) -> ApiError {
    let message = format!("`{name}`{which} is not supported by this server");
    ApiError::invalid(name.to_owned(), "unsupported_parameter", message)
}
