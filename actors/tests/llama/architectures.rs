//! Kinds of attention and memory that the downloaded model does not have.

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
    for start in (0..tokens).step_by(64) {
        go_on(engine, sequence, start, tokens.min(start + 64));
    }
}

/// Computes tokens `from..to` of a sequence; returns the logits after the last one.
fn go_on(engine: &mut LlamaEngine, sequence: SequenceId, from: u32, to: u32) -> Vec<f32> {
    let mut batch = Batch::with_capacity(64);
    for position in from..to {
        let token = i32::try_from(position * 7 % 200).expect("small") + 3;
        batch.push(Row { token, position, sequence, output: position + 1 == to });
    }
    engine.decode(&batch).expect("decodes");
    engine.logits(batch.len() - 1).to_vec()
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

fn assert_near(what: &str, one: &[f32], other: &[f32]) {
    let greatest = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
    assert!(one.len() == other.len() && greatest < 1e-3, "{what}: {greatest}");
}

/// What a state serves, it serves rightly; what it cannot serve is refused.
#[test]
fn a_state_goes_on_after_a_copy_and_as_bytes_and_is_never_cut() {
    for (name, bytes) in [("recurrent.gguf", tiny::recurrent_model()), ("hybrid.gguf", tiny::hybrid_model())] {
        let mut engine = load_tiny(name, &bytes);
        assert_eq!((engine.info().memory, engine.info().streams), (MemoryKind::Recurrent, None), "{name}");
        let after_forty = go_on(&mut engine, 0, 0, 40);
        assert!(engine.copy(0, 1, 40), "{name}");
        let state = engine.save(0).expect("a state");
        let right = go_on(&mut engine, 0, 40, 50);
        assert!(right.iter().all(|logit| logit.is_finite()), "{name}");
        assert!(
            right.iter().zip(&after_forty).any(|(one, other)| (one - other).abs() > 0.1),
            "{name}: it computes something"
        );
        assert_near("a copy", &go_on(&mut engine, 1, 40, 50), &right);
        assert!(engine.restore(2, &state, 40), "{name}");
        assert_near("bytes", &go_on(&mut engine, 2, 40, 50), &right);
        let whole = go_on(&mut engine, 3, 0, 50);
        assert_near("all at once", &whole, &right);
        assert!(!engine.truncate(3, 45), "{name}: a state is one point in time");
        assert!(engine.truncate(3, 0), "{name}");
        assert_near("after another request", &go_on(&mut engine, 3, 0, 50), &whole);
        assert!(!engine.copy(3, 4, 30), "{name}: nor can part of it be copied");
    }
}
