//! Counts allocations of the sampler. Alone in its binary: the counter is this binary's allocator.

#[path = "counting/allocator.rs"]
mod allocator;

use std::sync::Arc;

use cllm_actors::SamplingParams;
use cllm_actors::engine::model::{ControlTokens, Vocabulary};
use cllm_actors::engine::protocol::{AddSpecial, TextPart, Token};
use cllm_actors::engine::sampler::{Sampler, Scratch};
use cllm_actors::sampling::DryParams;

use self::allocator::allocated;

const N_VOCAB: usize = 1000;

/// Each token is a letter; token 7 ends.
struct Letters;

impl Vocabulary for Letters {
    fn n_tokens(&self) -> u32 {
        N_VOCAB as u32
    }

    fn tokenize(&self, _: &[TextPart], _: AddSpecial) -> Result<Vec<Token>, String> {
        Ok(Vec::new())
    }

    fn piece(&self, token: Token, _: ControlTokens, out: &mut Vec<u8>) {
        out.push(b'a' + (token % 26) as u8);
    }

    fn is_end(&self, token: Token) -> bool {
        token == 7
    }
}

fn rows() -> Vec<Vec<f32>> {
    let mut source = fastrand::Rng::with_seed(3);
    (0..8).map(|_| (0..N_VOCAB).map(|_| source.f32() * 12.0 - 6.0).collect()).collect()
}

/// Allocations of five hundred tokens after a hundred.
fn allocations(params: &SamplingParams) -> usize {
    let vocabulary: Arc<dyn Vocabulary> = Arc::new(Letters);
    let mut sampler = Sampler::new(params, &[1, 2, 3], 3, &vocabulary);
    let (mut scratch, rows) = (Scratch::new(N_VOCAB), rows());
    let mut sample = |count: usize| {
        for row in rows.iter().cycle().take(count) {
            sampler.sample(row, &mut scratch);
        }
    };
    sample(100);
    let (before, _) = allocated();
    sample(500);
    allocated().0 - before
}

#[test]
fn sampling_does_not_allocate_in_steady_state() {
    assert!(!rows().is_empty() && allocated().0 > 0, "the counter counts");
    let default = SamplingParams::default();
    let dry = DryParams { multiplier: 0.8, ..DryParams::default() };
    let cases = [
        ("default", default.clone()),
        ("greedy", SamplingParams { temperature: 0.0, ..default.clone() }),
        ("all tokens", SamplingParams { top_k: 0, ..default.clone() }),
        ("untruncated", SamplingParams { top_k: 0, top_p: 1.0, min_p: 0.0, ..default.clone() }),
        ("top-p alone", SamplingParams { top_k: 0, min_p: 0.0, ..default.clone() }),
        ("typical", SamplingParams { top_k: 0, typical_p: 0.9, ..default.clone() }),
        ("xtc", SamplingParams { xtc_probability: 1.0, top_k: 0, ..default.clone() }),
        ("penalties", SamplingParams { repeat_penalty: 1.1, frequency_penalty: 0.1, ..default.clone() }),
        ("bias", SamplingParams { logit_bias: vec![(3, -100.0)].into(), ignore_eos: true, ..default.clone() }),
        ("dry", SamplingParams { dry, ..default.clone() }),
        ("flat", SamplingParams { temperature: 2.0, top_k: 900, ..default }),
    ];
    for (name, params) in cases {
        assert_eq!(allocations(&params), 0, "{name}");
    }
}
