//! What a system is started with, as plain data and as a builder.

use std::path::PathBuf;
use std::time::Duration;

use ractor::ActorCell;

use super::System;
use crate::chaos::ChaosOptions;
use crate::engine::host::HostKind;
use crate::engine::spec::{EngineSpec, FakeSpec, LlamaSpec};
use crate::error::GenerateError;
use crate::names;
use crate::response_cache::CacheOptions;
use crate::scheduler::tuner::{TunerArgs, TunerMode};
use crate::supervision::{Restart, Rules, Strategy, WhenExhausted};

/// How long an engine that failed too often is left down.
const HOLD: Duration = Duration::from_secs(60);

/// How long a step may take on a CPU that nobody decodes in: whoever comes or leaves waits for its end.
const LONGEST_FULL_STEP: Duration = Duration::from_millis(2500);

/// Everything a system is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemArgs {
    /// Prefix of the actors' registered names; unique in the process. Default `cllm`.
    pub instance: String,
    /// The engine.
    pub engine: EngineSpec,
    /// Where it runs. Default: on threads of this process.
    pub host: HostKind,
    /// Faults to inject, for tests and demonstrations; restarts are not counted then. Default: none.
    pub chaos: Option<ChaosOptions>,
    /// Most requests in the system, running and queued; those of a priority better than 0 may go beyond it by a tenth, at
    /// least by 1. Default 1024.
    pub max_queue: u32,
    /// Most requests of one tenant in the system, [`TenantId::NOBODY`](crate::request::TenantId::NOBODY) apart. Default:
    /// no bound but `max_queue`.
    pub tenant_quota: Option<u32>,
    /// Whether the size of a step follows from measured times. Default: it does.
    pub tuner: TunerMode,
    /// Most tokens in a step, decode and prefill together, while it does not; at least 4 prompt tokens fit always.
    /// Default 256.
    pub step_tokens: u32,
    /// The time under which a step is kept that carries prompt tokens beside running streams, if the size is tuned.
    /// Default 60 ms.
    pub max_step: Duration,
    /// A request that has waited so long in the engine for its first prefill chunk goes before older ones, ms; 0: never.
    /// Default 100.
    pub prefill_wait_ms: u32,
    /// Most tokens generated for one request, whatever it asks for. Default: no limit but the context.
    pub max_iterations: Option<u32>,
    /// Most KV memory of retained prefixes in bytes. Default: half of the context's cells.
    pub retained_bytes: Option<u64>,
    /// Whether prefixes left by one tenant serve the requests of others: faster where all trust each other, and anybody
    /// can tell by the time it takes whether another one has asked the same. Default false.
    pub share_across_tenants: bool,
    /// Answers kept for equal requests; `None`: there is no response cache. Default: [`CacheOptions::default`].
    pub response_cache: Option<CacheOptions>,
    /// Requests under way and no step ended for so long: not ready, see [`System::stalled`]. Default 10 s.
    pub stall_after: Duration,
    /// Which exits of each actor are followed by a restart. Default: all.
    pub restarts: Restarts,
    /// How backend, kv-cache and scheduler are restarted. Default: 5 times in 60 s, then held for 60 s.
    pub engine_rules: Rules,
    /// How the root's children are restarted. Default: 5 times in 60 s, then the system ends.
    pub root_rules: Rules,
}

/// When each actor is restarted at all. A system does not work without the first four: one of them that is `Temporary` or
/// ends in order is missed until the system ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarts {
    /// The owner of the engine.
    pub backend: Restart,
    /// The index of prefixes.
    pub kv_cache: Restart,
    /// Who runs next.
    pub scheduler: Restart,
    /// The supervisor of requests.
    pub sessions: Restart,
    /// Finished answers; without it everything is computed.
    pub response_cache: Restart,
    /// The event feed; without it nothing new is told.
    pub inspector: Restart,
}

impl Default for Restarts {
    fn default() -> Self {
        let [backend, kv_cache, scheduler, sessions, response_cache, inspector] = [Restart::Permanent; 6];
        Self { backend, kv_cache, scheduler, sessions, response_cache, inspector }
    }
}

impl SystemArgs {
    /// Everything but the engine at its default.
    pub fn new(engine: EngineSpec) -> Self {
        Self {
            instance: names::ROOT.to_owned(),
            engine,
            host: HostKind::Thread,
            chaos: None,
            max_queue: 1024,
            tenant_quota: None,
            tuner: TunerMode::Adaptive,
            step_tokens: 256,
            max_step: Duration::from_millis(60),
            prefill_wait_ms: 100,
            max_iterations: None,
            retained_bytes: None,
            share_across_tenants: false,
            response_cache: Some(CacheOptions::default()),
            stall_after: Duration::from_secs(10),
            restarts: Restarts::default(),
            engine_rules: Rules {
                strategy: Strategy::RestForOne,
                when_exhausted: WhenExhausted::Hold { retry_after: HOLD },
                ..Rules::default()
            },
            root_rules: Rules::default(),
        }
    }

    /// How large a step is. More tokens than are computed at once would only make it longer.
    pub(super) fn tuner(&self) -> TunerArgs {
        let full_step_tokens = match &self.engine {
            EngineSpec::Llama(spec) => spec.n_ubatch.min(spec.n_batch),
            EngineSpec::Fake(spec) => spec.n_batch,
        };
        TunerArgs {
            mode: self.tuner,
            step_tokens: self.step_tokens,
            full_step_tokens,
            max_step: self.max_step,
            longest_full: Some(LONGEST_FULL_STEP),
        }
    }

    /// Sequences that run at once.
    pub(super) fn running(&self) -> u32 {
        match &self.engine {
            EngineSpec::Llama(spec) => spec.running,
            EngineSpec::Fake(spec) => spec.running,
        }
    }

    /// Sequences that keep a prefix.
    pub(super) fn retained(&self) -> u32 {
        match &self.engine {
            EngineSpec::Llama(spec) => spec.retained,
            EngineSpec::Fake(spec) => spec.retained,
        }
    }
}

/// Describes a system step by step. Without a model or an engine it runs the fake engine.
#[derive(Debug, Clone)]
pub struct SystemBuilder {
    args: SystemArgs,
}

impl Default for SystemBuilder {
    fn default() -> Self {
        Self { args: SystemArgs::new(EngineSpec::Fake(FakeSpec::default())) }
    }
}

impl SystemBuilder {
    /// llama.cpp with this GGUF file, everything else at its default.
    #[must_use]
    pub fn model(self, path: impl Into<PathBuf>) -> Self {
        self.engine(EngineSpec::Llama(Box::new(LlamaSpec::new(path))))
    }

    /// This engine.
    #[must_use]
    pub fn engine(mut self, engine: EngineSpec) -> Self {
        self.args.engine = engine;
        self
    }

    /// Where the engine runs, see [`HostKind`].
    #[must_use]
    pub fn host(mut self, host: HostKind) -> Self {
        self.args.host = host;
        self
    }

    /// Prefix of the actors' registered names.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.args.instance = instance.into();
        self
    }

    /// Most requests in the system.
    #[must_use]
    pub fn max_queue(mut self, requests: u32) -> Self {
        self.args.max_queue = requests;
        self
    }

    /// Answers kept for equal requests; `None`: none, and equal requests in flight are computed one by one.
    #[must_use]
    pub fn response_cache(mut self, options: Option<CacheOptions>) -> Self {
        self.args.response_cache = options;
        self
    }

    /// The description as data.
    pub fn build(self) -> SystemArgs {
        self.args
    }

    /// Starts it, see [`System::start`].
    ///
    /// # Errors
    /// As [`System::start`].
    pub async fn start(self) -> Result<System, GenerateError> {
        System::start(self.args).await
    }

    /// Starts it under a supervisor, see [`System::spawn_linked`].
    ///
    /// # Errors
    /// As [`System::spawn_linked`].
    pub async fn spawn_linked(self, supervisor: ActorCell) -> Result<System, GenerateError> {
        System::spawn_linked(self.args, supervisor).await
    }
}
