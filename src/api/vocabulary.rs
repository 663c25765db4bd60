//! Text and tokens: `/tokenize`, `/detokenize`, `/apply-template`, `/tokenizer_info`, in the shapes of llama.cpp and vLLM.

use std::collections::{BTreeSet, HashMap};

use cllm_actors::engine::protocol::{AddSpecial, TextPart, Token, Trust};
use cllm_actors::system::System;
use cllm_actors::{GenerateError, engine::protocol::ModelInfo};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use warp::Reply;
use warp::reply::Response;

use crate::api::Api;
use crate::api::fields::{Fields, missing};
use crate::api::generation::check_model;
use crate::api::openai::chat::conversation;
use crate::api::openai::completion::tokens;
use crate::api::plan::check_ids;
use crate::http::context::Call;
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// Questions to the vocabulary that may be open at once for one request.
const OPEN_QUESTIONS: usize = 64;

/// Longest text to tokenize, in bytes. One thread tokenizes for everybody.
const MAX_TEXT_BYTES: usize = 2 << 20;

/// A text to tokenize.
#[derive(Debug, PartialEq, Eq)]
struct Text {
    part: TextPart,
    special: AddSpecial,
    with_pieces: bool,
}

/// `POST /tokenize`.
pub(super) async fn tokenize(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let mut fields = Fields::of(call.json().await?);
    let text = read_text(&mut fields)?;
    check_model(&api.app.settings, fields.string(&["model"])?.as_deref())?;
    // What else the body carries waits for nothing.
    drop(fields);
    let system = &api.app.system;
    let tokens = system.tokenize(vec![text.part], text.special).await?;
    let pieces = if text.with_pieces { Some(pieces(system, &tokens).await?) } else { None };
    let count = tokens.len();
    let max_model_len = system.model().map(|model| model.n_ctx_seq);
    let tokens = pieces.map_or_else(|| json!(tokens), Value::from);
    Ok(warp::reply::json(&json!({ "tokens": tokens, "count": count, "max_model_len": max_model_len })).into_response())
}

/// `POST /detokenize`.
pub(super) async fn detokenize(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let mut fields = Fields::of(call.json().await?);
    let ids = fields.array(&["tokens"])?.ok_or_else(|| missing("tokens"))?;
    let ids = tokens("tokens", &ids)?;
    check_model(&api.app.settings, fields.string(&["model"])?.as_deref())?;
    let model = api.app.system.model().ok_or(GenerateError::ModelLoading)?;
    check_ids("tokens", ids.iter().copied(), model.n_vocab)?;
    drop(fields);
    let bytes = api.app.system.detokenize(ids).await?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(warp::reply::json(&json!({ "content": text, "prompt": text })).into_response())
}

/// `POST /apply-template`.
pub(super) async fn apply_template(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let mut fields = Fields::of(call.json().await?);
    let chat = conversation(&mut fields)?;
    check_model(&api.app.settings, fields.string(&["model"])?.as_deref())?;
    drop(fields);
    let parts = api.app.system.render(chat).await?;
    let prompt: String = parts.into_iter().map(|part| part.text).collect();
    Ok(warp::reply::json(&json!({ "prompt": prompt })).into_response())
}

/// `GET /tokenizer_info`, as vLLM has it: lets evaluation tools do without a tokenizer of their own.
pub(super) async fn tokenizer_info(api: Api, _call: Call) -> Result<Response, ApiError> {
    let model = api.app.system.model().ok_or(GenerateError::ModelLoading)?;
    Ok(warp::reply::json(&tokenizer_facts(&model)).into_response())
}

fn tokenizer_facts(model: &ModelInfo) -> Value {
    json!({
        "bos_token": model.bos_text,
        "eos_token": model.eos_text,
        "add_bos_token": model.add_bos,
        "chat_template": model.chat_template,
        "model_max_length": model.n_ctx_seq,
    })
}

/// llama.cpp calls the text `content` and adds no special tokens by itself, vLLM calls it `prompt` and does.
fn read_text(fields: &mut Fields) -> Result<Text, ApiError> {
    let content = fields.string(&["content"])?;
    let prompt = fields.string(&["prompt"])?;
    let adds_by_default = content.is_none();
    let param = if adds_by_default { "prompt" } else { "content" };
    let text = content.or(prompt).ok_or_else(|| missing("content"))?;
    check_length(param, &text)?;
    let add_special = fields.boolean(&["add_special", "add_special_tokens"])?.unwrap_or(adds_by_default);
    let parse_special = fields.boolean(&["parse_special"])?.unwrap_or(true);
    Ok(Text {
        part: TextPart { text, trust: if parse_special { Trust::Template } else { Trust::User } },
        special: if add_special { AddSpecial::Model } else { AddSpecial::Never },
        with_pieces: fields.boolean(&["with_pieces"])?.unwrap_or(false),
    })
}

/// Refuses a text that would keep everybody else waiting.
///
/// # Errors
/// 400 that names `param`.
pub(super) fn check_length(param: &str, text: &str) -> Result<(), ApiError> {
    if text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let message = format!("`{param}` has {} bytes, at most {MAX_TEXT_BYTES} are tokenized", text.len());
    Err(ApiError::invalid(param.to_owned(), "invalid_value", message))
}

/// Each token with its text, as llama.cpp shows them.
async fn pieces(system: &System, tokens: &[Token]) -> Result<Vec<Value>, GenerateError> {
    let distinct: BTreeSet<Token> = tokens.iter().copied().collect();
    let questions = distinct.into_iter().map(|id| async move { Ok((id, system.detokenize(vec![id]).await?)) });
    let bytes: HashMap<Token, Vec<u8>> = stream::iter(questions).buffer_unordered(OPEN_QUESTIONS).try_collect().await?;
    Ok(tokens.iter().map(|id| json!({ "id": id, "piece": piece(&bytes[id]) })).collect())
}

/// A text, or an array of bytes where they are no whole characters.
fn piece(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), Value::from)
}
