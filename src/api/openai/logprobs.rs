//! Log-probabilities in OpenAI's two shapes: chat (a list of objects) and the older one (parallel arrays).

use cllm_actors::engine::protocol::{Token, TokenBytes, TokenLogprob};
use serde::Serialize;
use serde_json::{Map, Value};

#[cfg(test)]
mod tests;

/// JSON has no infinity; OpenAI writes this for "practically impossible".
const LOWEST: f32 = -9999.0;

/// `logprobs` of a chat choice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatLogprob>,
    /// Always null: nothing here refuses.
    refusal: Option<Vec<ChatLogprob>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChatLogprob {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl ChatLogprobs {
    /// One entry per token. `token` may hold U+FFFD where a token is no whole character; `bytes` never lies.
    pub(crate) fn new(tokens: &[TokenLogprob]) -> Self {
        Self { content: tokens.iter().map(ChatLogprob::new).collect(), refusal: None }
    }
}

impl ChatLogprob {
    fn new(token: &TokenLogprob) -> Self {
        let alternative = |(_, bytes, logprob): &(Token, TokenBytes, f32)| Alternative {
            token: lossy(bytes),
            logprob: writable(*logprob),
            bytes: bytes.to_vec(),
        };
        Self {
            token: lossy(&token.bytes),
            logprob: token.logprob.map_or(LOWEST, writable),
            bytes: token.bytes.to_vec(),
            top_logprobs: token.top.iter().map(alternative).collect(),
        }
    }
}

/// `logprobs` of a text choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct TextLogprobs {
    tokens: Vec<String>,
    /// The first token of a prompt has none.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
}

/// Counts where in the text of a choice each token begins, in characters, over all chunks.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextOffsets {
    characters: usize,
}

impl TextOffsets {
    /// The arrays for the next tokens of the choice. `bos`, at the very beginning, has no place in the text.
    pub(crate) fn arrays(&mut self, tokens: &[TokenLogprob], bos: Option<Token>) -> TextLogprobs {
        let mut arrays = TextLogprobs::default();
        for token in tokens {
            let invisible = token.logprob.is_none() && Some(token.id) == bos;
            arrays.tokens.push(lossy(&token.bytes));
            arrays.token_logprobs.push(token.logprob.map(writable));
            arrays.top_logprobs.push(token.logprob.map(|logprob| top_map(token, logprob)));
            arrays.text_offset.push(self.advance(if invisible { &[] } else { &token.bytes }));
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

/// The likeliest tokens and the token itself. Of tokens that read the same, the likeliest stays.
fn top_map(token: &TokenLogprob, logprob: f32) -> Map<String, Value> {
    let mut map = Map::new();
    for (_, bytes, logprob) in &token.top {
        map.entry(lossy(bytes)).or_insert_with(|| writable(*logprob).into());
    }
    map.entry(lossy(&token.bytes)).or_insert_with(|| writable(logprob).into());
    map
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn writable(logprob: f32) -> f32 {
    logprob.max(LOWEST)
}
