//! Counts allocations of the engine's loop. Alone in its binary: the counter is this binary's allocator.

#[path = "counting/allocator.rs"]
mod allocator;

use std::sync::Arc;
use std::time::Duration;

use cllm_actors::SamplingParams;
use cllm_actors::engine::host::{EngineHost, HostKind};
use cllm_actors::engine::protocol::{Admit, EngineCommand, EngineEvent, Placement, Token};
use cllm_actors::engine::spec::{EngineSpec, FakeSpec};
use cllm_actors::request::TenantId;
use crossbeam_channel::bounded;

use self::allocator::allocated;

/// What each step allocated on the loop's thread until its output was told, while so many sequences decode.
fn allocations_of_steps(sequences: u32) -> Vec<usize> {
    const TOKENS: u32 = 500;
    let (ended, end) = bounded(64);
    let (counts, counted) = bounded(4096);
    let spec = EngineSpec::Fake(FakeSpec { running: 16, step_time: Duration::from_millis(1), ..FakeSpec::default() });
    // Events are told on the loop's own thread.
    let sink = Arc::new(move |event| match event {
        EngineEvent::Step(step) if step.prefill_tokens == 0 && step.outputs.len() == sequences as usize => {
            let _ = counts.try_send(allocated().0);
        }
        EngineEvent::Ended(_) => drop(ended.try_send(())),
        _ => {}
    });
    let host = EngineHost::start(spec, &HostKind::Thread, Arc::new(()), sink).expect("starts");
    host.send(EngineCommand::Reset { epoch: 1 }).expect("taken");
    for sequence in 0..sequences {
        let tokens: Vec<Token> = (0..20).map(|at| 97 + (at + sequence as Token) % 26).collect();
        let admit = Admit {
            epoch: 1,
            request: sequence.into(),
            sequence,
            tenant: TenantId::NOBODY,
            placement: Placement::Fresh,
            prompt_len: tokens.len() as u32,
            tokens,
            max_new_tokens: TOKENS,
            sampling: SamplingParams { seed: Some(1), ..SamplingParams::default() },
            logprobs: None,
            prompt_logprobs: None,
            rank: sequence.into(),
            adapter: None,
        };
        host.send(EngineCommand::Admit(Box::new(admit))).expect("taken");
    }
    (0..sequences).for_each(|_| end.recv().expect("each request ends"));
    let counts: Vec<usize> = counted.try_iter().collect();
    assert!(counts.len() >= TOKENS as usize / 2, "they decode together: {} steps", counts.len());
    // Buffers grow in the first steps.
    counts[100..].windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_step_allocates_the_same_for_one_token_as_for_sixteen() {
    let (one, sixteen) = (allocations_of_steps(1), allocations_of_steps(16));
    // The fake model's own lists grow in a few of the steps.
    let nearly_all = |mut counts: Vec<usize>| {
        counts.sort_unstable();
        counts[counts.len() * 9 / 10]
    };
    let (one, sixteen) = (nearly_all(one), nearly_all(sixteen));
    assert!((1..=3).contains(&one), "{one} in a step: its lists and its event");
    assert_eq!(sixteen, one);
}
