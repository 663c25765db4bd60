//! The thread host: an engine on two named threads of this process.
//!
//! No crash isolation: an abort inside llama.cpp ends the whole process. It is also what the engine process runs inside.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::engine::engine_loop::{EngineLoop, Exit};
use crate::engine::fake::FakeModel;
use crate::engine::host::{EventSink, HostError, Occupancy};
use crate::engine::model::{Model, Vocabulary};
use crate::engine::progress::{PerThread, Progress};
use crate::engine::protocol::{EngineCommand, EngineEvent, EngineThread};
use crate::engine::spec::EngineSpec;
use crate::engine::store::Store;
use crate::engine::vocabulary_thread;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Commands that may wait for the loop. The scheduler has at most a few per sequence under way, and advice beside them,
/// which may take half of the room.
pub(super) const LOOP_CAPACITY: usize = 8192;

/// Questions to the vocabulary that may wait.
pub(crate) const VOCABULARY_CAPACITY: usize = 4096;

/// A running engine. Dropping it ends the engine at its next step; the occupancy it was started with is
/// released when the last byte of the model is freed.
#[derive(Debug)]
pub struct ThreadHost {
    commands: Sender<EngineCommand>,
    vocabulary: Sender<EngineCommand>,
}

impl ThreadHost {
    /// Starts the engine's threads; the model loads on them. `occupancy` stands for the device memory.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(in crate::engine) fn start(
        spec: EngineSpec,
        occupancy: Occupancy,
        sink: EventSink,
        progress: PerThread<Progress>,
    ) -> std::io::Result<Self> {
        let (commands, loop_commands) = bounded(LOOP_CAPACITY);
        let (vocabulary, vocabulary_commands) = bounded(VOCABULARY_CAPACITY);
        let (publish, vocabularies) = bounded(1);
        let shared = (occupancy.clone(), sink.clone(), progress.vocabulary.clone());
        std::thread::Builder::new()
            .name("cllm-vocabulary".to_owned())
            .stack_size(vocabulary_thread::STACK_BYTES)
            .spawn(move || {
                let (_occupancy, sink, progress) = shared;
                serve_vocabulary(&vocabularies, &vocabulary_commands, &progress, &sink);
            })?;
        std::thread::Builder::new().name("cllm-engine".to_owned()).spawn(move || {
            let _occupancy = occupancy;
            guard(&sink.clone(), EngineThread::Loop, || run_engine(&spec, &loop_commands, &publish, &progress, &sink));
        })?;
        Ok(Self { commands, vocabulary })
    }

    /// Hands a command over; never blocks.
    ///
    /// # Errors
    /// See [`HostError`].
    pub(in crate::engine) fn send(&self, command: EngineCommand) -> Result<(), HostError> {
        let channel = match command {
            EngineCommand::Tokenize { .. } | EngineCommand::Detokenize { .. } => &self.vocabulary,
            _ => &self.commands,
        };
        if command.is_advice() && channel.len() >= LOOP_CAPACITY / 2 {
            return Err(HostError::Full);
        }
        channel.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => HostError::Full,
            TrySendError::Disconnected(_) => HostError::Gone,
        })
    }
}

type PublishVocabulary = Sender<Arc<dyn Vocabulary>>;

fn serve_vocabulary(
    vocabularies: &Receiver<Arc<dyn Vocabulary>>,
    commands: &Receiver<EngineCommand>,
    progress: &Progress,
    sink: &EventSink,
) {
    // Closed without a vocabulary when the model does not load.
    let Ok(vocabulary) = vocabularies.recv() else { return };
    guard(sink, EngineThread::Vocabulary, || {
        vocabulary_thread::run(&vocabulary, commands, progress, |event| sink(event));
        Exit::Stopped
    });
}

fn run_engine(
    spec: &EngineSpec,
    commands: &Receiver<EngineCommand>,
    publish: &PublishVocabulary,
    progress: &PerThread<Progress>,
    sink: &EventSink,
) -> Exit {
    match spec {
        EngineSpec::Fake(fake) => serve(FakeModel::load(fake), spec, commands, publish, progress, sink),
        #[cfg(feature = "llama")]
        EngineSpec::Llama(llama) => {
            let on_progress = |share| {
                sink(EngineEvent::Loading { progress: share });
                // The channel's other end is gone when nobody wants the model any more.
                !matches!(commands.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
            };
            let model =
                crate::engine::llama::load_watched(llama, progress, on_progress).map_err(|error| error.to_string());
            serve(model, spec, commands, publish, progress, sink)
        }
        #[cfg(not(feature = "llama"))]
        EngineSpec::Llama(_) => {
            let cause = "this build has no llama.cpp (feature `llama`)".to_owned();
            sink(EngineEvent::LoadFailed { cause });
            Exit::Stopped
        }
    }
}

fn serve<M: Model>(
    model: Result<M, String>,
    spec: &EngineSpec,
    commands: &Receiver<EngineCommand>,
    publish: &PublishVocabulary,
    progress: &PerThread<Progress>,
    sink: &EventSink,
) -> Exit {
    let model = match model {
        Ok(model) => model,
        Err(cause) => {
            sink(EngineEvent::LoadFailed { cause });
            return Exit::Stopped;
        }
    };
    // Fails only if the vocabulary thread is gone, which its own guard has reported.
    let _ = publish.send(model.vocabulary());
    // A part of the load: the folder may be large, and its disk slow.
    let store = spec.kv_store().and_then(|kv_store| Store::open(kv_store, &model.fingerprint()));
    sink(EngineEvent::Loaded(Box::new(model.info().clone())));
    EngineLoop::new(model, progress.engine.clone(), |event| sink(event)).with_store(store).run(commands)
}

/// Runs a thread's work and turns a failure or a panic into the last event.
fn guard(sink: &EventSink, thread: EngineThread, work: impl FnOnce() -> Exit) {
    let cause = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Exit::Stopped) => return,
        Ok(Exit::Failed(cause)) => cause,
        Err(panic) => panic_text(&*panic),
    };
    sink(EngineEvent::Failed { cause, thread: Some(thread) });
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic in the engine: {}", text.unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::{Limits, Waiting};

    #[test]
    fn advice_fills_no_queue() {
        let (commands, waiting) = bounded(LOOP_CAPACITY);
        let host = ThreadHost { commands, vocabulary: bounded(1).0 };
        let limits = Limits { step_tokens: 16, mixed_prefill_tokens: 16, prefill_wait_ms: 0, waiting: Waiting::Nobody };
        let refused =
            (0..LOOP_CAPACITY).filter(|_| host.send(EngineCommand::SetLimits(limits)) == Err(HostError::Full));
        assert_eq!(refused.count(), LOOP_CAPACITY / 2);
        let cancel = EngineCommand::Cancel { epoch: 1, request: 1 };
        assert!((0..LOOP_CAPACITY / 2).all(|_| host.send(cancel.clone()) == Ok(())), "room for what must not be lost");
        assert_eq!(waiting.len(), LOOP_CAPACITY);
    }
}
