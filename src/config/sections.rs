//! Every key of the configuration: name, type, default, range and documentation, each written once.
//!
//! Names of the project's first configuration file keep working, units and all; new durations and sizes carry their
//! unit in the name.

use std::path::PathBuf;

use cllm_actors::engine::spec::{Alphabet, FlashAttention, KvType, SplitMode};
use cllm_actors::supervision::Restart;

use super::api_key::ApiKey;
use super::field::{Field, choice};
use super::rule::{self, Rule};
use super::schema::{Key, section};

/// Most milliseconds of any duration: one week.
const WEEK_MS: i128 = 7 * 24 * 3600 * 1000;

/// Most seconds of any duration: one week.
const WEEK_S: f64 = 7.0 * 24.0 * 3600.0;

/// Most tokens of anything: 2^30.
const MANY_TOKENS: i128 = 1 << 30;

section! {
    /// The HTTP server.
    pub struct Server at (server) {
        /// Host name or IP address to listen on.
        host: String = "127.0.0.1".to_owned(), Rule::Text(rule::host);
        /// TCP port to listen on; 0 takes any free one.
        port: u16 = 8080, Rule::Integer(0, 65_535);
        /// Worker threads of the HTTP side. Generation does not run on them.
        num_threads: u32 = 4, Rule::Integer(1, 1024);
        /// Fewest worker threads, whatever `num_threads` says.
        min_threads: u32 = 2, Rule::Integer(1, 1024);
        /// Accepted for old files; `true` is refused, because there is no such backend.
        use_libtorch: bool = false;
        /// Most open connections; beyond it only the probes are answered. Unset: 1024 more than there may be requests in the
        /// system by `scheduler.max_queue`, so that a storm gets 429 and a time to come back.
        max_connections: Option<u32> = None, Rule::Integer(1, 1_000_000);
        /// Longest time until the head of a request is there, and for a connection to idle, in milliseconds.
        header_timeout_ms: u64 = 10_000, Rule::Integer(1, WEEK_MS);
        /// Largest request body, in MiB. What is in it must fit in one message of 64 MiB to the engine.
        max_body_mb: u32 = 16, Rule::Integer(1, 48);
        /// Longest time that running requests get to finish at shutdown, in seconds.
        shutdown_timeout: f64 = 30.0, Rule::Number(0.0, WEEK_S);
        /// Keys of which a client must show one, plain or as `blake3:<64 hex digits>`. With none here and none in
        /// `admin_keys` no key is asked for.
        api_keys: Vec<ApiKey> = Vec::new();
        /// Priority of each of the `api_keys`, in their order; 0 for those beyond the list. It is what requests with the
        /// key have, and the best they may ask for; lower runs first.
        api_key_priorities: Vec<i32> = Vec::new(), Rule::Integer(-1000, 1000);
        /// Keys that open everything, commands to actors included; written as those of `api_keys`. Empty: no commands.
        admin_keys: Vec<ApiKey> = Vec::new();
        /// Origins whose pages may call the API from a browser; `*` stands for all.
        cors_origins: Vec<String> = Vec::new(), Rule::Text(rule::origin);
    }
}

section! {
    /// The model.
    pub struct Model at (model) {
        /// GGUF file. Needed by every engine but `fake`.
        path: Option<PathBuf> = None, Rule::Text(rule::not_empty);
        /// A further name under which clients may ask for the model.
        alias: Option<String> = None, Rule::Text(rule::not_empty);
        /// Most tokens of one request, prompt and answer together.
        max_context_length: u32 = 2048, Rule::Integer(1, MANY_TOKENS);
        /// Quantization the file should have, such as `q4_k_m`; another one in the file is a warning. Empty: any.
        quantization: String = String::new();
    }
}

section! {
    /// Who runs next, and for how long.
    pub struct Scheduler at (scheduler) {
        /// Most tokens generated for one request, whatever it asks for; 0: no limit but the context.
        max_iterations: u32 = 0, Rule::Integer(0, MANY_TOKENS);
        /// An admitted request that has waited so long for its first prefill chunk goes before older ones, in
        /// milliseconds; 0: never.
        batch_timeout_ms: u64 = 100, Rule::Integer(0, WEEK_MS);
        /// Sequences that run at once. The smallest of this, `resources.max_batch_size` and
        /// `backend.llama_cpp.n_seq_max` counts; 16 when none is set.
        max_batch_size: Option<u32> = None, Rule::Integer(1, 256);
        /// Longest time from a request's arrival to its last token, in seconds.
        request_timeout: f64 = 600.0, Rule::Number(0.001, WEEK_S);
        /// Longest time from a request's arrival until the engine takes it, in milliseconds; half of the request's
        /// deadline when none is set. A request that would wait longer is answered with 429 at once.
        queue_timeout_ms: Option<u64> = None, Rule::Integer(1, WEEK_MS);
        /// Longest time from a request's arrival to its first token, in milliseconds.
        first_token_timeout_ms: Option<u64> = None, Rule::Integer(1, WEEK_MS);
        /// Most requests in the system, running and queued; a further one is answered with 429. Those of a priority
        /// better than 0 may go beyond it by a tenth, at least by 1; those of a worse one stay below it by as much.
        max_queue: u32 = 1024, Rule::Integer(1, 1_000_000);
        /// Share of `max_queue` that the requests of one API key may take, when there is more than one key.
        key_share: f64 = 0.5, Rule::Number(0.0, 1.0);
        /// How much a step carries: `adaptive` reads prompts as fast as `max_step_ms` allows beside running streams, and when
        /// none runs in steps of `n_ubatch` tokens, or on a CPU of as many as take 2.5 s; `static` takes `step_tokens` always.
        tuner: Tuner = Tuner::Adaptive;
        /// With `tuner: adaptive`, the time under which a step is kept that reads prompts beside running streams, in
        /// milliseconds: the longest gap between two tokens, unless decoding alone takes longer. It is up to four times as
        /// long where several prompts are read for each running stream.
        max_step_ms: u64 = 60, Rule::Integer(1, 60_000);
        /// With `tuner: static`, most tokens in a step, prompt tokens and one for each running sequence together.
        step_tokens: u32 = 256, Rule::Integer(16, 1_048_576);
        /// Accepted for old files: nothing is polled here.
        loop_interval: u64 = 10, Rule::Integer(0, WEEK_MS);
        /// Time between heartbeats of an engine process, in milliseconds; kept within 10 ms and a quarter of
        /// `backend.watchdog_ms`.
        idle_loop_interval: u64 = 250, Rule::Integer(0, WEEK_MS);
        /// Accepted for old files: nothing is polled here.
        wait_poll_interval_ms: u64 = 10, Rule::Integer(0, WEEK_MS);
    }
}

section! {
    /// What the model's context may hold.
    pub struct Resources at (resources) {
        /// Sequences that run at once; see `scheduler.max_batch_size`.
        max_batch_size: Option<u32> = None, Rule::Integer(1, 256);
        /// Prefixes that stay in the KV cache after their requests ended. Running and retained sequences are
        /// together at most 256; more are lowered.
        kv_cache_max_size: u32 = 32, Rule::Integer(0, 1_000_000);
        /// Most MiB of KV for retained prefixes; 0: no bound but the context.
        kv_cache_max_memory_mb: u64 = 0, Rule::Integer(0, 1 << 30);
        /// Tokens of those prefixes that stay in the KV buffer while requests run; the others wait in ordinary memory,
        /// where they slow nobody. Default: 256 on the CPU, all of them with layers on a GPU. Counts in one pool of cells
        /// only, see `backend.llama_cpp.kv_unified`.
        kv_cache_parked_tokens: Option<u32> = None, Rule::Integer(0, 4_294_967_295);
    }
}

section! {
    /// Finished answers kept for equal requests, where temperature 0 or a seed determines the answer, and whom prefixes may serve.
    pub struct Cache at (cache) {
        /// Whether there is a response cache at all.
        enabled: bool = true;
        /// Most answers kept; 0: none, but equal requests at the same time are still computed once.
        default_max_size: u32 = 1000, Rule::Integer(0, 10_000_000);
        /// Most MiB of answers kept; 0: no bound but `default_max_size`.
        default_max_memory_mb: u64 = 256, Rule::Integer(0, 1 << 30);
        /// Fill level, of answers or MiB, over which the least recently used ones go.
        eviction_threshold: f64 = 0.9, Rule::Number(0.0, 1.0);
        /// Time between sweeps, in milliseconds.
        cleanup_interval: u64 = 1000, Rule::Integer(1, WEEK_MS);
        /// Age at which an answer is forgotten, in seconds; 0: never.
        ttl_s: u64 = 3600, Rule::Integer(0, 10 * 365 * 24 * 3600);
        /// Let prefixes computed for one API key serve the others: faster where all trust each other, and each can tell by
        /// the time it takes whether another one has asked the same. Kept answers never serve another key.
        share_across_keys: bool = false;
    }
}

section! {
    /// Prefixes in files, which outlive the engine and the server.
    pub struct KvStore at (kv_store) {
        /// Folder of the files, which nobody but its owner may enter: in a tmpfs they outlive the server, on a disk the
        /// machine's next start. Unset: no files.
        path: Option<PathBuf> = None, Rule::Text(rule::not_empty);
        /// Most MiB of its KV files, of whatever models; what was used longest ago goes first.
        max_mb: u64 = 4096, Rule::Integer(1, 1 << 30);
    }
}

section! {
    /// The engine.
    pub struct Backend at (backend) {
        /// Where llama.cpp runs: in a process of its own, whose death no request notices, or in a thread of the server;
        /// or `fake`, which computes nothing.
        engine: Engine = Engine::Process;
        /// Time without progress after which an engine process is taken for hung and killed, in milliseconds. As long
        /// without the end of a step, with requests under way, and the server is not ready, wherever the engine runs.
        watchdog_ms: u64 = 10_000, Rule::Integer(100, WEEK_MS);
    }
    with {
        /// Parameters of llama.cpp, under its own names.
        llama_cpp: LlamaCpp;
        /// The fake engine, for tests and for trying things without a model.
        fake: Fake;
    }
}

section! {
    /// Parameters of llama.cpp, under its own names.
    pub struct LlamaCpp at (backend.llama_cpp) {
        /// Tokens of KV over all sequences. Unset: `model.max_context_length` for each running sequence, lowered to
        /// what memory allows.
        n_ctx: Option<u32> = None, Rule::Integer(1, MANY_TOKENS);
        /// Most tokens in one step; at least as many as running and retained sequences together.
        n_batch: u32 = 2048, Rule::Integer(1, 1_048_576);
        /// Most tokens computed at once; at most `n_batch`.
        n_ubatch: u32 = 512, Rule::Integer(1, 1_048_576);
        /// Compute threads; 0: one per physical core.
        n_threads: u32 = 0, Rule::Integer(0, 1024);
        /// How often OpenMP's idle threads look for work before they sleep, for engines in a process of their own. High values are fast on an idle machine and crawl beside other busy processes; unset: as libgomp decides.
        spin: Option<u32> = Some(500), Rule::Integer(0, 4_000_000_000);
        /// Layers on the GPU; -1: all.
        n_gpu_layers: i32 = 0, Rule::Integer(-1, 100_000);
        /// Sequences that run at once; see `scheduler.max_batch_size`.
        n_seq_max: Option<u32> = None, Rule::Integer(1, 256);
        /// Map the model file instead of reading it.
        use_mmap: bool = true;
        /// Keep the model from being swapped out.
        use_mlock: bool = false;
        /// Element type of the K cache.
        type_k: KvType = KvType::F16;
        /// Element type of the V cache; the quantised ones need flash attention.
        type_v: KvType = KvType::F16;
        /// One pool of cells for all requests. Otherwise each of those that run has a buffer of its own, which is faster with
        /// several: for models of plain attention on the CPU, if `n_ctx` has `model.max_context_length` for each.
        kv_unified: bool = false;
        /// Whether flash attention is used.
        flash_attn: FlashAttention = FlashAttention::Auto;
        /// Index of the GPU that does what is not split.
        main_gpu: u32 = 0, Rule::Integer(0, 255);
        /// How a model is split over GPUs.
        split_mode: SplitMode = SplitMode::Layer;
        /// Share of the model on each GPU; empty: by free memory.
        tensor_split: Vec<f32> = Vec::new(), Rule::NumberFrom(0.0);
        /// Names of the ggml devices to use; empty: all.
        devices: Vec<String> = Vec::new(), Rule::Text(rule::not_empty);
    }
}

section! {
    /// The fake engine, for tests and for trying things without a model.
    pub struct Fake at (backend.fake) {
        /// Where it runs: in a thread of the server, or in a process of its own.
        host: FakeHost = FakeHost::Thread;
        /// Tokens of KV over all sequences.
        n_ctx: u32 = 65_536, Rule::Integer(1, MANY_TOKENS);
        /// Most tokens of one request, in place of `model.max_context_length`.
        max_context_length: u32 = 4096, Rule::Integer(1, MANY_TOKENS);
        /// Most tokens in one step.
        n_batch: u32 = 2048, Rule::Integer(1, 1_048_576);
        /// Time of a step, in microseconds.
        step_time_us: u64 = 0, Rule::Integer(0, WEEK_MS);
        /// Time of each token in a step, added to the step's, in microseconds.
        token_time_us: u64 = 0, Rule::Integer(0, WEEK_MS);
        /// Time to load, in milliseconds.
        load_time_ms: u64 = 0, Rule::Integer(0, WEEK_MS);
        /// Loading fails with this cause.
        load_failure: Option<String> = None;
        /// One token in so many ends the text; unset: it never ends by itself.
        end_every: Option<u32> = None, Rule::Integer(1, MANY_TOKENS);
        /// What it speaks: lower-case letters, or characters of several tokens.
        alphabet: Alphabet = Alphabet::Ascii;
        /// Up to eight other letters are nearly as likely as the right one, so that samplers and draws decide.
        undecided: bool = false;
        /// Decoding this text crashes the engine.
        poison: Option<String> = None, Rule::Text(rule::not_empty);
        /// Decoding this text hangs the engine.
        hang: Option<String> = None, Rule::Text(rule::not_empty);
    }
}

section! {
    /// Restarts of backend, kv-cache and scheduler. The first restart of a series does not wait.
    pub struct EngineRestarts at (supervision.engine) {
        /// Restarts of backend, kv-cache and scheduler within `period_ms`; after one more all three are held down.
        max_restarts: u32 = 5, Rule::Integer(0, 1_000_000);
        /// The window in which restarts are counted, in milliseconds.
        period_ms: u64 = 60_000, Rule::Integer(1, WEEK_MS);
        /// Wait before the second restart of a series, in milliseconds; each further one waits twice as long.
        backoff_min_ms: u64 = 200, Rule::Integer(0, WEEK_MS);
        /// Longest wait before a restart, in milliseconds.
        backoff_max_ms: u64 = 30_000, Rule::Integer(0, WEEK_MS);
        /// Time until actors that are held down are tried again, in milliseconds.
        hold_ms: u64 = 60_000, Rule::Integer(1, WEEK_MS);
    }
}

section! {
    /// Restarts of the root's children. The first restart of a series does not wait.
    pub struct RootRestarts at (supervision.root) {
        /// Restarts of the other actors within `period_ms`; after one more the server ends.
        max_restarts: u32 = 5, Rule::Integer(0, 1_000_000);
        /// The window in which restarts are counted, in milliseconds.
        period_ms: u64 = 60_000, Rule::Integer(1, WEEK_MS);
        /// Wait before the second restart of a series, in milliseconds; each further one waits twice as long.
        backoff_min_ms: u64 = 200, Rule::Integer(0, WEEK_MS);
        /// Longest wait before a restart, in milliseconds.
        backoff_max_ms: u64 = 30_000, Rule::Integer(0, WEEK_MS);
    }
}

section! {
    /// When each actor is restarted at all: `permanent` after every exit, `transient` after a failure, `temporary` never.
    pub struct RestartKinds at (supervision.restart) {
        /// The owner of the engine.
        backend: NeededRestart = NeededRestart::Permanent;
        /// The index of prefixes.
        kv_cache: NeededRestart = NeededRestart::Permanent;
        /// Who runs next.
        scheduler: NeededRestart = NeededRestart::Permanent;
        /// The supervisor of requests.
        sessions: NeededRestart = NeededRestart::Permanent;
        /// The accept loop.
        http: NeededRestart = NeededRestart::Permanent;
        /// Finished answers. Without it everything is computed.
        response_cache: Restart = Restart::Permanent;
        /// The event feed. Without it `/actors/events` tells nothing new.
        inspector: Restart = Restart::Permanent;
    }
}

/// When actors are restarted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Supervision {
    /// Which exits are followed by a restart.
    pub restart: RestartKinds,
    /// Restarts of backend, kv-cache and scheduler.
    pub engine: EngineRestarts,
    /// Restarts of the root's children.
    pub root: RootRestarts,
}

section! {
    /// Faults injected on purpose, to see that no request notices. Never in production.
    pub struct Chaos at (chaos) {
        /// Which faults come in which order; unset: none.
        seed: Option<u64> = None, Rule::Integer(0, i64::MAX as i128);
        /// Time between two faults, in milliseconds.
        interval_ms: u64 = 1000, Rule::Integer(10, WEEK_MS);
    }
}

section! {
    /// The server's log, on stderr.
    pub struct Logging at (logging) {
        /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,cllm_actors=debug`.
        level: String = "info".to_owned(), Rule::Text(rule::log_filter);
        /// Lines for people, or one JSON object per line.
        format: LogFormat = LogFormat::Text;
    }
}

/// The whole schema, in the order of the file.
pub(super) const SECTIONS: &[&[Key]] = &[
    Server::KEYS,
    Model::KEYS,
    Scheduler::KEYS,
    Resources::KEYS,
    Cache::KEYS,
    KvStore::KEYS,
    Backend::KEYS,
    LlamaCpp::KEYS,
    Fake::KEYS,
    RestartKinds::KEYS,
    EngineRestarts::KEYS,
    RootRestarts::KEYS,
    Chaos::KEYS,
    Logging::KEYS,
];

/// How the size of a step is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuner {
    /// As configured.
    Static,
    /// By measured step times.
    Adaptive,
}

choice!(Tuner: "static" = Static, "adaptive" = Adaptive);

/// When an actor is restarted that the server cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeededRestart {
    /// After every exit.
    Permanent,
    /// After a failure.
    Transient,
}

choice!(NeededRestart: "permanent" = Permanent, "transient" = Transient);

/// Where the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// llama.cpp in a process of its own.
    Process,
    /// llama.cpp in a thread of the server.
    Thread,
    /// No llama.cpp and no model.
    Fake,
}

choice!(Engine: "process" = Process, "thread" = Thread, "fake" = Fake);

/// Where the fake engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeHost {
    /// In a process of its own.
    Process,
    /// In a thread of the server.
    Thread,
}

choice!(FakeHost: "process" = Process, "thread" = Thread);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

choice!(LogFormat: "text" = Text, "json" = Json);
