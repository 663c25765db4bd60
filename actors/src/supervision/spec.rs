//! What a supervisor needs to know of a child: how to start it, when to restart it, how long it may take.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorCell, ActorProcessingErr, SpawnErr};

use super::addr::Addr;
use super::board::Board;
use super::registry::{Gate, GateFn};
use super::rules::Restart;
use super::supervisor::{Supervisor, SupervisorArgs, SupervisorMsg};
use crate::engine::protocol::Epoch;

/// How long a child may take to stop unless its spec says otherwise.
pub const DEFAULT_STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long the start of an actor may take that only sets itself up. Not a default: what loads something takes its time.
pub const START_DEADLINE: Duration = Duration::from_secs(30);

type StartFuture = Pin<Box<dyn Future<Output = Result<(ActorCell, JoinHandle<()>), StartError>> + Send>>;
type StartFn = dyn Fn(ActorCell, Epoch) -> StartFuture + Send + Sync;

/// A child of a [`Supervisor`].
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) id: String,
    pub(super) restart: Restart,
    pub(super) start_deadline: Option<Duration>,
    pub(super) stop_deadline: Duration,
    pub(super) start: Arc<StartFn>,
    pub(super) on_down: Option<Arc<dyn Fn(Epoch) + Send + Sync>>,
    pub(super) board: Option<Arc<Board>>,
    pub(super) gate: Option<GateFn>,
}

/// Why a child did not start: what its `pre_start` said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(#[source] pub ActorProcessingErr);

impl From<SpawnErr> for StartError {
    fn from(error: SpawnErr) -> Self {
        match error {
            SpawnErr::StartupFailed(cause) => Self(cause),
            other => Self(other.into()),
        }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("id", &self.id).field("restart", &self.restart).finish_non_exhaustive()
    }
}

/// Waits, not for ever, until the previous owner of a name is gone: the children of a supervisor that was killed end
/// by themselves, some time after it.
async fn name_is_free(name: &str) {
    if let Some(previous) = ractor::registry::where_is(name) {
        // Still there: then the spawn says that the name is taken.
        let _ = previous.wait(Some(DEFAULT_STOP_DEADLINE)).await;
    }
}

impl ChildSpec {
    /// A child that `start` spawns, linked to the supervisor it is given.
    ///
    /// The future runs in a task of its own and may take as long as it wants; it is dropped when the start is
    /// cancelled, so nothing may lie between the spawn and its end that could be lost.
    pub fn new<F, Fut>(id: impl Into<String>, restart: Restart, start: F) -> Self
    where
        F: Fn(ActorCell, Epoch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(ActorCell, JoinHandle<()>), StartError>> + Send + 'static,
    {
        Self {
            id: id.into(),
            restart,
            start_deadline: None,
            stop_deadline: DEFAULT_STOP_DEADLINE,
            start: Arc::new(move |supervisor, epoch| Box::pin(start(supervisor, epoch))),
            on_down: None,
            board: None,
            gate: None,
        }
    }

    /// A permanent child made by `make` for each epoch, registered as `{prefix}/{id}` and published under `addr`.
    pub fn actor<A, F>(prefix: &str, id: impl Into<String>, addr: Addr<A::Msg>, make: F) -> Self
    where
        A: Actor,
        F: Fn(Epoch) -> (A, A::Arguments) + Send + Sync + 'static,
    {
        let id = id.into();
        let name = format!("{prefix}/{id}");
        let published = addr.clone();
        let start = move |supervisor, epoch| {
            let (addr, name) = (published.clone(), name.clone());
            let (actor, arguments) = make(epoch);
            async move {
                name_is_free(&name).await;
                let (actor, join) = A::spawn_linked(Some(name), actor, arguments, supervisor).await?;
                addr.publish(actor.clone(), epoch);
                Ok((actor.get_cell(), join))
            }
        };
        Self::new(id, Restart::Permanent, start).on_down(move |epoch| addr.clear(epoch))
    }

    /// A permanent child that is a supervisor, with time to stop all its own children.
    pub fn supervisor(prefix: &str, id: impl Into<String>, addr: Addr<SupervisorMsg>, args: SupervisorArgs) -> Self {
        let deadline = args.stop_budget();
        Self::actor(prefix, id, addr, move |_| (Supervisor, args.clone())).stop_deadline(deadline)
    }

    /// When it is restarted. Default permanent.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// A start that takes longer fails. Default unlimited.
    #[must_use]
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = Some(deadline);
        self
    }

    /// A stop that takes longer becomes a kill. Default [`DEFAULT_STOP_DEADLINE`].
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// Called with the epoch of each incarnation that is down, in the supervisor's task: must not block.
    #[must_use]
    pub fn on_down(mut self, call: impl Fn(Epoch) + Send + Sync + 'static) -> Self {
        self.on_down = Some(Arc::new(call));
        self
    }

    /// What the child shows of itself, over all its incarnations.
    #[must_use]
    pub fn board(mut self, board: Arc<Board>) -> Self {
        self.board = Some(board);
        self
    }

    /// The child can pause: `tell` sends it word, must not block, and says whether there was somebody to tell.
    #[must_use]
    pub fn pausable(mut self, tell: impl Fn(Gate) -> bool + Send + Sync + 'static) -> Self {
        self.gate = Some(Arc::new(tell));
        self
    }
}
