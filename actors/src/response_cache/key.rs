//! What makes two requests the same: everything that decides the answer, brought into one form, and nothing else.

use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use crate::engine::protocol::{ModelInfo, TextPart, Token};
use crate::engine::spec::EngineSpec;
use crate::request::{GenerateRequest, TenantId};
use crate::sampling::SamplingParams;

#[cfg(test)]
mod tests;

/// A BLAKE3 hash of model, caller and request. Of 256 bits, so that no equality check is needed: nobody can make two
/// requests with one key, by chance or on purpose, and prompts need not be kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; blake3::OUT_LEN]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", blake3::Hash::from_bytes(self.0))
    }
}

/// Which model answers: hashes of what is known of it, and of its file's size and time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelIdentity {
    /// Of everything.
    whole: [u8; blake3::OUT_LEN],
    /// Without what settings and memory make of it.
    file: [u8; blake3::OUT_LEN],
}

/// A prompt on its way to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum LaidOut {
    /// Text to be tokenized; a chat is laid out by its template.
    Parts(Vec<TextPart>),
    /// Tokens as they are.
    Tokens(Vec<Token>),
}

/// Whether the same request always gets the same answer: greedy, or with a seed.
pub fn is_determined(sampling: &SamplingParams) -> bool {
    is_greedy(sampling) || sampling.seed.is_some()
}

/// Everything that decides an answer, in the order in which it is hashed.
#[derive(Serialize)]
struct Asked<'a> {
    model: &'a ModelIdentity,
    /// What one caller asked says nothing to another, not even that it was asked.
    tenant: u32,
    prompt: &'a LaidOut,
    sampling: SamplingParams,
    max_tokens: Option<u32>,
    stop: &'a [String],
    logprobs: Option<u32>,
    prompt_logprobs: Option<u32>,
}

impl Key {
    /// The key of a request whose prompt is laid out.
    pub fn of(request: &GenerateRequest, prompt: &LaidOut, model: &ModelIdentity) -> Self {
        // A field that is added must be looked at here: does it change the answer?
        let GenerateRequest {
            trace_id: _,
            priority: _,
            prompt: _,
            sampling,
            max_tokens,
            stop,
            logprobs,
            prompt_logprobs,
            arrived_at: _,
            deadlines: _,
            cache: _,
            reports_position: _,
            tenant: TenantId(tenant),
        } = request;
        Self(hash(&Asked {
            model,
            tenant: *tenant,
            prompt,
            sampling: normalised(sampling),
            max_tokens: *max_tokens,
            stop,
            logprobs: *logprobs,
            prompt_logprobs: *prompt_logprobs,
        }))
    }

    #[cfg(test)]
    pub(super) fn of_bytes(bytes: [u8; blake3::OUT_LEN]) -> Self {
        Self(bytes)
    }
}

impl ModelIdentity {
    /// The identity of a model that was just loaded.
    pub fn of(info: &ModelInfo, engine: &EngineSpec) -> Self {
        let facts = file_facts(engine);
        Self { whole: hash(&(info, facts)), file: Self::file_hash(info, facts) }
    }

    /// Whether both are of one file, if in contexts of other sizes: what one has begun the other can go on with.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.file == other.file
    }

    fn file_hash(info: &ModelInfo, facts: Option<(u64, u128)>) -> [u8; blake3::OUT_LEN] {
        // A field that is added must be looked at here: does it say which model it is?
        let ModelInfo {
            name,
            architecture,
            description,
            chat_template,
            bos_text,
            eos_text,
            bos,
            add_bos,
            control_tokens,
            end_tokens,
            n_vocab,
            max_token_bytes: _,
            lost_bytes: _,
            n_ctx: _,
            n_ctx_seq: _,
            streams: _,
            n_ctx_train,
            n_seq_max: _,
            n_batch: _,
            n_params,
            size_bytes,
            n_embd,
            n_layer,
            n_head,
            n_head_kv,
            kv_bytes_per_token: _,
            memory: _,
            parked_limit: _,
            parked_bytes: _,
            on_gpu: _,
            system: _,
            metadata,
        } = info;
        let names = (name, architecture, description, metadata);
        let vocabulary = (chat_template, bos_text, eos_text, bos, add_bos, control_tokens, end_tokens, n_vocab);
        let sizes = (n_ctx_train, n_params, size_bytes, n_embd, n_layer, n_head, n_head_kv);
        hash(&(names, vocabulary, sizes, facts))
    }
}

/// Length, and time of change in ns since 1970.
fn file_facts(engine: &EngineSpec) -> Option<(u64, u128)> {
    let EngineSpec::Llama(spec) = engine else { return None };
    let facts = fs::metadata(&spec.path).ok()?;
    let changed = facts.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((facts.len(), changed.as_nanos()))
}

fn is_greedy(sampling: &SamplingParams) -> bool {
    sampling.temperature <= 0.0
}

/// The same sampling in one form: what a greedy choice never looks at is at its default, and biases are in order.
fn normalised(sampling: &SamplingParams) -> SamplingParams {
    let mut one = sampling.clone();
    // Stable: entries of one token add up in their order.
    let mut biases = one.logit_bias.to_vec();
    biases.sort_by_key(|(token, _)| *token);
    one.logit_bias = biases.into();
    if is_greedy(sampling) {
        let default = SamplingParams::default();
        one = SamplingParams {
            temperature: 0.0,
            top_k: default.top_k,
            top_p: default.top_p,
            min_p: default.min_p,
            typical_p: default.typical_p,
            xtc_probability: default.xtc_probability,
            xtc_threshold: default.xtc_threshold,
            seed: None,
            ..one
        };
    }
    one
}

fn hash(value: &impl Serialize) -> [u8; blake3::OUT_LEN] {
    let mut hasher = blake3::Hasher::new();
    // postcard writes the length before everything that has one, so different values give different bytes.
    postcard::to_io(value, &mut hasher).expect("a hasher takes it all, and our own types know their lengths");
    *hasher.finalize().as_bytes()
}
