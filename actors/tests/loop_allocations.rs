//! Counts allocations of the engine's loop. Alone in its binary: the counter is this binary's allocator.

#[path = "counting/allocator.rs"]
mod allocator;
#[cfg(feature = "llama")]
#[path = "llama/tiny.rs"]
#[expect(dead_code, reason = "this binary needs one of the models")]
mod tiny;

use std::sync::Arc;
use std::time::Duration;

use cllm_actors::SamplingParams;
use cllm_actors::engine::host::{EngineHost, HostKind};
use cllm_actors::engine::protocol::{Admit, EngineCommand, EngineEvent, Placement, Token};
#[cfg(feature = "llama")]
use cllm_actors::engine::spec::LlamaSpec;
use cllm_actors::engine::spec::{EngineSpec, FakeSpec};
use cllm_actors::request::TenantId;
use crossbeam_channel::bounded;

use self::allocator::allocated;

/// Far beyond anything this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What each step allocated on the loop's thread until its output was told, while so many sequences decode.
fn allocations_of_steps(spec: EngineSpec, sequences: u32) -> Vec<usize> {
    const TOKENS: u32 = 900;
    let (ended, end) = bounded(64);
    let (counts, counted) = bounded(4096);
    let (loads, loaded) = bounded(1);
    // Events are told on the loop's own thread.
    let sink = Arc::new(move |event| match event {
        EngineEvent::Step(step) if step.prefill_tokens == 0 && step.outputs.len() == sequences as usize => {
            let _ = counts.try_send(allocated().0);
        }
        EngineEvent::Ended(end) => drop(ended.try_send(format!("{:?}", end.reason))),
        EngineEvent::Loaded(_) => drop(loads.try_send(())),
        EngineEvent::LoadFailed { cause } | EngineEvent::Failed { cause, .. } => drop(ended.try_send(cause)),
        _ => {}
    });
    let host = EngineHost::start(spec, &HostKind::Thread, Arc::new(()), sink).expect("starts");
    // While it loads it takes no commands.
    loaded.recv_timeout(PATIENCE).expect("it loads");
    host.send(EngineCommand::Reset { epoch: 1, cut_off_first: Duration::ZERO }).expect("taken");
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
            sampling: SamplingParams { seed: Some(1), ignore_eos: true, ..SamplingParams::default() },
            logprobs: None,
            prompt_logprobs: None,
            rank: sequence.into(),
            adapter: None,
        };
        host.send(EngineCommand::Admit(Box::new(admit))).expect("taken");
    }
    for _ in 0..sequences {
        let reason = end.recv_timeout(PATIENCE).expect("each request ends");
        assert_eq!(reason, "Length");
    }
    let counts: Vec<usize> = counted.try_iter().collect();
    assert!(counts.len() >= TOKENS as usize / 4, "they decode together: {} steps", counts.len());
    // Buffers grow in the first steps.
    counts[100..].windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Of nine in ten steps, the most: lists grow in a few of them.
fn of_nearly_all_steps(spec: EngineSpec, sequences: u32) -> usize {
    let mut counts = allocations_of_steps(spec, sequences);
    counts.sort_unstable();
    counts[counts.len() * 9 / 10]
}

#[test]
fn a_step_allocates_the_same_for_one_token_as_for_sixteen() {
    let spec =
        || EngineSpec::Fake(FakeSpec { running: 16, step_time: Duration::from_millis(1), ..FakeSpec::default() });
    let one = of_nearly_all_steps(spec(), 1);
    assert!((1..=3).contains(&one), "{one} in a step: its lists and its event");
    assert_eq!(of_nearly_all_steps(spec(), 16), one);
}

#[cfg(feature = "llama")]
#[test]
fn so_it_does_with_llama_cpp() {
    let path = std::env::temp_dir().join(format!("cllm-allocations-{}.gguf", std::process::id()));
    std::fs::write(&path, tiny::spm_model()).expect("written");
    let spec = || EngineSpec::Llama(Box::new(LlamaSpec { max_context_length: 1024, ..LlamaSpec::new(&path) }));
    let (one, sixteen) = (of_nearly_all_steps(spec(), 1), of_nearly_all_steps(spec(), 16));
    std::fs::remove_file(&path).expect("removed");
    assert!((1..=3).contains(&one), "{one} in a step: its lists and its event");
    assert_eq!(sixteen, one);
}
