//! The JSON objects of answers and chunks, field by field as OpenAI writes them.

use std::borrow::Cow;
use std::time::SystemTime;

use cllm_actors::FinishReason;
use serde::Serialize;

use crate::api::bill::{TimingsObject, UsageObject};
use crate::api::openai::logprobs::{ChatLogprobs, TextLogprobs};

/// `system_fingerprint` of every answer: changes when the server, and with it perhaps the arithmetic, does.
pub(crate) const FINGERPRINT: &str = concat!("cllm-", env!("CARGO_PKG_VERSION"));

/// What every answer and every chunk of one request repeats.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// `chatcmpl-…` or `cmpl-…`.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// Name of the model that answers.
    pub(crate) model: String,
    /// The service tier in which the request is answered, if it named one.
    pub(crate) service_tier: Option<&'static str>,
}

impl Stamp {
    /// A fresh id, now.
    pub(crate) fn new(prefix: &str, model: &str) -> Self {
        Self {
            id: format!("{prefix}-{}", random_id()),
            created: unix_seconds(),
            model: model.to_owned(),
            service_tier: None,
        }
    }

    /// With this service tier, if the request named one.
    pub(crate) fn of_tier(self, service_tier: Option<&'static str>) -> Self {
        Self { service_tier, ..self }
    }
}

/// 32 hexadecimal digits.
pub(crate) fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// An answer or a chunk of one.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    choices: &'a [C],
    /// `Some(None)` is written as `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageObject>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsObject>,
    /// Left out when nothing was restarted meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<u32>,
}

impl<'a, C> Envelope<'a, C> {
    /// Without usage and timings.
    pub(crate) fn new(stamp: &'a Stamp, object: &'static str, choices: &'a [C]) -> Self {
        Self {
            id: &stamp.id,
            object,
            created: stamp.created,
            model: &stamp.model,
            system_fingerprint: FINGERPRINT,
            service_tier: stamp.service_tier,
            choices,
            usage: None,
            timings: None,
            resumed: None,
        }
    }

    /// With `usage`; `None` writes `null`.
    pub(crate) fn usage(mut self, usage: Option<UsageObject>) -> Self {
        self.usage = Some(usage);
        self
    }

    /// With `timings`, if there are any, and how often the answer went on after a restart.
    pub(crate) fn timings(mut self, timings: Option<TimingsObject>) -> Self {
        self.resumed = timings.and_then(|timings| timings.resumed());
        self.timings = timings;
        self
    }
}

/// A choice of a chat answer.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChoice<'a> {
    pub(crate) index: usize,
    pub(crate) message: Message<'a>,
    pub(crate) logprobs: Option<ChatLogprobs<'a>>,
    pub(crate) finish_reason: &'static str,
}

/// The assistant's message.
#[derive(Debug, Serialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: &'static str,
    pub(crate) content: &'a str,
    /// Always null: nothing here refuses.
    pub(crate) refusal: Option<String>,
}

/// A choice of a chat chunk.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChunkChoice<'a> {
    pub(crate) index: usize,
    pub(crate) delta: DeltaObject<'a>,
    pub(crate) logprobs: Option<ChatLogprobs<'a>>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// What a chunk adds to the message.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DeltaObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<&'a str>,
}

/// A choice of a text completion, whole or in pieces.
#[derive(Debug, Serialize)]
pub(crate) struct TextChoice<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) index: usize,
    pub(crate) logprobs: Option<TextLogprobs<'a>>,
    pub(crate) finish_reason: Option<&'static str>,
}

/// OpenAI's word for the end.
pub(crate) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::EndToken | FinishReason::StopText(_) => "stop",
        FinishReason::Length => "length",
    }
}
