//! Log-probabilities against a full softmax and a full sort.

use proptest::prelude::*;

use super::{LEAST_LOGPROB, token_logprob};
use crate::engine::protocol::Token;
use crate::engine::sampler::Scratch;
use crate::engine::sampler::tests::{Words, row};

fn words(n: usize) -> Words {
    let words: Vec<String> = (0..n).map(|i| format!("w{i}")).collect();
    Words::new(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The obvious way: softmax in double precision and a full sort.
fn slow(row: &[f32]) -> Vec<(Token, f64)> {
    let peak = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mass: f64 = row.iter().filter(|l| !l.is_nan()).map(|&l| (f64::from(l) - f64::from(peak)).exp()).sum();
    let numbers = (0..).zip(row).filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    let mut all: Vec<(Token, f64)> = numbers.map(|(t, &l)| (t, f64::from(l) - f64::from(peak) - mass.ln())).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all
}

proptest! {
    #[test]
    fn logprobs_agree_with_a_full_softmax_and_sort(row in row(1..1000), top_n in 0_usize..=20, at in any::<prop::sample::Index>()) {
        prop_assume!(row.iter().any(|&logit| logit > f32::NEG_INFINITY));
        let token = at.index(row.len()) as Token;
        let (result, slow) = (token_logprob(&row, token, top_n, &words(row.len()), &mut Scratch::default()), slow(&row));
        let expected = slow.iter().find(|(t, _)| *t == token).map_or(f64::from(LEAST_LOGPROB), |(_, p)| *p);
        prop_assert!((f64::from(result.logprob.expect("always set")) - expected).abs() < 1e-5);
        prop_assert_eq!(result.top.len(), top_n.min(slow.len()));
        for ((id, bytes, logprob), (token, expected)) in result.top.iter().zip(&slow) {
            prop_assert_eq!(id, token);
            let word = format!("w{token}");
            prop_assert_eq!(&bytes[..], word.as_bytes());
            prop_assert!((f64::from(*logprob) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn the_token_has_its_bytes_even_if_it_is_a_control_token() {
    let result = token_logprob(&[0.0, 0.0], 1, 0, &Words::new(&["a", "</s>"]), &mut Scratch::default());
    assert_eq!((result.id, &result.bytes[..]), (1, "</s>".as_bytes()));
    assert!((result.logprob.expect("always set") + 2.0_f32.ln()).abs() < 1e-6);
    assert_eq!(result.top, []);
}

#[test]
fn great_logits_do_not_overflow() {
    let result = token_logprob(&[1e30, 1e30, -1e30], 2, 2, &words(3), &mut Scratch::default());
    assert_eq!(result.logprob, Some(LEAST_LOGPROB));
    assert!(result.top.iter().all(|top| (top.2 + 2.0_f32.ln()).abs() < 1e-6));
    let result = token_logprob(&[f32::INFINITY, 0.0], 0, 1, &words(2), &mut Scratch::default());
    assert_eq!((result.logprob, result.top[0].2), (Some(0.0), 0.0));
}

#[test]
fn rows_without_any_probability_give_the_least_value_and_no_alternatives() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let result = token_logprob(&[value; 200], 5, 3, &words(200), &mut Scratch::default());
        assert_eq!((result.logprob, result.top), (Some(LEAST_LOGPROB), vec![]));
    }
}
