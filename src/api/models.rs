//! `/v1/models`: the one model this server offers, with the context it serves.

use cllm_actors::engine::protocol::ModelInfo;
use serde::Serialize;
use serde_json::json;
use warp::Reply;
use warp::reply::Response;

use crate::api::Api;
use crate::http::context::{Call, HttpSettings};
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// A model as OpenAI lists it, with the context length under vLLM's and OpenRouter's name and llama.cpp's `meta`.
#[derive(Debug, Serialize)]
struct Card<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Other names it answers to.
    aliases: Vec<&'a str>,
    /// Most tokens of one request, prompt and answer; null while the model loads.
    max_model_len: Option<u32>,
    context_length: Option<u32>,
    meta: Option<Meta>,
}

#[derive(Debug, Serialize)]
struct Meta {
    n_ctx: u32,
    n_ctx_train: u32,
    n_params: u64,
    size: u64,
    n_vocab: u32,
    n_embd: u32,
}

/// `GET /v1/models`.
pub(super) async fn list(api: Api, _call: Call) -> Result<Response, ApiError> {
    let model = api.app.system.model();
    let card = Card::new(&api.app.settings, api.created, model.as_deref());
    Ok(warp::reply::json(&json!({ "object": "list", "data": [card] })).into_response())
}

/// `GET /v1/models/{id}`, by any of its names.
pub(super) async fn card(api: Api, call: Call) -> Result<Response, ApiError> {
    let name = call.path_rest.unwrap_or_default();
    if !api.app.settings.serves_model(&name) {
        return Err(ApiError::unknown_model(&name));
    }
    let model = api.app.system.model();
    Ok(warp::reply::json(&Card::new(&api.app.settings, api.created, model.as_deref())).into_response())
}

impl<'a> Card<'a> {
    fn new(settings: &'a HttpSettings, created: u64, model: Option<&ModelInfo>) -> Self {
        let others = settings.model_names.iter().filter(|name| **name != settings.model_id);
        let context = model.map(|model| model.n_ctx_seq);
        Self {
            id: &settings.model_id,
            object: "model",
            created,
            owned_by: "cllm",
            aliases: others.map(String::as_str).collect(),
            max_model_len: context,
            context_length: context,
            meta: model.map(Meta::of),
        }
    }
}

impl Meta {
    fn of(model: &ModelInfo) -> Self {
        Self {
            n_ctx: model.n_ctx_seq,
            n_ctx_train: model.n_ctx_train,
            n_params: model.n_params,
            size: model.size_bytes,
            n_vocab: model.n_vocab,
            n_embd: model.n_embd,
        }
    }
}
