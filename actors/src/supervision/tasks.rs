//! The slow things a supervisor has done in tasks of their own, so that it is never deaf: starting a child, stopping
//! one, waiting for one to be gone. Each ends with exactly one [`Completion`].

use std::any::Any;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{ActorCell, ActorRef};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::mailbox;
use super::policy::{Event, Exit, StopOutcome};
use super::spec::{ChildSpec, StartError};
use super::supervisor::SupervisorMsg;
use crate::engine::protocol::Epoch;

/// How long a killed child may take to be gone before it counts as a zombie.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(1);

/// State of a dead child, still alive: on a stop or kill ractor hands it to the supervisor.
pub(super) type Corpse = Box<dyn Any + Send>;

/// A running child.
pub(super) struct Incarnation {
    pub(super) cell: ActorCell,
    pub(super) join: JoinHandle<()>,
}

/// What a task brings back.
pub(super) enum Completion {
    Started { child: usize, epoch: Epoch, incarnation: Incarnation },
    Other(Event),
}

/// Where tasks put their completions. A channel beside the mailbox, because `post_stop` has to go on receiving
/// when the mailbox is closed.
#[derive(Clone)]
pub(super) struct Completions {
    pub(super) queue: mpsc::UnboundedSender<Completion>,
    pub(super) wake: ActorRef<SupervisorMsg>,
}

impl Completions {
    pub(super) fn send(&self, completion: Completion) {
        // Either fails only when the supervisor is gone or in its `post_stop`, which needs no waking.
        let _ = self.queue.send(completion);
        let _ = self.wake.cast(SupervisorMsg::Completed);
    }
}

/// Starts a child until it runs, fails, takes too long, or `cancel` is sent or dropped.
pub(super) async fn start(
    spec: ChildSpec,
    (child, epoch): (usize, Epoch),
    cancel: oneshot::Receiver<()>,
    done: Completions,
) {
    // A set of one, because a set aborts its tasks when it is dropped.
    let mut task = JoinSet::new();
    task.spawn((spec.start)(done.wake.get_cell(), epoch));
    let given_up = tokio::select! {
        biased;
        joined = task.join_next() => return done.send(started(child, epoch, joined)),
        _ = cancel => "the start was cancelled".to_owned(),
        limit = deadline(spec.start_deadline) => format!("it did not start within {limit:?}"),
    };
    task.abort_all();
    let completion = match timeout(spec.stop_deadline, task.join_next()).await {
        Ok(Some(Err(error))) if error.is_cancelled() => start_failed(child, epoch, given_up),
        Ok(joined) => started(child, epoch, joined),
        Err(_) => start_failed(child, epoch, format!("{given_up}, and is blocked")),
    };
    done.send(completion);
}

/// Returns the limit when it is over; without one, never.
async fn deadline(limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    sleep(limit).await;
    limit
}

type Joined = Option<Result<Result<(ActorCell, JoinHandle<()>), StartError>, tokio::task::JoinError>>;

fn started(child: usize, epoch: Epoch, joined: Joined) -> Completion {
    match joined {
        Some(Ok(Ok((cell, join)))) => Completion::Started { child, epoch, incarnation: Incarnation { cell, join } },
        Some(Ok(Err(error))) => start_failed(child, epoch, error.to_string()),
        Some(Err(error)) => start_failed(child, epoch, error.to_string()),
        None => start_failed(child, epoch, "its start task vanished".to_owned()),
    }
}

fn start_failed(child: usize, epoch: Epoch, cause: String) -> Completion {
    Completion::Other(Event::StartFailed { child, epoch, cause })
}

/// Stops a child, kills it when `stop_deadline` has passed, gives it up when that does not help.
pub(super) async fn stop(
    mut incarnation: Incarnation,
    (child, epoch): (usize, Epoch),
    stop_deadline: Duration,
    done: Completions,
) {
    let how = end(&incarnation.cell, &mut incarnation.join, stop_deadline).await;
    mailbox::forget(incarnation.cell.get_id());
    done.send(Completion::Other(Event::Stopped { child, epoch, how }));
}

async fn end(cell: &ActorCell, join: &mut JoinHandle<()>, stop_deadline: Duration) -> StopOutcome {
    cell.stop(Some("stopped by its supervisor".to_owned()));
    if timeout(stop_deadline, &mut *join).await.is_ok() {
        return StopOutcome::Clean;
    }
    cell.kill();
    match timeout(KILL_GRACE, join).await {
        Ok(_) => StopOutcome::Killed,
        Err(_) => StopOutcome::Zombie,
    }
}

/// Waits, within limits, until nothing of a child that ended by itself is left, so that a restart never has two
/// copies of its state in memory.
pub(super) async fn reap(
    incarnation: Incarnation,
    corpse: Option<Corpse>,
    (event, within): (Event, Duration),
    done: Completions,
) {
    // A child that overruns here has sent its exit already; it can hold back the restart, not prevent it.
    let _ = timeout(within, incarnation.join).await;
    mailbox::forget(incarnation.cell.get_id());
    bury(corpse, within).await;
    done.send(Completion::Other(event));
}

/// Drops a dead child's state where blocking does no harm: it may have to join threads or free gigabytes.
pub(super) async fn bury(corpse: Option<Corpse>, within: Duration) {
    if let Some(corpse) = corpse {
        let _ = timeout(within, tokio::task::spawn_blocking(move || drop(corpse))).await;
    }
}

/// Stops actors that were linked to a supervisor by others, all at once: stop, after the deadline kill.
/// Returns those that are still there.
pub(super) async fn stop_linked(cells: Vec<ActorCell>, stop_deadline: Duration) -> Vec<ActorCell> {
    let mut stops = JoinSet::new();
    for cell in cells {
        stops.spawn(async move {
            cell.stop(Some("stopped by its supervisor".to_owned()));
            let gone =
                cell.wait(Some(stop_deadline)).await.is_ok() || cell.kill_and_wait(Some(KILL_GRACE)).await.is_ok();
            mailbox::forget(cell.get_id());
            (!gone).then_some(cell)
        });
    }
    stops.join_all().await.into_iter().flatten().collect()
}

/// What ractor's reason for a termination means. `None` is a plain stop.
pub(super) fn classify(reason: Option<String>) -> Exit {
    match reason {
        Some(reason) if reason == "killed" || reason == "actor_task_cancelled" => Exit::Abnormal(reason),
        reason => Exit::Normal(reason.unwrap_or_else(|| "stopped".to_owned())),
    }
}
