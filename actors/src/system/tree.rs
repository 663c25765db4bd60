//! The supervision tree: who starts after whom and is restarted how.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use super::SystemArgs;
use crate::backend::{Backend, BackendArgs};
use crate::boards;
use crate::chaos::{Chaos, ChaosArgs, ChaosMsg, ChaosOptions};
use crate::inspector::{Inspector, InspectorArgs};
use crate::kv_cache::{KvCache, KvCacheArgs, RetainBudget};
use crate::names;
use crate::response_cache::{CacheOptions, ResponseCache, ResponseCacheArgs};
use crate::scheduler::{Scheduler, SchedulerArgs, SchedulerMsg};
use crate::supervision::supervisor::SupervisorArgs;
use crate::supervision::{
    Addr, ChildSpec, DynamicSupervisor, DynamicSupervisorArgs, DynamicSupervisorMsg, EpochSource, Rules,
    START_DEADLINE, SupervisionEventRecord,
};
use crate::system::Status;
use crate::wiring::Wiring;

/// How long open requests may take to say goodbye when everything stops.
const SESSIONS_DEADLINE: Duration = Duration::from_secs(5);

/// What all supervisors of a system share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) wiring: &'a Arc<Wiring>,
    pub(super) epochs: &'a EpochSource,
    pub(super) events: &'a broadcast::Sender<SupervisionEventRecord>,
}

/// The root with everything under it.
pub(super) fn root(
    args: &SystemArgs,
    shared: Shared<'_>,
    sessions: &Addr<DynamicSupervisorMsg>,
    inspector: InspectorArgs,
) -> SupervisorArgs {
    let Shared { wiring, epochs, events } = shared;
    let engine = SupervisorArgs {
        path: format!("{}/{}", args.instance, names::ENGINE),
        rules: rules(args, args.engine_rules),
        children: vec![backend(args, wiring), kv_cache(args, wiring), scheduler(args, wiring)],
        epochs: epochs.clone(),
        events: events.clone(),
        registry: wiring.actors.clone(),
    };
    let engine_addr = Addr::new();
    let response_cache = args.response_cache.map(|options| response_cache(args, options, wiring));
    let chaos = args.chaos.map(|options| chaos(args, options, shared));
    SupervisorArgs {
        path: args.instance.clone(),
        rules: rules(args, args.root_rules),
        children: [
            ChildSpec::supervisor(&args.instance, names::ENGINE, engine_addr.clone(), engine)
                .start_deadline(START_DEADLINE)
                .on_down(mark_down(wiring, names::ENGINE, engine_addr)),
            sessions_supervisor(args, sessions, shared),
            ChildSpec::actor(&args.instance, names::INSPECTOR, Addr::new(), move |_| (Inspector, inspector.clone()))
                .restart(args.restarts.inspector)
                .start_deadline(START_DEADLINE),
        ]
        .into_iter()
        .chain(response_cache)
        .chain(chaos)
        .collect(),
        epochs: epochs.clone(),
        events: events.clone(),
        registry: wiring.actors.clone(),
    }
}

/// Without a limit of restarts while faults are injected: then they are no sign of anything.
fn rules(args: &SystemArgs, mut rules: Rules) -> Rules {
    if args.chaos.is_some() {
        rules.intensity.max_restarts = u32::MAX;
        rules.backoff.max = rules.backoff.min;
    }
    rules
}

fn chaos(args: &SystemArgs, options: ChaosOptions, Shared { wiring, events, .. }: Shared<'_>) -> ChildSpec {
    let board = Arc::new(boards::chaos::board());
    let chaos = ChaosArgs {
        options,
        instance: args.instance.clone(),
        host: args.host.clone(),
        caches_responses: args.response_cache.is_some(),
        wiring: wiring.clone(),
        events: events.clone(),
        board: board.clone(),
    };
    let addr = Addr::new();
    ChildSpec::actor(&args.instance, names::CHAOS, addr.clone(), move |_| (Chaos, chaos.clone()))
        .board(board)
        .start_deadline(START_DEADLINE)
        .pausable(move |gate| addr.cast(ChaosMsg::SetGate(gate)).is_ok())
}

fn response_cache(args: &SystemArgs, options: CacheOptions, wiring: &Arc<Wiring>) -> ChildSpec {
    let cache = ResponseCacheArgs { options, wiring: wiring.clone() };
    let addr = wiring.response_cache.clone();
    ChildSpec::actor(&args.instance, names::RESPONSE_CACHE, addr, move |_| (ResponseCache, cache.clone()))
        .restart(args.restarts.response_cache)
        .start_deadline(START_DEADLINE)
        .board(wiring.boards.response_cache.clone())
}

fn backend(args: &SystemArgs, wiring: &Arc<Wiring>) -> ChildSpec {
    let backend = BackendArgs { engine: args.engine.clone(), host: args.host.clone(), wiring: wiring.clone() };
    // No deadline for its start: the engine's watchdog guards the load.
    ChildSpec::actor(&args.instance, names::BACKEND, wiring.backend.clone(), move |_| (Backend, backend.clone()))
        .on_down(mark_down(wiring, names::BACKEND, wiring.backend.clone()))
        .restart(args.restarts.backend)
        .board(wiring.boards.backend.clone())
}

fn kv_cache(args: &SystemArgs, wiring: &Arc<Wiring>) -> ChildSpec {
    let budget = RetainBudget { entries: args.retained(), bytes: args.retained_bytes };
    let kv_cache = KvCacheArgs { wiring: wiring.clone(), budget };
    ChildSpec::actor(&args.instance, names::KV_CACHE, wiring.kv_cache.clone(), move |_| (KvCache, kv_cache.clone()))
        .on_down(mark_down(wiring, names::KV_CACHE, wiring.kv_cache.clone()))
        .restart(args.restarts.kv_cache)
        .start_deadline(START_DEADLINE)
        .board(wiring.boards.kv_cache.clone())
}

fn scheduler(args: &SystemArgs, wiring: &Arc<Wiring>) -> ChildSpec {
    let template = SchedulerArgs {
        epoch: 0,
        wiring: wiring.clone(),
        running: args.running(),
        tuner: args.tuner(),
        prefill_wait_ms: args.prefill_wait_ms,
        share_across_tenants: args.share_across_tenants,
    };
    let make = move |epoch| (Scheduler, SchedulerArgs { epoch, ..template.clone() });
    let addr = wiring.scheduler.clone();
    ChildSpec::actor(&args.instance, names::SCHEDULER, addr.clone(), make)
        .on_down(mark_down(wiring, names::SCHEDULER, addr.clone()))
        .restart(args.restarts.scheduler)
        .start_deadline(START_DEADLINE)
        .board(wiring.boards.scheduler.clone())
        .pausable(move |gate| addr.cast(SchedulerMsg::SetGate(gate)).is_ok())
}

fn sessions_supervisor(
    args: &SystemArgs,
    sessions: &Addr<DynamicSupervisorMsg>,
    Shared { wiring, events, .. }: Shared<'_>,
) -> ChildSpec {
    let supervisor = DynamicSupervisorArgs {
        path: format!("{}/{}", args.instance, names::SESSIONS),
        stop_deadline: SESSIONS_DEADLINE,
        events: events.clone(),
        registry: wiring.actors.clone(),
        board: wiring.boards.sessions.clone(),
    };
    ChildSpec::actor(&args.instance, names::SESSIONS, sessions.clone(), move |_| {
        (DynamicSupervisor, supervisor.clone())
    })
    .restart(args.restarts.sessions)
    .start_deadline(START_DEADLINE)
    .stop_deadline(SESSIONS_DEADLINE + Duration::from_secs(2))
    .board(wiring.boards.sessions.clone())
}

/// Takes the address away and says that the engine is being restarted, before it is.
fn mark_down<M: ractor::Message>(
    wiring: &Arc<Wiring>,
    id: &'static str,
    addr: Addr<M>,
) -> impl Fn(u64) + Send + Sync + use<M> {
    let wiring = Arc::downgrade(wiring);
    move |epoch| {
        addr.clear(epoch);
        let Some(wiring) = wiring.upgrade() else { return };
        let was_serving = matches!(*wiring.status.borrow(), Status::Ready);
        if was_serving {
            wiring.set_status(Status::Restarting { cause: format!("{id} went down") });
        }
    }
}
