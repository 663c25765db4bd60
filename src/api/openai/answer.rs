//! Whole answers, as the bytes that go out: a tree of JSON values takes many times its text.

use std::borrow::Cow;
use std::sync::Arc;

use cllm_actors::engine::protocol::Token;

use crate::api::bill::Bill;
use crate::api::openai::logprobs::{ChatLogprobs, TextOffsets};
use crate::api::openai::shapes::{ChatChoice, Envelope, Message, Stamp, TextChoice, finish_reason};
use crate::api::sequences::Outcome;

#[cfg(test)]
mod tests;

/// What a text completion shows beside the generated text.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextExtras {
    /// For each sequence, the prompt to begin the text with.
    pub(crate) echo: Option<Vec<Echo>>,
    /// Whether log-probabilities are shown.
    pub(crate) logprobs: bool,
}

/// A prompt as its answer shows it.
#[derive(Debug, Clone)]
pub(crate) struct Echo {
    /// Its text.
    pub(crate) text: Arc<str>,
    /// The beginning token where the server has added it: it has no place in the text. In a prompt of tokens all have.
    pub(crate) added: Option<Token>,
}

impl TextExtras {
    /// The token without a place in the text of this sequence.
    pub(crate) fn added(&self, index: usize) -> Option<Token> {
        self.echo.as_ref().and_then(|prompts| prompts[index].added)
    }
}

/// A `chat.completion`.
pub(crate) fn chat(stamp: &Stamp, outcomes: &[Outcome], logprobs: bool) -> serde_json::Result<Vec<u8>> {
    let bill = Bill::new(outcomes.iter().map(|outcome| &outcome.finished), outcomes.len() as u32);
    let choices: Vec<_> = outcomes
        .iter()
        .enumerate()
        .map(|(index, outcome)| ChatChoice {
            index,
            logprobs: logprobs.then(|| ChatLogprobs::new(&outcome.logprobs)),
            finish_reason: finish_reason(&outcome.finished.reason),
            message: Message { role: "assistant", content: &outcome.text, refusal: None },
        })
        .collect();
    answer(Envelope::new(stamp, "chat.completion", &choices), &bill)
}

/// A `text_completion`; `choices` for each prompt.
pub(crate) fn text(
    stamp: &Stamp,
    outcomes: &[Outcome],
    choices: u32,
    extras: &TextExtras,
) -> serde_json::Result<Vec<u8>> {
    let bill = Bill::new(outcomes.iter().map(|outcome| &outcome.finished), choices);
    let numbered = outcomes.iter().enumerate();
    let choices: Vec<_> = numbered.map(|(index, outcome)| text_choice(index, outcome, extras)).collect();
    answer(Envelope::new(stamp, "text_completion", &choices), &bill)
}

fn text_choice<'a>(index: usize, outcome: &'a Outcome, extras: &TextExtras) -> TextChoice<'a> {
    let text = match &extras.echo {
        Some(prompts) => Cow::Owned(format!("{}{}", prompts[index].text, outcome.text)),
        None => Cow::Borrowed(outcome.text.as_str()),
    };
    let logprobs = extras.logprobs.then(|| {
        let tokens = outcome.prompt_logprobs.iter().chain(&outcome.logprobs);
        TextOffsets::default().arrays(tokens, extras.added(index))
    });
    TextChoice { text, index, logprobs, finish_reason: Some(finish_reason(&outcome.finished.reason)) }
}

fn answer<C: serde::Serialize>(envelope: Envelope<'_, C>, bill: &Bill<'_>) -> serde_json::Result<Vec<u8>> {
    let envelope = envelope.usage(Some(bill.usage_object())).timings(Some(bill.timings_object()));
    serde_json::to_vec(&envelope)
}
