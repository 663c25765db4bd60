//! Order, places and cells, without a runtime.

use proptest::prelude::*;

use super::*;

const ROOMY: PolicyLimits = PolicyLimits { running: 2, n_ctx: 10_000 };

fn ready(limits: PolicyLimits) -> Policy {
    let mut policy = Policy::new(limits);
    policy.handle(Event::CacheReady, &mut Vec::new());
    policy
}

fn handle(policy: &mut Policy, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    policy.handle(event, &mut actions);
    actions
}

fn submit(policy: &mut Policy, request: RequestId, rank: u64) -> Vec<Action> {
    handle(policy, Event::Submit { request, tokens: vec![1, 2, 3].into(), rank, company: Company::Any })
}

fn reserved(request: RequestId, sequence: SequenceId) -> Event {
    Event::Reserved { request, sequence, placement: Placement::Fresh }
}

fn ended(request: RequestId, sequence: SequenceId) -> Event {
    Event::Ended { request, sequence, kv_tokens: 2 }
}

fn reserves(actions: &[Action]) -> Vec<RequestId> {
    let reserve = |action: &Action| match action {
        Action::Reserve { request, .. } => Some(*request),
        _ => None,
    };
    actions.iter().filter_map(reserve).collect()
}

#[test]
fn nothing_runs_before_the_cache_is_ready() {
    let mut policy = Policy::new(ROOMY);
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
fn cancel_reaches_a_request_wherever_it_is() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 1);
    submit(&mut policy, 2, 2);
    submit(&mut policy, 3, 3);
    assert_eq!(handle(&mut policy, Event::Cancel(3))[0], Action::Forget(3));
    assert!(handle(&mut policy, Event::Cancel(1)).is_empty(), "reserving: known when the answer comes");
    assert_eq!(handle(&mut policy, reserved(1, 0)), vec![Action::Abandon(0), Action::Forget(1)]);
    handle(&mut policy, reserved(2, 1));
    assert_eq!(handle(&mut policy, Event::Cancel(2)), vec![Action::CancelInEngine(2)]);
    assert!(handle(&mut policy, Event::Cancel(2)).is_empty());
    assert!(handle(&mut policy, Event::Cancel(99)).is_empty());
    let actions = handle(&mut policy, ended(2, 1));
    assert_eq!(actions, vec![Action::Release { request: 2, sequence: 1, tokens: vec![1, 2] }, Action::Forget(2)]);
}

#[test]
fn a_released_prefix_holds_prompt_and_emitted_tokens_with_kv() {
    let mut policy = ready(ROOMY);
    submit(&mut policy, 1, 1);
    handle(&mut policy, reserved(1, 0));
    policy.emitted(1, &[7, 8, 9]);
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
    let big = |request| Event::Submit { request, tokens: vec![1; 60].into(), rank: request, company: Company::Any };
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
    let again = Event::Submit { request: 1, tokens: vec![1, 2, 3, 4].into(), rank: 1, company: Company::Any };
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
                0 if !last => { *next += 1; Some(Event::Submit { request: *next, tokens: vec![1; 40].into(), rank: *next, company: Company::Any }) }
                1 if !last => Some(Event::Cancel(u64::from(choice / 6) % (*next + 1))),
                2 if !last => Some(Event::NoRoom),
                3 => preempted.pop().map(|request| Event::Submit { request, tokens: vec![1; 50].into(), rank: request, company: Company::Any }),
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
