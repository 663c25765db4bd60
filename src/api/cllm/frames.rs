//! Frames of `/generate_stream`: `{"id","token","done"}`, no `[DONE]`.

use cllm_actors::FinishReason;
use cllm_actors::engine::protocol::TokenLogprob;
use cllm_actors::request::{Delta, Finished};
use serde::Serialize;
use serde_json::json;

use crate::api::bill::Bill;
use crate::api::stream::{Dialect, Frames};
use crate::http::error::ApiError;

/// The stream of one text.
#[derive(Debug)]
pub(super) struct TokenFrames {
    id: String,
}

#[derive(Serialize)]
struct TokenFrame<'a> {
    id: &'a str,
    token: &'a str,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_tokens: Option<u32>,
}

impl TokenFrames {
    /// All frames carry this id.
    pub(super) fn new(id: String) -> Self {
        Self { id }
    }
}

impl Dialect for TokenFrames {
    fn prompt(&mut self, _index: usize, _logprobs: Vec<TokenLogprob>, _frames: &mut Frames) {}

    fn delta(&mut self, _index: usize, delta: &Delta, frames: &mut Frames) {
        if !delta.text.is_empty() {
            frames.json(&TokenFrame { id: &self.id, token: &delta.text, done: false, generated_tokens: None });
        }
    }

    fn finished(&mut self, _index: usize, finished: &Finished, _bill: Option<&Bill<'_>>, frames: &mut Frames) {
        let generated_tokens = Some(generated_tokens(finished));
        frames.json(&TokenFrame { id: &self.id, token: "", done: true, generated_tokens });
    }

    fn failed(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.json(&json!({ "id": self.id, "error": error.message(), "done": true }));
    }
}

/// Generated tokens as cLLM counts them: without the end token.
pub(super) fn generated_tokens(finished: &Finished) -> u32 {
    let end_token = u32::from(finished.reason == FinishReason::EndToken);
    finished.usage.completion_tokens.saturating_sub(end_token)
}
