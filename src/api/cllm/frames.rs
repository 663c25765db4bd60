//! Frames of `/generate_stream`: `{"id","token","done"}`, no `[DONE]`; the last one has the bill.

use cllm_actors::FinishReason;
use cllm_actors::engine::protocol::TokenLogprob;
use cllm_actors::request::{Delta, Finished};
use serde::Serialize;
use serde_json::json;

use crate::api::bill::{Bill, TimingsObject, UsageObject};
use crate::api::stream::{Dialect, Frames};
use crate::http::error::ApiError;

/// The stream of one text.
#[derive(Debug)]
pub(super) struct TokenFrames {
    id: String,
}

#[derive(Default, Serialize)]
struct TokenFrame<'a> {
    id: &'a str,
    token: &'a str,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    generated_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsObject>,
    /// Left out when nothing was restarted meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<u32>,
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
            frames.json(&TokenFrame { id: &self.id, token: &delta.text, ..TokenFrame::default() });
        }
    }

    fn finished(&mut self, _index: usize, finished: &Finished, bill: Option<&Bill<'_>>, frames: &mut Frames) {
        let timings = bill.map(Bill::timings_object);
        frames.json(&TokenFrame {
            id: &self.id,
            token: "",
            done: true,
            generated_tokens: Some(generated_tokens(finished)),
            usage: bill.map(Bill::usage_object),
            timings,
            resumed: timings.and_then(|timings| timings.resumed()),
        });
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
