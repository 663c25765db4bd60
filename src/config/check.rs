//! What single values can't show: keys that must fit together, and what a user should know about an accepted
//! configuration.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cllm_actors::engine::spec::{FlashAttention, KvType, SplitMode};

use super::problem::{Note, Origin, Problem};
use super::sections::{Engine, Tuner};
use super::{Config, MAX_SEQUENCES, Purpose, sources};

const N_BATCH: &str = "backend.llama_cpp.n_batch";
const N_UBATCH: &str = "backend.llama_cpp.n_ubatch";
const N_CTX: &str = "backend.llama_cpp.n_ctx";
const KV_CACHE_MAX_SIZE: &str = "resources.kv_cache_max_size";
const ENGINE: &str = "backend.engine";
const MODEL_PATH: &str = "model.path";

/// Keys that limit the running sequences.
const RUNNING: [&str; 3] = ["scheduler.max_batch_size", "resources.max_batch_size", "backend.llama_cpp.n_seq_max"];

/// Most GPUs that llama.cpp knows.
const MAX_GPUS: usize = 16;

/// Keys for which nothing is polled.
const POLLING: [&str; 2] = ["scheduler.loop_interval", "scheduler.wait_poll_interval_ms"];

/// A merged configuration on its way to being accepted.
#[derive(Debug)]
pub(super) struct Check<'config> {
    pub(super) config: &'config Config,
    /// Of the keys that are set.
    pub(super) origins: &'config HashMap<&'static str, Origin>,
    /// Keys with a wrong value, of which nothing more is said.
    pub(super) failed: &'config HashSet<&'static str>,
    pub(super) purpose: Purpose,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<Note>,
}

impl Check<'_> {
    /// Fills `problems` and `notes`.
    pub(super) fn run(&mut self) {
        self.engine();
        self.model();
        self.sequences();
        self.llama();
        self.old_keys();
        self.key_priorities();
        self.step_size();
        self.exposure();
        self.connections();
    }

    /// Blames the first of these keys that is set; says nothing when one of them is wrong by itself.
    fn problem(&mut self, keys: &[&str], message: impl Into<String>) {
        if keys.iter().any(|key| self.failed.contains(key)) {
            return;
        }
        let origin = keys.iter().find_map(|key| self.origins.get(key)).unwrap_or(&Origin::Default);
        self.problems.push(Problem { origin: origin.clone(), message: message.into() });
    }

    fn info(&mut self, text: impl Into<String>) {
        self.notes.push(Note::Info(text.into()));
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.notes.push(Note::Warning(text.into()));
    }

    /// Those of the keys that do not have their default, in backquotes and with commas.
    fn changed(&self, paths: &[&str]) -> Option<String> {
        let default = Config::default();
        let keys = paths.iter().filter_map(|path| sources::find(path));
        let changed = keys.filter(|key| (key.show)(self.config) != (key.show)(&default));
        let names: Vec<_> = changed.map(|key| format!("`{}`", key.path)).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn engine(&mut self) {
        if self.config.server.use_libtorch {
            let reason = "there is no libtorch backend: remove the key or set it to `false`";
            self.problem(&["server.use_libtorch"], format!("`server.use_libtorch`: {reason}"));
        }
    }

    fn model(&mut self) {
        if self.config.backend.engine == Engine::Fake || self.config.model.path.is_some() {
            return;
        }
        let message = format!("`{MODEL_PATH}` is not set: name a GGUF file, with `--model` for example");
        match self.purpose {
            Purpose::Serve => self.problem(&[MODEL_PATH, ENGINE], message),
            Purpose::Check => self.warning(message),
        }
    }

    fn sequences(&mut self) {
        let (running, retained) = (self.config.running(), self.config.retained());
        let limits = self.config.running_limits();
        if limits.iter().flatten().any(|limit| *limit != running) {
            let names = self.changed(&RUNNING).unwrap_or_default();
            self.info(format!("{running} sequences run at once, the smallest of {names}"));
        }
        let wanted = self.config.resources.kv_cache_max_size;
        if retained < wanted {
            self.info(format!(
                "`{KV_CACHE_MAX_SIZE}` is lowered from {wanted} to {retained}: at most {MAX_SEQUENCES} sequences, \
                 {running} of them running"
            ));
        }
        let (key, n_batch) = match self.config.backend.engine {
            Engine::Fake => ("backend.fake.n_batch", self.config.backend.fake.n_batch),
            Engine::Process | Engine::Thread => (N_BATCH, self.config.backend.llama_cpp.n_batch),
        };
        if n_batch < running + retained {
            let [scheduler, resources, llama] = RUNNING;
            self.problem(
                &[key, KV_CACHE_MAX_SIZE, scheduler, resources, llama],
                format!(
                    "`{key}` is {n_batch}, fewer than the {} sequences ({running} running and {retained} retained): \
                     raise it, or lower `{KV_CACHE_MAX_SIZE}`",
                    running + retained
                ),
            );
        }
    }

    fn llama(&mut self) {
        let llama = &self.config.backend.llama_cpp;
        let without_flash = llama.flash_attn == FlashAttention::Disabled;
        if without_flash && !matches!(llama.type_v, KvType::F32 | KvType::F16 | KvType::Bf16) {
            let keys = ["backend.llama_cpp.type_v", "backend.llama_cpp.flash_attn"];
            self.problem(
                &keys,
                format!("`{}`: a quantised V cache needs flash attention, `{}` disables it", keys[0], keys[1]),
            );
        }
        if without_flash && llama.split_mode == SplitMode::Tensor {
            let keys = ["backend.llama_cpp.split_mode", "backend.llama_cpp.flash_attn"];
            self.problem(&keys, format!("`{}`: `tensor` needs flash attention, `{}` disables it", keys[0], keys[1]));
        }
        self.tensor_split();
        if llama.n_ubatch > llama.n_batch {
            self.info(format!("`{N_UBATCH}` is lowered from {} to {}, `{N_BATCH}`", llama.n_ubatch, llama.n_batch));
        }
        let length = self.config.model.max_context_length;
        if let Some(n_ctx) = llama.n_ctx.filter(|n_ctx| *n_ctx < length) {
            self.info(format!("`model.max_context_length` is lowered from {length} to {n_ctx}, `{N_CTX}`"));
        }
    }

    fn tensor_split(&mut self) {
        const KEY: &str = "backend.llama_cpp.tensor_split";
        let shares = &self.config.backend.llama_cpp.tensor_split;
        if shares.len() > MAX_GPUS {
            self.problem(
                &[KEY],
                format!("`{KEY}` has {} shares: llama.cpp knows at most {MAX_GPUS} GPUs", shares.len()),
            );
        }
        if !shares.is_empty() && shares.iter().all(|share| *share == 0.0) {
            self.problem(&[KEY], format!("`{KEY}`: at least one share must be greater than 0"));
        }
    }

    fn old_keys(&mut self) {
        if let Some(names) = self.changed(&POLLING) {
            self.info(format!("nothing is polled here, so these change no speed: {names}"));
        }
    }

    fn key_priorities(&mut self) {
        const KEY: &str = "server.api_key_priorities";
        let (priorities, keys) = (self.config.server.api_key_priorities.len(), self.config.server.api_keys.len());
        if priorities > keys {
            self.problem(&[KEY], format!("`{KEY}` has {priorities} priorities for {keys} keys in `server.api_keys`"));
        }
    }

    fn step_size(&mut self) {
        let without_effect = match self.config.scheduler.tuner {
            Tuner::Adaptive => self.changed(&["scheduler.step_tokens"]).zip(Some("static")),
            Tuner::Static => self.changed(&["scheduler.max_step_ms"]).zip(Some("adaptive")),
        };
        if let Some((name, mode)) = without_effect {
            self.info(format!("{name} counts with `scheduler.tuner: {mode}` only"));
        }
    }

    /// With too few connections the queue is never full, and whoever is turned away is not told when to come back.
    fn connections(&mut self) {
        let (connections, requests) = (self.config.max_connections(), self.config.most_requests());
        if connections < requests {
            self.warning(format!(
                "`server.max_connections` is {connections}, fewer than the {requests} requests that `scheduler.max_queue` \
                 admits: in a storm clients get 503 too_many_connections before the queue is full"
            ));
        }
    }

    fn exposure(&mut self) {
        let server = &self.config.server;
        let is_local = match server.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => server.host == "localhost",
        };
        if !is_local && server.api_keys.is_empty() && server.admin_keys.is_empty() {
            let host = &server.host;
            self.warning(format!("other machines can reach `{host}`, and `server.api_keys` asks for no key"));
        }
    }
}
