//! The fake engine keeps its own promises.

use super::*;
use crate::engine::batch::Row;

fn row(token: Token, position: u32, sequence: SequenceId) -> Row {
    Row { token, position, sequence, output: true }
}

fn model(spec: &FakeSpec) -> FakeModel {
    FakeModel::load(spec).expect("the fake loads")
}

fn argmax(logits: &[f32]) -> Token {
    logits.iter().position(|value| *value == PEAK).expect("one peak") as Token
}

#[test]
fn next_token_depends_on_every_token_before_it() {
    let spec = FakeSpec::default();
    let one = continuation(&spec, &[1, 2, 3, 4], 32);
    assert_ne!(one, continuation(&spec, &[9, 2, 3, 4], 32));
    assert_eq!(one, continuation(&spec, &[1, 2, 3, 4], 32));
}

#[test]
fn decode_agrees_with_continuation() {
    let spec = FakeSpec::default();
    let mut model = model(&spec);
    let mut batch = Batch::default();
    [7, 8, 9].iter().enumerate().for_each(|(at, token)| {
        batch.push(row(*token, at as u32, 3));
    });
    model.decode(&batch).expect("valid");
    assert_eq!(vec![argmax(model.logits(2))], continuation(&spec, &[7, 8, 9], 1));
}

#[test]
fn a_gap_in_positions_is_an_error_and_full_context_changes_nothing() {
    let mut model = model(&FakeSpec { n_ctx: 2, ..FakeSpec::default() });
    let mut batch = Batch::default();
    batch.push(row(1, 1, 0));
    assert!(matches!(model.decode(&batch), Err(DecodeError::Failed(_))));
    batch.clear();
    (0..3).for_each(|at| {
        batch.push(row(1, at, 0));
    });
    assert_eq!(model.decode(&batch), Err(DecodeError::NoCells));
    assert_eq!(model.cells_used(), 0);
}

#[test]
fn multibyte_alphabet_speaks_whole_characters() {
    let spec = FakeSpec { alphabet: Alphabet::Multibyte, ..FakeSpec::default() };
    let bytes: Vec<u8> = continuation(&spec, &[65], 300).into_iter().map(|token| token as u8).collect();
    let valid = match std::str::from_utf8(&bytes) {
        Ok(text) => text.len(),
        Err(error) => {
            assert_eq!(error.error_len(), None, "only the end may be incomplete");
            error.valid_up_to()
        }
    };
    assert!(valid + 4 > bytes.len());
}

#[test]
fn user_text_never_becomes_control_tokens() {
    let part = |trust| vec![TextPart { text: "a<|eos|>".to_owned(), trust }];
    let user = FakeVocabulary.tokenize(&part(Trust::User), AddSpecial::Model).expect("valid");
    let template = FakeVocabulary.tokenize(&part(Trust::Template), AddSpecial::Model).expect("valid");
    assert_eq!(user.len(), 8);
    assert_eq!(template, vec![97, EOS]);
}
