//! The vocabulary thread: tokenizes and detokenizes beside the loop, on a stack that long words cannot overflow.

use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::engine::model::{ControlTokens, Vocabulary};
use crate::engine::progress::Progress;
use crate::engine::protocol::{AddSpecial, EngineCommand, EngineEvent, TextPart, Token, Trust};

/// llama.cpp's tokenizers recurse on long words.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Longest run of characters of one class; tokenizers need quadratic time or deep stacks for longer ones.
const MAX_RUN_BYTES: usize = 100_000;

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
                emit(EngineEvent::Tokenized { id, result: tokenize(&**vocabulary, &parts, special) });
            }
            EngineCommand::Detokenize { id, tokens } => {
                emit(EngineEvent::Detokenized { id, result: detokenize(&**vocabulary, &tokens) });
            }
            _ => {}
        }
    }
}

fn tokenize(vocabulary: &dyn Vocabulary, parts: &[TextPart], special: AddSpecial) -> Result<Vec<Token>, String> {
    parts.iter().try_for_each(|part| check_runs(&part.text))?;
    vocabulary.tokenize(parts, special)
}

fn detokenize(vocabulary: &dyn Vocabulary, tokens: &[Token]) -> Result<Vec<u8>, String> {
    let n_tokens = vocabulary.n_tokens();
    let mut bytes = Vec::new();
    for token in tokens {
        if !(0..n_tokens as Token).contains(token) {
            return Err(format!("token {token} is outside the vocabulary of {n_tokens}"));
        }
        vocabulary.piece(*token, ControlTokens::Show, &mut bytes);
    }
    Ok(bytes)
}

/// Refuses text with an unbroken run of letters, digits, spaces or punctuation that is too long.
fn check_runs(text: &str) -> Result<(), String> {
    let mut start = 0;
    let mut previous = None;
    for (at, character) in text.char_indices() {
        let class = Some(class_of(character));
        if class != previous {
            start = at;
            previous = class;
        }
        if at - start >= MAX_RUN_BYTES {
            return Err(format!("an unbroken run of {} is longer than {MAX_RUN_BYTES} bytes", class_of(character)));
        }
    }
    Ok(())
}

fn class_of(character: char) -> &'static str {
    if character.is_alphabetic() {
        "letters"
    } else if character.is_numeric() {
        "digits"
    } else if character.is_whitespace() {
        "spaces"
    } else {
        "punctuation"
    }
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
    fn a_run_over_the_limit_is_refused_and_a_broken_one_is_not() {
        let word = "a".repeat(MAX_RUN_BYTES + 1);
        let result = tokenize(&FakeVocabulary, &plain_text(word.clone()), AddSpecial::Model);
        assert!(result.is_err_and(|message| message.contains("letters")));
        let broken = word.replace("aaaaaaaaaa", "aaaaaaaaa ");
        assert!(tokenize(&FakeVocabulary, &plain_text(broken), AddSpecial::Model).is_ok());
    }

    #[test]
    fn tokens_from_outside_are_checked() {
        assert!(detokenize(&FakeVocabulary, &[72, 105]).is_ok_and(|bytes| bytes == b"Hi"));
        assert!(detokenize(&FakeVocabulary, &[-1]).is_err());
        assert!(detokenize(&FakeVocabulary, &[260]).is_err());
    }
}
