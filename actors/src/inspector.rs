//! The inspector actor: keeps the feed of what happened to the actors.
//!
//! Supervised by the root. Nobody sends it anything but itself. It reads the supervisors' records and appends them,
//! numbered, to an [`EventLog`], which readers follow without asking it. Log and unread records are outside of it, so when
//! it dies the next incarnation goes on where it was, and nothing is missing. It stops by dropping its task.
//!
//! [`snapshot`] draws the state of all actors, [`tree`] writes it as text.

pub mod log;
pub mod snapshot;
pub mod tree;

use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, broadcast};
use tokio::task::JoinHandle;

use self::log::EventLog;
use crate::supervision::{SupervisionEventRecord, mailbox};

/// Reference to an inspector.
pub type InspectorRef = ActorRef<InspectorMsg>;

/// What the inspector is told.
#[derive(Debug)]
pub enum InspectorMsg {
    /// From its task: no record will come any more. It stops.
    FeedEnded,
}

crate::impl_message!(InspectorMsg);

/// What an inspector starts with; the same for every incarnation.
#[derive(Debug, Clone)]
pub struct InspectorArgs {
    /// The records not yet read; locked by the running incarnation.
    pub feed: Arc<Mutex<broadcast::Receiver<SupervisionEventRecord>>>,
    /// Where they go.
    pub log: EventLog,
}

/// State of an inspector.
#[derive(Debug)]
pub struct InspectorState {
    reading: JoinHandle<()>,
}

impl Drop for InspectorState {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// The actor.
#[derive(Debug, Default)]
pub struct Inspector;

#[ractor::actor(message = InspectorMsg, state = InspectorState, arguments = InspectorArgs)]
impl Inspector {
    async fn pre_start(&self, myself: InspectorRef, args: InspectorArgs) -> Result<InspectorState, ActorProcessingErr> {
        let reading = tokio::spawn(async move {
            read(&args).await;
            // An actor that is gone needs no telling.
            let _ = myself.cast(InspectorMsg::FeedEnded);
        });
        Ok(InspectorState { reading })
    }

    async fn handle(
        &self,
        myself: InspectorRef,
        message: InspectorMsg,
        _state: &mut InspectorState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            InspectorMsg::FeedEnded => myself.stop(None),
        }
        Ok(())
    }
}

/// Waits for its turn and reads to the end of the feed. Nothing is lost where it is aborted: a record that was received
/// is appended before the next pause.
async fn read(args: &InspectorArgs) {
    let mut feed = args.feed.lock().await;
    loop {
        match feed.recv().await {
            Ok(record) => args.log.append(record),
            Err(RecvError::Lagged(missed)) => args.log.skip(missed),
            Err(RecvError::Closed) => return,
        }
    }
}
