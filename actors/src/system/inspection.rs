//! What the handle shows of the actors, and what it can have done to one of them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use futures_util::stream::unfold;
use ractor::rpc::CallResult;

use super::System;
use crate::engine::host::HostKind;
use crate::engine::protocol::Epoch;
use crate::inspector::log::{ActorEvent, After};
use crate::inspector::snapshot::{ActorFacts, Snapshot, is_session};
use crate::supervision::registry::Row;
use crate::supervision::supervisor::SupervisorMsg;
use crate::supervision::{EventKind, Gate, SupervisionEventRecord, record};

#[cfg(test)]
mod tests;

/// How many times longer than it ever should an engine on threads is silent before the process is given up: a machine that
/// reads its weights from a disk in every step is slow and no hopeless case.
const HOPELESS: u32 = 30;

/// Longest wait for a supervisor to take a command; it does nothing slow in its handlers.
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);

/// What a reader of the event feed gets.
#[derive(Debug, Clone, PartialEq)]
pub enum ActorFeed {
    /// Something happened.
    Event(Arc<ActorEvent>),
    /// Events are missing before this; it shows what they led to, and the feed goes on after its `seq`.
    Snapshot(Box<Snapshot>),
}

/// The feed: ends never, holds nothing back, and produces nothing while it is not polled.
pub type ActorFeedStream = Pin<Box<dyn Stream<Item = ActorFeed> + Send>>;

/// What an operator can have done to an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorAction {
    /// Stop it in order and start it again, with those that depend on it.
    Restart,
    /// End it at once, as a crash would.
    Kill,
    /// Take nothing new; what was begun goes on. Ends with the incarnation.
    Pause,
    /// End a pause.
    Resume,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActorActionError {
    /// No actor has this path.
    #[error("there is no actor `{0}`")]
    NotFound(String),
    /// It has no way to pause.
    #[error("`{0}` cannot be paused")]
    NotPausable(String),
    /// It is the root, or a session.
    #[error("`{0}` cannot be restarted or killed by command")]
    NotRestartable(String),
    /// It is down, or its supervisor is.
    #[error("`{0}` is not running")]
    NotRunning(String),
}

impl System {
    /// The state of all actors, without asking one of them.
    pub fn actors(&self) -> Snapshot {
        Snapshot::take(self.inner.log.last(), &self.inner.wiring, self.inner.args.stall_after)
    }

    /// Whether nothing in this process can help any more: the engine runs on threads here, has ended no step for thirty times
    /// as long as it ever should (`stall_after`) with requests under way, and nothing can end a thread.
    pub fn is_lost(&self) -> bool {
        let args = &self.inner.args;
        let hung = self.inner.wiring.pulse.stalled(args.stall_after.saturating_mul(HOPELESS));
        args.host == HostKind::Thread && hung.is_some()
    }

    /// One actor, by its path with or without the leading instance name.
    pub fn actor(&self, path: &str) -> Option<ActorFacts> {
        self.row(path).map(|row| ActorFacts::of(&row))
    }

    /// Follows what happens to the actors: after event number `after`, or from now on.
    ///
    /// A reader that falls more than 1024 events behind, or asks for what is not there any more, gets a snapshot.
    pub fn actor_events(&self, after: Option<u64>) -> ActorFeedStream {
        let log = self.inner.log.clone();
        let wiring = self.inner.wiring.clone();
        let stall_after = self.inner.args.stall_after;
        let start = (after.unwrap_or_else(|| log.last()), log.follow());
        Box::pin(unfold(start, move |(seen, mut last)| {
            let (log, wiring) = (log.clone(), wiring.clone());
            async move {
                loop {
                    last.borrow_and_update();
                    match log.after(seen) {
                        After::Event(event) => return Some((ActorFeed::Event(event.clone()), (event.seq, last))),
                        After::Gap => {
                            let snapshot = Snapshot::take(log.last(), &wiring, stall_after);
                            let seen = snapshot.seq;
                            return Some((ActorFeed::Snapshot(Box::new(snapshot)), (seen, last)));
                        }
                        // The log lives as long as this stream, so the wait ends with an event or not at all.
                        After::Nothing => last.changed().await.ok()?,
                    }
                }
            }
        }))
    }

    /// Has something done to an actor, and returns the epoch of the incarnation it is done to. Restart and kill are
    /// ordered when this returns, not over: [`System::actor_events`] tells.
    ///
    /// # Errors
    /// [`ActorActionError`]; nothing has happened then.
    pub async fn act(&self, path: &str, action: ActorAction) -> Result<(String, Epoch), ActorActionError> {
        let row = self.row(path).ok_or_else(|| ActorActionError::NotFound(path.to_owned()))?;
        let epoch = row.epoch();
        match action {
            ActorAction::Restart => restart(&row).await?,
            ActorAction::Kill => self.kill(&row)?,
            ActorAction::Pause => self.set_gate(&row, Gate::Paused)?,
            ActorAction::Resume => self.set_gate(&row, Gate::Open)?,
        }
        Ok((row.path().to_owned(), epoch))
    }

    fn row(&self, path: &str) -> Option<Arc<Row>> {
        let actors = &self.inner.wiring.actors;
        actors.find(path).or_else(|| actors.find(&format!("{}/{path}", self.instance())))
    }

    fn kill(&self, row: &Row) -> Result<(), ActorActionError> {
        if row.supervisor().is_none() && !is_session(row.path()) {
            return Err(ActorActionError::NotRestartable(row.path().to_owned()));
        }
        let cell = row.cell().ok_or_else(|| ActorActionError::NotRunning(row.path().to_owned()))?;
        self.record(row, EventKind::Killed);
        cell.kill();
        Ok(())
    }

    fn set_gate(&self, row: &Row, gate: Gate) -> Result<(), ActorActionError> {
        if !row.is_pausable() {
            return Err(ActorActionError::NotPausable(row.path().to_owned()));
        }
        if !row.set_gate(gate) {
            return Err(ActorActionError::NotRunning(row.path().to_owned()));
        }
        self.record(row, if gate == Gate::Paused { EventKind::Paused } else { EventKind::Resumed });
        Ok(())
    }

    fn record(&self, row: &Row, kind: EventKind) {
        let record = SupervisionEventRecord {
            path: row.path().to_owned(),
            kind,
            epoch: row.epoch(),
            cause: Some("by command".to_owned()),
            at: SystemTime::now(),
        };
        record::publish(record, &self.inner.wiring.actors, &self.inner.events);
    }
}

async fn restart(row: &Row) -> Result<(), ActorActionError> {
    let path = || row.path().to_owned();
    let supervisor = row.supervisor().ok_or_else(|| ActorActionError::NotRestartable(path()))?;
    let id = row.path().rsplit('/').next().unwrap_or_default().to_owned();
    let asked = supervisor.call(|reply_to| SupervisorMsg::RestartChild { id, reply_to }, Some(COMMAND_DEADLINE)).await;
    match asked {
        Ok(CallResult::Success(Ok(()))) => Ok(()),
        _ => Err(ActorActionError::NotRunning(path())),
    }
}
