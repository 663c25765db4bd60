//! Who waits, for how long, and that nobody waits for ever.

use proptest::prelude::*;

use super::*;
use crate::engine::protocol::Token;
use crate::request::TenantId;

/// `shared` tokens that all have in common, then `own` that nobody else has.
fn wanted(shared: usize, own: usize, who: Token) -> Wanted {
    let tokens: Vec<Token> =
        (0..shared as Token).chain((0..own as Token).map(|at| 1_000_000 * (who + 1) + at)).collect();
    Wanted { tenant: TenantId(0), tokens: tokens.into(), reuse: Reuse::Allowed }
}

fn sharing() -> Sharing {
    Sharing::new(MemoryKind::Attention)
}

#[test]
fn the_second_waits_until_the_first_has_computed_what_both_need() {
    let mut sharing = sharing();
    assert_eq!(sharing.turn(1, &wanted(400, 30, 1)), Turn::Now);
    sharing.begins(1, wanted(400, 30, 1));
    assert_eq!(sharing.turn(2, &wanted(400, 30, 2)), Turn::After(1));
    assert_eq!(sharing.placed(1, 0), Woken::Nobody);
    assert_eq!(sharing.prefilled(1, 174), Woken::Nobody);
    assert_eq!(sharing.turn(2, &wanted(400, 30, 2)), Turn::After(1));
    assert_eq!(sharing.prefilled(1, 30), Woken::Somebody);
    assert_eq!(sharing.turn(2, &wanted(400, 30, 2)), Turn::Now);
}

#[test]
fn nobody_waits_for_little_or_for_what_is_cached() {
    let mut sharing = sharing();
    sharing.begins(1, wanted(63, 200, 1));
    assert_eq!(sharing.turn(2, &wanted(63, 200, 2)), Turn::Now);
    sharing.begins(3, wanted(400, 30, 3));
    assert_eq!(sharing.placed(3, 340), Woken::Nobody);
    assert_eq!(sharing.turn(4, &wanted(400, 30, 4)), Turn::Now);
}

#[test]
fn when_it_shows_that_little_is_to_be_computed_nobody_waits_longer() {
    let mut sharing = sharing();
    sharing.begins(1, wanted(400, 30, 1));
    assert_eq!(sharing.turn(2, &wanted(400, 30, 2)), Turn::After(1));
    assert_eq!(sharing.placed(1, 340), Woken::Somebody);
    assert_eq!(sharing.turn(2, &wanted(400, 30, 2)), Turn::Now);
}

#[test]
fn an_equal_prompt_waits_for_all_but_the_last_token() {
    let mut sharing = sharing();
    sharing.begins(1, wanted(100, 0, 1));
    let _ = sharing.placed(1, 0);
    assert_eq!(sharing.turn(2, &wanted(100, 0, 2)), Turn::After(1));
    assert_eq!(sharing.prefilled(1, 2), Woken::Nobody);
    assert_eq!(sharing.prefilled(1, 1), Woken::Somebody);
}

#[test]
fn nobody_waits_for_another_tenant_or_with_a_memory_that_cannot_be_cut() {
    let foreign = Wanted { tenant: TenantId(7), ..wanted(400, 30, 2) };
    let all = Wanted { reuse: Reuse::Forbidden, ..wanted(400, 30, 2) };
    let mut attention = sharing();
    attention.begins(1, wanted(400, 30, 1));
    assert_eq!(attention.turn(2, &foreign), Turn::Now);
    assert_eq!(attention.turn(3, &all), Turn::Now, "prompt logprobs compute every token");
    let mut attention = sharing();
    attention.begins(3, all);
    assert_eq!(attention.turn(1, &wanted(400, 30, 1)), Turn::Now, "also what the cache has");
    let mut recurrent = Sharing::new(MemoryKind::Recurrent);
    recurrent.begins(1, wanted(400, 30, 1));
    assert_eq!(recurrent.turn(2, &wanted(400, 30, 2)), Turn::Now);
}

#[test]
fn when_a_producer_ends_the_first_waiter_goes_on_and_the_others_wait_for_it() {
    let mut sharing = sharing();
    sharing.begins(1, wanted(400, 30, 1));
    for waiter in [2, 3] {
        assert_eq!(sharing.turn(waiter, &wanted(400, 30, waiter as Token)), Turn::After(1));
    }
    assert_eq!(sharing.ends(1), Woken::Somebody);
    assert_eq!(sharing.turn(2, &wanted(400, 30, 2)), Turn::Now);
    sharing.begins(2, wanted(400, 30, 2));
    assert_eq!(sharing.turn(3, &wanted(400, 30, 3)), Turn::After(2));
}

/// A scheduler reduced to its queue and places.
#[derive(Debug, Default)]
struct Model {
    queue: Vec<RequestId>,
    /// With the tokens that have no KV yet.
    running: Vec<(RequestId, usize)>,
    begun: Vec<RequestId>,
}

const PLACES: usize = 3;

impl Model {
    /// Requests in three families, with prefixes of three lengths.
    fn wanted(request: RequestId) -> Wanted {
        let shared = [40, 100, 300][request as usize / 3 % 3];
        let mut wanted = wanted(shared, 10 + request as usize % 7, request as Token);
        wanted.tenant = TenantId(request as u32 % 2);
        wanted
    }

    fn fill(&mut self, sharing: &mut Sharing) {
        let mut at = 0;
        while self.running.len() < PLACES && at < self.queue.len() {
            let request = self.queue[at];
            match sharing.turn(request, &Self::wanted(request)) {
                Turn::After(_) => at += 1,
                Turn::Now => {
                    self.queue.remove(at);
                    sharing.begins(request, Self::wanted(request));
                    self.running.push((request, Self::wanted(request).tokens.len()));
                    self.begun.push(request);
                }
            }
        }
    }
}

proptest! {
    /// Whatever happens to the producers, every request that is not cancelled gets its turn, and a place is never left
    /// empty for one that waits for nobody.
    #[test]
    fn every_request_gets_its_turn(choices in prop::collection::vec(any::<u16>(), 20..300)) {
        let (mut sharing, mut model) = (sharing(), Model::default());
        let (mut next, mut cancelled): (RequestId, Vec<RequestId>) = (0, Vec::new());
        let drain = std::iter::repeat_n(0u16, 3000).enumerate().map(|(at, _)| 1 + (at as u16 % 2));
        for (choice, last) in choices.iter().map(|choice| (*choice, false)).chain(drain.map(|choice| (choice, true))) {
            let pick = usize::from(choice / 5);
            let before = sharing.waits.len();
            let woken = match choice % 5 {
                0 => { next += 1; model.queue.push(next); Woken::Somebody }
                1 if !model.running.is_empty() => {
                    let at = pick % model.running.len();
                    let (request, left) = &mut model.running[at];
                    *left = left.saturating_sub(50);
                    let (request, left) = (*request, *left);
                    // Nobody prefills for ever.
                    if left == 0 && last { model.running.remove(at); let _ = sharing.ends(request); Woken::Somebody }
                    else { sharing.prefilled(request, left) }
                }
                2 if !model.running.is_empty() => {
                    let (request, _) = model.running.remove(pick % model.running.len());
                    let _ = sharing.ends(request);
                    Woken::Somebody
                }
                3 if !model.running.is_empty() => {
                    let (request, left) = model.running[pick % model.running.len()];
                    sharing.placed(request, Model::wanted(request).tokens.len() - left)
                }
                4 if !model.queue.is_empty() => {
                    let request = model.queue.remove(pick % model.queue.len());
                    sharing.forget(request);
                    cancelled.push(request);
                    Woken::Nobody
                }
                _ => Woken::Nobody,
            };
            if woken == Woken::Somebody {
                model.fill(&mut sharing);
            } else if choice % 5 != 4 {
                prop_assert_eq!(before, sharing.waits.len(), "a wait ended and nobody was told");
            }
            let ready = model.queue.iter().filter(|request| !sharing.waits(**request)).count();
            prop_assert!(ready == 0 || model.running.len() == PLACES, "a place is empty, {} could run", ready);
            for (request, wait) in &sharing.waits {
                prop_assert!(model.queue.contains(request));
                prop_assert!(model.running.iter().any(|(running, _)| *running == wait.producer));
            }
        }
        let mut all = [model.begun, cancelled].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (1..=next).collect::<Vec<_>>());
    }
}
