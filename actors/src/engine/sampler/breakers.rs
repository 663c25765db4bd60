//! Texts that a repetition does not reach across, as tokens.
//!
//! Only tokens of the window can matter, so each is looked at when it enters, instead of the whole vocabulary at once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::model::{ControlTokens, Vocabulary};
use crate::engine::protocol::{AddSpecial, TextPart, Token, Trust};

/// Most tokens of a breaker that are compared after its first; llama.cpp's bound.
const MAX_TAIL: usize = 20;

/// Which tokens begin a breaker, and what must follow.
pub(super) struct Breakers {
    texts: Vec<String>,
    vocabulary: Arc<dyn Vocabulary>,
    /// For a token that begins breakers: the tokens that must follow, for each of them. No tokens: it holds one whole.
    heads: HashMap<Token, Vec<Vec<Token>>>,
    /// Reused memory.
    piece: Vec<u8>,
}

impl Breakers {
    /// Knows the breakers that begin with one of the tokens.
    pub(super) fn new(texts: &[String], tokens: &[Token], vocabulary: &Arc<dyn Vocabulary>) -> Self {
        let texts = texts.iter().filter(|text| !text.is_empty()).cloned().collect();
        let vocabulary = Arc::clone(vocabulary);
        let mut breakers = Self { texts, vocabulary, heads: HashMap::new(), piece: Vec::with_capacity(64) };
        let mut distinct = tokens.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        for token in distinct {
            breakers.learn(token);
        }
        breakers
    }

    /// Finds out whether the token begins a breaker.
    pub(super) fn learn(&mut self, token: Token) {
        let known = u32::try_from(token).is_ok_and(|id| id < self.vocabulary.n_tokens());
        if !known || self.heads.contains_key(&token) {
            return;
        }
        self.piece.clear();
        self.vocabulary.piece(token, ControlTokens::Show, &mut self.piece);
        let mut tails: Vec<Vec<Token>> = Vec::new();
        for text in &self.texts {
            add_tails(text, &self.piece, self.vocabulary.as_ref(), &mut tails);
        }
        if !tails.is_empty() {
            self.heads.insert(token, tails);
        }
    }

    /// Whether the token holds a whole breaker.
    pub(super) fn is_whole(&self, token: Token) -> bool {
        self.heads.get(&token).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// How many tokens stand after the last breaker; all, if there is none. Of breakers that begin with the same token
    /// the longest counts.
    pub(super) fn distance(&self, tokens: &[Token]) -> usize {
        for (at, token) in tokens.iter().enumerate().rev() {
            let Some(tails) = self.heads.get(token) else {
                continue;
            };
            let after = &tokens[at + 1..];
            if let Some(tail) = tails.iter().filter(|tail| after.starts_with(tail)).map(Vec::len).max() {
                return after.len() - tail;
            }
        }
        tokens.len()
    }
}

/// Adds what must follow a token's text so that both hold the breaker.
fn add_tails(text: &str, piece: &[u8], vocabulary: &dyn Vocabulary, tails: &mut Vec<Vec<Token>>) {
    let mut add = |tail: Vec<Token>| {
        if !tails.contains(&tail) {
            tails.push(tail);
        }
    };
    if piece.windows(text.len()).any(|part| part == text.as_bytes()) {
        return add(Vec::new());
    }
    // A rest that begins within a character is no text and cannot be tokenized.
    for (at, _) in text.char_indices().skip(1).filter(|&(at, _)| piece.ends_with(&text.as_bytes()[..at])) {
        let rest = TextPart { text: text[at..].to_owned(), trust: Trust::User };
        if let Ok(mut tail) = vocabulary.tokenize(&[rest], AddSpecial::Never) {
            tail.truncate(MAX_TAIL);
            add(tail);
        }
    }
}
