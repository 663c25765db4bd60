//! Reuse and eviction as a client would notice them.

use proptest::prelude::*;

use super::*;

const PLENTY: Budget = Budget { entries: 100, tokens: 100_000 };

fn tokens(text: &str) -> Vec<Token> {
    text.bytes().map(Token::from).collect()
}

fn reserve(index: &mut PrefixIndex, text: &str) -> Option<Reservation> {
    index.reserve(&tokens(text).into(), Reuse::Allowed)
}

#[test]
fn a_continued_conversation_stays_in_its_sequence() {
    let mut index = PrefixIndex::new(4, PLENTY);
    let first = reserve(&mut index, "once upon a time").expect("free");
    assert_eq!(first.placement, Placement::Fresh);
    index.release(first.sequence, tokens("once upon a time there"));
    let second = reserve(&mut index, "once upon a time there was").expect("free");
    assert_eq!(second, Reservation { sequence: first.sequence, placement: Placement::InPlace });
}

#[test]
fn a_shared_prefix_is_copied_and_stays() {
    let mut index = PrefixIndex::new(4, PLENTY);
    let first = reserve(&mut index, "once upon a time").expect("free");
    index.release(first.sequence, tokens("once upon a time"));
    let second = reserve(&mut index, "once upon a hill").expect("free");
    assert_eq!(second.placement, Placement::Copy { from: first.sequence, tokens: 12 });
    assert_ne!(second.sequence, first.sequence);
}

#[test]
fn prompt_logprobs_never_reuse() {
    let mut index = PrefixIndex::new(4, PLENTY);
    index.release(0, tokens("once upon a time"));
    let reservation = index.reserve(&tokens("once upon a time").into(), Reuse::Forbidden).expect("free");
    assert_eq!(reservation.placement, Placement::Fresh);
}

#[test]
fn an_abandoned_reservation_keeps_the_prefix() {
    let mut index = PrefixIndex::new(2, PLENTY);
    index.release(0, tokens("once upon a time"));
    let reservation = reserve(&mut index, "once upon a time!").expect("free");
    index.abandon(reservation.sequence);
    assert_eq!(index.retained(), (1, 16));
}

#[test]
fn all_sequences_busy_gives_none() {
    let mut index = PrefixIndex::new(1, PLENTY);
    reserve(&mut index, "a").expect("free");
    assert_eq!(reserve(&mut index, "b"), None);
}

#[test]
fn room_is_made_least_recently_used_first() {
    let mut index = PrefixIndex::new(4, PLENTY);
    index.release(2, tokens("older older"));
    index.release(1, tokens("newer newer"));
    assert_eq!(index.make_room(5), vec![2]);
    assert_eq!(index.make_room(100), vec![1]);
}

fn long(seed: i32, length: i32) -> Vec<Token> {
    (0..length).map(|at| seed * 1000 + at).collect()
}

#[test]
fn short_prefixes_that_nobody_came_back_to_give_way_to_long_and_wanted_ones() {
    let mut index = PrefixIndex::new(40, PLENTY);
    index.release(0, long(1, 600));
    index.release(1, long(2, 100));
    let reservation = index.reserve(&long(2, 101).into(), Reuse::Allowed).expect("free");
    assert_eq!(reservation.placement, Placement::InPlace);
    index.release(1, long(2, 105));
    let evicted: Vec<SequenceId> = (2..30).flat_map(|at| index.release(at, long(at as i32 + 1, 50))).collect();
    assert_eq!(evicted, (2..22).collect::<Vec<_>>());
    assert_eq!(index.retained().0, 2 + CHEAP_ENTRIES);
}

proptest! {
    #[test]
    fn budget_holds_and_busy_sequences_are_never_given_twice(
        events in prop::collection::vec((0u8..3, "[ab]{1,24}"), 1..120),
    ) {
        let budget = Budget { entries: 3, tokens: 40 };
        let mut index = PrefixIndex::new(6, budget);
        let mut busy: Vec<(SequenceId, String)> = Vec::new();
        for (kind, text) in events {
            match kind {
                0 => if let Some(reservation) = reserve(&mut index, &text) {
                    prop_assert!(busy.iter().all(|(sequence, _)| *sequence != reservation.sequence));
                    busy.push((reservation.sequence, text));
                } else {
                    prop_assert_eq!(busy.len(), 6);
                },
                1 => if let Some((sequence, text)) = busy.pop() {
                    let evicted = index.release(sequence, tokens(&text));
                    // What is abandoned may exceed the budget, until the next release.
                    let (entries, held) = index.retained();
                    prop_assert!(entries <= budget.entries && held <= budget.tokens);
                    prop_assert!(evicted.iter().all(|gone| busy.iter().all(|(other, _)| other != gone)));
                },
                _ => if let Some((sequence, _)) = busy.pop() { index.abandon(sequence) },
            }
        }
    }
}
