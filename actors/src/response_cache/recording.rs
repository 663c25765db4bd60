//! What an engine said for a request, token by token: enough to say it again as if it were said now.

use std::sync::Arc;

use crate::engine::protocol::{OutputToken, Token, TokenBytes, TokenLogprob};
use crate::request::FinishReason;

/// The tokens of an answer so far, packed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    tokens: Vec<Token>,
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    /// One for each token, the end token apart; empty when nobody asked.
    logprobs: Vec<Option<Box<TokenLogprob>>>,
    /// Of the prompt; empty when nobody asked.
    pub prompt_logprobs: Vec<TokenLogprob>,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptAnswer {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Its tokens.
    pub recording: Recording,
    /// How it ended.
    pub reason: FinishReason,
}

impl Recording {
    /// Adds the next token.
    pub fn push(&mut self, token: &OutputToken) {
        self.tokens.push(token.id);
        self.bytes.extend_from_slice(&token.bytes);
        self.ends.push(self.bytes.len() as u32);
        if token.logprobs.is_some() || !self.logprobs.is_empty() {
            self.logprobs.push(token.logprobs.clone());
        }
    }

    /// Token number `index`, counted from 0.
    pub fn token(&self, index: usize) -> Option<OutputToken> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(OutputToken {
            id: self.tokens[index],
            bytes: TokenBytes::from_slice(&self.bytes[start..end]),
            logprobs: self.logprobs.get(index).cloned().flatten(),
        })
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    fn shrink(&mut self) {
        self.tokens.shrink_to_fit();
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.logprobs.shrink_to_fit();
        self.prompt_logprobs.shrink_to_fit();
    }

    fn heap_bytes(&self) -> usize {
        let boxed = self.logprobs.iter().flatten().map(|logprob| size_of::<TokenLogprob>() + logprob_bytes(logprob));
        self.tokens.capacity() * size_of::<Token>()
            + self.bytes.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.logprobs.capacity() * size_of::<Option<Box<TokenLogprob>>>()
            + boxed.sum::<usize>()
            + self.prompt_logprobs.capacity() * size_of::<TokenLogprob>()
            + self.prompt_logprobs.iter().map(logprob_bytes).sum::<usize>()
    }
}

impl KeptAnswer {
    /// An answer to keep: takes no more room than it needs.
    pub fn new(prompt_tokens: u32, mut recording: Recording, reason: FinishReason) -> Arc<Self> {
        recording.shrink();
        Arc::new(Self { prompt_tokens, recording, reason })
    }

    /// Bytes that it takes on the heap behind its `Arc`, itself and the counters included.
    pub fn heap_bytes(&self) -> usize {
        let stop = match &self.reason {
            FinishReason::StopText(text) => text.capacity(),
            FinishReason::EndToken | FinishReason::Length => 0,
        };
        2 * size_of::<usize>() + size_of::<Self>() + self.recording.heap_bytes() + stop
    }
}

fn logprob_bytes(logprob: &TokenLogprob) -> usize {
    let top = &logprob.top;
    spilled(&logprob.bytes)
        + top.capacity() * size_of::<(Token, TokenBytes, f32)>()
        + top.iter().map(|(_, bytes, _)| spilled(bytes)).sum::<usize>()
}

fn spilled(bytes: &TokenBytes) -> usize {
    if bytes.spilled() { bytes.capacity() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_every_token_as_it_was() {
        let logprob = |id| {
            let top = vec![(id, TokenBytes::from_slice(b"x"), -0.5)];
            Some(Box::new(TokenLogprob { id, bytes: TokenBytes::from_slice(b"x"), logprob: Some(-0.5), top }))
        };
        let token = |id, bytes: &[u8], logprobs| OutputToken { id, bytes: TokenBytes::from_slice(bytes), logprobs };
        let said = [token(1, b"one", logprob(1)), token(2, b"", logprob(2)), token(3, &[200; 40], None)];
        let mut recording = Recording::default();
        said.iter().for_each(|token| recording.push(token));
        let again: Vec<_> = (0..).map_while(|index| recording.token(index)).collect();
        assert_eq!(again, said);
    }
}
