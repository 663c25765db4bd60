//! DRY penalties, computed by hand.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Dry, DryScratch, suffix_matches};
use crate::engine::model::Vocabulary;
use crate::engine::protocol::Token;
use crate::engine::sampler::tests::Words;
use crate::sampling::DryParams;

fn params(breakers: &[&str]) -> DryParams {
    DryParams {
        multiplier: 1.0,
        base: 2.0,
        allowed_length: 2,
        penalty_last_n: -1,
        sequence_breakers: breakers.iter().map(|&text| text.to_owned()).collect(),
    }
}

/// What is subtracted from the logit of each of ten tokens.
fn penalties(params: &DryParams, tokens: &[Token], words: &[&str]) -> [f32; 10] {
    let vocabulary: Arc<dyn Vocabulary> = Arc::new(Words::new(words));
    let mut row = [0.0; 10];
    if let Some(dry) = Dry::new(params, tokens, &vocabulary) {
        dry.apply(&mut row, &mut DryScratch::default());
    }
    row.map(|logit: f32| 0.0 - logit)
}

const LETTERS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

#[test]
fn the_longer_the_repetition_the_greater_the_penalty() {
    // "abc" came back: c followed it, at length 3: 2^(3-2).
    assert_eq!(penalties(&params(&[]), &[0, 1, 2, 2, 1, 2, 9, 0, 1, 2], &LETTERS)[..4], [0.0, 0.0, 2.0, 0.0]);
    // "bc" was followed by j as well, at length 2: 2^0.
    assert_eq!(penalties(&params(&[]), &[0, 1, 2, 2, 1, 2, 9, 0, 1, 2], &LETTERS)[9], 1.0);
}

#[test]
fn repetitions_below_the_allowed_length_are_free() {
    let params = DryParams { allowed_length: 4, ..params(&[]) };
    assert_eq!(penalties(&params, &[0, 1, 2, 3, 0, 1, 2], &LETTERS), [0.0; 10]);
    assert_eq!(penalties(&DryParams { allowed_length: 3, ..params }, &[0, 1, 2, 3, 0, 1, 2], &LETTERS)[3], 1.0);
}

#[test]
fn an_allowed_length_of_zero_punishes_every_token_in_reach() {
    let params = DryParams { allowed_length: 0, ..params(&[]) };
    assert_eq!(penalties(&params, &[0, 1, 2], &LETTERS)[..4], [0.0, 1.0, 1.0, 0.0]);
}

#[test]
fn only_tokens_in_the_window_count() {
    let params = DryParams { penalty_last_n: 5, ..params(&[]) };
    assert_eq!(penalties(&params, &[0, 1, 2, 3, 0, 1, 2], &LETTERS), [0.0; 10]);
}

#[test]
fn a_repetition_does_not_reach_across_a_breaker() {
    let tokens = [0, 1, 2, 3, 4, 0, 1, 2, 3];
    assert_eq!(penalties(&params(&[]), &tokens, &LETTERS)[4], 4.0);
    assert_eq!(penalties(&params(&["b"]), &tokens, &LETTERS)[4], 1.0);
    assert_eq!(penalties(&params(&["c"]), &tokens, &LETTERS)[4], 0.0);
}

#[test]
fn a_breaker_itself_is_never_punished() {
    let tokens = [0, 1, 2, 3, 0, 1, 2];
    assert_eq!(penalties(&params(&[]), &tokens, &LETTERS)[3], 2.0);
    assert_eq!(penalties(&params(&["d"]), &tokens, &LETTERS)[3], 0.0);
}

#[test]
fn a_breaker_may_span_tokens_and_begin_and_end_within_them() {
    let words = ["x", "y", "ab", "c!", "b", "c", "!", "q", "r", "s"];
    let across = [2, 3, 0, 1, 0, 7, 2, 3, 0, 1, 0];
    assert_eq!(penalties(&params(&[]), &across, &words)[7], 8.0);
    // "bc" is the end of "ab" and the start of "c!", but the tail is compared as the tokens of "c".
    assert_eq!(penalties(&params(&["bc"]), &across, &words)[7], 8.0);
    assert_eq!(penalties(&params(&["bc!"]), &across, &words)[7], 2.0);
}

#[test]
fn a_breaker_of_whole_tokens_ends_after_its_last() {
    // "ab" as tokens a, b; "bc" repeats after it.
    let tokens = [0, 1, 2, 3, 5, 0, 1, 2, 3];
    assert_eq!(penalties(&params(&["ab"]), &tokens, &LETTERS)[5], 1.0);
}

#[test]
fn a_breaker_cut_within_a_character_is_left_alone() {
    assert_eq!(penalties(&params(&["é"]), &[0, 1, 2, 0, 1], &LETTERS)[2], 1.0);
}

#[test]
fn the_penalty_of_an_endless_repetition_is_finite() {
    let penalty = penalties(&params(&[]), &[0; 1000], &LETTERS)[0];
    assert!(penalty.is_finite() && penalty > 1e38);
}

#[test]
fn emitted_tokens_and_breakers_count_like_those_of_the_prompt() {
    let vocabulary: Arc<dyn Vocabulary> = Arc::new(Words::new(&LETTERS));
    let tokens = [0, 1, 2, 3, 4, 0, 1, 2, 3];
    let params = params(&["b"]);
    let mut dry = Dry::new(&params, &tokens[..1], &vocabulary).expect("on");
    for &token in &tokens[1..] {
        dry.accept(token);
    }
    let mut row = [0.0; 10];
    dry.apply(&mut row, &mut DryScratch::default());
    assert_eq!(row[4], -1.0);
}

#[test]
fn dry_is_off_by_default() {
    assert_eq!(penalties(&DryParams::default(), &[0; 20], &LETTERS), [0.0; 10]);
}

proptest! {
    #[test]
    fn suffix_matches_agree_with_comparing_token_by_token(tokens in prop::collection::vec(0..3, 1..60)) {
        let mut lengths = Vec::new();
        suffix_matches(&tokens, &mut lengths);
        for k in 1..tokens.len() {
            let (earlier, all) = (&tokens[..tokens.len() - k], &tokens[..]);
            let same = earlier.iter().rev().zip(all.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(lengths[k], same);
        }
    }
}
