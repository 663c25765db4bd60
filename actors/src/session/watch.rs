//! A session's eyes: one task that turns what happens around a session into messages to it. Ends with the session.

use std::future::pending;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval_at, sleep_until};

use super::outbox::Receiver;
use super::{Deadline, SessionArgs, SessionMsg, SessionRef};
use crate::engine::protocol::Epoch;
use crate::error::GenerateError;
use crate::request::{Deadlines, GenerationEvent};
use crate::system::{Status, left_until};

/// How often a queued session asks for its position.
const POSITION_INTERVAL: Duration = Duration::from_secs(2);

/// The task; aborted on drop.
#[derive(Debug)]
pub(super) struct Watch {
    task: JoinHandle<()>,
}

impl Watch {
    pub(super) fn start(session: &SessionRef, args: &SessionArgs) -> Self {
        let eyes = Eyes {
            session: session.clone(),
            receiver: match &args.receiver {
                Receiver::Channel(channel) => Presence::Channel(channel.clone()),
                Receiver::Actor { cell, .. } => Presence::Actor(cell.clone()),
            },
            epochs: args.wiring.scheduler.epochs(),
            status: args.wiring.status.subscribe(),
            arrived_at: args.arrived_at,
            deadlines: args.request.deadlines,
        };
        Self { task: tokio::spawn(eyes.watch()) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Eyes {
    session: SessionRef,
    receiver: Presence,
    epochs: watch::Receiver<Epoch>,
    status: watch::Receiver<Status>,
    arrived_at: Instant,
    deadlines: Deadlines,
}

enum Presence {
    Channel(mpsc::Sender<GenerationEvent>),
    Actor(ractor::ActorCell),
    Gone,
}

impl Presence {
    async fn gone(&self) {
        match self {
            Self::Channel(channel) => channel.closed().await,
            Self::Actor(cell) => drop(cell.wait(None).await),
            Self::Gone => pending().await,
        }
    }
}

impl Eyes {
    async fn watch(mut self) {
        let mut queue = self.timer(self.deadlines.queue);
        let mut first_token = self.timer(self.deadlines.first_token);
        let mut total = self.timer(Some(self.deadlines.total));
        let now = tokio::time::Instant::now();
        let mut positions = interval_at(now + POSITION_INTERVAL / 2, POSITION_INTERVAL);
        let mut is_up = true;
        loop {
            let message = tokio::select! {
                () = self.receiver.gone() => SessionMsg::ReceiverGone,
                epoch = next_epoch(&mut self.epochs) => SessionMsg::SchedulerRestarted { epoch },
                error = engine_down(&mut self.status), if is_up => SessionMsg::EngineDown(error),
                () = at(&mut queue) => SessionMsg::DeadlinePassed(Deadline::Queue),
                () = at(&mut first_token) => SessionMsg::DeadlinePassed(Deadline::FirstToken),
                () = at(&mut total) => SessionMsg::DeadlinePassed(Deadline::Total),
                _ = positions.tick() => SessionMsg::AskPosition,
            };
            if matches!(message, SessionMsg::ReceiverGone) {
                // Said once; others may follow the session, so the rest goes on.
                self.receiver = Presence::Gone;
            }
            // Said once as well: whoever has its whole answer goes on without an engine.
            is_up &= !matches!(message, SessionMsg::EngineDown(_));
            if self.session.cast(message).is_err() {
                return;
            }
        }
    }

    fn timer(&self, deadline: Option<Duration>) -> Option<tokio::time::Instant> {
        deadline.and_then(|deadline| self.arrived_at.checked_add(deadline)).map(tokio::time::Instant::from_std)
    }
}

/// Completes once, at that instant.
async fn at(instant: &mut Option<tokio::time::Instant>) {
    match instant {
        Some(when) => sleep_until(*when).await,
        None => pending().await,
    }
    *instant = None;
}

async fn next_epoch(epochs: &mut watch::Receiver<Epoch>) -> Epoch {
    if epochs.changed().await.is_err() {
        pending::<()>().await;
    }
    *epochs.borrow_and_update()
}

async fn engine_down(status: &mut watch::Receiver<Status>) -> GenerateError {
    loop {
        if let Status::Held { cause, retry_at } = &*status.borrow_and_update() {
            return GenerateError::EngineDown { cause: cause.clone(), retry_after: left_until(*retry_at) };
        }
        if status.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}
