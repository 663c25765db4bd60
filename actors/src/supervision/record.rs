//! What supervisors tell the world: one record per transition, broadcast and logged once.

use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use super::registry::ActorRegistry;
use crate::engine::protocol::Epoch;

/// A transition of a supervised child, or of its supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisionEventRecord {
    /// Where in the tree, such as `cllm/engine-0/backend-0`.
    pub path: String,
    /// What happened.
    pub kind: EventKind,
    /// Of the incarnation it happened to; 0 if there was none.
    pub epoch: Epoch,
    /// Why, one line.
    pub cause: Option<String>,
    /// When.
    pub at: SystemTime,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The child runs for the first time.
    Started,
    /// The child runs again.
    Restarted,
    /// A start did not succeed.
    StartFailed,
    /// The child's first start ever did not succeed; its supervisor ends.
    FirstStartFailed,
    /// The child ended by itself or was killed by somebody else.
    Exited,
    /// The child will be started again.
    RestartScheduled {
        /// When; the start may still have to wait for others to stop.
        delay: Duration,
    },
    /// The supervisor stopped the child.
    Stopped,
    /// The child did not stop and could not be killed: its thread is blocked.
    Zombie,
    /// Too many restarts.
    GaveUp,
    /// The supervisor keeps its children down.
    Held {
        /// Until the next try.
        retry_after: Duration,
    },
    /// The supervisor starts its children again after holding, or an actor goes on after a pause.
    Resumed,
    /// Somebody is about to kill the actor by command.
    Killed,
    /// The actor takes nothing new, by command.
    Paused,
    /// The chaos actor has done something to the actor.
    Disturbed,
}

/// Sends and logs a supervisor's records.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    pub(super) path: String,
    pub(super) events: broadcast::Sender<SupervisionEventRecord>,
    pub(super) registry: ActorRegistry,
}

impl Recorder {
    /// `child` is `None` for what happens to the supervisor itself.
    pub(super) fn record(&self, child: Option<&str>, kind: EventKind, epoch: Epoch, cause: Option<String>) {
        let record = SupervisionEventRecord { path: self.path_of(child), kind, epoch, cause, at: SystemTime::now() };
        publish(record, &self.registry, &self.events);
    }

    pub(super) fn path_of(&self, child: Option<&str>) -> String {
        child.map_or_else(|| self.path.clone(), |child| format!("{}/{child}", self.path))
    }
}

/// Writes a record down, logs it and sends it.
pub(crate) fn publish(
    record: SupervisionEventRecord,
    registry: &ActorRegistry,
    events: &broadcast::Sender<SupervisionEventRecord>,
) {
    log(&record.path, record.kind, record.epoch, record.cause.as_deref());
    registry.note(&record);
    // Nobody listening is no fault.
    let _ = events.send(record);
}

/// What goes as planned is for whoever debugs: a start, and a stop without a cause.
fn log(path: &str, kind: EventKind, epoch: Epoch, cause: Option<&str>) {
    match kind {
        EventKind::Started => tracing::debug!(actor = path, epoch, "actor started"),
        EventKind::Restarted => tracing::info!(actor = path, epoch, "actor restarted"),
        EventKind::StartFailed => tracing::warn!(actor = path, epoch, cause, "actor failed to start"),
        // Its supervisor ends over it and whoever started that is told the cause: theirs to report.
        EventKind::FirstStartFailed => tracing::debug!(actor = path, epoch, cause, "actor failed its first start"),
        EventKind::Exited => tracing::warn!(actor = path, epoch, cause, "actor exited"),
        EventKind::RestartScheduled { delay } => {
            tracing::info!(actor = path, epoch, delay_ms = delay.as_millis() as u64, "actor restart scheduled");
        }
        EventKind::Stopped if cause.is_none() => tracing::debug!(actor = path, epoch, "actor stopped"),
        EventKind::Stopped => tracing::info!(actor = path, epoch, cause, "actor stopped"),
        EventKind::Zombie => tracing::error!(actor = path, epoch, cause, "actor cannot be stopped"),
        EventKind::GaveUp => tracing::error!(actor = path, epoch, cause, "too many restarts"),
        EventKind::Held { retry_after } => {
            tracing::error!(actor = path, cause, retry_after_s = retry_after.as_secs(), "children are held down");
        }
        EventKind::Resumed => tracing::info!(actor = path, "resumed"),
        EventKind::Killed => tracing::warn!(actor = path, epoch, cause, "actor is killed by command"),
        EventKind::Disturbed => tracing::warn!(actor = path, epoch, fault = cause, "fault injected"),
        EventKind::Paused => tracing::warn!(actor = path, epoch, cause, "actor is paused by command"),
    }
}
