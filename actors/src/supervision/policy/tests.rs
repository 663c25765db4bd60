//! The policy against a model world in which anything may happen in any order.

use std::time::Duration;

use proptest::prelude::{Just, any, prop_assert, prop_oneof, proptest};
use proptest::strategy::Strategy as Generator;

use super::*;
use crate::supervision::rules::{Backoff, Intensity};

const SECOND: Duration = Duration::from_secs(1);

/// What a world does next; the numbers select among what is possible, by remainder.
#[derive(Debug, Clone, Copy)]
enum Step {
    Start(usize),
    FailStart(usize),
    Crash(usize),
    Finish(usize),
    EndStop(usize, u8),
    Fire(usize),
    Restart(usize),
    Wait(u16),
    StopAll,
}

fn any_step() -> impl Generator<Value = Step> {
    prop_oneof![
        8 => any::<usize>().prop_map(Step::Start),
        2 => any::<usize>().prop_map(Step::FailStart),
        4 => any::<usize>().prop_map(Step::Crash),
        1 => any::<usize>().prop_map(Step::Finish),
        6 => (any::<usize>(), any::<u8>()).prop_map(|(n, how)| Step::EndStop(n, how)),
        4 => any::<usize>().prop_map(Step::Fire),
        1 => any::<usize>().prop_map(Step::Restart),
        3 => any::<u16>().prop_map(Step::Wait),
        1 => Just(Step::StopAll),
    ]
}

fn any_rules() -> impl Generator<Value = Rules> {
    let strategy = prop_oneof![Just(Strategy::OneForOne), Just(Strategy::OneForAll), Just(Strategy::RestForOne)];
    let hold = WhenExhausted::Hold { retry_after: 60 * SECOND };
    let when_exhausted = prop_oneof![Just(WhenExhausted::Escalate), Just(hold)];
    (strategy, 0_u32..5, when_exhausted).prop_map(|(strategy, max_restarts, when_exhausted)| Rules {
        strategy,
        intensity: Intensity { max_restarts, period: 10 * SECOND },
        backoff: Backoff { reset_after: 5 * SECOND, ..Backoff::default() },
        when_exhausted,
    })
}

fn any_children() -> impl Generator<Value = Vec<Restart>> {
    let kind = prop_oneof![3 => Just(Restart::Permanent), 1 => Just(Restart::Transient), 1 => Just(Restart::Temporary)];
    proptest::collection::vec(kind, 1..5)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Starting,
    Running,
    /// Being stopped; `true` if it was still starting.
    Stopping(bool),
}

/// The supervisor's shell, reduced to what it may do, and everything that must hold.
struct World {
    policy: Policy,
    rules: Rules,
    kinds: Vec<Restart>,
    now: Duration,
    lives: Vec<Option<(Epoch, Life)>>,
    timers: Vec<(u64, Duration)>,
    last_epoch: Epoch,
    starts: Vec<u32>,
    asked: Vec<bool>,
    scheduled: Vec<Duration>,
    stopping_all: bool,
    outcome: Option<Outcome>,
    kinds_seen: Vec<EventKind>,
    start_order: Vec<usize>,
    stop_order: Vec<usize>,
}

impl World {
    fn new(rules: Rules, kinds: &[Restart]) -> Self {
        let mut policy = Policy::new(rules, EpochSource::default());
        for (index, kind) in kinds.iter().enumerate() {
            policy.insert(index.to_string(), *kind);
        }
        let n = kinds.len();
        let mut world = Self {
            policy,
            rules,
            kinds: kinds.to_vec(),
            now: Duration::ZERO,
            lives: vec![None; n],
            timers: Vec::new(),
            last_epoch: 0,
            starts: vec![0; n],
            asked: vec![false; n],
            scheduled: Vec::new(),
            stopping_all: false,
            outcome: None,
            kinds_seen: Vec::new(),
            start_order: Vec::new(),
            stop_order: Vec::new(),
        };
        world.tell(Event::Begin);
        world
    }

    fn tell(&mut self, event: Event) {
        let ended = self.outcome.is_some();
        let actions = self.policy.step(event, Moment { now: self.now, draw: 0.5 });
        assert!(!ended || actions.is_empty(), "acts after its end: {actions:?}");
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { child, epoch } => self.start(child, epoch),
            Action::Stop { child, epoch } => self.stop(child, epoch),
            Action::Timer { timer, after } => self.timers.push((timer, self.now + after)),
            Action::Record { kind, .. } => self.note(kind),
            Action::End(outcome) => {
                assert!(self.lives.iter().all(Option::is_none), "ended with a child alive");
                self.outcome = Some(outcome);
            }
        }
    }

    fn start(&mut self, child: usize, epoch: Epoch) {
        assert!(epoch > self.last_epoch, "epochs grow");
        assert!(self.lives[child].is_none(), "two incarnations at once");
        assert!(self.outcome.is_none() && !self.stopping_all);
        assert!(self.kinds[child] != Restart::Temporary || self.starts[child] == 0 || self.asked[child]);
        let earlier = &self.lives[..child];
        if self.rules.strategy == Strategy::OneForOne {
            let first_round = self.starts[child] == 0;
            assert!(!first_round || (0..child).all(|c| self.starts[c] > 0), "first starts are in order");
        } else {
            let waits = |life: &Option<(Epoch, Life)>| matches!(life, Some((_, Life::Starting | Life::Stopping(_))));
            assert!(!earlier.iter().any(waits), "starts before an earlier one runs");
        }
        self.last_epoch = epoch;
        self.starts[child] += 1;
        self.lives[child] = Some((epoch, Life::Starting));
        self.start_order.push(child);
    }

    fn stop(&mut self, child: usize, epoch: Epoch) {
        let (living, life) = self.lives[child].expect("stops only what lives");
        assert_eq!(living, epoch);
        let others_stopping = (0..self.lives.len())
            .filter(|c| *c != child && matches!(self.lives[*c], Some((_, Life::Stopping(_)))))
            .count();
        assert_eq!(others_stopping, 0, "one stop at a time");
        if self.stopping_all {
            assert!(self.lives[child + 1..].iter().all(Option::is_none), "stops in reverse order");
        }
        self.lives[child] = Some((epoch, Life::Stopping(life == Life::Starting)));
        self.stop_order.push(child);
    }

    fn note(&mut self, kind: EventKind) {
        self.kinds_seen.push(kind);
        if let EventKind::RestartScheduled { .. } = kind {
            self.scheduled.push(self.now);
            let within = self.scheduled.iter().filter(|at| self.now - **at < self.rules.intensity.period).count();
            assert!(within <= self.rules.intensity.max_restarts as usize, "restart budget");
        }
    }

    /// The nth child whose life satisfies `is`.
    fn pick(&self, n: usize, is: impl Fn(Life) -> bool) -> Option<(usize, Epoch, Life)> {
        let all: Vec<_> = (0..self.lives.len())
            .filter_map(|child| self.lives[child].map(|(epoch, life)| (child, epoch, life)))
            .filter(|(_, _, life)| is(*life))
            .collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Start(n) => self.start_succeeds(n),
            Step::FailStart(n) => self.start_fails(n),
            Step::Crash(n) => self.exits(n, Exit::Abnormal("crash".into())),
            Step::Finish(n) => self.exits(n, Exit::Normal("done".into())),
            Step::EndStop(n, how) => self.stop_ends(n, how),
            Step::Fire(n) => self.fire(n),
            Step::Restart(n) => self.restart(n % self.kinds.len()),
            Step::Wait(ms) => self.now += Duration::from_millis(ms.into()),
            Step::StopAll => self.stop_all(),
        }
    }

    fn start_succeeds(&mut self, n: usize) {
        if let Some((child, epoch, _)) = self.pick(n, |life| life == Life::Starting) {
            self.lives[child] = Some((epoch, Life::Running));
            self.tell(Event::Started { child, epoch });
        }
    }

    fn start_fails(&mut self, n: usize) {
        // A failed first start ends everything; let worlds live longer than that.
        if let Some((child, epoch, _)) = self.pick(n, |life| life == Life::Starting)
            && self.starts[child] > 1
        {
            self.lives[child] = None;
            self.tell(Event::StartFailed { child, epoch, cause: "no".into() });
        }
    }

    fn exits(&mut self, n: usize, exit: Exit) {
        if let Some((child, epoch, _)) = self.pick(n, |life| life == Life::Running) {
            self.lives[child] = None;
            self.tell(Event::Exited { child, epoch, exit });
        }
    }

    fn stop_ends(&mut self, n: usize, how: u8) {
        let Some((child, epoch, life)) = self.pick(n, |life| matches!(life, Life::Stopping(_))) else { return };
        let was_starting = life == Life::Stopping(true);
        if was_starting && how.is_multiple_of(2) {
            self.lives[child] = Some((epoch, Life::Stopping(false)));
            return self.tell(Event::Started { child, epoch });
        }
        self.lives[child] = None;
        self.tell(match (was_starting, how % 3) {
            (true, _) => Event::StartFailed { child, epoch, cause: "cancelled".into() },
            (false, 0) => Event::Exited { child, epoch, exit: Exit::Abnormal("crash".into()) },
            (false, 1) => Event::Stopped { child, epoch, how: StopOutcome::Killed },
            (false, _) => Event::Stopped { child, epoch, how: StopOutcome::Clean },
        });
    }

    fn fire(&mut self, n: usize) {
        if !self.timers.is_empty() {
            let (timer, due) = self.timers.remove(n % self.timers.len());
            self.now = self.now.max(due);
            self.tell(Event::TimerFired { timer });
        }
    }

    fn restart(&mut self, child: usize) {
        if self.policy.facts().iter().any(|facts| facts.status == ChildStatus::Held) {
            self.scheduled.clear();
        }
        self.asked[child] = true;
        self.tell(Event::Restart { child });
    }

    fn stop_all(&mut self) {
        self.stopping_all = true;
        self.tell(Event::StopAll);
    }

    /// Lets everything that is under way succeed until nothing is.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.start_succeeds(0);
            self.stop_ends(0, 5);
            self.fire(0);
        }
        assert!(self.timers.is_empty());
    }

    fn status(&self) -> Vec<ChildStatus> {
        self.policy.facts().iter().map(|facts| facts.status).collect()
    }
}

proptest! {
    #[test]
    fn rules_hold_whatever_happens(
        rules in any_rules(),
        kinds in any_children(),
        steps in proptest::collection::vec(any_step(), 0..120),
    ) {
        let mut world = World::new(rules, &kinds);
        for step in steps {
            world.take(step);
        }
        world.settle();
        if world.outcome.is_none() {
            prop_assert!(!world.stopping_all, "a stopped supervisor ends");
            for (kind, status) in kinds.iter().zip(world.status()) {
                prop_assert!(status == ChildStatus::Running || *kind != Restart::Permanent, "permanent children run");
                prop_assert!(matches!(status, ChildStatus::Running | ChildStatus::Stopped));
            }
            world.stop_all();
            world.settle();
        }
        prop_assert!(world.outcome.is_some(), "stopping ends it");
        prop_assert!(world.lives.iter().all(Option::is_none));
    }

    #[test]
    fn delays_stay_within_their_limits(failures in 0_u32..10_000, draw in 0.0..=1.0_f64) {
        let backoff = Backoff::default();
        let delay = backoff.delay(failures, draw);
        prop_assert!(delay <= backoff.max.mul_f64(1.0 + backoff.jitter));
        prop_assert!(failures <= 1 || delay >= backoff.min.mul_f64(1.0 - backoff.jitter));
    }
}

fn hold_after(max_restarts: u32) -> Rules {
    Rules {
        strategy: Strategy::RestForOne,
        intensity: Intensity { max_restarts, period: 30 * SECOND },
        when_exhausted: WhenExhausted::Hold { retry_after: 60 * SECOND },
        ..Rules::default()
    }
}

fn running(rules: Rules, kinds: &[Restart]) -> World {
    let mut world = World::new(rules, kinds);
    world.settle();
    world
}

const THREE: [Restart; 3] = [Restart::Permanent; 3];

#[test]
fn the_first_restart_does_not_wait_and_later_ones_wait_longer() {
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let delays: Vec<_> = (1..=4).map(|failures| backoff.delay(failures, 0.3).as_millis()).collect();
    assert_eq!(delays, [0, 200, 400, 800]);
    assert_eq!(backoff.delay(u32::MAX, 0.3), backoff.max);
}

#[test]
fn a_child_that_was_stable_restarts_without_delay_again() {
    let mut world = running(Rules::default(), &THREE[..1]);
    world.take(Step::Crash(0));
    world.settle();
    world.now += 61 * SECOND;
    world.kinds_seen.clear();
    world.take(Step::Crash(0));
    assert!(world.kinds_seen.contains(&EventKind::RestartScheduled { delay: Duration::ZERO }));
}

#[test]
fn rest_for_one_restarts_the_later_ones_in_order_after_stopping_them_in_reverse() {
    let mut world = running(Rules { strategy: Strategy::RestForOne, ..Rules::default() }, &[Restart::Permanent; 4]);
    (world.start_order, world.stop_order) = (Vec::new(), Vec::new());
    world.take(Step::Crash(1));
    world.settle();
    assert_eq!(world.stop_order, [3, 2]);
    assert_eq!(world.start_order, [1, 2, 3]);
}

#[test]
fn one_for_all_restarts_all_and_leaves_temporary_ones_down() {
    let kinds = [Restart::Permanent, Restart::Temporary, Restart::Permanent];
    let mut world = running(Rules { strategy: Strategy::OneForAll, ..Rules::default() }, &kinds);
    (world.start_order, world.stop_order) = (Vec::new(), Vec::new());
    world.take(Step::Crash(2));
    world.settle();
    assert_eq!(world.stop_order, [1, 0]);
    assert_eq!(world.start_order, [0, 2]);
}

#[test]
fn one_for_one_leaves_the_others_alone() {
    let mut world = running(Rules::default(), &THREE);
    (world.start_order, world.stop_order) = (Vec::new(), Vec::new());
    world.take(Step::Crash(1));
    world.settle();
    assert_eq!((world.start_order, world.stop_order), (vec![1], vec![]));
}

#[test]
fn a_failed_first_start_ends_the_supervisor_and_says_which() {
    let mut world = World::new(Rules::default(), &THREE);
    world.take(Step::Start(0));
    let (child, epoch, _) = world.pick(0, |life| life == Life::Starting).unwrap();
    world.lives[child] = None;
    world.tell(Event::StartFailed { child, epoch, cause: "no such file".into() });
    world.settle();
    let outcome = Outcome::FirstStartFailed { child: "1".into(), cause: "no such file".into() };
    assert_eq!(world.outcome, Some(outcome));
    assert_eq!(world.start_order, [0, 1], "the third is never started");
}

#[test]
fn a_nested_failed_first_start_goes_up_only_from_the_first_incarnation() {
    let failed = || Exit::FirstStartFailed("no such file".into());
    let mut world = running(Rules::default(), &THREE[..1]);
    world.exits(0, failed());
    assert!(matches!(world.outcome, Some(Outcome::FirstStartFailed { .. })));

    let mut world = running(Rules::default(), &THREE[..1]);
    world.take(Step::Crash(0));
    world.settle();
    world.exits(0, failed());
    assert_eq!(world.outcome, None);
}

#[test]
fn over_budget_escalates_with_the_cause() {
    let rules = Rules { intensity: Intensity { max_restarts: 2, period: 30 * SECOND }, ..Rules::default() };
    let mut world = running(rules, &THREE);
    for _ in 0..3 {
        world.take(Step::Crash(0));
        world.settle();
    }
    assert_eq!(world.outcome, Some(Outcome::Exhausted { child: "0".into(), cause: "crash".into() }));
}

#[test]
fn over_budget_holds_everything_down_and_resumes_by_itself() {
    let mut world = running(hold_after(0), &THREE);
    world.take(Step::Crash(1));
    for _ in 0..3 {
        world.stop_ends(0, 5);
    }
    assert_eq!(world.status(), [ChildStatus::Held; 3]);
    world.settle();
    assert_eq!(world.status(), [ChildStatus::Running; 3]);
    assert!(world.kinds_seen.contains(&EventKind::Resumed));
}

#[test]
fn a_restart_command_ends_a_hold_with_a_fresh_budget() {
    let mut world = running(hold_after(1), &THREE);
    for _ in 0..2 {
        world.take(Step::Crash(0));
        (0..5).for_each(|_| world.stop_ends(0, 5));
        (0..3).for_each(|_| world.start_succeeds(0));
    }
    assert_eq!(world.status(), [ChildStatus::Held; 3]);
    world.restart(2);
    (0..3).for_each(|_| world.start_succeeds(0));
    assert_eq!(world.status(), [ChildStatus::Running; 3]);
    world.take(Step::Crash(2));
    assert_ne!(world.status()[2], ChildStatus::Held);
}

#[test]
fn an_added_child_that_fails_to_start_hurts_nobody_and_can_be_added_again() {
    let mut world = running(Rules::default(), &THREE[..1]);
    world.kinds.push(Restart::Permanent);
    world.lives.push(None);
    world.starts.push(0);
    world.asked.push(false);
    for _ in 0..2 {
        assert_eq!(world.policy.add("http", Restart::Permanent), Some(1));
        assert_eq!(world.policy.add("http", Restart::Permanent), None, "the id is taken");
        world.tell(Event::Begin);
        let (child, epoch, _) = world.pick(0, |life| life == Life::Starting).unwrap();
        world.lives[child] = None;
        world.tell(Event::StartFailed { child, epoch, cause: "port in use".into() });
        assert_eq!(world.status(), [ChildStatus::Running, ChildStatus::Stopped]);
    }
    assert_eq!(world.outcome, None);
}
