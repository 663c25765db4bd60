//! Log-probabilities in OpenAI's two shapes: chat (a list of objects) and the older one (parallel arrays).
//!
//! Both borrow the tokens and are made while they are written, token by token: kept, the objects of an answer would take
//! many times what its text does.

use std::borrow::Cow;

use cllm_actors::engine::protocol::{Token, TokenBytes, TokenLogprob};
use serde::ser::{Serialize, SerializeStruct, Serializer};

#[cfg(test)]
mod tests;

/// JSON has no infinity; OpenAI writes this for "practically impossible".
const LOWEST: f32 = -9999.0;

/// `logprobs` of a chat choice.
#[derive(Debug, serde::Serialize)]
pub(crate) struct ChatLogprobs<'a> {
    #[serde(serialize_with = "write_content")]
    content: &'a [TokenLogprob],
    /// Always null: nothing here refuses.
    refusal: Option<()>,
}

#[derive(serde::Serialize)]
struct ChatLogprob<'a> {
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
    top_logprobs: Vec<Alternative<'a>>,
}

#[derive(serde::Serialize)]
struct Alternative<'a> {
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> ChatLogprobs<'a> {
    /// One entry per token. `token` may hold U+FFFD where a token is no whole character; `bytes` never lies.
    pub(crate) fn new(tokens: &'a [TokenLogprob]) -> Self {
        Self { content: tokens, refusal: None }
    }
}

fn write_content<S: Serializer>(tokens: &[TokenLogprob], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tokens.iter().map(ChatLogprob::new))
}

impl<'a> ChatLogprob<'a> {
    fn new(token: &'a TokenLogprob) -> Self {
        let alternative = |(_, bytes, logprob): &'a (Token, TokenBytes, f32)| Alternative {
            token: String::from_utf8_lossy(bytes),
            logprob: writable(*logprob),
            bytes,
        };
        Self {
            token: String::from_utf8_lossy(&token.bytes),
            logprob: token.logprob.map_or(LOWEST, writable),
            bytes: &token.bytes,
            top_logprobs: token.top.iter().map(alternative).collect(),
        }
    }
}

/// `logprobs` of a text choice: `tokens`, `token_logprobs`, `top_logprobs` and `text_offset`.
#[derive(Debug)]
pub(crate) struct TextLogprobs<'a> {
    tokens: Vec<&'a TokenLogprob>,
    text_offset: Vec<usize>,
}

impl Serialize for TextLogprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tokens = || self.tokens.iter().copied();
        // The first token of a prompt has no log-probability.
        let logprobs = || tokens().map(|token| token.logprob.map(writable));
        let tops = || tokens().map(|token| token.logprob.map(|logprob| TopLogprobs::new(token, logprob)));
        let mut arrays = serializer.serialize_struct("TextLogprobs", 4)?;
        arrays.serialize_field("tokens", &Each(|| tokens().map(|token| legacy_text(&token.bytes))))?;
        arrays.serialize_field("token_logprobs", &Each(logprobs))?;
        arrays.serialize_field("top_logprobs", &Each(tops))?;
        arrays.serialize_field("text_offset", &self.text_offset)?;
        arrays.end()
    }
}

/// An array whose items are made while it is written.
struct Each<F>(F);

impl<F: Fn() -> I, I: Iterator<Item: Serialize>> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0())
    }
}

/// The likeliest tokens and the token itself, by their text. Of tokens that read the same, the likeliest stays.
struct TopLogprobs<'a>(Vec<(Cow<'a, str>, f32)>);

impl<'a> TopLogprobs<'a> {
    fn new(token: &'a TokenLogprob, logprob: f32) -> Self {
        let mut entries: Vec<(Cow<'a, str>, f32)> = Vec::with_capacity(token.top.len() + 1);
        let top = token.top.iter().map(|(_, bytes, logprob)| (bytes, *logprob));
        for (bytes, logprob) in top.chain([(&token.bytes, logprob)]) {
            let text = legacy_text(bytes);
            if entries.iter().all(|(other, _)| *other != text) {
                entries.push((text, writable(logprob)));
            }
        }
        Self(entries)
    }
}

impl Serialize for TopLogprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

/// Counts where in the text of a choice each token begins, in characters, over all chunks.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextOffsets {
    characters: usize,
}

impl TextOffsets {
    /// The arrays for the next tokens of the choice. `bos`, at the very beginning, has no place in the text.
    pub(crate) fn arrays<'a>(
        &mut self,
        tokens: impl IntoIterator<Item = &'a TokenLogprob>,
        bos: Option<Token>,
    ) -> TextLogprobs<'a> {
        let mut arrays = TextLogprobs { tokens: Vec::new(), text_offset: Vec::new() };
        for token in tokens {
            let invisible = token.logprob.is_none() && Some(token.id) == bos;
            arrays.text_offset.push(self.advance(if invisible { &[] } else { &token.bytes }));
            arrays.tokens.push(token);
        }
        arrays
    }

    /// A token that begins inside a character belongs where that character begins.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        let inside = bytes.first().is_some_and(|byte| is_continuation(*byte));
        let offset = self.characters.saturating_sub(usize::from(inside));
        self.characters += bytes.iter().filter(|byte| !is_continuation(**byte)).count();
        offset
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// A token's text; where it is no whole characters its bytes, as OpenAI writes them in this shape: it has no other place
/// for them, and all parts of characters would read the same.
fn legacy_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => format!("bytes:{}", bytes.escape_ascii()).into(),
    }
}

fn writable(logprob: f32) -> f32 {
    logprob.max(LOWEST)
}
