//! One actor's facts.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ractor::{ActorCell, ActorRef};
use serde::Serialize;

use super::CAUSE_BYTES;
use crate::engine::protocol::Epoch;
use crate::supervision::board::Board;
use crate::supervision::disturbance::Disturbance;
use crate::supervision::histogram::Counts;
use crate::supervision::mailbox::{self, MailboxStats};
use crate::supervision::policy::ChildStatus;
use crate::supervision::record::{EventKind, SupervisionEventRecord};
use crate::supervision::supervisor::SupervisorMsg;

/// Restarts that are remembered.
const RESTARTS: usize = 16;

/// What an actor that can pause is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Take nothing new; go on with what was begun.
    Paused,
    /// As usual.
    Open,
}

/// Tells an actor to pause or to go on; must not block. `false`: the actor is not there.
pub(in crate::supervision) type GateFn = Arc<dyn Fn(Gate) -> bool + Send + Sync>;

/// What an actor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorStatus {
    /// Its start is under way or next.
    Starting,
    /// It runs.
    Running,
    /// Its restart is delayed.
    Backoff,
    /// It runs and takes nothing new.
    Paused,
    /// Its supervisor gave up for a while.
    Held,
    /// It is being stopped.
    Stopping,
    /// It is down.
    Stopped,
}

/// A restart, or one that is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarted {
    /// When it was decided.
    pub at: SystemTime,
    /// Why.
    pub cause: String,
    /// How long it waited.
    pub backoff: Duration,
}

/// The facts about an actor, over all its incarnations.
pub struct Row {
    path: String,
    /// Counts the rows of the registry in the order in which they were made.
    number: u64,
    board: Option<Arc<Board>>,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    status: Option<ChildStatus>,
    holds: bool,
    gate: Option<Gate>,
    epoch: Epoch,
    since: Option<Instant>,
    cell: Option<ActorCell>,
    stats: Option<Arc<MailboxStats>>,
    past: Past,
    restarts: VecDeque<Restarted>,
    restarts_total: u64,
    /// The newest restart has its entry already.
    announced: bool,
    last_error: Option<String>,
    supervisor: Option<ActorRef<SupervisorMsg>>,
    pause: Option<GateFn>,
}

/// What earlier incarnations did.
#[derive(Debug, Clone, Default)]
struct Past {
    handled: u64,
    max_depth: u64,
    waits: Counts,
    handling: Counts,
}

/// A [`Row`] at one moment.
#[derive(Debug, Clone)]
pub struct RowFacts {
    /// What it does.
    pub status: ActorStatus,
    /// Of the newest incarnation.
    pub epoch: Epoch,
    /// Of the running incarnation.
    pub uptime: Option<Duration>,
    /// Messages in the mailbox.
    pub depth: u64,
    /// Most messages that were ever in it.
    pub max_depth: u64,
    /// How long the oldest one waits.
    pub oldest_wait: Duration,
    /// Messages handled.
    pub handled: u64,
    /// How long they waited.
    pub waits: Counts,
    /// How long their handlers took.
    pub handling: Counts,
    /// The last 16.
    pub restarts: Vec<Restarted>,
    /// All of them.
    pub restarts_total: u64,
    /// Why it failed last.
    pub last_error: Option<String>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Row {
    pub(super) fn new(path: &str, number: u64, board: Option<Arc<Board>>) -> Self {
        Self { path: path.to_owned(), number, board, life: Mutex::default() }
    }

    /// Where it stands in the tree.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it shows of itself.
    pub fn board(&self) -> Option<&Board> {
        self.board.as_deref()
    }

    /// The running incarnation.
    pub fn cell(&self) -> Option<ActorCell> {
        self.life().cell.clone()
    }

    /// Who restarts it; `None` for the root and for sessions.
    pub fn supervisor(&self) -> Option<ActorRef<SupervisorMsg>> {
        self.life().supervisor.clone()
    }

    /// Epoch of the newest incarnation.
    pub fn epoch(&self) -> Epoch {
        self.life().epoch
    }

    /// Whether it knows how to pause.
    pub fn is_pausable(&self) -> bool {
        self.life().pause.is_some()
    }

    /// Pauses it or lets it go on; a pause ends with the incarnation. `false`: it cannot pause, or is not there.
    pub fn set_gate(&self, gate: Gate) -> bool {
        let mut life = self.life();
        let told = life.cell.is_some() && life.pause.as_ref().is_some_and(|pause| pause(gate));
        if told {
            life.gate = Some(gate);
        }
        told
    }

    /// Gives the running incarnation a fault in its next handler; returns its epoch, `None` if there is none or a fault is
    /// still to come.
    pub(crate) fn disturb(&self, disturbance: Disturbance) -> Option<Epoch> {
        let life = self.life();
        let stats = life.stats.as_ref().filter(|stats| life.cell.is_some() && !stats.next.is_set())?;
        stats.next.set(disturbance);
        Some(life.epoch)
    }

    /// Kills the running incarnation; returns its epoch.
    pub(crate) fn kill(&self) -> Option<Epoch> {
        let life = self.life();
        life.cell.as_ref()?.kill();
        Some(life.epoch)
    }

    /// All facts now.
    pub fn facts(&self) -> RowFacts {
        let life = self.life();
        let seen = life.stats.as_ref().map(|stats| stats.snapshot()).unwrap_or_default();
        let past = life.past.and(life.stats.as_deref());
        RowFacts {
            status: life.shown_status(),
            epoch: life.epoch,
            uptime: life.since.map(|since| since.elapsed()),
            depth: seen.depth,
            max_depth: past.max_depth,
            oldest_wait: life.stats.as_ref().map(|stats| stats.oldest_wait()).unwrap_or_default(),
            handled: past.handled,
            waits: past.waits,
            handling: past.handling,
            restarts: life.restarts.iter().cloned().collect(),
            restarts_total: life.restarts_total,
            last_error: life.last_error.clone(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn supervised(&self, supervisor: ActorRef<SupervisorMsg>, pause: Option<GateFn>) {
        let mut life = self.life();
        life.supervisor = Some(supervisor);
        life.pause = pause;
    }

    pub(super) fn started(&self, epoch: Epoch, cell: ActorCell) {
        let mut life = self.life();
        life.stats = Some(mailbox::stats_of(cell.get_id()));
        life.cell = Some(cell);
        life.epoch = epoch;
        life.since = Some(Instant::now());
        life.status = Some(ChildStatus::Running);
        (life.gate, life.holds) = (None, false);
    }

    pub(super) fn down(&self) {
        let mut life = self.life();
        let stats = life.stats.take();
        life.past = life.past.and(stats.as_deref());
        (life.cell, life.since, life.gate) = (None, None, None);
        life.status = Some(ChildStatus::Stopped);
    }

    pub(super) fn child_status(&self, status: ChildStatus, epoch: Epoch) {
        let mut life = self.life();
        life.status = Some(status);
        life.epoch = epoch;
    }

    pub(super) fn note(&self, record: &SupervisionEventRecord) {
        let mut life = self.life();
        let cause = || shorten(record.cause.as_deref().unwrap_or("unknown"));
        match record.kind {
            EventKind::RestartScheduled { delay } => {
                life.add_restart(Restarted { at: record.at, cause: cause(), backoff: delay });
                life.announced = true;
            }
            EventKind::Restarted if !life.announced => {
                let cause = "its supervisor restarted it, by command or beside another".to_owned();
                life.add_restart(Restarted { at: record.at, cause, backoff: Duration::ZERO });
            }
            EventKind::Restarted => life.announced = false,
            EventKind::Held { .. } => life.holds = true,
            EventKind::Resumed => life.holds = false,
            EventKind::StartFailed | EventKind::FirstStartFailed | EventKind::Exited | EventKind::Zombie => {
                life.last_error = Some(cause());
            }
            _ => {}
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn add_restart(&mut self, restart: Restarted) {
        if self.restarts.len() == RESTARTS {
            self.restarts.pop_front();
        }
        self.restarts.push_back(restart);
        self.restarts_total += 1;
    }

    fn shown_status(&self) -> ActorStatus {
        match self.status {
            Some(ChildStatus::Running) if self.holds => ActorStatus::Held,
            Some(ChildStatus::Running) if self.gate == Some(Gate::Paused) => ActorStatus::Paused,
            Some(ChildStatus::Running) => ActorStatus::Running,
            None | Some(ChildStatus::Waiting | ChildStatus::Starting) => ActorStatus::Starting,
            Some(ChildStatus::Backoff) => ActorStatus::Backoff,
            Some(ChildStatus::Held) => ActorStatus::Held,
            Some(ChildStatus::Stopping) => ActorStatus::Stopping,
            Some(ChildStatus::Stopped) => ActorStatus::Stopped,
        }
    }
}

impl Past {
    /// This and what an incarnation did.
    fn and(&self, stats: Option<&MailboxStats>) -> Self {
        let mut sum = self.clone();
        if let Some(stats) = stats {
            let seen = stats.snapshot();
            sum.handled += seen.handled;
            sum.max_depth = sum.max_depth.max(seen.max_depth);
            sum.waits.add(&stats.waits.counts());
            sum.handling.add(&stats.handling.counts());
        }
        sum
    }
}

fn shorten(cause: &str) -> String {
    cause
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= CAUSE_BYTES).then_some(c)
        })
        .collect()
}
