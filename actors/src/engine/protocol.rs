//! What the actors and the engine say to each other: plain serde enums, so that any host can carry them.
//!
//! Commands and events about sequences carry the scheduler's epoch. The engine ignores commands of an older epoch,
//! the actors ignore events of one.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::request::TenantId;
use crate::sampling::SamplingParams;

/// A token id of the model's vocabulary, `0..n_vocab`.
pub type Token = i32;

/// Identifies one sequence request in the whole system; never reused.
pub type RequestId = u64;

/// A KV sequence of the context, `0..n_seq_max`.
pub type SequenceId = u32;

/// A KV file, by a number that the engine gives; another engine gives it another one.
pub type FileId = u32;

/// The incarnation of the scheduler that a command or event belongs to; grows with every restart.
pub type Epoch = u64;

/// What the actors ask of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EngineCommand {
    /// A new scheduler is here: end the sequences of older epochs silently, keep their KV, answer `Inventory`.
    Reset {
        /// The new scheduler's epoch.
        epoch: Epoch,
        /// For so long those that come with tokens, cut off elsewhere, are read before others of no better class decode.
        cut_off_first: std::time::Duration,
    },
    /// Start a sequence. Answered by `Started`, token outputs and exactly one `Ended`.
    Admit(Box<Admit>),
    /// End a sequence at the next step. A no-op if it has ended.
    Cancel {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The request to end.
        request: RequestId,
    },
    /// Another rank for a running request, such as while others wait for what it computes. A no-op if it has ended.
    SetRank {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The request.
        request: RequestId,
        /// Its rank from now on, as in `Admit`.
        rank: u64,
    },
    /// Forget the KV of an idle sequence. A no-op if a request runs on it.
    Evict {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The sequence whose KV goes.
        sequence: SequenceId,
    },
    /// Limits for the following steps.
    SetLimits(Limits),
    /// Turn text into tokens, on the vocabulary thread. Answered by `Tokenized`.
    Tokenize {
        /// Returned in the answer.
        id: u64,
        /// The text, in parts.
        parts: Vec<TextPart>,
        /// Whether the model's beginning and end tokens are added as its metadata says.
        special: AddSpecial,
    },
    /// Turn tokens into text, on the vocabulary thread. Answered by `Detokenized`.
    Detokenize {
        /// Returned in the answer.
        id: u64,
        /// Tokens from outside; checked.
        tokens: Vec<Token>,
    },
    /// End both threads.
    Shutdown,
}

impl EngineCommand {
    /// Whether it may be lost: it changes how well the engine works, not what becomes of any request.
    pub(crate) const fn is_advice(&self) -> bool {
        matches!(self, Self::SetLimits(_) | Self::SetRank { .. })
    }
}

/// A sequence to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admit {
    /// Epoch of the sender.
    pub epoch: Epoch,
    /// The request.
    pub request: RequestId,
    /// The sequence to run it on; must be idle.
    pub sequence: SequenceId,
    /// Whose prefixes may serve it, and whom its own may serve.
    pub tenant: TenantId,
    /// Advice on where a prefix of `tokens` lies already; verified by the engine.
    pub placement: Placement,
    /// Prompt and the tokens emitted so far. Never empty.
    pub tokens: Vec<Token>,
    /// How many of `tokens` are prompt; the draw of the next token is number `tokens.len() - prompt_len`.
    pub prompt_len: u32,
    /// Most tokens to emit from here on; 0 ends after prefill.
    pub max_new_tokens: u32,
    /// How to draw; `seed` is set.
    pub sampling: SamplingParams,
    /// Log-probabilities of each emitted token and this many alternatives.
    pub logprobs: Option<u32>,
    /// The same for the prompt's tokens; excludes reuse of a prefix.
    pub prompt_logprobs: Option<u32>,
    /// Prefill order, and who is held back last when cells run out: lower is better. See [`crate::priority::rank`].
    pub rank: u64,
    /// LoRA adapter group; reserved.
    pub adapter: Option<u32>,
}

/// The tokens that have KV in a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The sequence.
    pub sequence: SequenceId,
    /// Whose request computed them.
    pub tenant: TenantId,
    /// The tokens.
    pub tokens: Vec<Token>,
}

/// A prefix in a KV file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPrefix {
    /// The file.
    pub file: FileId,
    /// Whose request computed it.
    pub tenant: TenantId,
    /// Its tokens.
    pub tokens: Vec<Token>,
}

/// Where a prefix of a new sequence's tokens lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// Nowhere: the sequence is emptied first.
    Fresh,
    /// In the sequence itself.
    InPlace,
    /// In another sequence, whose first `tokens` are copied; the own sequence is emptied first.
    Copy {
        /// The sequence to copy from; stays as it is.
        from: SequenceId,
        /// How many tokens.
        tokens: u32,
    },
    /// In a KV file, from which the own sequence is filled.
    Restore {
        /// The file.
        file: FileId,
        /// How many tokens.
        tokens: u32,
    },
}

/// A step always has room for so many prompt tokens beside the decoding sequences.
pub const MIN_PREFILL_TOKENS: u32 = 4;

/// At most so many times [`Limits::mixed_prefill_tokens`] go into a step when more prompts are read than streams run.
pub const MOST_PREFILL_SHARES: u32 = 4;

/// What the engine may do in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most tokens in a step, decode and prefill together. The engine bounds it by `n_batch` and never goes below one
    /// token per decoding sequence plus [`MIN_PREFILL_TOKENS`].
    pub step_tokens: u32,
    /// Most prompt tokens in a step in which at least one sequence decodes; at least [`MIN_PREFILL_TOKENS`]. Each
    /// further prompt of no worse class adds this once per decoding sequence, up to [`MOST_PREFILL_SHARES`] times this.
    pub mixed_prefill_tokens: u32,
    /// A sequence that has waited so long for its first prefill chunk goes before lower ranks of its class, ms; 0: never.
    pub prefill_wait_ms: u32,
    /// Whether requests wait for a place: then a step that frees one is followed by a few ms of waiting for one.
    pub waiting: Waiting,
}

/// Whether the scheduler's queue has work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waiting {
    /// Queue empty.
    Nobody,
    /// At least one request queued.
    Somebody,
}

/// A piece of text to tokenize.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPart {
    /// The text.
    pub text: String,
    /// Where it comes from.
    pub trust: Trust,
}

/// Whether special tokens' texts inside a part mean the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// The template's own text: special tokens are recognised.
    Template,
    /// A user's text: everything is plain text.
    User,
}

/// Whether the tokenizer adds the model's beginning (and end) tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddSpecial {
    /// As the model's metadata says, unless the text begins with the beginning token already.
    Model,
    /// Never.
    Never,
}

/// What the engine tells the actors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EngineEvent {
    /// How far the model is loaded, 0 to 1.
    Loading {
        /// Share of the weights read.
        progress: f32,
    },
    /// The model is loaded and commands are taken.
    Loaded(Box<ModelInfo>),
    /// The model could not be loaded. Nothing follows.
    LoadFailed {
        /// One line for the operator.
        cause: String,
    },
    /// Answer to `Reset`: which tokens lie in which sequence. Empty sequences are left out.
    Inventory {
        /// Epoch of the `Reset`.
        epoch: Epoch,
        /// Sequences with KV.
        sequences: Vec<Held>,
        /// KV files.
        files: Vec<StoredPrefix>,
    },
    /// KV files have come or gone.
    Files {
        /// Epoch of the running scheduler.
        epoch: Epoch,
        /// New ones.
        stored: Vec<StoredPrefix>,
        /// Those that are no more.
        gone: Vec<FileId>,
    },
    /// A sequence was accepted.
    Started {
        /// Epoch of the `Admit`.
        epoch: Epoch,
        /// The request.
        request: RequestId,
        /// How many of its tokens need no prefill.
        reused: u32,
    },
    /// The next decodes are about these requests: if the engine dies, one of them may be the reason. Said before the
    /// decode, whenever the set changes.
    StepStarted {
        /// Epoch of the running scheduler.
        epoch: Epoch,
        /// The requests of the batch.
        requests: Vec<RequestId>,
    },
    /// This text is being tokenized: if the engine dies, it may be the reason.
    TokenizeStarted {
        /// As asked.
        id: u64,
    },
    /// One step is done.
    Step(Box<StepOutput>),
    /// A sequence is over; its id is free from here on.
    Ended(Box<Ended>),
    /// The context is out of cells; lower ranks are held back until some are freed.
    CellsShort {
        /// Epoch of the running scheduler.
        epoch: Epoch,
        /// Cells that the next step lacks.
        needed: u32,
        /// Cells of idle sequences, which an eviction would free.
        parked: u32,
    },
    /// Answer to `Tokenize`.
    Tokenized {
        /// As asked.
        id: u64,
        /// The tokens, or why not: a client's mistake.
        result: Result<Vec<Token>, String>,
    },
    /// Answer to `Detokenize`.
    Detokenized {
        /// As asked.
        id: u64,
        /// The text's bytes, or why not: a client's mistake.
        result: Result<Vec<u8>, String>,
    },
    /// The engine is unusable. Nothing follows.
    Failed {
        /// One line for the operator.
        cause: String,
        /// Which thread failed, if that is known: what the other one worked on is not the reason.
        thread: Option<EngineThread>,
    },
}

/// One of an engine's two threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineThread {
    /// The one that loads and decodes.
    Loop,
    /// The one that tokenizes and detokenizes.
    Vocabulary,
}

/// Everything that one step produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepOutput {
    /// Epoch of the running scheduler.
    pub epoch: Epoch,
    /// Counts steps of this engine.
    pub step: u64,
    /// Tokens in the batch.
    pub batch_tokens: u32,
    /// Of these, prompt tokens.
    pub prefill_tokens: u32,
    /// Time from the start of the decode to the last sampled token, µs.
    pub step_us: u64,
    /// Of this, sampling and building the output, µs.
    pub sample_us: u64,
    /// Tokens with KV after the step, over all sequences; a cell shared by several counts once for each.
    pub cells_used: u32,
    /// The sequences that got a token (or prompt logprobs, or prefill progress).
    pub outputs: Vec<SequenceOutput>,
}

/// What one sequence got in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceOutput {
    /// The request.
    pub request: RequestId,
    /// Number of the first of `tokens`, counted from the end of the prompt.
    pub index: u32,
    /// New tokens, in order; empty while the prompt is prefilled. More than one with speculation.
    pub tokens: SmallVec<[OutputToken; 1]>,
    /// Tokens of the prompt that still have no KV.
    pub prefill_left: u32,
    /// Log-probabilities of prompt tokens, in order; only when asked for.
    pub prompt_logprobs: Vec<TokenLogprob>,
}

/// An emitted token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputToken {
    /// Its id.
    pub id: Token,
    /// Its bytes; often no whole character. Empty for control tokens.
    pub bytes: TokenBytes,
    /// When asked for.
    pub logprobs: Option<Box<TokenLogprob>>,
}

/// The bytes of a token; nearly always short enough to need no allocation.
pub type TokenBytes = SmallVec<[u8; 16]>;

/// Log-probability of a token and of its likeliest alternatives, before any sampler (temperature 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token.
    pub id: Token,
    /// Its bytes; control tokens with their text.
    pub bytes: TokenBytes,
    /// Natural logarithm; `None` for the first prompt token, which nothing predicts.
    pub logprob: Option<f32>,
    /// The likeliest tokens, best first, the drawn one among them only if it is one of the likeliest.
    pub top: Vec<(Token, TokenBytes, f32)>,
}

/// The end of a sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Epoch of the `Admit`.
    pub epoch: Epoch,
    /// The request.
    pub request: RequestId,
    /// The sequence it ran on, now idle.
    pub sequence: SequenceId,
    /// Why.
    pub reason: EndReason,
    /// Tokens emitted for this `Admit`.
    pub emitted: u32,
    /// Tokens whose KV stays in the sequence; always a prefix of prompt and emitted tokens.
    pub kv_tokens: u32,
}

/// Why the engine ended a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// An end-of-generation token was drawn; it is the last emitted one.
    EndToken,
    /// `max_new_tokens` were emitted.
    Length,
    /// `Cancel`.
    Cancelled,
    /// The `Admit` broke a rule of the protocol; an internal error.
    Refused(String),
}

/// What is known of a loaded model and its context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// `general.name` of the file, or its stem.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Human-readable description, such as "llama 135M Q4_1".
    pub description: String,
    /// Jinja chat template, if the file has one.
    pub chat_template: Option<String>,
    /// Text of the beginning token, if there is one.
    pub bos_text: Option<String>,
    /// Text of the end token, if there is one.
    pub eos_text: Option<String>,
    /// Beginning token, if there is one.
    pub bos: Option<Token>,
    /// Whether the tokenizer adds the beginning token by itself.
    pub add_bos: bool,
    /// Texts of the control and user-defined tokens that the tokenizer would recognise in template text.
    pub control_tokens: Vec<String>,
    /// Every token that ends a generation.
    pub end_tokens: Vec<Token>,
    /// Size of the vocabulary.
    pub n_vocab: u32,
    /// Most bytes of text that become one token, `lost_bytes` not counted; `None` where nothing is known of it.
    pub max_token_bytes: Option<u32>,
    /// Bytes that the tokenizer may leave out of a text.
    pub lost_bytes: Vec<u8>,
    /// Cells of the context, over all sequences.
    pub n_ctx: u32,
    /// Most tokens of one sequence.
    pub n_ctx_seq: u32,
    /// Buffers of a split context, each with room for the longest sequence: so many sequences have KV in it, and share none.
    /// `None`: one pool of cells for all.
    pub streams: Option<u32>,
    /// Context length the model was trained with.
    pub n_ctx_train: u32,
    /// Sequences of the context.
    pub n_seq_max: u32,
    /// Most tokens in one step.
    pub n_batch: u32,
    /// Parameters of the model.
    pub n_params: u64,
    /// Bytes of the weights.
    pub size_bytes: u64,
    /// Width of the residual stream.
    pub n_embd: u32,
    /// Layers.
    pub n_layer: u32,
    /// Attention heads.
    pub n_head: u32,
    /// Key-value heads.
    pub n_head_kv: u32,
    /// KV bytes of one token.
    pub kv_bytes_per_token: u64,
    /// What may be shared and trimmed.
    pub memory: MemoryKind,
    /// Tokens of idle sequences that stay in cells while others decode; the KV of those beyond is moved to ordinary
    /// memory, if `memory` is attention.
    pub parked_limit: u32,
    /// Bytes that the KV in ordinary memory may take; what would exceed them stays in cells.
    pub parked_bytes: u64,
    /// Whether layers lie on a GPU.
    pub on_gpu: bool,
    /// What computes: devices and CPU features, for the log.
    pub system: String,
    /// Other metadata of the file that endpoints show, by its GGUF key.
    pub metadata: Vec<(String, String)>,
}

/// How a model remembers; decides which prefixes can be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryKind {
    /// Plain attention (or sliding windows with full-size KV): any prefix may be kept or copied, as long as all of it is
    /// there; the engine looks.
    Attention,
    /// Recurrent or hybrid: a state can only be continued or copied whole, never trimmed.
    Recurrent,
    /// No memory to keep.
    None,
}
