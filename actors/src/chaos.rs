//! The chaos actor: injects faults at random, for tests and demonstrations. Off unless asked for.
//!
//! Child of the root. On every tick it kills scheduler, kv-cache or backend, or has the backend end or suspend its
//! engine's process. What it does follows from the seed alone. Nothing depends on it; stopping it ends the faults.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorProcessingErr, ActorRef, Message};
use tokio::task::JoinHandle;

use crate::backend::BackendMsg;
use crate::engine::host::EngineFault;
use crate::supervision::Addr;
use crate::wiring::Wiring;

/// What the actor is told.
#[derive(Debug)]
pub enum ChaosMsg {
    /// From its own timer: do something.
    Tick,
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
    /// The victims.
    pub wiring: Arc<Wiring>,
}

/// State of the actor.
#[derive(Debug)]
pub struct ChaosState {
    wiring: Arc<Wiring>,
    random: fastrand::Rng,
    timer: JoinHandle<()>,
}

impl Drop for ChaosState {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Scheduler,
    KvCache,
    Backend,
    Engine(EngineFault),
}

const FAULTS: [Fault; 5] = [
    Fault::Scheduler,
    Fault::KvCache,
    Fault::Backend,
    Fault::Engine(EngineFault::Killed),
    Fault::Engine(EngineFault::Suspended),
];

/// The actor.
#[derive(Debug, Default)]
pub struct Chaos;

#[ractor::actor(message = ChaosMsg, state = ChaosState, arguments = ChaosArgs)]
impl Chaos {
    async fn pre_start(&self, myself: ActorRef<ChaosMsg>, args: ChaosArgs) -> Result<ChaosState, ActorProcessingErr> {
        let ChaosOptions { seed, interval } = args.options;
        tracing::warn!(seed, interval_ms = interval.as_millis() as u64, "faults are injected on purpose");
        let timer = myself.send_interval(interval, || ChaosMsg::Tick);
        Ok(ChaosState { wiring: args.wiring, random: fastrand::Rng::with_seed(seed), timer })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ChaosMsg>,
        message: ChaosMsg,
        state: &mut ChaosState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ChaosMsg::Tick => state.on_tick(),
        }
        Ok(())
    }
}

impl ChaosState {
    fn on_tick(&mut self) {
        let fault = FAULTS[self.random.usize(..FAULTS.len())];
        tracing::warn!(?fault, "fault injected");
        match fault {
            Fault::Scheduler => kill(&self.wiring.scheduler),
            Fault::KvCache => kill(&self.wiring.kv_cache),
            Fault::Backend => kill(&self.wiring.backend),
            // Undeliverable: it is down already.
            Fault::Engine(fault) => drop(self.wiring.backend.cast(BackendMsg::Disturb(fault))),
        }
    }
}

fn kill<M: Message>(addr: &Addr<M>) {
    if let Some(actor) = addr.current() {
        actor.kill();
    }
}
