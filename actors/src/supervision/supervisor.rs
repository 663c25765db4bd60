//! The supervisor actor: starts its children in order, restarts them by its rules, stops them in reverse.
//!
//! Supervised by another supervisor or by the host. Callers send it restarts and additions; its own tasks send
//! completions. When it dies by panic or kill, ractor kills its children, without their `post_stop`. When it is
//! stopped, it stops its children first, each within its deadline. It ends with a [`SupervisorError`] when its
//! rules say so.
//!
//! Nothing slow happens in its handlers: decisions are [`policy`](super::policy)'s, the work is done by tasks in a
//! set that is aborted when the supervisor goes.

mod state;

use std::time::Duration;

use ractor::{ActorCell, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::broadcast;

use super::addr::EpochSource;
use super::mailbox;
use super::policy::{ChildFacts, Event, Exit};
use super::record::SupervisionEventRecord;
use super::registry::ActorRegistry;
use super::rules::Rules;
use super::spec::{ChildSpec, DEFAULT_STOP_DEADLINE};
use super::tasks::{self, KILL_GRACE};
use state::{SupervisorState, reply};

/// Reference to a running supervisor.
pub type SupervisorRef = ActorRef<SupervisorMsg>;

/// What a supervisor can be told.
#[derive(Debug)]
pub enum SupervisorMsg {
    /// Restart a child, in whatever state it is, and those that depend on it; also ends a hold.
    RestartChild {
        /// The child's id.
        id: String,
        /// Answered at once, before the restart is done.
        reply_to: RpcReplyPort<Result<(), CommandError>>,
    },
    /// Stop all children in reverse order, then end.
    StopAll,
    /// What the children do.
    Children {
        /// Answered at once, in start order.
        reply_to: RpcReplyPort<Vec<ChildFacts>>,
    },
    /// Start one more child, last in the order. If its first start fails it is forgotten.
    AddChild {
        /// The child.
        spec: Box<ChildSpec>,
        /// Answered when its first start is over, however long that takes.
        reply_to: RpcReplyPort<Result<ActorCell, AddError>>,
    },
    /// Sent by its own tasks: there are completions to take.
    Completed,
}

crate::impl_message!(SupervisorMsg);

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is no such child.
    #[error("no child is called `{0}`")]
    UnknownChild(String),
    /// The supervisor is ending.
    #[error("the supervisor is stopping")]
    Stopping,
}

/// Why a child was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Its id is taken.
    #[error("there is a child called `{0}` already")]
    Duplicate(String),
    /// The supervisor is ending.
    #[error("the supervisor is stopping")]
    Stopping,
    /// Its first start failed.
    #[error("{0}")]
    StartFailed(String),
}

/// Why a supervisor ended by itself. Its own supervisor gets it as the `ActorFailed` error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupervisorError {
    /// Too many restarts.
    #[error("gave up restarting `{child}`: {cause}")]
    Exhausted {
        /// Id of the child.
        child: String,
        /// Why it failed last.
        cause: String,
    },
    /// A child never started; `cause` is what it said, unchanged through all levels of the tree.
    #[error("{cause}")]
    FirstStartFailed {
        /// Id of the child.
        child: String,
        /// Why.
        cause: String,
    },
}

/// What a supervisor is started with.
#[derive(Debug, Clone)]
pub struct SupervisorArgs {
    /// Where it stands in the tree, such as `cllm/engine-0`; for the records.
    pub path: String,
    /// What it decides by.
    pub rules: Rules,
    /// Its children in start order; ids are unique.
    pub children: Vec<ChildSpec>,
    /// The system's counter.
    pub epochs: EpochSource,
    /// The system's feed.
    pub events: broadcast::Sender<SupervisionEventRecord>,
    /// Where the facts about the children are kept.
    pub registry: ActorRegistry,
}

impl SupervisorArgs {
    /// The longest time that stopping all children can take.
    pub fn stop_budget(&self) -> Duration {
        let linked = DEFAULT_STOP_DEADLINE + KILL_GRACE;
        self.children.iter().map(|child| child.stop_deadline + KILL_GRACE).sum::<Duration>() + linked
    }
}

/// The actor.
#[derive(Debug, Clone, Copy, Default)]
pub struct Supervisor;

#[ractor::actor(message = SupervisorMsg, state = SupervisorState, arguments = SupervisorArgs)]
impl Supervisor {
    async fn pre_start(
        &self,
        myself: SupervisorRef,
        args: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        Ok(SupervisorState::new(myself, args))
    }

    // Not in `pre_start`: children can be linked only to an actor that is linked itself, or a kill of the parent
    // in between would miss them.
    async fn post_start(&self, myself: SupervisorRef, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        state.step(Event::Begin);
        state.end_when_due(&myself).await
    }

    async fn handle(
        &self,
        myself: SupervisorRef,
        message: SupervisorMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            SupervisorMsg::RestartChild { id, reply_to } => reply(reply_to, state.on_restart_child(id)),
            SupervisorMsg::StopAll => state.step(Event::StopAll),
            SupervisorMsg::Children { reply_to } => reply(reply_to, state.policy.facts()),
            SupervisorMsg::AddChild { spec, reply_to } => state.on_add_child(*spec, reply_to),
            SupervisorMsg::Completed => state.on_completed(),
        }
        state.end_when_due(&myself).await
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: SupervisorRef,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, corpse, reason) => {
                state.on_exit(who, tasks::classify(reason), corpse.and_then(|state| state.msg));
            }
            SupervisionEvent::ActorFailed(who, error) => state.on_exit(who, classify_failure(&error), None),
            _ => {}
        }
        Ok(())
    }

    async fn post_stop(&self, myself: SupervisorRef, state: &mut SupervisorState) -> Result<(), ActorProcessingErr> {
        state.stop_linked(&myself).await;
        state.step(Event::StopAll);
        while state.outcome.is_none() {
            let Some(completion) = state.completed.recv().await else { break };
            state.apply(completion);
        }
        Ok(())
    }
}

fn classify_failure(error: &ActorProcessingErr) -> Exit {
    match error.downcast_ref::<SupervisorError>() {
        Some(SupervisorError::FirstStartFailed { cause, .. }) => Exit::FirstStartFailed(cause.clone()),
        _ => Exit::Abnormal(error.to_string()),
    }
}
