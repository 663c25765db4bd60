//! Reuse and eviction as a client would notice them.

use proptest::prelude::*;

use super::*;
use crate::kv_cache::retention::CHEAP_ENTRIES;

const PLENTY: Budget = Budget { entries: 100, tokens: 100_000, shared_once: true, cheap: CHEAP_ENTRIES };

const ME: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);

fn tokens(text: &str) -> Vec<Token> {
    text.bytes().map(Token::from).collect()
}

fn index(n_seq_max: u32, budget: Budget) -> PrefixIndex {
    PrefixIndex::new(n_seq_max, budget, MemoryKind::Attention)
}

fn wanted(tenant: TenantId, tokens: Vec<Token>) -> Wanted {
    Wanted { tenant, tokens: tokens.into(), reuse: Reuse::Allowed }
}

fn reserve(index: &mut PrefixIndex, text: &str) -> Option<Reservation> {
    index.reserve(wanted(ME, tokens(text)))
}

fn release(index: &mut PrefixIndex, sequence: SequenceId, tokens: Vec<Token>) -> Vec<SequenceId> {
    index.release(Held { sequence, tenant: ME, tokens })
}

#[test]
fn a_continued_conversation_stays_in_its_sequence() {
    let mut index = index(4, PLENTY);
    let first = reserve(&mut index, "once upon a time").expect("free");
    assert_eq!(first.placement, Placement::Fresh);
    release(&mut index, first.sequence, tokens("once upon a time there"));
    let second = reserve(&mut index, "once upon a time there was").expect("free");
    assert_eq!(second, Reservation { sequence: first.sequence, placement: Placement::InPlace, cached: 22 });
}

#[test]
fn a_shared_prefix_is_copied_and_stays() {
    let mut index = index(4, PLENTY);
    let first = reserve(&mut index, "once upon a time").expect("free");
    release(&mut index, first.sequence, tokens("once upon a time"));
    let second = reserve(&mut index, "once upon a hill").expect("free");
    assert_eq!(second.placement, Placement::Copy { from: first.sequence, tokens: 12 });
    assert_ne!(second.sequence, first.sequence);
}

#[test]
fn prompt_logprobs_never_reuse() {
    let mut index = index(4, PLENTY);
    release(&mut index, 0, tokens("once upon a time"));
    let all = Wanted { reuse: Reuse::Forbidden, ..wanted(ME, tokens("once upon a time")) };
    let reservation = index.reserve(all).expect("free");
    assert_eq!(reservation.placement, Placement::Fresh);
}

#[test]
fn an_abandoned_reservation_keeps_the_prefix() {
    let mut index = index(2, PLENTY);
    release(&mut index, 0, tokens("once upon a time"));
    let reservation = reserve(&mut index, "once upon a time!").expect("free");
    index.abandon(reservation.sequence);
    assert_eq!(index.retained(), (1, 16));
}

#[test]
fn all_sequences_busy_gives_none() {
    let mut index = index(1, PLENTY);
    reserve(&mut index, "a").expect("free");
    assert_eq!(reserve(&mut index, "b"), None);
}

#[test]
fn room_is_made_least_recently_used_first() {
    let mut index = index(4, PLENTY);
    release(&mut index, 2, tokens("older older"));
    release(&mut index, 1, tokens("newer newer"));
    assert_eq!(index.make_room(5), vec![2]);
    assert_eq!(index.make_room(100), vec![1]);
}

#[test]
fn a_file_serves_whom_it_saves_much_and_is_no_more_when_it_is_gone() {
    let mut index = index(4, PLENTY);
    let file = StoredPrefix { file: 7, tenant: ME, tokens: long(1, 300) };
    index.refill(Vec::new(), vec![file]);
    let stranger = index.reserve(wanted(OTHER, long(1, 300))).expect("free");
    assert_eq!(stranger.placement, Placement::Fresh);
    let restored = index.reserve(wanted(ME, long(1, 200))).expect("free");
    assert_eq!(restored.placement, Placement::Restore { file: 7, tokens: 200 });
    let copied = index.reserve(wanted(ME, long(1, 250))).expect("free");
    assert_eq!(
        copied.placement,
        Placement::Copy { from: restored.sequence, tokens: 200 },
        "fifty are no reason to read"
    );
    index.files_changed(Vec::new(), &[7]);
    let computed = index.reserve(wanted(ME, long(1, 300))).expect("free");
    assert_eq!(computed.cached, 200);
}

fn long(seed: i32, length: i32) -> Vec<Token> {
    (0..length).map(|at| seed * 1000 + at).collect()
}

#[test]
fn a_running_request_serves_others_as_far_as_it_has_computed() {
    let mut index = index(4, PLENTY);
    let first = reserve(&mut index, "once upon a time there was").expect("free");
    assert_eq!(reserve(&mut index, "once upon a time").expect("free").placement, Placement::Fresh);
    index.computed(first.sequence, 12);
    let copy = Placement::Copy { from: first.sequence, tokens: 12 };
    assert_eq!(reserve(&mut index, "once upon a time").expect("free").placement, copy);
}

#[test]
fn no_prefix_serves_another_tenant() {
    let mut index = index(4, PLENTY);
    release(&mut index, 0, tokens("once upon a time"));
    let stranger = index.reserve(wanted(OTHER, tokens("once upon a time there"))).expect("free");
    assert_eq!(stranger.placement, Placement::Fresh);
    assert_eq!(reserve(&mut index, "once upon a time there").expect("free").placement, Placement::InPlace);
}

#[test]
fn a_memory_that_cannot_be_cut_serves_only_what_continues_all_of_it() {
    let mut index = PrefixIndex::new(4, PLENTY, MemoryKind::Recurrent);
    release(&mut index, 0, tokens("once upon a time"));
    release(&mut index, 1, tokens("once upon a"));
    assert_eq!(reserve(&mut index, "once upon a time").map(|it| (it.sequence, it.cached)), Some((1, 11)));
    assert_eq!(reserve(&mut index, "once upon a hill").expect("free").placement, Placement::Fresh);
    assert_eq!(reserve(&mut index, "once upon a time there").expect("free").placement, Placement::InPlace);
}

#[test]
fn a_prefix_that_another_sequence_holds_as_well_is_given_up_at_once() {
    let mut index = index(4, PLENTY);
    release(&mut index, 0, tokens("once upon a time"));
    assert_eq!(release(&mut index, 1, tokens("once upon a time there was")), vec![0]);
    assert_eq!(index.retained(), (1, 26));
}

#[test]
fn tokens_that_several_share_count_once() {
    let mut index = index(4, PLENTY);
    release(&mut index, 0, tokens("once upon a time"));
    release(&mut index, 1, tokens("once upon a hill"));
    assert_eq!(index.retained(), (2, 20));
}

#[test]
fn a_restarted_index_knows_whose_the_prefixes_are() {
    let mut index = index(4, PLENTY);
    index.refill(vec![Held { sequence: 2, tenant: ME, tokens: tokens("once upon a time") }], Vec::new());
    assert_eq!(index.reserve(wanted(OTHER, tokens("once upon a time"))).expect("free").cached, 0);
    assert_eq!(reserve(&mut index, "once upon a time").expect("free").sequence, 2);
}

#[test]
fn short_prefixes_that_nobody_came_back_to_give_way_to_long_and_wanted_ones() {
    let mut index = index(40, PLENTY);
    release(&mut index, 0, long(1, 600));
    release(&mut index, 1, long(2, 100));
    let reservation = index.reserve(wanted(ME, long(2, 101))).expect("free");
    assert_eq!(reservation.placement, Placement::InPlace);
    release(&mut index, 1, long(2, 105));
    let evicted: Vec<SequenceId> = (2..30).flat_map(|at| release(&mut index, at, long(at as i32 + 1, 50))).collect();
    assert_eq!(evicted, (2..22).collect::<Vec<_>>());
    assert_eq!(index.retained().0, 2 + 8);
}

#[test]
fn a_prefix_that_was_wanted_again_outlives_others_but_not_for_ever() {
    let budget = Budget { entries: 2, tokens: 100_000, shared_once: true, cheap: CHEAP_ENTRIES };
    let mut index = index(40, budget);
    release(&mut index, 0, long(1, 600));
    let again = index.reserve(wanted(ME, long(1, 601))).expect("free");
    release(&mut index, again.sequence, long(1, 601));
    let evicted: Vec<SequenceId> = (1..12).flat_map(|at| release(&mut index, at, long(at as i32 + 1, 600))).collect();
    let lived = evicted.iter().position(|sequence| *sequence == again.sequence);
    assert!(lived.is_some_and(|lived| lived >= 2), "{evicted:?}");
}

#[test]
fn where_buffers_share_nothing_a_common_prefix_counts_for_each_that_holds_it() {
    for (shared_once, kept) in [(true, 4), (false, 2)] {
        let mut index = index(10, Budget { entries: 9, tokens: 250, shared_once, cheap: 9 });
        for at in 0..4 {
            release(&mut index, at, [long(1, 90), long(at as i32 + 2, 10)].concat());
        }
        assert_eq!(index.retained().0, kept, "{shared_once}");
        let freed = index.make_room(50);
        assert_eq!(freed.len(), if shared_once { 4 } else { 1 }, "{shared_once}");
    }
}

/// The engine's side: what lies in its sequences.
type Contents = Vec<(TenantId, Vec<Token>)>;

/// What the engine does with an advice; `None`: it was wrong.
fn follow(contents: &mut Contents, reservation: Reservation, wanted: &Wanted) -> Option<()> {
    let (at, cached) = (reservation.sequence as usize, reservation.cached as usize);
    let source = match reservation.placement {
        Placement::Fresh => (wanted.tenant, Vec::new()),
        Placement::InPlace => contents[at].clone(),
        Placement::Copy { from, tokens } if tokens as usize == cached => contents[from as usize].clone(),
        Placement::Copy { .. } | Placement::Restore { .. } => return None,
    };
    let right = source.0 == wanted.tenant && source.1.len() >= cached && wanted.tokens.starts_with(&source.1[..cached]);
    contents[at] = (wanted.tenant, wanted.tokens.to_vec());
    right.then_some(())
}

fn longest(contents: &Contents, wanted: &Wanted) -> usize {
    let common = |held: &[Token]| held.iter().zip(&*wanted.tokens).take_while(|(one, other)| one == other).count();
    contents.iter().filter(|(tenant, _)| *tenant == wanted.tenant).map(|(_, held)| common(held)).max().unwrap_or(0)
}

proptest! {
    /// With requests that compute all they want at once, the advice is always right, and as good as comparing everything.
    #[test]
    fn advice_is_right_and_the_best_there_is(
        events in prop::collection::vec((0u8..4, 1u32..3, "(aaaaaaaa|bbbbbbbb){1,4}[ab]{0,3}"), 1..120),
    ) {
        let budget = Budget { entries: 4, tokens: 90, shared_once: true, cheap: CHEAP_ENTRIES };
        let mut index = index(7, budget);
        let mut contents: Contents = vec![Default::default(); 7];
        let mut busy: Vec<(SequenceId, Wanted)> = Vec::new();
        for (kind, tenant, text) in events {
            if kind < 2 {
                let wanted = wanted(TenantId(tenant), tokens(&text));
                let best = longest(&contents, &wanted);
                let Some(reservation) = index.reserve(wanted.clone()) else {
                    prop_assert_eq!(busy.len(), 7);
                    continue;
                };
                prop_assert!(busy.iter().all(|(sequence, _)| *sequence != reservation.sequence));
                prop_assert_eq!(reservation.cached as usize, if best >= MIN_SHARED { best } else { 0 });
                prop_assert_eq!(follow(&mut contents, reservation, &wanted), Some(()));
                index.computed(reservation.sequence, wanted.tokens.len() as u32);
                busy.push((reservation.sequence, wanted));
            } else if let Some((sequence, wanted)) = busy.pop() {
                let kept = if kind == 2 { wanted.tokens.len() } else { wanted.tokens.len() / 2 };
                contents[sequence as usize].1.truncate(kept);
                let tokens = contents[sequence as usize].1.clone();
                let evicted = index.release(Held { sequence, tenant: wanted.tenant, tokens });
                prop_assert!(evicted.iter().all(|gone| busy.iter().all(|(other, _)| other != gone)));
                evicted.iter().for_each(|gone| contents[*gone as usize] = Default::default());
                let (entries, held) = index.retained();
                prop_assert!(entries <= budget.entries && held <= budget.tokens);
            }
        }
    }
}
