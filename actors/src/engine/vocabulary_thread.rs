//! The vocabulary thread: tokenizes and detokenizes beside the loop, on a stack that long words cannot overflow.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::engine::model::{ControlTokens, Vocabulary};
use crate::engine::progress::Progress;
use crate::engine::protocol::{EngineCommand, EngineEvent, TextPart, Token, Trust};

/// llama.cpp's tokenizers recurse on long words.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Longest text that is made of tokens, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Most bytes of one question, as [`text_bytes`] and [`token_bytes`] count: a frame of the process host has room for it.
pub(crate) const MAX_QUESTION_BYTES: usize = 60 << 20;

/// Bytes that a text has on its way here, at most.
pub(crate) fn text_bytes(parts: &[TextPart]) -> usize {
    /// Length and origin.
    const PART_BYTES: usize = 16;
    parts.iter().map(|part| part.text.len() + PART_BYTES).sum()
}

/// Bytes that tokens have on their way here, at most: what is small is short, what is not takes five.
pub(crate) const fn token_bytes(tokens: &[Token]) -> usize {
    tokens.len() * 5
}

/// Answers commands until the channel closes.
pub(crate) fn run(
    vocabulary: &Arc<dyn Vocabulary>,
    commands: &Receiver<EngineCommand>,
    progress: &Progress,
    emit: impl Fn(EngineEvent),
) {
    for command in commands {
        let _work = progress.work();
        match command {
            EngineCommand::Tokenize { id, parts, special } => {
                emit(EngineEvent::TokenizeStarted { id });
                emit(EngineEvent::Tokenized { id, result: vocabulary.tokenize(&parts, special) });
            }
            EngineCommand::Detokenize { id, tokens } => {
                emit(EngineEvent::Detokenized { id, result: detokenize(&**vocabulary, &tokens) });
            }
            _ => {}
        }
    }
}

fn detokenize(vocabulary: &dyn Vocabulary, tokens: &[Token]) -> Result<Vec<u8>, String> {
    let n_tokens = vocabulary.n_tokens();
    let mut bytes = Vec::new();
    for token in tokens {
        if !(0..n_tokens as Token).contains(token) {
            return Err(format!("token {token} is outside the vocabulary of {n_tokens}"));
        }
        vocabulary.piece(*token, ControlTokens::Show, &mut bytes);
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(format!("the text of these tokens is longer than {MAX_TEXT_BYTES} bytes"));
        }
    }
    Ok(bytes)
}

/// A single plain part.
pub fn plain_text(text: impl Into<String>) -> Vec<TextPart> {
    vec![TextPart { text: text.into(), trust: Trust::User }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeVocabulary;

    #[test]
    fn tokens_from_outside_are_checked() {
        assert!(detokenize(&FakeVocabulary, &[72, 105]).is_ok_and(|bytes| bytes == b"Hi"));
        assert!(detokenize(&FakeVocabulary, &[-1]).is_err());
        assert!(detokenize(&FakeVocabulary, &[260]).is_err());
    }
    #[test]
    fn a_text_over_16_mib_is_refused() {
        let most = vec![97; MAX_TEXT_BYTES];
        assert!(detokenize(&FakeVocabulary, &most).is_ok_and(|bytes| bytes.len() == MAX_TEXT_BYTES));
        // The control token's text is longer than a byte.
        let over = [&most[1..], &[256]].concat();
        assert!(detokenize(&FakeVocabulary, &over).is_err_and(|message| message.contains("longer than")));
    }
}
