//! `/` and `/model/info`: what this server is and what it serves.

use std::path::Path;

use cllm_actors::GenerateError;
use cllm_actors::engine::protocol::ModelInfo;
use cllm_actors::engine::spec::{EngineSpec, LlamaSpec};
use serde_json::{Value, json};
use warp::reply::Response;

use crate::api::Api;
use crate::api::cllm::success;
use crate::http::context::Call;
use crate::http::error::ApiError;

/// The endpoints that `/` lists.
pub(crate) const ENDPOINTS: &[(&str, &str, &str)] = &[
    ("POST", "/v1/chat/completions", "chat, OpenAI's shape"),
    ("POST", "/v1/completions", "text completion, OpenAI's shape"),
    ("GET", "/v1/models", "the model served here"),
    ("GET", "/v1/models/{id}", "one model, by any of its names"),
    ("POST", "/tokenize", "text to tokens"),
    ("POST", "/detokenize", "tokens to text"),
    ("POST", "/apply-template", "messages to the prompt that the model sees"),
    ("GET", "/tokenizer_info", "special tokens and chat template"),
    ("POST", "/generate", "text completion, cLLM's shape"),
    ("POST", "/generate_stream", "the same as server-sent events"),
    ("POST", "/encode", "text to tokens, cLLM's shape"),
    ("POST", "/benchmark", "a small load run inside the server, with an admin key"),
    ("GET", "/model/info", "facts about the model"),
    ("GET", "/actors", "what the actors do; ?format=text draws the tree"),
    ("GET", "/actors/{path}", "one actor"),
    ("GET", "/actors/events", "what happens to the actors, as server-sent events"),
    ("POST", "/actors/{path}/{action}", "restart, kill, pause or resume an actor, with an admin key"),
    ("GET", "/livez", "whether the process answers"),
    ("GET", "/readyz", "whether requests are served"),
    ("GET", "/health", "the same as /readyz"),
    ("GET", "/ui", "web page: chat, actors, charts"),
    ("GET", "/", "this list"),
];

/// `GET /`.
pub(crate) async fn index(_api: Api, _call: Call) -> Result<Response, ApiError> {
    Ok(success(&index_data()))
}

/// `GET /model/info`.
pub(crate) async fn model_info(api: Api, _call: Call) -> Result<Response, ApiError> {
    let model = api.app.system.model().ok_or(GenerateError::ModelLoading)?;
    Ok(success(&model_data(&model, &api.engine, &api.app.settings.model_id)))
}

pub(super) fn index_data() -> Value {
    let endpoints = ENDPOINTS
        .iter()
        .map(|(method, path, description)| json!({ "method": method, "path": path, "description": description }));
    json!({
        "name": "cLLM Server",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": endpoints.collect::<Value>(),
    })
}

/// Facts under the C++ server's names; null where the model file does not say.
pub(super) fn model_data(model: &ModelInfo, engine: &EngineSpec, model_id: &str) -> Value {
    let llama = match engine {
        EngineSpec::Llama(llama) => Some(llama.as_ref()),
        EngineSpec::Fake(_) => None,
    };
    let metadata = |key: &str| metadata_number(model, &format!("{}.{key}", model.architecture));
    json!({
        "model_path": llama.map(|llama| &llama.path),
        "model_name": llama.and_then(|llama| stem(&llama.path)).unwrap_or(model_id),
        "model_family": model.architecture,
        "model_type": model.description,
        "vocab_size": model.n_vocab,
        "tokenizer_vocab_size": model.n_vocab,
        "hidden_size": model.n_embd,
        "num_layers": model.n_layer,
        "num_attention_heads": model.n_head,
        "num_key_value_heads": model.n_head_kv,
        "max_sequence_length": model.n_ctx_seq,
        "intermediate_size": metadata("feed_forward_length"),
        "rope_theta": metadata("rope.freq_base"),
        "rms_norm_eps": metadata("attention.layer_norm_rms_epsilon"),
        "quantization": quantization(&model.description),
        "llama_cpp": llama.map(llama_data),
        "use_kv_cache": true,
    })
}

fn llama_data(llama: &LlamaSpec) -> Value {
    json!({
        "batch_size": llama.n_batch,
        "num_threads": llama.n_threads,
        "gpu_layers": llama.n_gpu_layers,
        "use_mmap": llama.use_mmap,
        "use_mlock": llama.use_mlock,
    })
}

/// From llama.cpp's description, which ends in the file's type ("llama 135M Q4_K - Medium").
pub(super) fn quantization(description: &str) -> Value {
    let quantized = description.split(' ').skip_while(|word| !is_quantized_type(word)).collect::<Vec<_>>().join(" ");
    match quantized.as_str() {
        "" => json!({ "enabled": false, "type": null }),
        found => json!({ "enabled": true, "type": found }),
    }
}

/// `Q4_1`, `IQ2_XS`, `TQ1_0`, ...
fn is_quantized_type(word: &str) -> bool {
    let digits = word.strip_prefix("IQ").or_else(|| word.strip_prefix("TQ")).or_else(|| word.strip_prefix('Q'));
    digits.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()) && rest.contains('_'))
}

fn metadata_number(model: &ModelInfo, key: &str) -> Option<Value> {
    let (_, text) = model.metadata.iter().find(|(found, _)| found == key)?;
    serde_json::from_str::<serde_json::Number>(text).ok().map(Value::Number)
}

fn stem(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()
}
