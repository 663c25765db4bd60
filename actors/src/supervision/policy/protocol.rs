//! What a [`Policy`](super::Policy) is told and what it orders.

use std::time::Duration;

use crate::engine::protocol::Epoch;
use crate::supervision::record::EventKind;

/// Something that happened, or a command.
#[derive(Debug, Clone)]
pub enum Event {
    /// Start what waits.
    Begin,
    /// Answer to [`Action::Start`].
    Started {
        /// Which child.
        child: usize,
        /// Which incarnation.
        epoch: Epoch,
    },
    /// Answer to [`Action::Start`].
    StartFailed {
        /// Which child.
        child: usize,
        /// Which incarnation.
        epoch: Epoch,
        /// One line.
        cause: String,
    },
    /// A child ended, not by [`Action::Stop`], and nothing of it is left.
    Exited {
        /// Which child.
        child: usize,
        /// Which incarnation.
        epoch: Epoch,
        /// How.
        exit: Exit,
    },
    /// Answer to [`Action::Stop`].
    Stopped {
        /// Which child.
        child: usize,
        /// Which incarnation.
        epoch: Epoch,
        /// How far it went.
        how: StopOutcome,
    },
    /// Answer to [`Action::Timer`].
    TimerFired {
        /// As in the action.
        timer: u64,
    },
    /// Command: restart a child, whatever its state, and whatever depends on it.
    Restart {
        /// Which child.
        child: usize,
    },
    /// Command: stop everything and end.
    StopAll,
}

/// How a child ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It stopped, with its reason.
    Normal(String),
    /// It failed, panicked, was killed or cancelled.
    Abnormal(String),
    /// It is a supervisor one of whose children failed its first start.
    FirstStartFailed(String),
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopOutcome {
    /// In time.
    Clean,
    /// The deadline passed and the kill worked.
    Killed,
    /// Not even the kill worked; it is given up, and may still run.
    Zombie,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start an incarnation.
    Start {
        /// Which child.
        child: usize,
        /// Its new epoch.
        epoch: Epoch,
    },
    /// Stop an incarnation, or cancel its start.
    Stop {
        /// Which child.
        child: usize,
        /// Which incarnation.
        epoch: Epoch,
    },
    /// Come back later.
    Timer {
        /// To be given back.
        timer: u64,
        /// When.
        after: Duration,
    },
    /// Publish and log.
    Record {
        /// `None`: the supervisor itself.
        child: Option<usize>,
        /// What.
        kind: EventKind,
        /// Of the incarnation.
        epoch: Epoch,
        /// Why.
        cause: Option<String>,
    },
    /// No child is alive and none will be: the supervisor ends. Nothing follows.
    End(Outcome),
}

/// Why a supervisor ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to.
    Stopped,
    /// Too many restarts.
    Exhausted {
        /// The last one to fail.
        child: String,
        /// Why it failed.
        cause: String,
    },
    /// A child never started.
    FirstStartFailed {
        /// Which.
        child: String,
        /// Why.
        cause: String,
    },
}

/// When an event is handled, and a random number for it.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since any fixed moment.
    pub now: Duration,
    /// 0 to 1; decides the jitter of a delay.
    pub draw: f64,
}
