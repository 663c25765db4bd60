//! Partial selection against a full sort.

use proptest::prelude::*;

use super::{Candidate, Selection, by_likelihood};
use crate::engine::protocol::Token;
use crate::engine::sampler::tests::row;

fn slow_top(row: &[f32], k: usize) -> Vec<Token> {
    let mut all: Vec<Candidate> = (0..)
        .zip(row)
        .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
        .map(|(id, &logit)| Candidate { id, logit, weight: 0.0 })
        .collect();
    all.sort_by(by_likelihood);
    all.iter().take(k).map(|candidate| candidate.id).collect()
}

fn top(row: &[f32], k: usize) -> Vec<Token> {
    let mut selection = Selection::with_capacity(row.len());
    selection.scan(row);
    selection.top(row, k);
    selection.found.sort_by(by_likelihood);
    selection.found.iter().map(|candidate| candidate.id).collect()
}

proptest! {
    #[test]
    fn top_k_finds_what_a_full_sort_finds(row in row(1..2000), k in 1_usize..100) {
        prop_assert_eq!(top(&row, k), slow_top(&row, k));
    }

    #[test]
    fn scan_and_first_at_find_the_first_greatest(row in row(1..2000)) {
        let mut selection = Selection::default();
        let greatest = selection.scan(&row);
        prop_assert_eq!(selection.first_at(&row, greatest).into_iter().collect::<Vec<_>>(), slow_top(&row, 1));
    }

    #[test]
    fn at_least_finds_all_from_the_floor_on(row in row(1..2000), floor in -10.0_f32..10.0) {
        let mut selection = Selection::default();
        selection.scan(&row);
        selection.at_least(&row, floor);
        let found: Vec<Token> = selection.found.iter().map(|candidate| candidate.id).collect();
        let expected: Vec<Token> = (0..).zip(&row).filter(|(_, logit)| **logit >= floor).map(|(id, _)| id).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_row_of_negative_infinity_has_no_first_token() {
    let (row, mut selection) = ([f32::NEG_INFINITY; 300], Selection::default());
    let greatest = selection.scan(&row);
    assert_eq!(selection.first_at(&row, greatest), None);
}

#[test]
fn equal_logits_are_taken_by_id() {
    assert_eq!(top(&[1.0; 700], 3), [0, 1, 2]);
}

#[test]
fn nan_and_negative_infinity_are_never_found() {
    let mut row = vec![f32::NAN; 300];
    row[200] = f32::NEG_INFINITY;
    assert!(top(&row, 5).is_empty());
    row[299] = f32::MIN;
    assert_eq!(top(&row, 5), [299]);
}
