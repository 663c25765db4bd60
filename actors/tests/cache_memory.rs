//! Compares what the response cache says it takes with what it takes. Alone in its binary: the counter is this binary's
//! allocator.

#[path = "counting/allocator.rs"]
mod allocator;

use std::sync::Arc;
use std::time::Duration;

use cllm_actors::engine::fake::FakeModel;
use cllm_actors::engine::model::Model;
use cllm_actors::engine::protocol::{OutputToken, Token, TokenBytes, TokenLogprob};
use cllm_actors::engine::spec::{EngineSpec, FakeSpec};
use cllm_actors::response_cache::key::{Key, LaidOut, ModelIdentity};
use cllm_actors::response_cache::recording::{KeptAnswer, Recording};
use cllm_actors::response_cache::store::{Limits, Store};
use cllm_actors::{FinishReason, GenerateRequest};

use self::allocator::allocated;

/// An answer of so many tokens, with log-probabilities or without.
fn answer(tokens: usize, logprobs: bool) -> Arc<KeptAnswer> {
    let mut recording = Recording::default();
    for id in 0..tokens as Token {
        let bytes = TokenBytes::from_slice(&vec![b'a'; 1 + id as usize % 20]);
        let top = (0..5).map(|other| (other, bytes.clone(), -1.0)).collect();
        let logprob = TokenLogprob { id, bytes: bytes.clone(), logprob: Some(-0.5), top };
        recording.push(&OutputToken { id, bytes, logprobs: logprobs.then(|| Box::new(logprob)) });
    }
    KeptAnswer::new(10, recording, FinishReason::StopText("stop".to_owned()))
}

fn keys() -> impl Iterator<Item = Key> {
    let spec = FakeSpec::default();
    let info = FakeModel::load(&spec).expect("it loads").info().clone();
    let identity = ModelIdentity::of(&info, &EngineSpec::Fake(spec));
    let request = GenerateRequest::text("");
    (0..).map(move |number| Key::of(&request, &LaidOut::Tokens(vec![number]), &identity))
}

#[test]
fn the_memory_of_kept_answers_is_what_the_store_says_and_stays_below_its_bound() {
    const MOST: usize = 2 << 20;
    let mut random = fastrand::Rng::with_seed(1);
    let keys: Vec<_> = keys().take(20_000).collect();
    for (least, most, logprobs) in [(0, 10, false), (20, 200, false), (1000, 4000, false), (1, 60, true)] {
        let (_, before) = allocated();
        let limits = Limits { entries: 1_000_000, bytes: Some(MOST), threshold: 0.9, ttl: None };
        let mut store = Store::new(limits);
        let mut evicted = 0;
        for (number, key) in keys.iter().enumerate() {
            let answer = answer(random.usize(least..most), logprobs);
            let bytes = answer.heap_bytes();
            evicted += store.insert(*key, answer, bytes, Duration::ZERO);
            let (said, taken) = (store.bytes() as f64, (allocated().1 - before) as f64);
            assert!((said / taken - 1.0).abs() < 0.05, "after {number}: {said} said, {taken} taken");
            assert!(taken <= MOST as f64 * 1.05, "after {number}: {taken}");
            if evicted > 1000 {
                break;
            }
        }
        assert!(evicted > 1000 && store.bytes() > MOST / 2, "{evicted} evicted, {} bytes", store.bytes());
    }
}
