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
    /// What follows the first so many bytes of a text, as tokens, once somebody has asked. Many tokens end in the same
    /// letters, and the loop waits for each question.
    tails: HashMap<(usize, usize), Option<Vec<Token>>>,
    /// Reused memory.
    piece: Vec<u8>,
}

impl Breakers {
    /// Knows the breakers that begin with one of the tokens.
    pub(super) fn new(texts: &[String], tokens: &[Token], vocabulary: &Arc<dyn Vocabulary>) -> Self {
        let texts = texts.iter().filter(|text| !text.is_empty()).cloned().collect();
        let vocabulary = Arc::clone(vocabulary);
        let (heads, tails) = (HashMap::new(), HashMap::new());
        let mut breakers = Self { texts, vocabulary, heads, tails, piece: Vec::with_capacity(64) };
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
        for text in 0..self.texts.len() {
            self.add_tails(text, &mut tails);
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

    /// Adds what must follow the piece so that both hold the breaker.
    fn add_tails(&mut self, text: usize, tails: &mut Vec<Vec<Token>>) {
        let Self { texts, vocabulary, tails: known, piece, .. } = self;
        let breaker = &texts[text];
        let mut add = |tail: &[Token]| {
            if !tails.iter().any(|known| known == tail) {
                tails.push(tail.to_vec());
            }
        };
        if piece.windows(breaker.len()).any(|part| part == breaker.as_bytes()) {
            return add(&[]);
        }
        // A rest that begins within a character is no text and cannot be tokenized.
        let begun = breaker.char_indices().map(|(at, _)| at).skip(1);
        for at in begun.filter(|at| piece.ends_with(&breaker.as_bytes()[..*at])) {
            let tail = known.entry((text, at)).or_insert_with(|| tail(&breaker[at..], vocabulary.as_ref()));
            if let Some(tail) = tail {
                add(tail);
            }
        }
    }
}

fn tail(rest: &str, vocabulary: &dyn Vocabulary) -> Option<Vec<Token>> {
    let rest = TextPart { text: rest.to_owned(), trust: Trust::User };
    let mut tail = vocabulary.tokenize(&[rest], AddSpecial::Never).ok()?;
    tail.truncate(MAX_TAIL);
    Some(tail)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A thousand tokens that all end in the same letter; counts what it is asked.
    #[derive(Default)]
    struct Rhymes {
        asked: AtomicUsize,
    }

    impl Vocabulary for Rhymes {
        fn n_tokens(&self) -> u32 {
            1000
        }

        fn tokenize(&self, parts: &[TextPart], _special: AddSpecial) -> Result<Vec<Token>, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(parts.iter().flat_map(|part| part.text.bytes()).map(Token::from).collect())
        }

        fn piece(&self, token: Token, _control: ControlTokens, out: &mut Vec<u8>) {
            out.extend_from_slice(format!("{token}s").as_bytes());
        }

        fn is_end(&self, _token: Token) -> bool {
            false
        }
    }

    #[test]
    fn what_follows_a_letter_is_tokenized_once_however_many_tokens_end_in_it() {
        let rhymes = Arc::new(Rhymes::default());
        let tokens: Vec<Token> = (0..1000).collect();
        let texts: Vec<String> = (0..64).map(|number| format!("stop {number}")).collect();
        let vocabulary: Arc<dyn Vocabulary> = rhymes.clone();
        let breakers = Breakers::new(&texts, &tokens, &vocabulary);
        assert_eq!(rhymes.asked.load(Ordering::Relaxed), texts.len());
        let after: Vec<Token> = "top 7".bytes().map(Token::from).collect();
        assert_eq!(breakers.distance(&[&[5], after.as_slice(), &[900, 901]].concat()), 2);
    }
}
