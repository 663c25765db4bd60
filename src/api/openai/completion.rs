//! `/v1/completions`: the request.

use cllm_actors::Prompt;
use cllm_actors::engine::protocol::Token;
use cllm_actors::request::MAX_LOGPROBS;
use serde_json::Value;

use crate::api::fields::{Fields, missing, whole, wrong_type};
use crate::api::plan::{Defaults, Plan, Shared};
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// What a completion request comes to.
#[derive(Debug, Clone)]
pub(crate) struct CompletionPlan {
    /// Its sequences.
    pub(crate) plan: Plan,
    /// Whether the answer begins with the prompt.
    pub(crate) echo: bool,
}

/// Most tokens when the request names no limit; OpenAI's default at this endpoint.
pub(crate) const DEFAULT_MAX_TOKENS: u32 = 16;

/// What a text completion request comes to. Token ids are not checked against the vocabulary yet.
///
/// # Errors
/// Anything wrong with the body: 400 with the field's name.
pub(crate) fn plan(mut fields: Fields, defaults: Defaults) -> Result<CompletionPlan, ApiError> {
    let shared = Shared::read(&mut fields, defaults)?;
    let logprobs = fields.integer(&["logprobs"], 0..=i64::from(MAX_LOGPROBS))?.map(|top| top as u32);
    let echo = fields.boolean(&["echo"])?.unwrap_or(false);
    let prompts = prompts(&mut fields)?;
    let mut plan = Plan::new(prompts, shared, &fields)?;
    plan.want_logprobs(logprobs);
    plan.want_prompt_logprobs(logprobs.filter(|_| echo));
    Ok(CompletionPlan { plan, echo })
}

fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
    match fields.any(&["prompt"]) {
        None => Err(missing("prompt")),
        Some((_, Value::String(text))) => Ok(vec![text_prompt(text)?]),
        Some((_, Value::Array(items))) => match items.first() {
            None => Err(empty()),
            Some(Value::Number(_)) => Ok(vec![token_prompt(&items)?]),
            Some(_) => items.into_iter().map(prompt).collect(),
        },
        Some((_, other)) => Err(bad_prompt(&other)),
    }
}

/// One of several prompts.
fn prompt(value: Value) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) => text_prompt(text),
        Value::Array(ids) => token_prompt(&ids),
        other => Err(bad_prompt(&other)),
    }
}

fn text_prompt(text: String) -> Result<Prompt, ApiError> {
    if text.is_empty() { Err(empty()) } else { Ok(Prompt::Text(text.into())) }
}

fn token_prompt(ids: &[Value]) -> Result<Prompt, ApiError> {
    if ids.is_empty() {
        return Err(empty());
    }
    tokens("prompt", ids).map(|tokens| Prompt::Tokens(tokens.into()))
}

/// The token ids in a JSON array.
///
/// # Errors
/// One of them is no 32-bit integer: 400 that names `param`.
pub(crate) fn tokens(param: &str, ids: &[Value]) -> Result<Vec<Token>, ApiError> {
    let token = |id: &Value| {
        let token = whole(id).and_then(|id| Token::try_from(id).ok());
        token.ok_or_else(|| wrong_type(param, "an array of token ids", id))
    };
    ids.iter().map(token).collect()
}

fn empty() -> ApiError {
    ApiError::invalid("prompt".to_owned(), "invalid_value", "`prompt` must not be empty")
}

fn bad_prompt(got: &Value) -> ApiError {
    wrong_type("prompt", "a string, an array of token ids, or an array of these", got)
}
