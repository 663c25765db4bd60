//! The supervisor of short-lived children that others spawn, such as one session per request.
//!
//! A caller spawns its actor with `spawn_linked(.., cell of this supervisor)`, so that `pre_start` runs in the
//! caller's task. Children are temporary: an exit of any kind is noted and forgotten. Sends nothing. When it dies,
//! ractor kills the children. When it is stopped, all children are stopped at once, and killed after the deadline;
//! from then on no child can be linked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::broadcast;

use super::board::Board;
use super::mailbox;
use super::policy::Exit;
use super::record::{EventKind, Recorder, SupervisionEventRecord};
use super::registry::ActorRegistry;
use super::tasks;

/// Reference to a running dynamic supervisor.
pub type DynamicSupervisorRef = ActorRef<DynamicSupervisorMsg>;

/// What a dynamic supervisor can be told.
#[derive(Debug)]
pub enum DynamicSupervisorMsg {
    /// How the children fare.
    Tally {
        /// Answered at once.
        reply_to: RpcReplyPort<Tally>,
    },
}

crate::impl_message!(DynamicSupervisorMsg);

/// How the children of a dynamic supervisor fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Alive.
    pub live: u64,
    /// Ended normally.
    pub finished: u64,
    /// Ended by panic, error, kill or cancellation.
    pub failed: u64,
}

/// What a dynamic supervisor is started with.
#[derive(Debug, Clone)]
pub struct DynamicSupervisorArgs {
    /// Where it stands in the tree, such as `cllm/sessions`; for the records.
    pub path: String,
    /// How long the children may take to stop before they are killed. The supervisor's own stop deadline must be
    /// at least 1 s longer.
    pub stop_deadline: Duration,
    /// The system's feed; only failures are sent to it.
    pub events: broadcast::Sender<SupervisionEventRecord>,
    /// Where the facts about the supervisor itself are kept.
    pub registry: ActorRegistry,
    /// Its first place shows how many children are alive.
    pub board: Arc<Board>,
}

/// Only ractor sees it.
pub struct DynamicSupervisorState {
    recorder: Recorder,
    stop_deadline: Duration,
    board: Arc<Board>,
    open: HashSet<ActorId>,
    finished: u64,
    failed: u64,
}

/// The actor.
#[derive(Debug, Clone, Copy, Default)]
pub struct DynamicSupervisor;

#[ractor::actor(message = DynamicSupervisorMsg, state = DynamicSupervisorState, arguments = DynamicSupervisorArgs)]
impl DynamicSupervisor {
    async fn pre_start(
        &self,
        _myself: DynamicSupervisorRef,
        args: DynamicSupervisorArgs,
    ) -> Result<DynamicSupervisorState, ActorProcessingErr> {
        let recorder = Recorder { path: args.path, events: args.events, registry: args.registry };
        let state = DynamicSupervisorState {
            recorder,
            stop_deadline: args.stop_deadline,
            board: args.board,
            open: HashSet::new(),
            finished: 0,
            failed: 0,
        };
        state.show();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: DynamicSupervisorRef,
        message: DynamicSupervisorMsg,
        state: &mut DynamicSupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            DynamicSupervisorMsg::Tally { reply_to } => state.on_tally(&myself, reply_to),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: DynamicSupervisorRef,
        event: SupervisionEvent,
        state: &mut DynamicSupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(who) => state.on_started(&who),
            SupervisionEvent::ActorTerminated(who, _, reason) => state.on_exit(&who, tasks::classify(reason)),
            SupervisionEvent::ActorFailed(who, error) => state.on_exit(&who, Exit::Abnormal(error.to_string())),
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        myself: DynamicSupervisorRef,
        state: &mut DynamicSupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        // Complete: from `Stopping` on, which this is, ractor links no more children.
        for zombie in tasks::stop_linked(myself.get_children(), state.stop_deadline).await {
            let name = state.name(&zombie);
            state.recorder.record(Some(&name), EventKind::Zombie, 0, None);
        }
        Ok(())
    }
}

impl DynamicSupervisorState {
    fn on_tally(&self, myself: &DynamicSupervisorRef, reply_to: RpcReplyPort<Tally>) {
        let live = myself.get_children().len() as u64;
        // A caller that went away is no fault.
        let _ = reply_to.send(Tally { live, finished: self.finished, failed: self.failed });
    }

    fn on_started(&mut self, who: &ActorCell) {
        self.open.insert(who.get_id());
        self.show();
    }

    fn show(&self) {
        self.board.set(0, self.open.len() as u64);
    }

    fn on_exit(&mut self, who: &ActorCell, exit: Exit) {
        self.open.remove(&who.get_id());
        self.show();
        mailbox::forget(who.get_id());
        match exit {
            Exit::Normal(_) => self.finished += 1,
            Exit::Abnormal(cause) | Exit::FirstStartFailed(cause) => {
                self.failed += 1;
                self.recorder.record(Some(&self.name(who)), EventKind::Exited, 0, Some(cause));
            }
        }
    }

    /// The last part of a child's path.
    fn name(&self, who: &ActorCell) -> String {
        let name = who.get_name().unwrap_or_else(|| who.get_id().to_string());
        name.strip_prefix(&self.recorder.path).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&name).to_owned()
    }
}
