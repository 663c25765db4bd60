//! Answers in chunks: the SSE frames of the two OpenAI endpoints.

use std::sync::Arc;

use cllm_actors::engine::protocol::TokenLogprob;
use cllm_actors::request::{Delta, Finished};

use crate::api::bill::Bill;
use crate::api::openai::answer::TextExtras;
use crate::api::openai::logprobs::{ChatLogprobs, TextOffsets};
use crate::api::openai::shapes::{ChatChunkChoice, DeltaObject, Envelope, Stamp, TextChoice, finish_reason};
use crate::api::stream::{Dialect, Frames};
use crate::http::error::{ApiError, ErrorShape};

#[cfg(test)]
mod tests;

const CHAT_OBJECT: &str = "chat.completion.chunk";
const TEXT_OBJECT: &str = "text_completion";

/// The chunks of a chat answer.
#[derive(Debug)]
pub(crate) struct ChatChunks {
    stamp: Stamp,
    include_usage: bool,
    logprobs: bool,
    /// Choices whose role was sent.
    opened: Vec<bool>,
}

impl ChatChunks {
    /// Nothing sent yet of `choices` choices.
    pub(crate) fn new(stamp: Stamp, choices: usize, include_usage: bool, logprobs: bool) -> Self {
        Self { stamp, include_usage, logprobs, opened: vec![false; choices] }
    }

    fn open(&mut self, index: usize, frames: &mut Frames) {
        if !std::mem::replace(&mut self.opened[index], true) {
            let delta = DeltaObject { role: Some("assistant"), content: Some("") };
            let choice = ChatChunkChoice { index, delta, logprobs: None, finish_reason: None };
            frames.json(&envelope(&self.stamp, CHAT_OBJECT, &[choice], self.include_usage));
        }
    }
}

impl Dialect for ChatChunks {
    fn prompt(&mut self, _index: usize, _logprobs: Vec<TokenLogprob>, _frames: &mut Frames) {}

    fn delta(&mut self, index: usize, delta: &Delta, frames: &mut Frames) {
        let logprobs = (self.logprobs && !delta.logprobs.is_empty()).then(|| ChatLogprobs::new(&delta.logprobs));
        if delta.text.is_empty() && logprobs.is_none() {
            return;
        }
        self.open(index, frames);
        let delta = DeltaObject { role: None, content: Some(&delta.text) };
        let choice = ChatChunkChoice { index, delta, logprobs, finish_reason: None };
        frames.json(&envelope(&self.stamp, CHAT_OBJECT, &[choice], self.include_usage));
    }

    fn finished(&mut self, index: usize, finished: &Finished, bill: Option<&Bill<'_>>, frames: &mut Frames) {
        self.open(index, frames);
        let reason = Some(finish_reason(&finished.reason));
        let choice = ChatChunkChoice { index, delta: DeltaObject::default(), logprobs: None, finish_reason: reason };
        last_chunks(&self.stamp, CHAT_OBJECT, &[choice], self.include_usage, bill, frames);
    }

    fn failed(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.data(&error.sse_payload(ErrorShape::OpenAi));
    }
}

/// The chunks of a text completion.
#[derive(Debug)]
pub(crate) struct TextChunks {
    stamp: Stamp,
    include_usage: bool,
    extras: TextExtras,
    offsets: Vec<TextOffsets>,
    /// Choices whose prompt was sent, or need not be.
    opened: Vec<bool>,
}

impl TextChunks {
    /// Nothing sent yet of `sequences` sequences.
    pub(crate) fn new(stamp: Stamp, sequences: usize, include_usage: bool, extras: TextExtras) -> Self {
        let opened = vec![extras.echo.is_none(); sequences];
        Self { stamp, include_usage, extras, offsets: vec![TextOffsets::default(); sequences], opened }
    }

    /// Sends the prompt ahead of everything else, if that was asked for.
    fn open(&mut self, index: usize, logprobs: &[TokenLogprob], frames: &mut Frames) {
        if !std::mem::replace(&mut self.opened[index], true)
            && let Some(prompts) = &self.extras.echo
        {
            let text = Arc::clone(&prompts[index].text);
            self.piece(index, &text, logprobs, frames);
        }
    }

    fn piece(&mut self, index: usize, text: &str, tokens: &[TokenLogprob], frames: &mut Frames) {
        let shown = self.extras.logprobs && !tokens.is_empty();
        if text.is_empty() && !shown {
            return;
        }
        let logprobs = shown.then(|| self.offsets[index].arrays(tokens, self.extras.added(index)));
        let choice = TextChoice { text: text.into(), index, logprobs, finish_reason: None };
        frames.json(&envelope(&self.stamp, TEXT_OBJECT, &[choice], self.include_usage));
    }
}

impl Dialect for TextChunks {
    fn prompt(&mut self, index: usize, logprobs: Vec<TokenLogprob>, frames: &mut Frames) {
        self.open(index, &logprobs, frames);
    }

    fn delta(&mut self, index: usize, delta: &Delta, frames: &mut Frames) {
        self.open(index, &[], frames);
        self.piece(index, &delta.text, &delta.logprobs, frames);
    }

    fn finished(&mut self, index: usize, finished: &Finished, bill: Option<&Bill<'_>>, frames: &mut Frames) {
        self.open(index, &[], frames);
        let reason = Some(finish_reason(&finished.reason));
        let choice = TextChoice { text: "".into(), index, logprobs: None, finish_reason: reason };
        last_chunks(&self.stamp, TEXT_OBJECT, &[choice], self.include_usage, bill, frames);
    }

    fn failed(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.data(&error.sse_payload(ErrorShape::OpenAi));
    }
}

/// A chunk; `usage` is null in every chunk but the last when the last one has it.
fn envelope<'a, C>(stamp: &'a Stamp, object: &'static str, choices: &'a [C], include_usage: bool) -> Envelope<'a, C> {
    let envelope = Envelope::new(stamp, object, choices);
    if include_usage { envelope.usage(None) } else { envelope }
}

/// The last chunk of a choice and, with the bill, of the answer. `timings` ride on the very last one.
fn last_chunks<C: serde::Serialize>(
    stamp: &Stamp,
    object: &'static str,
    choices: &[C],
    include_usage: bool,
    bill: Option<&Bill<'_>>,
    frames: &mut Frames,
) {
    let last = envelope(stamp, object, choices, include_usage);
    let Some(bill) = bill else {
        return frames.json(&last);
    };
    let timings = Some(bill.timings_object());
    if include_usage {
        frames.json(&last);
        let usage = Some(bill.usage_object());
        frames.json(&Envelope::<C>::new(stamp, object, &[]).usage(usage).timings(timings));
    } else {
        frames.json(&last.timings(timings));
    }
    frames.data("[DONE]");
}
