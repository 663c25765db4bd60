//! Which engine to start and how: plain data, built from configuration and carried to the host.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::protocol::MemoryKind;

/// An engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "the large one is the fake, and there is one for each system")]
pub enum EngineSpec {
    /// llama.cpp.
    Llama(Box<LlamaSpec>),
    /// The fake engine: no model file, no arithmetic.
    Fake(FakeSpec),
}

impl EngineSpec {
    /// Where prefixes outlive the engine.
    pub(crate) fn kv_store(&self) -> Option<&KvStoreSpec> {
        match self {
            Self::Llama(spec) => spec.kv_store.as_ref(),
            Self::Fake(spec) => spec.kv_store.as_ref(),
        }
    }
}

/// Parameters of llama.cpp. Field names are llama.cpp's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaSpec {
    /// GGUF file.
    pub path: PathBuf,
    /// Cells over all sequences. `None`: `max_context_length` × `running`, lowered to what memory allows.
    pub n_ctx: Option<u32>,
    /// Most tokens of one request; lowered to `n_ctx`. A value over the model's training length is a warning. Default 2048.
    pub max_context_length: u32,
    /// Sequences that run at once. Default 16.
    pub running: u32,
    /// Sequences beside them that keep a prefix. `running + retained` ≤ 256.
    pub retained: u32,
    /// Most tokens in one step. Default 2048.
    pub n_batch: u32,
    /// Most tokens computed at once. Default 512.
    pub n_ubatch: u32,
    /// Compute threads; 0: one per physical core.
    pub n_threads: u32,
    /// Layers on the GPU; negative: all. Default 0.
    pub n_gpu_layers: i32,
    /// Default true.
    pub use_mmap: bool,
    /// Default false.
    pub use_mlock: bool,
    /// Type of the K cache. Default F16.
    pub type_k: KvType,
    /// Type of the V cache; quantised types need flash attention. Default F16.
    pub type_v: KvType,
    /// Default Auto.
    pub flash_attn: FlashAttention,
    /// Index of the GPU that does what is not split. Default 0.
    pub main_gpu: u32,
    /// How a model is split over GPUs. Default Layer.
    pub split_mode: SplitMode,
    /// Share of each GPU; empty: by free memory.
    pub tensor_split: Vec<f32>,
    /// Names of the ggml devices to use; empty: all.
    pub devices: Vec<String>,
    /// One pool of cells for all sequences, also where each running one could have a buffer of its own. Default false: they
    /// have, for models of plain attention on the CPU, if `n_ctx` has `max_context_length` for each.
    pub kv_unified: bool,
    /// Tokens of idle sequences that stay in cells while others decode; the KV of more is moved to ordinary memory.
    /// Counts in one pool of cells only. `None`: 256 on the CPU, where parked cells slow every step; all of them with layers on a GPU.
    pub parked_limit: Option<u32>,
    /// Bytes that the KV in ordinary memory may take. `None`: half of what the cells take.
    pub parked_bytes: Option<u64>,
    /// Where prefixes outlive the engine. Default nowhere.
    pub kv_store: Option<KvStoreSpec>,
}

impl LlamaSpec {
    /// Everything at its default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            n_ctx: None,
            max_context_length: 2048,
            running: 16,
            retained: 32,
            n_batch: 2048,
            n_ubatch: 512,
            n_threads: 0,
            n_gpu_layers: 0,
            use_mmap: true,
            use_mlock: false,
            type_k: KvType::F16,
            type_v: KvType::F16,
            flash_attn: FlashAttention::Auto,
            main_gpu: 0,
            split_mode: SplitMode::Layer,
            tensor_split: Vec::new(),
            devices: Vec::new(),
            kv_unified: false,
            parked_limit: None,
            parked_bytes: None,
            kv_store: None,
        }
    }
}

/// Element type of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "ggml's names")]
pub enum KvType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Iq4Nl,
    Q5_0,
    Q5_1,
}

/// Whether flash attention is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlashAttention {
    /// Where the devices support it.
    Auto,
    /// Always.
    Enabled,
    /// Never.
    Disabled,
}

/// How a model is split over GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitMode {
    /// One GPU.
    None,
    /// Layers and KV over the GPUs.
    Layer,
    /// Rows over the GPUs; deprecated by llama.cpp.
    Row,
    /// Tensors over the GPUs; experimental in llama.cpp.
    Tensor,
}

/// The fake engine. Its next token is a function of all tokens before it, so that a lost, repeated or foreign token shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FakeSpec {
    /// Cells over all sequences. Default 65,536.
    pub n_ctx: u32,
    /// Most tokens of one request. Default 4096.
    pub max_context_length: u32,
    /// Sequences that run at once. Default 16.
    pub running: u32,
    /// Sequences beside them that keep a prefix. Default 32.
    pub retained: u32,
    /// Most tokens in one step. Default 2048.
    pub n_batch: u32,
    /// Time of a step. Default none.
    pub step_time: Duration,
    /// Time of each token in a step, added to `step_time`. Default none.
    pub token_time: Duration,
    /// Time to load. Default none.
    pub load_time: Duration,
    /// Loading fails with this cause.
    pub load_failure: Option<String>,
    /// One token in so many is an end token, chosen by the tokens before it; `None`: it never ends by itself.
    pub end_every: Option<u32>,
    /// What it speaks. Default ASCII.
    pub alphabet: Alphabet,
    /// Up to eight letters, by the tokens before, are nearly as likely as the right one, so that samplers and draws decide.
    /// Default no.
    pub undecided: bool,
    /// Decoding this text crashes the engine.
    pub poison: Option<String>,
    /// Decoding this text hangs the engine.
    pub hang: Option<String>,
    /// Tokens of idle sequences that stay in cells while others decode. Default 256.
    pub parked_limit: u32,
    /// Bytes that the KV in ordinary memory may take. Default no bound.
    pub parked_bytes: u64,
    /// Poses as a split context with so many buffers. Default one pool of cells.
    pub streams: Option<u32>,
    /// Poses as a model with a sliding window of so many tokens, whose longer sequences have no whole state. Default none.
    pub window: Option<u32>,
    /// What it poses as. Default plain attention; as a recurrent model it spoils what is cut or copied in the middle.
    pub memory: MemoryKind,
    /// Where prefixes outlive the engine. Default nowhere.
    pub kv_store: Option<KvStoreSpec>,
    /// The chat template of its "file". Default ChatML.
    pub chat_template: Option<String>,
}

/// KV files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvStoreSpec {
    /// Their folder. Made for its owner alone if it is not there; one that is there stays as it is.
    pub path: PathBuf,
    /// Most bytes of KV files in it, of whatever models.
    pub max_bytes: u64,
}

impl Default for FakeSpec {
    fn default() -> Self {
        Self {
            n_ctx: 65_536,
            max_context_length: 4096,
            running: 16,
            retained: 32,
            n_batch: 2048,
            step_time: Duration::ZERO,
            token_time: Duration::ZERO,
            load_time: Duration::ZERO,
            load_failure: None,
            end_every: None,
            alphabet: Alphabet::Ascii,
            undecided: false,
            poison: None,
            hang: None,
            parked_limit: 256,
            parked_bytes: u64::MAX,
            streams: None,
            window: None,
            memory: MemoryKind::Attention,
            kv_store: None,
            chat_template: None,
        }
    }
}

/// Characters of the fake engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alphabet {
    /// Lower-case letters and spaces, one token each.
    Ascii,
    /// Chinese characters and emoji, three or four tokens each.
    Multibyte,
}
