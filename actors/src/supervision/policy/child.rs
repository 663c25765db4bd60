//! One child as its [`Policy`](super::Policy) sees it.

use std::time::Duration;

use crate::engine::protocol::Epoch;
use crate::supervision::rules::Restart;

/// What inspection shows of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildFacts {
    /// Its id within the supervisor.
    pub id: String,
    /// What it does.
    pub status: ChildStatus,
    /// Of the newest incarnation; 0 before the first.
    pub epoch: Epoch,
    /// How often it was started again.
    pub restarts: u64,
    /// Why it went down last.
    pub last_cause: Option<String>,
}

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildStatus {
    /// Waits for others to start or stop first.
    Waiting,
    /// Its start is under way.
    Starting,
    /// It runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// Its restart is delayed.
    Backoff,
    /// The supervisor gave up for a while.
    Held,
    /// It is down and will not be restarted by itself.
    Stopped,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: String,
    pub(super) restart: Restart,
    pub(super) state: State,
    /// `Some`: it is to be stopped, or is being stopped, and this is what follows.
    pub(super) after_stop: Option<AfterStop>,
    /// Added later, by somebody who waits for the result of its first start.
    pub(super) added: bool,
    pub(super) ever_started: bool,
    /// Failures in the running series.
    pub(super) failures: u32,
    pub(super) restarts: u64,
    pub(super) epoch: Epoch,
    pub(super) last_cause: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Delayed { timer: u64 },
    Starting,
    Running { since: Duration },
    Stopping,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterStop {
    Start,
    StayDown,
}

impl Child {
    pub(super) fn new(id: String, restart: Restart) -> Self {
        Self {
            id,
            restart,
            state: State::Waiting,
            after_stop: None,
            added: false,
            ever_started: false,
            failures: 0,
            restarts: 0,
            epoch: 0,
            last_cause: None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. } | State::Stopping)
    }

    pub(super) fn is_to_be_stopped(&self) -> bool {
        self.after_stop.is_some() && matches!(self.state, State::Starting | State::Running { .. })
    }

    pub(super) fn facts(&self, held: bool) -> ChildFacts {
        let status = match self.state {
            State::Waiting | State::Delayed { .. } if held => ChildStatus::Held,
            State::Waiting => ChildStatus::Waiting,
            State::Delayed { .. } => ChildStatus::Backoff,
            State::Starting => ChildStatus::Starting,
            State::Running { .. } => ChildStatus::Running,
            State::Stopping => ChildStatus::Stopping,
            State::Down => ChildStatus::Stopped,
        };
        ChildFacts {
            id: self.id.clone(),
            status,
            epoch: self.epoch,
            restarts: self.restarts,
            last_cause: self.last_cause.clone(),
        }
    }
}
