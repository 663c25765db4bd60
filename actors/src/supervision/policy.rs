//! The decisions of a supervisor: an event in, actions out. Knows no actor, no clock and no randomness.
//!
//! Children are told apart by index, their incarnations by epoch; an event about another epoch than the current one
//! is ignored. Every `Start` is answered by one `Started` or `StartFailed`, every `Stop` by one event that says the
//! child is down (whichever comes first), or by a late `Started`, which is then stopped again.
//!
//! Stops go in reverse order, one after the other. Starts go in order: a child waits for those before it, under
//! one_for_one only until they have started once.

mod child;
mod protocol;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::addr::EpochSource;
use super::record::EventKind;
use super::rules::{Restart, Rules, Strategy, WhenExhausted};
use crate::engine::protocol::Epoch;

pub use child::{ChildFacts, ChildStatus};
pub use protocol::{Action, Event, Exit, Moment, Outcome, StopOutcome};

use child::{AfterStop, Child, State};

/// The state of a supervisor's decisions.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    epochs: EpochSource,
    children: Vec<Child>,
    phase: Phase,
    /// Times of the restarts within the intensity's period.
    restarts: VecDeque<Duration>,
    timers: u64,
    out: Vec<Action>,
}

#[derive(Debug)]
enum Phase {
    Up,
    Held { timer: u64 },
    Ending(Outcome),
    Ended,
}

impl Policy {
    /// A supervisor without children that has not begun.
    pub fn new(rules: Rules, epochs: EpochSource) -> Self {
        Self {
            rules,
            epochs,
            children: Vec::new(),
            phase: Phase::Up,
            restarts: VecDeque::new(),
            timers: 0,
            out: Vec::new(),
        }
    }

    /// Puts a child last in the order; [`Event::Begin`] starts it.
    pub fn insert(&mut self, id: impl Into<String>, restart: Restart) -> usize {
        self.children.push(Child::new(id.into(), restart));
        self.children.len() - 1
    }

    /// Like [`Policy::insert`], for a child whose failed first start is its adder's matter, not the supervisor's.
    /// A child of the same id that is down for good is replaced; `None` if there is one that is not.
    pub fn add(&mut self, id: &str, restart: Restart) -> Option<usize> {
        let index = match self.find(id) {
            Some(index) if self.children[index].state != State::Down => return None,
            Some(index) => index,
            None => self.insert(id, restart),
        };
        self.children[index] = Child { added: true, ..Child::new(id.to_owned(), restart) };
        Some(index)
    }

    /// The child of that id.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| child.id == id)
    }

    /// Epoch of a child's newest incarnation.
    pub fn epoch(&self, child: usize) -> Epoch {
        self.children[child].epoch
    }

    /// Whether the supervisor is on its way out.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_) | Phase::Ended)
    }

    /// The children in order.
    pub fn facts(&self) -> Vec<ChildFacts> {
        let held = matches!(self.phase, Phase::Held { .. });
        self.children.iter().map(|child| child.facts(held)).collect()
    }

    /// Handles an event.
    pub fn step(&mut self, event: Event, at: Moment) -> Vec<Action> {
        if matches!(self.phase, Phase::Ended) {
            return Vec::new();
        }
        match event {
            Event::Begin => {}
            Event::Started { child, epoch } => self.on_started(child, epoch, at),
            Event::StartFailed { child, epoch, cause } => self.on_start_failed(child, epoch, cause, at),
            Event::Exited { child, epoch, exit } => self.on_exited(child, epoch, exit, at),
            Event::Stopped { child, epoch, how } => self.on_stopped(child, epoch, how),
            Event::TimerFired { timer } => self.on_timer(timer),
            Event::Restart { child } => self.on_restart(child),
            Event::StopAll => self.begin_ending(Outcome::Stopped),
        }
        self.stop_next();
        self.start_due();
        self.end_if_down();
        std::mem::take(&mut self.out)
    }

    fn on_started(&mut self, index: usize, epoch: Epoch, at: Moment) {
        if !self.is_current(index, epoch) {
            return;
        }
        let child = &mut self.children[index];
        match child.state {
            State::Starting => {
                child.state = State::Running { since: at.now };
                let kind = if child.ever_started { EventKind::Restarted } else { EventKind::Started };
                child.restarts += u64::from(child.ever_started);
                child.ever_started = true;
                self.record(Some(index), kind, None);
            }
            // The start was faster than its cancellation.
            State::Stopping => self.out.push(Action::Stop { child: index, epoch }),
            _ => {}
        }
    }

    fn on_start_failed(&mut self, index: usize, epoch: Epoch, cause: String, at: Moment) {
        if !self.is_current(index, epoch) {
            return;
        }
        let child = &mut self.children[index];
        child.last_cause = Some(cause.clone());
        if child.after_stop.is_some() {
            self.on_down(index, EventKind::Stopped, Some(cause));
        } else if child.ever_started {
            self.record(Some(index), EventKind::StartFailed, Some(cause.clone()));
            self.on_failure(index, cause, at);
        } else if child.added {
            child.state = State::Down;
            self.record(Some(index), EventKind::StartFailed, Some(cause));
        } else {
            self.on_first_start_failed(index, cause);
        }
    }

    fn on_first_start_failed(&mut self, index: usize, cause: String) {
        self.children[index].state = State::Down;
        self.record(Some(index), EventKind::FirstStartFailed, Some(cause.clone()));
        self.begin_ending(Outcome::FirstStartFailed { child: self.children[index].id.clone(), cause });
    }

    fn on_exited(&mut self, index: usize, epoch: Epoch, exit: Exit, at: Moment) {
        if !self.is_current(index, epoch) {
            return;
        }
        let first = !self.children[index].added && self.children[index].restarts == 0;
        let (normal, first_failed, cause) = match exit {
            Exit::Normal(reason) => (true, false, reason),
            Exit::Abnormal(cause) => (false, false, cause),
            Exit::FirstStartFailed(cause) => (false, first, cause),
        };
        let child = &mut self.children[index];
        child.last_cause = Some(cause.clone());
        if child.after_stop.is_some() {
            return self.on_down(index, EventKind::Exited, Some(cause));
        }
        if let State::Running { since } = child.state
            && at.now.saturating_sub(since) >= self.rules.backoff.reset_after
        {
            child.failures = 0;
        }
        let for_good = child.restart == Restart::Temporary || (normal && child.restart == Restart::Transient);
        self.record(Some(index), EventKind::Exited, Some(cause.clone()));
        if for_good {
            self.children[index].state = State::Down;
        } else if first_failed {
            self.on_first_start_failed(index, cause);
        } else {
            self.on_failure(index, cause, at);
        }
    }

    fn on_stopped(&mut self, index: usize, epoch: Epoch, how: StopOutcome) {
        if !self.is_current(index, epoch) {
            return;
        }
        let (kind, cause) = match how {
            StopOutcome::Clean => (EventKind::Stopped, None),
            StopOutcome::Killed => (EventKind::Stopped, Some("killed after its stop deadline".to_owned())),
            StopOutcome::Zombie => (EventKind::Zombie, Some("blocked: neither stop nor kill ended it".to_owned())),
        };
        self.on_down(index, kind, cause);
    }

    /// A child that was to be stopped is down, one way or another.
    fn on_down(&mut self, index: usize, kind: EventKind, cause: Option<String>) {
        let child = &mut self.children[index];
        child.state = match child.after_stop.take() {
            Some(AfterStop::Start) => State::Waiting,
            Some(AfterStop::StayDown) | None => State::Down,
        };
        self.record(Some(index), kind, cause);
    }

    /// A child that is to be restarted went down.
    fn on_failure(&mut self, index: usize, cause: String, at: Moment) {
        let child = &mut self.children[index];
        child.state = State::Waiting;
        child.failures = child.failures.saturating_add(1);
        let failures = child.failures;
        if !self.take_restart(at.now) {
            return self.on_exhausted(index, cause);
        }
        let delay = self.rules.backoff.delay(failures, at.draw);
        self.record(Some(index), EventKind::RestartScheduled { delay }, Some(cause));
        if delay > Duration::ZERO {
            self.children[index].state = State::Delayed { timer: self.set_timer(delay) };
        }
        self.mark_affected(index);
    }

    /// Counts a restart against the intensity; `false` if there is none left.
    fn take_restart(&mut self, now: Duration) -> bool {
        let period = self.rules.intensity.period;
        while self.restarts.front().is_some_and(|&at| now.saturating_sub(at) >= period) {
            self.restarts.pop_front();
        }
        let left = self.restarts.len() < self.rules.intensity.max_restarts as usize;
        if left {
            self.restarts.push_back(now);
        }
        left
    }

    fn on_exhausted(&mut self, index: usize, cause: String) {
        self.record(Some(index), EventKind::GaveUp, Some(cause.clone()));
        match self.rules.when_exhausted {
            WhenExhausted::Escalate => {
                self.begin_ending(Outcome::Exhausted { child: self.children[index].id.clone(), cause });
            }
            WhenExhausted::Hold { retry_after } => {
                self.record(None, EventKind::Held { retry_after }, Some(cause));
                self.phase = Phase::Held { timer: self.set_timer(retry_after) };
                (0..self.children.len()).for_each(|child| self.mark(child));
            }
        }
    }

    fn on_timer(&mut self, timer: u64) {
        if matches!(self.phase, Phase::Held { timer: held } if held == timer) {
            self.resume();
        }
        for child in &mut self.children {
            if child.state == (State::Delayed { timer }) {
                child.state = State::Waiting;
            }
        }
    }

    fn resume(&mut self) {
        self.phase = Phase::Up;
        self.record(None, EventKind::Resumed, None);
    }

    fn on_restart(&mut self, index: usize) {
        match self.phase {
            Phase::Up => {}
            Phase::Held { .. } => {
                self.restarts.clear();
                self.resume();
            }
            Phase::Ending(_) | Phase::Ended => return,
        }
        let child = &mut self.children[index];
        child.failures = 0;
        match child.state {
            State::Waiting => {}
            State::Down | State::Delayed { .. } => child.state = State::Waiting,
            State::Stopping => child.after_stop = Some(AfterStop::Start),
            State::Starting | State::Running { .. } => {
                child.after_stop = Some(AfterStop::Start);
                self.mark_affected(index);
            }
        }
    }

    fn begin_ending(&mut self, outcome: Outcome) {
        if self.is_ending() {
            return;
        }
        self.phase = Phase::Ending(outcome);
        for child in &mut self.children {
            if child.is_live() {
                child.after_stop = Some(AfterStop::StayDown);
            } else {
                child.state = State::Down;
            }
        }
    }

    /// Has the children stopped and restarted that go down with `index`.
    fn mark_affected(&mut self, index: usize) {
        match self.rules.strategy {
            Strategy::OneForOne => {}
            Strategy::OneForAll => (0..self.children.len()).filter(|&c| c != index).for_each(|c| self.mark(c)),
            Strategy::RestForOne => (index + 1..self.children.len()).for_each(|c| self.mark(c)),
        }
    }

    fn mark(&mut self, index: usize) {
        let child = &mut self.children[index];
        if child.is_live() && child.after_stop.is_none() {
            let stays_down = child.restart == Restart::Temporary;
            child.after_stop = Some(if stays_down { AfterStop::StayDown } else { AfterStop::Start });
        }
    }

    fn stop_next(&mut self) {
        if self.children.iter().any(|child| child.state == State::Stopping) {
            return;
        }
        if let Some(index) = self.children.iter().rposition(Child::is_to_be_stopped) {
            let child = &mut self.children[index];
            child.state = State::Stopping;
            self.out.push(Action::Stop { child: index, epoch: child.epoch });
        }
    }

    fn start_due(&mut self) {
        if !matches!(self.phase, Phase::Up) {
            return;
        }
        for index in 0..self.children.len() {
            if self.children[index].state == State::Waiting && self.may_start(index) {
                let epoch = self.epochs.next_epoch();
                let child = &mut self.children[index];
                child.state = State::Starting;
                child.epoch = epoch;
                self.out.push(Action::Start { child: index, epoch });
            }
        }
    }

    fn may_start(&self, index: usize) -> bool {
        let mut earlier = self.children[..index].iter();
        if self.rules.strategy == Strategy::OneForOne {
            return earlier.all(|child| child.ever_started || child.added || child.state == State::Down);
        }
        let stopping = self.children.iter().any(|child| child.after_stop.is_some());
        !stopping && earlier.all(|child| matches!(child.state, State::Running { .. } | State::Down))
    }

    fn end_if_down(&mut self) {
        if self.children.iter().any(Child::is_live) {
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Ending(outcome) => self.out.push(Action::End(outcome)),
            other => self.phase = other,
        }
    }

    fn is_current(&self, index: usize, epoch: Epoch) -> bool {
        self.children.get(index).is_some_and(|child| child.epoch == epoch && child.is_live())
    }

    fn set_timer(&mut self, after: Duration) -> u64 {
        self.timers += 1;
        self.out.push(Action::Timer { timer: self.timers, after });
        self.timers
    }

    fn record(&mut self, child: Option<usize>, kind: EventKind, cause: Option<String>) {
        let epoch = child.map_or(0, |index| self.children[index].epoch);
        self.out.push(Action::Record { child, kind, epoch, cause });
    }
}
