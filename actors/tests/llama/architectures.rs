//! Kinds of attention that the downloaded model does not have.

use std::fs;

use cllm_actors::engine::batch::{Batch, Row};
use cllm_actors::engine::llama::{LlamaEngine, load};
use cllm_actors::engine::model::Model;
use cllm_actors::engine::protocol::{MemoryKind, SequenceId};
use cllm_actors::engine::spec::LlamaSpec;

use crate::{scratch, spec, tiny};

fn load_tiny(name: &str, bytes: &[u8]) -> LlamaEngine {
    let path = scratch(name, bytes);
    let engine = load(&LlamaSpec { path: path.clone(), ..spec() }, |_| true).expect("the tiny model loads");
    let _ = fs::remove_file(path);
    engine
}

/// Fills an empty sequence with so many tokens.
fn fill(engine: &mut LlamaEngine, sequence: SequenceId, tokens: u32) {
    let mut batch = Batch::with_capacity(64);
    for start in (0..tokens).step_by(64) {
        batch.clear();
        for position in start..tokens.min(start + 64) {
            let token = i32::try_from(position % 200).expect("small") + 3;
            batch.push(Row { token, position, sequence, output: position + 1 == tokens });
        }
        engine.decode(&batch).expect("decodes");
    }
}

#[test]
fn a_request_ends_where_learned_positions_end() {
    let mut engine = load_tiny("learned.gguf", &tiny::learned_model());
    assert_eq!(spec().max_context_length, 512);
    assert_eq!(engine.info().n_ctx_seq, 256);
    fill(&mut engine, 0, 256);
}

#[test]
fn a_sequence_longer_than_a_sliding_window_has_no_state() {
    let mut engine = load_tiny("windowed.gguf", &tiny::windowed_model(32));
    assert_eq!(engine.info().memory, MemoryKind::Attention);
    for (sequence, tokens, whole) in [(0, 33, false), (1, 32, true), (2, 200, false)] {
        fill(&mut engine, sequence, tokens);
        let state = engine.save(sequence);
        assert_eq!(state.is_some(), whole, "{tokens} tokens");
        if let Some(state) = state {
            assert!(engine.restore(3, &state, tokens), "{tokens} tokens");
        }
    }
    assert!(engine.truncate(2, 20), "nobody has taken its cells");
    assert!(engine.save(2).is_some());
    assert!(engine.copy(0, 4, 10));
}
