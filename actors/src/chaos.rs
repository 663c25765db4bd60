//! The chaos actor: injects faults at random, for tests and demonstrations. Off unless asked for.
//!
//! Child of the root. On every tick it kills an actor, makes its next handler panic or block, or has the backend kill,
//! abort, hang or slow down its engine's process. Which fault comes next follows from the seed alone (`chaos/plan.rs`);
//! the sessions are spared, because a session that dies ends its request. Each fault is an event `disturbed` of its
//! victim's incarnation, so that faults and failures can be compared. It begins when the model is loaded, can be paused,
//! and nothing depends on it; stopping it ends the faults.

mod plan;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::plan::{ActorFault, Engine, Fault, Plan, ProcessFault, ResponseCache};
use crate::backend::BackendMsg;
use crate::boards::chaos as board;
use crate::engine::host::{EngineFault, HostKind};
use crate::engine::protocol::Epoch;
use crate::names;
use crate::supervision::disturbance::Disturbance;
use crate::supervision::{Board, EventKind, Gate, SupervisionEventRecord, mailbox, record};
use crate::system::Status;
use crate::wiring::Wiring;

/// Reference to the chaos actor.
pub type ChaosRef = ActorRef<ChaosMsg>;

/// What the actor is told.
#[derive(Debug)]
pub enum ChaosMsg {
    /// By command: stop or go on.
    SetGate(Gate),
    /// From its own timer: do something.
    Tick,
    /// From its own timer: the engine has been slow for long enough.
    Resume,
}

crate::impl_message!(ChaosMsg);

/// How much chaos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChaosOptions {
    /// What happens follows from it.
    pub seed: u64,
    /// Time between two faults.
    pub interval: Duration,
}

/// What the actor starts with.
#[derive(Debug, Clone)]
pub struct ChaosArgs {
    /// How much.
    pub options: ChaosOptions,
    /// Prefix of the actors' names.
    pub instance: String,
    /// Where the engine runs: threads cannot be hurt.
    pub host: HostKind,
    /// Whether there is a response cache to hit.
    pub caches_responses: bool,
    /// The victims.
    pub wiring: Arc<Wiring>,
    /// Where faults are told.
    pub events: broadcast::Sender<SupervisionEventRecord>,
    /// What it shows of itself.
    pub board: Arc<Board>,
}

/// State of the actor.
#[derive(Debug)]
pub struct ChaosState {
    args: ChaosArgs,
    plan: Plan,
    gate: Gate,
    /// The backend whose engine is to be ended by the watchdog.
    hung: Option<Epoch>,
    /// The engine stands still until this.
    slow: Option<JoinHandle<()>>,
    timer: JoinHandle<()>,
}

impl Drop for ChaosState {
    fn drop(&mut self) {
        self.timer.abort();
        self.resume();
    }
}

/// The actor.
#[derive(Debug, Default)]
pub struct Chaos;

#[ractor::actor(message = ChaosMsg, state = ChaosState, arguments = ChaosArgs)]
impl Chaos {
    async fn pre_start(&self, myself: ChaosRef, args: ChaosArgs) -> Result<ChaosState, ActorProcessingErr> {
        let ChaosOptions { seed, interval } = args.options;
        tracing::warn!(seed, interval_ms = interval.as_millis() as u64, "faults are injected on purpose");
        let timer = myself.send_interval(interval, || ChaosMsg::Tick);
        let engine = if args.host == HostKind::Thread { Engine::Thread } else { Engine::Process };
        let cache = if args.caches_responses { ResponseCache::There } else { ResponseCache::Absent };
        [board::INJECTED, board::MISSED].into_iter().for_each(|place| args.board.add(place, 0));
        Ok(ChaosState { plan: Plan::new(seed, engine, cache), args, gate: Gate::Open, hung: None, slow: None, timer })
    }

    async fn handle(
        &self,
        myself: ChaosRef,
        message: ChaosMsg,
        state: &mut ChaosState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            ChaosMsg::SetGate(gate) => state.gate = gate,
            ChaosMsg::Tick => state.on_tick(&myself),
            ChaosMsg::Resume => state.resume(),
        }
        Ok(())
    }
}

impl ChaosState {
    /// A first load that fails ends the server by design, so it is left alone.
    fn on_tick(&mut self, myself: &ChaosRef) {
        let loading = matches!(*self.args.wiring.status.borrow(), Status::Loading { .. });
        if self.gate == Gate::Paused || loading {
            return;
        }
        match self.plan.next() {
            Fault::Actor { victim, what } => self.hurt_actor(victim, what),
            Fault::Engine(fault) => self.hurt_engine(myself, fault),
        }
    }

    fn hurt_actor(&self, victim: &str, what: ActorFault) {
        let path = format!("{}/{victim}", self.args.instance);
        let hit = self.args.wiring.actors.find(&path).and_then(|row| match what {
            ActorFault::Killed => row.kill(),
            ActorFault::Panics => row.disturb(Disturbance::Panic),
            ActorFault::Slow(time) => row.disturb(Disturbance::Block(time)),
        });
        self.tell(path, hit, what.to_string());
    }

    fn hurt_engine(&mut self, myself: &ChaosRef, fault: ProcessFault) {
        let path = format!("{}/{}/{}", self.args.instance, names::ENGINE, names::BACKEND);
        let backend = &self.args.wiring.backend;
        // Letting a hung engine go on would take the fault back.
        let hit = match fault {
            ProcessFault::Slow(_) if self.hung.is_some() && self.hung == Some(*backend.epochs().borrow()) => None,
            ProcessFault::Slow(time) => {
                let hit = backend.cast(BackendMsg::Disturb(EngineFault::Paused)).ok();
                if hit.is_some() && self.slow.is_none() {
                    let timer = myself.send_after(time, || ChaosMsg::Resume);
                    self.slow = Some(tokio::spawn(async move { drop(timer.await) }));
                }
                hit
            }
            ProcessFault::Hung => {
                self.slow.take().inspect(JoinHandle::abort);
                self.hung = backend.cast(BackendMsg::Disturb(EngineFault::Hung)).ok();
                self.hung
            }
            ProcessFault::Killed => backend.cast(BackendMsg::Disturb(EngineFault::Killed)).ok(),
            ProcessFault::Aborted => backend.cast(BackendMsg::Disturb(EngineFault::Aborted)).ok(),
        };
        self.tell(path, hit, fault.to_string());
    }

    /// The engine that was slow goes on; a newer one does not mind.
    fn resume(&mut self) {
        if let Some(timer) = self.slow.take() {
            timer.abort();
            // Undeliverable: the backend is gone, and its engine with it.
            let _ = self.args.wiring.backend.cast(BackendMsg::Disturb(EngineFault::Resumed));
        }
    }

    /// `hit`: the incarnation that got the fault, if the victim was there.
    fn tell(&self, path: String, hit: Option<Epoch>, fault: String) {
        let Some(epoch) = hit else { return self.args.board.add(board::MISSED, 1) };
        self.args.board.add(board::INJECTED, 1);
        let kind = EventKind::Disturbed;
        let record = SupervisionEventRecord { path, kind, epoch, cause: Some(fault), at: SystemTime::now() };
        record::publish(record, &self.args.wiring.actors, &self.args.events);
    }
}
