//! `/v1/chat/completions`: the request.

use std::sync::Arc;

use cllm_actors::Prompt;
use cllm_actors::prompt::{ChatPrompt, MAX_EXTRA_WEIGHT, MessageError, normalize_messages, weight};
use cllm_actors::request::MAX_LOGPROBS;
use serde_json::{Map, Value};

use crate::api::fields::{Fields, missing};
use crate::api::plan::{Defaults, Plan, Shared};
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// What a chat request comes to.
///
/// # Errors
/// Anything wrong with the body: 400 with the field's name.
pub(crate) fn plan(mut fields: Fields, defaults: Defaults) -> Result<Plan, ApiError> {
    let shared = Shared::read(&mut fields, defaults)?;
    let logprobs = logprobs(&mut fields)?;
    let prompt = conversation(&mut fields)?;
    let mut plan = Plan::new(vec![Prompt::Chat(Arc::new(prompt))], shared, &fields)?;
    plan.want_logprobs(logprobs);
    Ok(plan)
}

/// The conversation of a chat request, also of one that only wants to see it laid out.
///
/// # Errors
/// No messages, or one that no template can show.
pub(crate) fn conversation(fields: &mut Fields) -> Result<ChatPrompt, ApiError> {
    let messages = fields.array(&["messages"])?;
    let messages = messages.ok_or_else(|| missing("messages"))?;
    let variables = fields.object(&["chat_template_kwargs"])?.unwrap_or_default();
    check_variables(&variables)?;
    Ok(ChatPrompt {
        messages: normalize_messages(messages).map_err(bad_message)?,
        tools: Vec::new(),
        add_generation_prompt: fields.boolean(&["add_generation_prompt"])?.unwrap_or(true),
        variables,
    })
}

/// As messages, they are kept until the prompt is laid out.
fn check_variables(variables: &Map<String, Value>) -> Result<(), ApiError> {
    if weight::of_fields(variables.values()) <= MAX_EXTRA_WEIGHT {
        return Ok(());
    }
    let message = format!(
        "`chat_template_kwargs` has more than {MAX_EXTRA_WEIGHT} JSON values, where an array or an object counts for {} of them",
        weight::CONTAINER
    );
    Err(ApiError::invalid("chat_template_kwargs".to_owned(), "invalid_value", message))
}

fn bad_message(error: MessageError) -> ApiError {
    let message = error.to_string();
    ApiError::invalid(error.param, "invalid_value", message)
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = fields.boolean(&["logprobs"])?.unwrap_or(false);
    let top = fields.integer(&["top_logprobs"], 0..=i64::from(MAX_LOGPROBS))?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u32)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "`top_logprobs` needs `logprobs` to be true";
            Err(ApiError::invalid("top_logprobs".to_owned(), "invalid_value", message))
        }
    }
}
