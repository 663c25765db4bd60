//! The configuration as the rest of the program takes it: durations, engine and system.

use std::collections::HashSet;
use std::time::Duration;

use cllm_actors::admission::AdmissionLimits;
use cllm_actors::chaos::ChaosOptions;
use cllm_actors::engine::host::{HostKind, ProcessOptions};
use cllm_actors::engine::spec::{EngineSpec, FakeSpec, KvStoreSpec, LlamaSpec};
use cllm_actors::priority::PRIORITIES;
use cllm_actors::request::Deadlines;
use cllm_actors::response_cache::CacheOptions;
use cllm_actors::scheduler::tuner::TunerMode;
use cllm_actors::supervision::{Backoff, Intensity, Restart, Rules, Strategy, WhenExhausted};
use cllm_actors::system::{Restarts, SystemArgs};

use super::api_key::ApiKey;
use super::sections::{
    Cache, Engine, EngineRestarts, FakeHost, NeededRestart, RestartKinds, RootRestarts, Scheduler, Server, Tuner,
};
use super::{Config, MAX_SEQUENCES};

/// Sequences that run at once when no key says otherwise.
const DEFAULT_RUNNING: u32 = 16;

/// Connections beyond those of admitted requests when no key says how many: for what is refused, for probes and pages,
/// and for clients that keep an idle one.
const MORE_CONNECTIONS: u32 = 1024;

impl Config {
    /// Sequences that run at once, 1 to 256: the smallest of the keys that are set, 16 when none is.
    pub fn running(&self) -> u32 {
        self.running_limits().into_iter().flatten().min().unwrap_or(DEFAULT_RUNNING)
    }

    pub(super) const fn running_limits(&self) -> [Option<u32>; 3] {
        [self.scheduler.max_batch_size, self.resources.max_batch_size, self.backend.llama_cpp.n_seq_max]
    }

    /// Sequences that keep a prefix beside those that run; together they are at most 256.
    pub fn retained(&self) -> u32 {
        self.resources.kv_cache_max_size.min(MAX_SEQUENCES - self.running())
    }

    /// Most requests in the system, those of the best class included.
    pub fn most_requests(&self) -> u32 {
        let limits = AdmissionLimits { max_queue: self.scheduler.max_queue, per_tenant: None, running: 0 };
        limits.pool(*PRIORITIES.start())
    }

    /// Most open connections.
    pub fn max_connections(&self) -> u32 {
        self.server.max_connections.unwrap_or_else(|| self.most_requests().saturating_add(MORE_CONNECTIONS))
    }

    /// Most requests of one API key; `None`: there is no other key to be kept free for.
    pub fn tenant_quota(&self) -> Option<u32> {
        let keys: HashSet<_> = self.server.api_keys.iter().chain(&self.server.admin_keys).map(ApiKey::hash).collect();
        let share = self.scheduler.key_share * f64::from(self.scheduler.max_queue);
        (keys.len() > 1).then_some((share as u32).max(1))
    }

    /// The engine to start.
    ///
    /// `model.path` is set for every engine but the fake one in a configuration that was loaded to serve.
    pub fn engine_spec(&self) -> EngineSpec {
        match self.backend.engine {
            Engine::Fake => EngineSpec::Fake(self.fake_spec()),
            Engine::Process | Engine::Thread => EngineSpec::Llama(Box::new(self.llama_spec())),
        }
    }

    /// Where the engine runs.
    fn host(&self) -> HostKind {
        match (self.backend.engine, self.backend.fake.host) {
            (Engine::Thread, _) | (Engine::Fake, FakeHost::Thread) => HostKind::Thread,
            (Engine::Process, _) | (Engine::Fake, FakeHost::Process) => HostKind::Process(ProcessOptions {
                watchdog: Duration::from_millis(self.backend.watchdog_ms),
                beat: Duration::from_millis(self.scheduler.idle_loop_interval),
                spin: self.backend.llama_cpp.spin,
            }),
        }
    }

    /// Everything the actor system is started with.
    pub fn system_args(&self) -> SystemArgs {
        let max_iterations = self.scheduler.max_iterations;
        SystemArgs {
            instance: "cllm".to_owned(),
            engine: self.engine_spec(),
            host: self.host(),
            chaos: self.chaos.seed.map(|seed| {
                let interval = Duration::from_millis(self.chaos.interval_ms);
                ChaosOptions { seed, interval }
            }),
            max_queue: self.scheduler.max_queue,
            tenant_quota: self.tenant_quota(),
            tuner: match self.scheduler.tuner {
                Tuner::Static => TunerMode::Static,
                Tuner::Adaptive => TunerMode::Adaptive,
            },
            step_tokens: self.scheduler.step_tokens,
            max_step: Duration::from_millis(self.scheduler.max_step_ms),
            // A week of milliseconds fits.
            prefill_wait_ms: self.scheduler.batch_timeout_ms as u32,
            max_iterations: (max_iterations > 0).then_some(max_iterations),
            stall_after: Duration::from_millis(self.backend.watchdog_ms),
            restarts: self.supervision.restart.restarts(),
            engine_rules: self.supervision.engine.rules(),
            root_rules: self.supervision.root.rules(),
            response_cache: self.cache.enabled.then(|| self.cache.options()),
            retained_bytes: self.retained_bytes(),
            share_across_tenants: self.cache.share_across_keys,
        }
    }

    /// Most bytes of KV of retained prefixes, wherever they lie; `None`: half of what the context takes.
    fn retained_bytes(&self) -> Option<u64> {
        let mb = self.resources.kv_cache_max_memory_mb;
        (mb > 0).then_some(mb << 20)
    }

    fn kv_store(&self) -> Option<KvStoreSpec> {
        let path = self.kv_store.path.clone()?;
        Some(KvStoreSpec { path, max_bytes: self.kv_store.max_mb << 20 })
    }

    fn llama_spec(&self) -> LlamaSpec {
        let llama = self.backend.llama_cpp.clone();
        LlamaSpec {
            path: self.model.path.clone().unwrap_or_default(),
            n_ctx: llama.n_ctx,
            max_context_length: self.model.max_context_length.min(llama.n_ctx.unwrap_or(u32::MAX)),
            running: self.running(),
            retained: self.retained(),
            n_batch: llama.n_batch,
            n_ubatch: llama.n_ubatch.min(llama.n_batch),
            n_threads: llama.n_threads,
            n_gpu_layers: llama.n_gpu_layers,
            use_mmap: llama.use_mmap,
            use_mlock: llama.use_mlock,
            type_k: llama.type_k,
            type_v: llama.type_v,
            flash_attn: llama.flash_attn,
            main_gpu: llama.main_gpu,
            split_mode: llama.split_mode,
            tensor_split: llama.tensor_split,
            devices: llama.devices,
            kv_unified: llama.kv_unified,
            parked_limit: self.resources.kv_cache_parked_tokens,
            parked_bytes: self.retained_bytes(),
            kv_store: self.kv_store(),
        }
    }

    fn fake_spec(&self) -> FakeSpec {
        let fake = self.backend.fake.clone();
        FakeSpec {
            n_ctx: fake.n_ctx,
            max_context_length: fake.max_context_length,
            running: self.running(),
            retained: self.retained(),
            n_batch: fake.n_batch,
            step_time: Duration::from_micros(fake.step_time_us),
            token_time: Duration::from_micros(fake.token_time_us),
            load_time: Duration::from_millis(fake.load_time_ms),
            load_failure: fake.load_failure,
            end_every: fake.end_every,
            alphabet: fake.alphabet,
            undecided: fake.undecided,
            poison: fake.poison,
            hang: fake.hang,
            parked_limit: self.resources.kv_cache_parked_tokens.unwrap_or(FakeSpec::default().parked_limit),
            kv_store: self.kv_store(),
            ..FakeSpec::default()
        }
    }
}

impl Cache {
    /// What the response cache is started with.
    fn options(&self) -> CacheOptions {
        CacheOptions {
            max_entries: self.default_max_size as usize,
            max_bytes: (self.default_max_memory_mb > 0).then_some((self.default_max_memory_mb << 20) as usize),
            eviction_threshold: self.eviction_threshold,
            cleanup_interval: Duration::from_millis(self.cleanup_interval),
            ttl: (self.ttl_s > 0).then(|| Duration::from_secs(self.ttl_s)),
        }
    }
}

impl From<NeededRestart> for Restart {
    fn from(kind: NeededRestart) -> Self {
        match kind {
            NeededRestart::Permanent => Self::Permanent,
            NeededRestart::Transient => Self::Transient,
        }
    }
}

impl RestartKinds {
    /// Those of the system's actors; `http` is the server's own.
    fn restarts(&self) -> Restarts {
        Restarts {
            backend: self.backend.into(),
            kv_cache: self.kv_cache.into(),
            scheduler: self.scheduler.into(),
            sessions: self.sessions.into(),
            response_cache: self.response_cache,
            inspector: self.inspector,
        }
    }
}

impl EngineRestarts {
    /// What `engine-0` decides by.
    pub fn rules(&self) -> Rules {
        Rules {
            strategy: Strategy::RestForOne,
            intensity: intensity(self.max_restarts, self.period_ms),
            backoff: backoff(self.backoff_min_ms, self.backoff_max_ms),
            when_exhausted: WhenExhausted::Hold { retry_after: Duration::from_millis(self.hold_ms) },
        }
    }
}

impl RootRestarts {
    /// What the root decides by.
    pub fn rules(&self) -> Rules {
        Rules {
            intensity: intensity(self.max_restarts, self.period_ms),
            backoff: backoff(self.backoff_min_ms, self.backoff_max_ms),
            ..Rules::default()
        }
    }
}

const fn intensity(max_restarts: u32, period_ms: u64) -> Intensity {
    Intensity { max_restarts, period: Duration::from_millis(period_ms) }
}

fn backoff(min_ms: u64, max_ms: u64) -> Backoff {
    let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    Backoff { min, max, ..Backoff::default() }
}

impl Server {
    /// Worker threads of the runtime.
    pub fn worker_threads(&self) -> usize {
        self.num_threads.max(self.min_threads) as usize
    }

    /// Longest time a client may take to send the head of a request.
    pub const fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }

    /// Longest time that running requests get to finish at shutdown.
    pub fn shutdown_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.shutdown_timeout)
    }

    /// Largest request body, in bytes.
    pub const fn max_body_bytes(&self) -> u64 {
        self.max_body_mb as u64 * 1024 * 1024
    }
}

impl Scheduler {
    /// The deadlines of a request that asks for none.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines {
            queue: self.queue_timeout_ms.map(Duration::from_millis),
            first_token: self.first_token_timeout_ms.map(Duration::from_millis),
            total: Duration::from_secs_f64(self.request_timeout),
        }
    }
}
