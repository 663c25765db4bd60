//! From no engine to a loaded model.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::ActorProcessingErr;
use tokio::sync::oneshot;

use super::{BackendArgs, BackendMsg, BackendRef};
use crate::boards::backend as board;
use crate::engine::host::{EngineHost, EventSink, HostKind};
use crate::engine::protocol::{EngineEvent, ModelInfo};
use crate::engine::spec::EngineSpec;
use crate::prompt::ChatTemplate;
use crate::response_cache::key::ModelIdentity;
use crate::system::Status;
use crate::wiring::{LoadedModel, Wiring};

/// Longest wait for the previous engine to free its memory.
const OCCUPANCY_DEADLINE: Duration = Duration::from_secs(60);

/// How long those that an engine's end cut off come first in the next one. With long contexts reading them all takes minutes.
const CUT_OFF_FIRST: Duration = Duration::from_secs(5);

type LoadResult = Result<Box<ModelInfo>, String>;

pub(super) fn shown_engine(args: &BackendArgs) -> u64 {
    match (&args.engine, &args.host) {
        (EngineSpec::Fake(_), _) => board::ENGINE_FAKE,
        (EngineSpec::Llama(_), HostKind::Process(_)) => board::ENGINE_PROCESS,
        (EngineSpec::Llama(_), HostKind::Thread) => board::ENGINE_THREAD,
    }
}

pub(super) async fn start_engine(
    myself: BackendRef,
    args: &BackendArgs,
) -> Result<(EngineHost, Box<ModelInfo>), ActorProcessingErr> {
    let occupancy = args.wiring.occupancy.clone().acquire_owned();
    let occupancy = tokio::time::timeout(OCCUPANCY_DEADLINE, occupancy)
        .await
        .map_err(|_| "the previous engine does not free its memory")??;
    // It is gone, and hangs no more.
    args.wiring.pulse.rest();
    let (loaded, load) = oneshot::channel();
    let sink = event_sink(myself, args.wiring.clone(), loaded);
    let host = EngineHost::start(args.engine.clone(), &args.host, Arc::new(occupancy), sink)?;
    let info = load.await.map_err(|_| "the engine ended while it loaded")??;
    Ok((host, info))
}

/// How long those that were cut off come first in an engine, by how long those before it worked. Where one ends after the other
/// they would be read again and again, and nobody would ever get on: there is to be as much time after the reading.
pub(super) fn cut_off_first(worked: Option<Duration>) -> Duration {
    worked.filter(|worked| *worked >= 2 * CUT_OFF_FIRST).map_or(Duration::ZERO, |_| CUT_OFF_FIRST)
}

/// Until the model is loaded its events end the load; afterwards they are messages to the actor.
fn event_sink(myself: BackendRef, wiring: Arc<Wiring>, loaded: oneshot::Sender<LoadResult>) -> EventSink {
    let loaded = Mutex::new(Some(loaded));
    Arc::new(move |event| {
        let result = match event {
            EngineEvent::Loading { progress } => return on_progress(&wiring, progress),
            EngineEvent::Loaded(info) => Ok(info),
            EngineEvent::LoadFailed { cause } => Err(cause),
            EngineEvent::Failed { ref cause, .. } => match take(&loaded) {
                Some(sender) => return drop(sender.send(Err(cause.clone()))),
                None => return drop(myself.cast(BackendMsg::Engine(event))),
            },
            event => return drop(myself.cast(BackendMsg::Engine(event))),
        };
        if let Some(sender) = take(&loaded) {
            let _ = sender.send(result);
        }
    })
}

fn take(loaded: &Mutex<Option<oneshot::Sender<LoadResult>>>) -> Option<oneshot::Sender<LoadResult>> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn on_progress(wiring: &Wiring, progress: f32) {
    if matches!(*wiring.status.borrow(), Status::Loading { .. }) {
        wiring.set_status(Status::Loading { progress });
    }
}

pub(super) fn publish_model(args: &BackendArgs, info: ModelInfo) -> Result<(), ActorProcessingErr> {
    let template = ChatTemplate::compile(
        info.chat_template.as_deref(),
        info.bos_text.as_deref(),
        info.eos_text.as_deref(),
        info.control_tokens.clone(),
    )
    .or_else(|error| {
        // Texts need no template: the model is served, without conversations.
        tracing::warn!(%error, "the model's chat template cannot be used: chat requests are refused");
        ChatTemplate::unusable(&error)
    })?;
    tracing::info!(
        model = info.name,
        description = info.description,
        n_ctx = info.n_ctx,
        buffers = info.streams.unwrap_or(1),
        n_ctx_seq = info.n_ctx_seq,
        n_seq_max = info.n_seq_max,
        n_batch = info.n_batch,
        kv_mib = (u64::from(info.n_ctx) * info.kv_bytes_per_token) >> 20,
        system = info.system,
        "model loaded"
    );
    let identity = ModelIdentity::of(&info, &args.engine);
    args.wiring.model.send_replace(Some(Arc::new(LoadedModel { info: info.into(), template, identity })));
    Ok(())
}
