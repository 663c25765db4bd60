//! Equal prefixes in flight, without a runtime.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::engine::protocol::{MemoryKind, Placement, SequenceId};
use crate::scheduler::policy::tests::{reserves, unwanted};
use crate::scheduler::policy::{Company, Event, PolicyLimits};
use crate::scheduler::queue::Served;

/// `shared` tokens that all have in common, then ten that only `request` has.
fn tokens(shared: usize, request: RequestId) -> Arc<[Token]> {
    (0..shared as Token).chain((0..10).map(|at| 1_000_000 + 100 * request as Token + at)).collect()
}

fn submit(request: RequestId, priority: i32, shared: usize) -> Event {
    Event::Submit {
        request,
        tokens: tokens(shared, request),
        standing: Standing { priority, tenant: TenantId::NOBODY, arrived_us: request },
        served: Served::Nothing,
        company: Company::Any,
        prefixes: Prefixes { tenant: TenantId::NOBODY, reuse: Reuse::Allowed },
    }
}

fn reserved(request: RequestId, sequence: SequenceId) -> Event {
    Event::Reserved { request, sequence, placement: Placement::Fresh, cached: 0 }
}

fn ready(running: usize) -> Policy {
    let mut policy = Policy::new(PolicyLimits { running, n_ctx: 100_000 }, MemoryKind::Attention);
    policy.handle(Event::CacheReady, &mut Vec::new());
    policy
}

fn handle(policy: &mut Policy, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    policy.handle(event, &mut actions);
    actions
}

#[test]
fn when_one_has_prefilled_the_common_part_the_others_start_together() {
    let mut policy = ready(16);
    let first: Vec<_> = (1..=16).flat_map(|request| reserves(&handle(&mut policy, submit(request, 0, 400)))).collect();
    assert_eq!(first, vec![1]);
    handle(&mut policy, reserved(1, 3));
    assert_eq!(policy.prefilled(1, 154), Woken::Nobody);
    assert_eq!(policy.prefilled(1, 10), Woken::Somebody);
    let actions = handle(&mut policy, Event::Woken);
    assert_eq!(actions[0], Action::Computed { sequence: 3, tokens: 400 }, "said before anybody needs it");
    assert_eq!(reserves(&actions), (2..=16).collect::<Vec<_>>());
}

#[test]
fn those_behind_a_waiting_request_are_not_held_up() {
    let mut policy = ready(16);
    handle(&mut policy, submit(1, 0, 400));
    assert!(reserves(&handle(&mut policy, submit(2, 0, 400))).is_empty());
    assert_eq!(policy.position(2), Some(0));
    assert_eq!(reserves(&handle(&mut policy, submit(3, 0, 20))), vec![3]);
}

#[test]
fn a_producer_inherits_a_better_rank_for_as_long_as_it_is_waited_for() {
    let mut policy = ready(16);
    handle(&mut policy, submit(1, 5, 400));
    handle(&mut policy, reserved(1, 0));
    let waiter = Standing { priority: -5, tenant: TenantId::NOBODY, arrived_us: 2 };
    let own = Standing { priority: 5, arrived_us: 1, ..waiter };
    assert_eq!(handle(&mut policy, submit(2, -5, 400))[0], Action::SetRank { request: 1, rank: waiter.rank() });
    let actions = handle(&mut policy, unwanted(2));
    assert!(actions.contains(&Action::SetRank { request: 1, rank: own.rank() }), "{actions:?}");
}

#[test]
fn a_producer_that_ends_hands_over_to_the_first_that_waits() {
    let mut policy = ready(16);
    for request in 1..=3 {
        handle(&mut policy, submit(request, 0, 400));
    }
    handle(&mut policy, reserved(1, 0));
    assert_eq!(policy.prefilled(1, 300), Woken::Nobody);
    let ended = Event::Ended { request: 1, sequence: 0, kv_tokens: 110 };
    assert_eq!(reserves(&handle(&mut policy, ended)), vec![2]);
}

/// Engine, kv-cache and sessions, reduced to what the policy sees of them.
#[derive(Debug)]
struct World {
    policy: Policy,
    /// Not yet forgotten, with priority and shared tokens.
    open: BTreeMap<RequestId, (i32, usize)>,
    forgotten: Vec<RequestId>,
    asked: VecDeque<RequestId>,
    /// With the tokens that have no KV yet.
    running: Vec<(RequestId, SequenceId, usize)>,
    free: Vec<SequenceId>,
}

const PLACES: usize = 3;

impl World {
    fn new() -> Self {
        Self {
            policy: ready(PLACES),
            open: BTreeMap::new(),
            forgotten: Vec::new(),
            asked: VecDeque::new(),
            running: Vec::new(),
            free: (0..PLACES as SequenceId).collect(),
        }
    }

    fn event(&mut self, event: Event) {
        for action in handle(&mut self.policy, event) {
            match action {
                Action::Reserve { request, .. } => self.asked.push_back(request),
                Action::Admit { request, sequence, .. } => {
                    let left = tokens(self.open[&request].1, request).len();
                    self.running.push((request, sequence, left));
                }
                Action::Release { sequence, .. } | Action::Abandon(sequence) => self.free.push(sequence),
                Action::Forget(request) => {
                    self.open.remove(&request);
                    self.forgotten.push(request);
                }
                Action::Preempted(request) => self.submit(request),
                _ => {}
            }
        }
    }

    fn submit(&mut self, request: RequestId) {
        let (priority, shared) = self.open[&request];
        self.event(submit(request, priority, shared));
    }

    fn answer(&mut self) {
        if let Some(request) = self.asked.pop_front() {
            match self.free.pop() {
                Some(sequence) => self.event(reserved(request, sequence)),
                None => self.event(Event::NoSequence(request)),
            }
        }
    }

    fn compute(&mut self, at: usize) {
        let Some((request, _, left)) = self.running.get_mut(at) else { return };
        *left = left.saturating_sub(60);
        let (request, left) = (*request, *left);
        let woken = if left == 0 { self.policy.emitted(request, &[7]) } else { self.policy.prefilled(request, left) };
        if woken == Woken::Somebody {
            self.event(Event::Woken);
        }
    }

    fn end(&mut self, at: usize) {
        if at < self.running.len() {
            let (request, sequence, left) = self.running.remove(at);
            let kv_tokens = tokens(self.open[&request].1, request).len() - left;
            self.event(Event::Ended { request, sequence, kv_tokens });
        }
    }

    /// A new scheduler: everything that is open is submitted again.
    fn restart(&mut self) {
        let open = std::mem::take(&mut self.open);
        *self = Self { forgotten: std::mem::take(&mut self.forgotten), ..Self::new() };
        self.open = open.clone();
        open.keys().for_each(|request| self.submit(*request));
    }
}

proptest! {
    /// Whatever is submitted, cancelled, ended, preempted or restarted: no request waits for ever, and a place is not left
    /// empty while somebody waits for nobody.
    #[test]
    fn every_request_gets_to_run(choices in prop::collection::vec(any::<u16>(), 20..250)) {
        let mut world = World::new();
        let mut next: RequestId = 0;
        for choice in choices {
            let pick = usize::from(choice / 16) % PLACES;
            match choice % 16 {
                0..=4 => {
                    next += 1;
                    world.open.insert(next, (i32::from(choice / 16) % 3, [20, 100, 300][usize::from(choice / 64) % 3]));
                    world.submit(next);
                }
                5 => world.event(unwanted(u64::from(choice / 16) % (next + 1))),
                6..=8 => world.answer(),
                9..=12 => world.compute(pick),
                13 => world.end(pick),
                14 => world.event(Event::NoRoom),
                _ => world.restart(),
            }
            let placed = world.running.len() + world.asked.len();
            prop_assert!(placed <= PLACES);
            let aside = world.policy.sharing.waiters().count();
            let full = world.policy.active() == PLACES || world.policy.cache != crate::scheduler::policy::Cache::Ready;
            prop_assert!(full || world.policy.waiting() == aside, "an empty place and somebody who waits for nobody");
        }
        for round in 0..6000 {
            world.answer();
            world.compute(round % PLACES);
            if world.running.first().is_some_and(|(_, _, left)| *left == 0) {
                world.end(0);
            } else if let Some(at) = world.running.iter().position(|(_, _, left)| *left == 0) {
                world.end(at);
            }
        }
        world.forgotten.sort_unstable();
        prop_assert_eq!(world.forgotten, (1..=next).collect::<Vec<_>>());
        prop_assert_eq!((world.policy.waiting(), world.policy.active()), (0, 0));
        prop_assert!(world.policy.prefixes.is_empty());
    }

    /// However many of its own class and of worse ones keep coming, sharing prefixes with it and with each other: not more
    /// than a few are answered before it runs that came after it. A producer reads for six rounds, and each of those before
    /// it may hold a place for one more; the most in 400,000 cases were 22.
    #[test]
    fn nobody_is_overtaken_for_ever(before in 0u64..12, kinds in prop::collection::vec((0u8..2, 0usize..3), 400)) {
        let most = 6 * PLACES + before as usize;
        let mut world = World::new();
        let arrive = |world: &mut World, request: RequestId| {
            let (worse, shared) = kinds[request as usize % kinds.len()];
            world.open.insert(request, (1 + i32::from(worse), [20, 100, 300][shared]));
            world.submit(request);
        };
        (1..=before).for_each(|request| arrive(&mut world, request));
        let mine = before + 1;
        world.open.insert(mine, (1, 300));
        world.submit(mine);
        for next in mine + 1..mine + 300 {
            arrive(&mut world, next);
            world.answer();
            for place in 0..PLACES {
                world.compute(place);
            }
            if let Some(at) = world.running.iter().position(|(_, _, left)| *left == 0) {
                world.end(at);
            }
            let runs = world.running.iter().any(|(request, ..)| *request == mine) || world.forgotten.contains(&mine);
            let overtakers = world.forgotten.iter().filter(|request| **request > mine).count();
            prop_assert!(runs || overtakers <= most, "{overtakers} after {before}");
            if runs {
                return Ok(());
            }
        }
        prop_assert!(false, "it never ran");
    }
}
