//! Order, places and cells, without a runtime.

use proptest::prelude::*;

use super::*;
use crate::kv_cache::index::Reuse;
use crate::request::TenantId;
use crate::scheduler::sharing::Woken;

const ROOMY: PolicyLimits = PolicyLimits { running: 2, n_ctx: 10_000 };

impl Policy {
    pub(super) fn position(&self, request: RequestId) -> Option<usize> {
        self.queue.position(request)
    }
}

fn ready(limits: PolicyLimits) -> Policy {
    let mut policy = Policy::new(limits, MemoryKind::Attention);
    policy.handle(Event::CacheReady, &mut Vec::new());
    policy
}

fn handle(policy: &mut Policy, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    policy.handle(event, &mut actions);
    actions
}

/// Of class 0, on nobody's behalf.
fn arrival(request: RequestId, arrived_us: u64, tokens: usize) -> Event {
    of_class(0, request, arrived_us, tokens)
}

fn of_class(priority: i32, request: RequestId, arrived_us: u64, tokens: usize) -> Event {
    Event::Submit {
        request,
        tokens: (1..=tokens as Token).collect(),
        standing: Standing { priority, tenant: TenantId::NOBODY, arrived_us },
        served: Served::Nothing,
        company: Company::Any,
        prefixes: Prefixes { tenant: TenantId::NOBODY, reuse: Reuse::Allowed },
    }
}

fn submit(policy: &mut Policy, request: RequestId, arrived_us: u64) -> Vec<Action> {
    handle(policy, arrival(request, arrived_us, 3))
}

fn reserved(request: RequestId, sequence: SequenceId) -> Event {
    Event::Reserved { request, sequence, placement: Placement::Fresh, cached: 0 }
}

pub(super) fn unwanted(request: RequestId) -> Event {
    Event::Cancel { request, leave: Leave::Unwanted }
}

fn ended(request: RequestId, sequence: SequenceId) -> Event {
    Event::Ended { request, sequence, kv_tokens: 2 }
}

pub(super) fn reserves(actions: &[Action]) -> Vec<RequestId> {
    let reserve = |action: &Action| match action {
        Action::Reserve { request, .. } => Some(*request),
        _ => None,
    };
    actions.iter().filter_map(reserve).collect()
}

#[test]
fn nothing_runs_before_the_cache_is_ready() {
    let mut policy = Policy::new(ROOMY, MemoryKind::Attention);
    assert!(reserves(&submit(&mut policy, 1, 1)).is_empty());
    assert_eq!(reserves(&handle(&mut policy, Event::CacheReady)), vec![1]);
}

#[test]
fn first_come_first_served_and_places_are_bounded() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 10);
    submit(&mut policy, 2, 20);
    assert!(reserves(&submit(&mut policy, 3, 40)).is_empty());
    assert!(reserves(&submit(&mut policy, 4, 30)).is_empty());
    assert_eq!((policy.position(4), policy.position(3)), (Some(0), Some(1)));
    handle(&mut policy, reserved(1, 0));
    assert_eq!(reserves(&handle(&mut policy, ended(1, 0))), vec![4]);
}

#[test]
fn missed_deadlines_close_places_and_answers_open_them() {
    let mut policy = ready(PolicyLimits { running: 4, n_ctx: 10_000 });
    (1..=40).for_each(|request| drop(submit(&mut policy, request, request)));
    let start = |policy: &mut Policy, request: RequestId| {
        handle(policy, reserved(request, request as SequenceId));
        let _ = policy.emitted(request, &[7; 5]);
    };
    (1..=4).for_each(|request| start(&mut policy, request));
    for request in [1, 1, 2] {
        let leave = Leave::Missed { most: 10 };
        assert!(reserves(&handle(&mut policy, Event::Cancel { request, leave })).is_empty());
    }
    assert_eq!(policy.places(), 3);
    assert!(reserves(&handle(&mut policy, ended(1, 1))).is_empty(), "three run");
    assert_eq!(reserves(&handle(&mut policy, ended(2, 2))), vec![5]);
    for request in 3..=18 {
        start(&mut policy, request);
        handle(&mut policy, ended(request, request as SequenceId));
    }
    assert_eq!((policy.places(), policy.active()), (4, 4));
}

/// The same, but it takes nobody's prefix and waits for none.
fn by_itself(event: Event) -> Event {
    match event {
        Event::Submit { request, tokens, standing, served, company, prefixes } => {
            let prefixes = Prefixes { reuse: Reuse::Forbidden, ..prefixes };
            Event::Submit { request, tokens, standing, served, company, prefixes }
        }
        other => other,
    }
}

#[test]
fn what_was_found_in_the_cache_is_no_progress_towards_a_deadline() {
    let mut policy = ready(PolicyLimits { running: 2, n_ctx: 10_000 });
    for request in [1, 2] {
        handle(&mut policy, arrival(request, request, 2000));
        handle(&mut policy, reserved(request, request as SequenceId));
        handle(&mut policy, Event::Started { request, reused: 1999 });
        let _ = policy.emitted(request, &[7]);
        handle(&mut policy, Event::Cancel { request, leave: Leave::Missed { most: 300 } });
    }
    assert_eq!(policy.places(), 2, "alone they would have had 2 of 300 tokens");
}

#[test]
fn the_next_policy_begins_with_the_places_of_the_last() {
    let policy = Policy::new(ROOMY, MemoryKind::Attention);
    assert_eq!(policy.starting_at(Some(1)).places(), 1);
}

#[test]
fn nobody_makes_room_for_one_that_does_not_fit_all_the_same() {
    let mut policy = ready(PolicyLimits { running: 3, n_ctx: 4096 });
    handle(&mut policy, by_itself(arrival(1, 1, 3000)));
    handle(&mut policy, reserved(1, 0));
    handle(&mut policy, by_itself(of_class(10, 2, 2, 100)));
    handle(&mut policy, reserved(2, 1));
    assert_eq!(handle(&mut policy, by_itself(arrival(3, 3, 2000))), vec![Action::WaitingChanged(1)]);
    // Beside the first one there is room for this.
    assert!(handle(&mut policy, by_itself(of_class(-1, 4, 4, 1000))).contains(&Action::CancelInEngine(2)));
}

#[test]
fn cancel_reaches_a_request_wherever_it_is() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 1);
    submit(&mut policy, 2, 2);
    submit(&mut policy, 3, 3);
    assert_eq!(handle(&mut policy, unwanted(3))[0], Action::Forget(3));
    assert!(handle(&mut policy, unwanted(1)).is_empty(), "reserving: known when the answer comes");
    assert_eq!(handle(&mut policy, reserved(1, 0)), vec![Action::Abandon(0), Action::Forget(1)]);
    handle(&mut policy, reserved(2, 1));
    assert_eq!(handle(&mut policy, unwanted(2)), vec![Action::CancelInEngine(2)]);
    assert!(handle(&mut policy, unwanted(2)).is_empty());
    assert!(handle(&mut policy, unwanted(99)).is_empty());
    let actions = handle(&mut policy, ended(2, 1));
    assert_eq!(actions, vec![Action::Release { request: 2, sequence: 1, tokens: vec![1, 2] }, Action::Forget(2)]);
}

#[test]
fn a_released_prefix_holds_prompt_and_emitted_tokens_with_kv() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 1);
    handle(&mut policy, reserved(1, 0));
    let _ = policy.emitted(1, &[7, 8, 9]);
    let actions = handle(&mut policy, Event::Ended { request: 1, sequence: 0, kv_tokens: 5 });
    assert_eq!(actions[0], Action::Release { request: 1, sequence: 0, tokens: vec![1, 2, 3, 7, 8] });
}

#[test]
fn without_room_the_youngest_is_preempted_and_its_kv_freed() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 1);
    submit(&mut policy, 2, 2);
    handle(&mut policy, reserved(1, 0));
    assert!(handle(&mut policy, Event::NoRoom).is_empty(), "a single one always fits");
    handle(&mut policy, reserved(2, 1));
    assert_eq!(handle(&mut policy, Event::NoRoom), vec![Action::CancelInEngine(2)]);
    assert!(handle(&mut policy, Event::NoRoom).is_empty(), "one at a time");
    let actions = handle(&mut policy, ended(2, 1));
    let release = Action::Release { request: 2, sequence: 1, tokens: Vec::new() };
    assert_eq!(actions, vec![Action::Evict(1), release, Action::Preempted(2)]);
}

#[test]
fn a_request_that_would_not_fit_beside_the_others_waits() {
    let mut policy = ready(PolicyLimits { running: 2, n_ctx: 100 });
    let big = |request| arrival(request, request, 60);
    assert_eq!(reserves(&handle(&mut policy, big(1))), vec![1]);
    assert!(reserves(&handle(&mut policy, big(2))).is_empty());
    handle(&mut policy, reserved(1, 0));
    assert_eq!(reserves(&handle(&mut policy, ended(1, 0))), vec![2]);
}

#[test]
fn submitting_again_replaces() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 1);
    handle(&mut policy, reserved(1, 0));
    let again = arrival(1, 1, 4);
    assert_eq!(handle(&mut policy, again), vec![Action::CancelInEngine(1)]);
    assert_eq!(reserves(&handle(&mut policy, ended(1, 0))), vec![1]);
}

#[test]
fn the_engine_is_told_when_somebody_waits() {
    let mut policy = ready(PolicyLimits { running: 1, n_ctx: 1000 });
    assert!(!submit(&mut policy, 1, 1).contains(&Action::WaitingChanged(1)));
    assert!(submit(&mut policy, 2, 2).contains(&Action::WaitingChanged(1)));
    handle(&mut policy, reserved(1, 0));
    assert!(handle(&mut policy, ended(1, 0)).contains(&Action::WaitingChanged(0)));
}

/// Two requests of this class, running on sequences 0 and 1.
fn two_running(limits: PolicyLimits, priority: i32, tokens: usize) -> Policy {
    let mut policy = ready(limits);
    for request in [1, 2] {
        handle(&mut policy, of_class(priority, request, request, tokens));
        handle(&mut policy, reserved(request, request as SequenceId - 1));
    }
    policy
}

#[test]
fn a_better_class_takes_the_place_of_the_youngest_of_the_worst_and_its_prefix_stays() {
    let mut policy = two_running(ROOMY, 5, 3);
    assert!(handle(&mut policy, of_class(5, 3, 3, 3)).iter().all(|it| !matches!(it, Action::CancelInEngine(_))));
    assert_eq!(handle(&mut policy, of_class(0, 4, 4, 3)), vec![Action::CancelInEngine(2)]);
    assert_eq!(handle(&mut policy, of_class(0, 5, 5, 3)), vec![Action::CancelInEngine(1)], "one for each that waits");
    assert!(handle(&mut policy, of_class(0, 6, 6, 3)).is_empty(), "nobody of a worse class is left");
    assert_eq!(policy.position(3), Some(3));
    let _ = policy.emitted(2, &[4]);
    let actions = handle(&mut policy, Event::Ended { request: 2, sequence: 1, kv_tokens: 4 });
    assert_eq!(actions[0], Action::Release { request: 2, sequence: 1, tokens: vec![1, 2, 3, 4] });
    assert_eq!((&actions[1], reserves(&actions)), (&Action::Preempted(2), vec![4]));
    let again = Event::Submit {
        request: 2,
        tokens: vec![1, 2, 3, 4].into(),
        standing: Standing { priority: 5, tenant: TenantId::NOBODY, arrived_us: 2 },
        served: Served::Here,
        company: Company::Any,
        prefixes: Prefixes { tenant: TenantId::NOBODY, reuse: Reuse::Allowed },
    };
    handle(&mut policy, again);
    assert_eq!((policy.position(2), policy.position(3)), (Some(2), Some(3)), "its arrival counts as before");
}

#[test]
fn a_place_that_is_about_to_be_free_costs_nobody_elses() {
    let mut policy = two_running(ROOMY, 5, 3);
    handle(&mut policy, unwanted(1));
    assert!(handle(&mut policy, of_class(0, 3, 3, 3)).iter().all(|it| !matches!(it, Action::CancelInEngine(_))));
    assert_eq!(reserves(&handle(&mut policy, ended(1, 0))), vec![3]);
}

#[test]
fn a_better_class_that_lacks_cells_gets_those_of_a_worse_one() {
    let mut policy = two_running(PolicyLimits { running: 3, n_ctx: 300 }, 5, 60);
    assert!(reserves(&handle(&mut policy, of_class(5, 3, 3, 120))).is_empty(), "no room, and no better class");
    assert_eq!(handle(&mut policy, of_class(0, 4, 4, 120)), vec![Action::CancelInEngine(2)]);
    let actions = handle(&mut policy, Event::Ended { request: 2, sequence: 1, kv_tokens: 60 });
    assert_eq!(actions[..2], [Action::Evict(1), Action::Release { request: 2, sequence: 1, tokens: Vec::new() }]);
    assert_eq!(reserves(&actions), vec![4]);
}

/// The same, but nobody may run beside it.
fn alone(event: Event) -> Event {
    match event {
        Event::Submit { request, tokens, standing, served, prefixes, .. } => {
            Event::Submit { request, tokens, standing, served, company: Company::Nobody, prefixes }
        }
        other => other,
    }
}

#[test]
fn one_that_ran_alone_has_company_from_its_first_token_on() {
    let mut policy = ready(ROOMY);
    handle(&mut policy, alone(arrival(1, 1, 3)));
    handle(&mut policy, reserved(1, 0));
    assert!(reserves(&submit(&mut policy, 2, 2)).is_empty(), "it may kill the engine yet");
    assert_eq!(policy.emitted(1, &[7]), Woken::Somebody);
    assert_eq!(reserves(&handle(&mut policy, Event::Woken)), vec![2]);
    assert_eq!(policy.emitted(1, &[8]), Woken::Nobody);
}

#[test]
fn one_that_is_trusted_again_has_company() {
    let mut policy = two_running(ROOMY, 0, 3);
    handle(&mut policy, alone(arrival(3, 3, 3)));
    handle(&mut policy, arrival(3, 3, 3));
    assert_eq!(reserves(&handle(&mut policy, ended(1, 0))), vec![3], "beside the second one");
}

#[test]
fn one_that_is_cancelled_while_there_is_no_sequence_for_it_is_forgotten() {
    let mut policy = ready(ROOMY);
    handle(&mut policy, alone(arrival(1, 1, 3)));
    assert!(handle(&mut policy, unwanted(1)).is_empty());
    assert_eq!(handle(&mut policy, Event::NoSequence(1)), vec![Action::Forget(1)]);
    assert!(policy.loners.is_empty() && policy.prefixes.is_empty());
}

#[test]
fn one_that_runs_alone_neither_drives_others_out_nor_holds_up_a_better_class() {
    let mut policy = two_running(ROOMY, 5, 3);
    assert_eq!(handle(&mut policy, alone(of_class(0, 3, 3, 3))), vec![Action::WaitingChanged(1)]);
    assert!(reserves(&handle(&mut policy, ended(1, 0))).is_empty());
    assert_eq!(reserves(&handle(&mut policy, ended(2, 1))), vec![3]);
    handle(&mut policy, reserved(3, 0));
    assert!(!handle(&mut policy, of_class(0, 4, 4, 3)).contains(&Action::CancelInEngine(3)), "of the same class");
    assert!(handle(&mut policy, of_class(-1, 5, 5, 3)).contains(&Action::CancelInEngine(3)));
    assert_eq!(reserves(&handle(&mut policy, ended(3, 0))), vec![5, 4]);
}

#[test]
fn a_paused_scheduler_preempts_nobody() {
    let mut policy = two_running(ROOMY, 5, 3);
    handle(&mut policy, Event::SetGate(Gate::Paused));
    assert_eq!(handle(&mut policy, of_class(0, 3, 3, 3)), vec![Action::WaitingChanged(1)]);
    assert_eq!(handle(&mut policy, Event::SetGate(Gate::Open)), vec![Action::CancelInEngine(2)]);
}

#[test]
fn tenants_share_by_what_they_were_served() {
    let mut policy = ready(PolicyLimits { running: 1, n_ctx: 10_000 });
    let of = |tenant: u32, request: RequestId| match arrival(request, request, 3) {
        Event::Submit { tokens, standing, served, company, prefixes, .. } => {
            let standing = Standing { tenant: TenantId(tenant), ..standing };
            Event::Submit { request, tokens, standing, served, company, prefixes }
        }
        other => other,
    };
    (1..=3).for_each(|request| drop(handle(&mut policy, of(1, request))));
    handle(&mut policy, reserved(1, 0));
    handle(&mut policy, of(2, 4));
    let _ = policy.emitted(1, &[7, 7, 7, 7]);
    assert_eq!((policy.position(4), policy.position(2), policy.position(3)), (Some(0), Some(1), Some(2)));
    assert_eq!(reserves(&handle(&mut policy, ended(1, 0))), vec![4]);
}

proptest! {
    /// A model of engine and cache answers every action in random order; in the end every request was forgotten once.
    #[test]
    fn every_request_is_forgotten_exactly_once(choices in prop::collection::vec(any::<u16>(), 50..400)) {
        let mut policy = ready(PolicyLimits { running: 3, n_ctx: 400 });
        let mut next: RequestId = 0;
        let (mut forgotten, mut preempted) = (Vec::new(), Vec::new());
        let (mut reserving, mut running): (Vec<RequestId>, Vec<(RequestId, SequenceId)>) = (Vec::new(), Vec::new());
        let mut free: Vec<SequenceId> = (0..3).collect();
        let drive = |policy: &mut Policy, choice: u16, last: bool, next: &mut RequestId,
                         forgotten: &mut Vec<RequestId>, preempted: &mut Vec<RequestId>,
                         reserving: &mut Vec<RequestId>, running: &mut Vec<(RequestId, SequenceId)>,
                         free: &mut Vec<SequenceId>| {
            let event = match choice % 6 {
                0 if !last => { *next += 1; Some(of_class((*next % 3) as i32, *next, *next, 40)) }
                1 if !last => Some(unwanted(u64::from(choice / 6) % (*next + 1))),
                2 if !last => Some(Event::NoRoom),
                3 => preempted.pop().map(|request| of_class((request % 3) as i32, request, request, 50)),
                4 if !reserving.is_empty() => {
                    let request = reserving.remove(0);
                    Some(match free.pop() { Some(at) => reserved(request, at), None => Event::NoSequence(request) })
                }
                _ if !running.is_empty() => {
                    let (request, sequence) = running.remove(usize::from(choice / 6) % running.len());
                    Some(ended(request, sequence))
                }
                _ => None,
            };
            for action in event.map(|event| handle(policy, event)).unwrap_or_default() {
                match action {
                    Action::Reserve { request, .. } => reserving.push(request),
                    Action::Admit { request, sequence, .. } => running.push((request, sequence)),
                    Action::Release { sequence, .. } | Action::Abandon(sequence) => free.push(sequence),
                    Action::Forget(request) => forgotten.push(request),
                    Action::Preempted(request) => preempted.push(request),
                    _ => {}
                }
            }
        };
        for choice in choices {
            drive(&mut policy, choice, false, &mut next, &mut forgotten, &mut preempted, &mut reserving, &mut running, &mut free);
            prop_assert!(running.len() + reserving.len() <= 3);
        }
        for round in 0..4000u16 {
            drive(&mut policy, 3 + round % 3, true, &mut next, &mut forgotten, &mut preempted, &mut reserving, &mut running, &mut free);
        }
        forgotten.sort_unstable();
        prop_assert_eq!(forgotten, (1..=next).collect::<Vec<_>>());
        prop_assert_eq!((policy.waiting(), policy.active(), free.len()), (0, 0, 3));
    }
}
