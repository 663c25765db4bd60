//! The loop with the fake model: every token is right, whatever is asked in whatever order.

mod files;
mod mute;
mod parking;
mod property;
mod steps;
mod watched;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::*;
use crate::engine::fake::{self, FakeModel};
use crate::engine::progress::Progress;
use crate::engine::protocol::Held;
use crate::engine::protocol::{Admit, MemoryKind, Placement, Token};
use crate::engine::spec::FakeSpec;
use crate::priority;
use crate::request::TenantId;
use crate::sampling::SamplingParams;

type Events = Rc<RefCell<Vec<EngineEvent>>>;

struct Engine {
    spec: FakeSpec,
    events: Events,
    inner: EngineLoop<FakeModel, Box<dyn FnMut(EngineEvent)>>,
}

/// What became of the requests.
#[derive(Default, Debug)]
struct Outcome {
    tokens: HashMap<RequestId, Vec<Token>>,
    ended: HashMap<RequestId, Vec<Ended>>,
    reused: HashMap<RequestId, u32>,
}

impl Engine {
    fn new(spec: FakeSpec) -> Self {
        Self::started(spec, Duration::ZERO)
    }

    /// One whose predecessor's end cut requests off.
    fn after_another() -> Self {
        Self::started(FakeSpec::default(), Duration::from_secs(600))
    }

    fn started(spec: FakeSpec, cut_off_first: Duration) -> Self {
        let events: Events = Rc::default();
        let sink = events.clone();
        let model = FakeModel::load(&spec).expect("the fake loads");
        let emit: Box<dyn FnMut(EngineEvent)> = Box::new(move |event| sink.borrow_mut().push(event));
        let mut engine = Self { spec, events, inner: EngineLoop::new(model, Progress::default(), emit) };
        engine.apply(EngineCommand::Reset { epoch: 1, cut_off_first });
        engine
    }

    fn apply(&mut self, command: EngineCommand) {
        let _ = self.inner.apply(command);
    }

    fn step(&mut self) {
        self.inner.step().expect("the fake decodes");
    }

    fn run_dry(&mut self) {
        for _ in 0..10_000 {
            if !self.inner.has_work() {
                return;
            }
            self.step();
        }
        panic!("the loop does not come to an end");
    }

    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for event in self.events.borrow().iter() {
            match event {
                EngineEvent::Step(step) => step.outputs.iter().for_each(|output| {
                    let tokens = outcome.tokens.entry(output.request).or_default();
                    tokens.extend(output.tokens.iter().map(|token| token.id));
                }),
                EngineEvent::Ended(ended) => {
                    outcome.ended.entry(ended.request).or_default().push((**ended).clone());
                }
                EngineEvent::Started { request, reused, .. } => {
                    outcome.reused.insert(*request, *reused);
                }
                _ => {}
            }
        }
        outcome
    }

    /// How many tokens each of these requests has got.
    fn said(&self, requests: impl IntoIterator<Item = RequestId>) -> Vec<usize> {
        let outcome = self.outcome();
        requests.into_iter().map(|request| outcome.tokens.get(&request).map_or(0, Vec::len)).collect()
    }

    /// Those that were cut off come first no longer.
    fn let_the_restart_pass(&mut self) {
        self.inner.cut_off_until = Instant::now();
    }

    fn cells_short(&self) -> usize {
        self.events.borrow().iter().filter(|event| matches!(event, EngineEvent::CellsShort { .. })).count()
    }
}

fn prompt(seed: u64, length: usize) -> Vec<Token> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.i32(97..123)).collect()
}

fn admit(request: RequestId, sequence: SequenceId, tokens: Vec<Token>, max_new_tokens: u32) -> Admit {
    Admit {
        epoch: 1,
        request,
        sequence,
        tenant: TenantId::NOBODY,
        placement: Placement::Fresh,
        prompt_len: tokens.len() as u32,
        tokens,
        max_new_tokens,
        sampling: SamplingParams { temperature: 0.0, seed: Some(1), ..SamplingParams::default() },
        logprobs: None,
        prompt_logprobs: None,
        rank: request,
        adapter: None,
    }
}

fn limits(step_tokens: u32) -> EngineCommand {
    sizes(step_tokens, u32::MAX)
}

fn sizes(step_tokens: u32, mixed_prefill_tokens: u32) -> EngineCommand {
    let (prefill_wait_ms, waiting) = (0, Waiting::Nobody);
    EngineCommand::SetLimits(Limits { step_tokens, mixed_prefill_tokens, prefill_wait_ms, waiting })
}

#[test]
fn prompts_in_chunks_beside_decoding_streams_give_each_its_own_text() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(limits(24));
    for request in 0..12 {
        let tokens = prompt(request, 5 + 31 * request as usize);
        engine.apply(EngineCommand::Admit(Box::new(admit(request, request as u32, tokens, 40))));
        engine.step();
    }
    engine.run_dry();
    let outcome = engine.outcome();
    for request in 0..12 {
        let tokens = prompt(request, 5 + 31 * request as usize);
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &tokens, 40));
        assert_eq!(outcome.ended[&request].len(), 1);
        assert_eq!(outcome.ended[&request][0].reason, EndReason::Length);
    }
}

fn ended(event: &EngineEvent) -> Option<RequestId> {
    match event {
        EngineEvent::Ended(ended) => Some(ended.request),
        _ => None,
    }
}

#[test]
fn cancel_ends_once_and_keeps_the_prefix() {
    let mut engine = Engine::new(FakeSpec::default());
    let tokens = prompt(3, 20);
    engine.apply(EngineCommand::Admit(Box::new(admit(7, 2, tokens, 100))));
    (0..5).for_each(|_| engine.step());
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 7 });
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 7 });
    let ended = &engine.outcome().ended[&7];
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].reason.clone(), ended[0].emitted, ended[0].kv_tokens), (EndReason::Cancelled, 5, 24));
}

#[test]
fn wrong_advice_on_a_prefix_costs_time_and_never_a_token() {
    let mut engine = Engine::new(FakeSpec::default());
    let first = prompt(1, 50);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, first.clone(), 10))));
    engine.run_dry();
    let mut other = first[..30].to_vec();
    other.extend(prompt(2, 30));
    let advice = [
        (Placement::Copy { from: 0, tokens: 60 }, 30),
        (Placement::Copy { from: 9, tokens: 60 }, 0),
        (Placement::Copy { from: 999, tokens: 60 }, 0),
        (Placement::InPlace, 0),
    ];
    for (request, (placement, reused)) in (10..).zip(advice) {
        let sequence = request as u32;
        let admit = Admit { placement, ..admit(request, sequence, other.clone(), 10) };
        engine.apply(EngineCommand::Admit(Box::new(admit)));
        engine.run_dry();
        let outcome = engine.outcome();
        assert_eq!(outcome.reused[&request], reused, "{placement:?}");
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &other, 10));
    }
}

#[test]
fn a_continued_sequence_prefills_only_what_is_new() {
    let mut engine = Engine::new(FakeSpec::default());
    let tokens = prompt(1, 50);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 10))));
    engine.run_dry();
    let mut longer = tokens.clone();
    longer.extend(fake::continuation(&engine.spec, &tokens, 10));
    let again = Admit { placement: Placement::InPlace, prompt_len: 50, ..admit(2, 0, longer.clone(), 10) };
    engine.apply(EngineCommand::Admit(Box::new(again)));
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!(outcome.reused[&2], 59);
    assert_eq!(outcome.tokens[&2], fake::continuation(&engine.spec, &longer, 10));
}

#[test]
fn reset_ends_silently_keeps_kv_and_ignores_the_old_epoch() {
    let mut engine = Engine::new(FakeSpec::default());
    let tokens = prompt(1, 10);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 4, tokens.clone(), 100))));
    (0..3).for_each(|_| engine.step());
    engine.apply(EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 5, tokens.clone(), 100))));
    engine.apply(EngineCommand::Reset { epoch: 1, cut_off_first: Duration::ZERO });
    assert!(!engine.inner.has_work());
    assert!(engine.outcome().ended.is_empty());
    let kept = [tokens.clone(), fake::continuation(&engine.spec, &tokens, 2)].concat();
    let held = Held { sequence: 4, tenant: TenantId::NOBODY, tokens: kept };
    let inventories: Vec<EngineEvent> =
        engine.events.borrow().iter().filter(|event| matches!(event, EngineEvent::Inventory { .. })).cloned().collect();
    assert_eq!(
        inventories.last(),
        Some(&EngineEvent::Inventory { epoch: 2, sequences: vec![held], files: Vec::new() })
    );
}

#[test]
fn out_of_cells_holds_back_and_says_so_until_cells_are_freed() {
    let mut engine = Engine::new(FakeSpec { n_ctx: 60, ..FakeSpec::default() });
    let (one, two) = (prompt(1, 20), prompt(2, 20));
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, one.clone(), 30))));
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, two, 30))));
    engine.run_dry();
    assert_eq!(engine.cells_short(), 1);
    assert!(engine.outcome().ended.is_empty(), "held back, not failed");
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 2 });
    engine.apply(EngineCommand::Evict { epoch: 1, sequence: 1 });
    engine.run_dry();
    assert_eq!(engine.outcome().tokens[&1], fake::continuation(&engine.spec, &one, 30));
}

#[test]
fn the_lowest_rank_is_held_back_first() {
    let mut engine = Engine::new(FakeSpec { n_ctx: 61, ..FakeSpec::default() });
    let (one, two) = (prompt(1, 20), prompt(2, 20));
    engine.apply(EngineCommand::Admit(Box::new(admit(9, 0, one, 30))));
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, two, 30))));
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!((outcome.tokens[&2].len(), outcome.tokens[&9].len()), (12, 11));
}

#[test]
fn a_prompt_that_does_not_fit_is_finished_when_cells_are_freed() {
    let mut engine = Engine::new(FakeSpec { n_ctx: 100, max_context_length: 100, ..FakeSpec::default() });
    let (one, two) = (prompt(1, 20), prompt(2, 90));
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, one, 40))));
    engine.step();
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, two.clone(), 5))));
    engine.run_dry();
    assert!(engine.cells_short() >= 1);
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 1 });
    engine.apply(EngineCommand::Evict { epoch: 1, sequence: 0 });
    engine.run_dry();
    assert_eq!(engine.outcome().tokens[&2], fake::continuation(&engine.spec, &two, 5));
}

#[test]
fn end_tokens_end_and_are_the_last_emitted() {
    let mut engine = Engine::new(FakeSpec { end_every: Some(10), ..FakeSpec::default() });
    let tokens = prompt(1, 10);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 1000))));
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!(outcome.tokens[&1].last(), Some(&fake::EOS));
    assert_eq!(outcome.ended[&1][0].reason, EndReason::EndToken);
}

#[test]
fn prompt_logprobs_cover_the_prompt_in_bounded_steps() {
    let mut engine = Engine::new(FakeSpec::default());
    let tokens = prompt(1, 150);
    let admit = Admit { prompt_logprobs: Some(2), max_new_tokens: 0, ..admit(1, 0, tokens.clone(), 0) };
    engine.apply(EngineCommand::Admit(Box::new(admit)));
    engine.run_dry();
    let mut logprobs = Vec::new();
    for event in engine.events.borrow().iter() {
        if let EngineEvent::Step(step) = event {
            assert!(step.batch_tokens <= 64);
            logprobs.extend(step.outputs[0].prompt_logprobs.clone());
        }
    }
    let ids: Vec<Token> = logprobs.iter().map(|logprob| logprob.id).collect();
    assert_eq!(ids, tokens);
    assert_eq!(logprobs[0].logprob, None);
    assert!(logprobs[1..].iter().all(|logprob| logprob.logprob.is_some() && logprob.top.len() == 2));
    assert_eq!(engine.outcome().ended[&1].len(), 1);
}

#[test]
fn requests_that_break_the_protocol_are_refused_and_disturb_nobody() {
    let mut engine = Engine::new(FakeSpec { max_context_length: 64, ..FakeSpec::default() });
    let tokens = prompt(1, 10);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 20))));
    let bad = [
        admit(2, 0, tokens.clone(), 5),
        admit(3, 4000, tokens.clone(), 5),
        admit(4, 1, Vec::new(), 5),
        admit(5, 1, vec![1, -1], 5),
        admit(6, 1, vec![1, 260], 5),
        admit(7, 1, prompt(1, 65), 5),
    ];
    bad.into_iter().for_each(|admit| engine.apply(EngineCommand::Admit(Box::new(admit))));
    engine.run_dry();
    let outcome = engine.outcome();
    assert!((2..=7).all(|request| matches!(outcome.ended[&request][0].reason, EndReason::Refused(_))));
    assert_eq!(outcome.tokens[&1], fake::continuation(&engine.spec, &tokens, 20));
}

#[test]
fn a_running_recurrent_state_is_copied_only_at_its_present_length() {
    let mut engine = Engine::new(FakeSpec { memory: MemoryKind::Recurrent, ..FakeSpec::default() });
    let tokens = prompt(1, 20);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 30))));
    (0..3).for_each(|_| engine.step());
    // Prompt and two tokens are in the state; the third has been drawn.
    let emitted = engine.outcome().tokens[&1].clone();
    let present = [tokens.clone(), emitted].concat();
    for (request, sequence, advised) in [(2, 1, 20), (3, 2, 21), (4, 3, 22)] {
        let placement = Placement::Copy { from: 0, tokens: advised };
        let admit = Admit { placement, ..admit(request, sequence, present.clone(), 10) };
        engine.apply(EngineCommand::Admit(Box::new(admit)));
    }
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!((2..5).map(|request| outcome.reused[&request]).collect::<Vec<_>>(), [0, 0, 22]);
    for request in 2..5 {
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &present, 10));
    }
}

#[test]
fn no_sequence_serves_another_tenant_whatever_the_advice() {
    let mut engine = Engine::new(FakeSpec::default());
    let tokens = prompt(1, 50);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 5))));
    engine.run_dry();
    let advice = [(2, 1, Placement::Copy { from: 0, tokens: 50 }), (3, 0, Placement::InPlace)];
    for (request, sequence, placement) in advice {
        let admit = Admit { placement, tenant: TenantId(9), ..admit(request, sequence, tokens.clone(), 5) };
        engine.apply(EngineCommand::Admit(Box::new(admit)));
        engine.run_dry();
    }
    let outcome = engine.outcome();
    assert_eq!((outcome.reused[&2], outcome.reused[&3]), (0, 0));
    assert_eq!(outcome.tokens[&3], fake::continuation(&engine.spec, &tokens, 5));
}

#[test]
fn a_reset_tells_whose_the_tokens_are() {
    let mut engine = Engine::new(FakeSpec::default());
    let admit = Admit { tenant: TenantId(9), ..admit(1, 3, prompt(1, 50), 1) };
    engine.apply(EngineCommand::Admit(Box::new(admit)));
    engine.run_dry();
    engine.apply(EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
    let held = Held { sequence: 3, tenant: TenantId(9), tokens: prompt(1, 50) };
    assert!(engine.events.borrow().contains(&EngineEvent::Inventory {
        epoch: 2,
        sequences: vec![held],
        files: Vec::new()
    }));
}

#[test]
fn a_sequence_with_a_better_rank_is_prefilled_before_older_ones() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(limits(32));
    engine.apply(EngineCommand::Admit(Box::new(admit(5, 0, prompt(1, 200), 1))));
    engine.apply(EngineCommand::Admit(Box::new(admit(6, 1, prompt(2, 30), 1))));
    engine.apply(EngineCommand::SetRank { epoch: 1, request: 6, rank: 4 });
    engine.step();
    assert_eq!(engine.outcome().tokens[&6].len(), 1);
}
