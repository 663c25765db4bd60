//! Compares what the response cache says it takes with what it takes. Alone in its binary: the counter is this binary's
//! allocator.
#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
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

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.with(|live| live.set(live.get() + bytes));
}

fn live() -> isize {
    LIVE.with(Cell::get)
}

// SAFETY: all calls go to the system's allocator unchanged; counting does not allocate and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

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
        let before = live();
        let limits = Limits { entries: 1_000_000, bytes: Some(MOST), threshold: 0.9, ttl: None };
        let mut store = Store::new(limits);
        let mut evicted = 0;
        for (number, key) in keys.iter().enumerate() {
            let answer = answer(random.usize(least..most), logprobs);
            let bytes = answer.heap_bytes();
            evicted += store.insert(*key, answer, bytes, Duration::ZERO);
            let (said, taken) = (store.bytes() as f64, (live() - before) as f64);
            assert!((said / taken - 1.0).abs() < 0.05, "after {number}: {said} said, {taken} taken");
            assert!(taken <= MOST as f64 * 1.05, "after {number}: {taken}");
            if evicted > 1000 {
                break;
            }
        }
        assert!(evicted > 1000 && store.bytes() > MOST / 2, "{evicted} evicted, {} bytes", store.bytes());
    }
}
