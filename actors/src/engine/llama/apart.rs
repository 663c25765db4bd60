//! Whether the decoding rows of a step are computed apart from its prompt chunks.
//!
//! From 64 rows on, ggml's flash attention on the CPU takes queries in tiles of 64 and passes over keys that none of a
//! tile's rows may see. A tile with rows of many sequences must look at the keys of all of them, for each of its rows.
//! In two runs, the decoding rows look at their own keys alone and the prompt's tiles at the prompt's. What that costs is
//! a second pass over the weights. In a split context it costs nothing: llama.cpp makes two runs anyway.

use crate::engine::batch::Row;
use crate::engine::protocol::MemoryKind;
use crate::engine::spec::{FlashAttention, KvType, LlamaSpec};

use super::plan::Plan;

/// `GGML_FA_TILE_Q` of ggml's CPU backend.
const TILE_ROWS: usize = 64;

/// Nanoseconds for a row to look at a key and a value in a tile, for each of their elements; measured on one core (Zen 4).
const ELEMENT_NS: f64 = 0.07;

/// Nanoseconds for a byte of weights to come from memory.
const WEIGHT_NS: f64 = 0.1;

/// When to do it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Apart {
    /// Always: in a split context llama.cpp computes them in two runs anyway, the first token of the chunk with the others.
    Always,
    /// What a step costs in one run and in two, estimated.
    Estimated {
        /// Nanoseconds that a tile loses for each key of a sequence that is not its own.
        key_ns: f64,
        /// Nanoseconds that a further run takes.
        run_ns: f64,
    },
}

/// What the estimate needs to know of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) layers: u32,
    pub(super) width: u32,
    pub(super) size_bytes: u64,
    pub(super) windowed: bool,
}

impl Apart {
    /// `None` where it never pays: on a GPU, without tiles, or with a memory that cannot take a step back. A sliding window cannot
    /// for sure: the cells that it leaves are others' to take.
    pub(super) fn new(spec: &LlamaSpec, plan: &Plan, memory: MemoryKind, shape: Shape, n_threads: u32) -> Option<Self> {
        if plan.streams.is_some() {
            return Some(Self::Always);
        }
        let tiled = spec.flash_attn != FlashAttention::Disabled
            && spec.type_k == spec.type_v
            && matches!(spec.type_k, KvType::F16 | KvType::F32);
        // All heads of a layer together are as wide as the model, in most.
        let elements = f64::from(shape.layers) * f64::from(shape.width);
        let key_ns = TILE_ROWS as f64 * elements * ELEMENT_NS / f64::from(n_threads.max(1));
        let run_ns = shape.size_bytes as f64 * WEIGHT_NS;
        (spec.n_gpu_layers == 0 && tiled && memory == MemoryKind::Attention && !shape.windowed)
            .then_some(Self::Estimated { key_ns, run_ns })
    }

    /// How many rows at the beginning, each of a sequence of its own, are better computed by themselves.
    pub(super) fn leading(&self, rows: &[Row]) -> Option<usize> {
        let single = rows.windows(2).take_while(|pair| pair[0].sequence != pair[1].sequence).count();
        let pays = || match self {
            Self::Always => true,
            Self::Estimated { key_ns, run_ns } => {
                let keys: u64 = rows[..single].iter().map(|row| u64::from(row.position) + 1).sum();
                rows.len() >= TILE_ROWS && keys as f64 * key_ns > *run_ns
            }
        };
        (single > 0 && single + 1 < rows.len() && pays()).then_some(single)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::llama::plan::{Needs, plan};

    const SMALL: Shape = Shape { layers: 30, width: 576, size_bytes: 98 << 20, windowed: false };
    const LARGE: Shape = Shape { layers: 32, width: 4096, size_bytes: 4600 << 20, windowed: false };

    fn apart(shape: Shape, n_threads: u32) -> Apart {
        let spec = LlamaSpec::new("model.gguf");
        Apart::new(&spec, &unified(), MemoryKind::Attention, shape, n_threads).expect("on the CPU")
    }

    fn unified() -> Plan {
        plan(&LlamaSpec { kv_unified: true, ..LlamaSpec::new("model.gguf") }, Needs::default(), None)
    }

    fn step(decoding: &[u32], prompt: u32) -> Vec<Row> {
        let row = |position, sequence, output| Row { token: 1, position, sequence, output };
        let decoding = decoding.iter().zip(0..).map(|(position, sequence)| row(*position, sequence, true));
        decoding.chain((0..prompt).map(|position| row(position, 200, false))).collect()
    }

    #[test]
    fn many_long_sequences_are_kept_out_of_a_prompts_tiles() {
        assert_eq!(apart(SMALL, 2).leading(&step(&[300; 12], 64)), Some(12));
        assert_eq!(apart(LARGE, 8).leading(&step(&[2000; 8], 256)), Some(8));
    }

    #[test]
    fn a_second_pass_over_the_weights_must_pay() {
        assert_eq!(apart(SMALL, 2).leading(&step(&[10, 20], 64)), None);
        assert_eq!(apart(LARGE, 8).leading(&step(&[300; 12], 64)), None);
    }

    #[test]
    fn only_steps_with_tiles_of_both_kinds_are_taken_apart() {
        let small = apart(SMALL, 2);
        assert_eq!(small.leading(&step(&[900; 12], 51)), None, "too few rows for a tile");
        assert_eq!(small.leading(&step(&[900; 70], 0)), None, "no prompt");
        assert_eq!(small.leading(&step(&[], 90)), None, "nobody decodes");
        assert_eq!(small.leading(&[]), None);
    }

    #[test]
    fn where_ggml_has_no_tiles_nothing_is_taken_apart() {
        let spec = LlamaSpec::new("model.gguf");
        let of = |spec: &LlamaSpec, memory| Apart::new(spec, &unified(), memory, SMALL, 2).is_some();
        assert!(of(&spec, MemoryKind::Attention));
        assert!(!of(&spec, MemoryKind::Recurrent));
        let windowed = Shape { windowed: true, ..SMALL };
        assert!(Apart::new(&spec, &unified(), MemoryKind::Attention, windowed, 2).is_none());
        assert!(!of(&LlamaSpec { n_gpu_layers: 99, ..spec.clone() }, MemoryKind::Attention));
        assert!(!of(&LlamaSpec { type_v: KvType::Q8_0, ..spec.clone() }, MemoryKind::Attention));
        assert!(!of(&LlamaSpec { flash_attn: FlashAttention::Disabled, ..spec }, MemoryKind::Attention));
    }

    #[test]
    fn in_a_split_context_a_prompt_is_always_computed_apart() {
        let spec = LlamaSpec::new("model.gguf");
        let split = plan(&spec, Needs { splits: true, ..Needs::default() }, None);
        let apart = Apart::new(&spec, &split, MemoryKind::Attention, LARGE, 8).expect("always");
        assert_eq!(apart.leading(&step(&[1], 2)), Some(1));
        assert_eq!(apart.leading(&step(&[1, 2], 1)), None, "one token is no chunk");
    }
}
