//! KV of idle sequences in ordinary memory: it costs no cells, and nobody notices that it was away.

use super::*;
use crate::engine::engine_loop::slot::Kv;

/// Sequence 0 is idle with 59 tokens, 1 runs; more is parked than may be.
fn parked(spec: FakeSpec) -> (Engine, Vec<Token>) {
    let mut engine = Engine::new(FakeSpec { parked_limit: 10, ..spec });
    let tokens = prompt(1, 50);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 10))));
    engine.run_dry();
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, prompt(2, 20), 30))));
    (0..3).for_each(|_| engine.step());
    let mut left = tokens.clone();
    left.extend(fake::continuation(&engine.spec, &tokens, 9));
    (engine, left)
}

fn cells_used(engine: &Engine) -> u32 {
    let events = engine.events.borrow();
    let mut steps = events.iter().rev().filter_map(|event| match event {
        EngineEvent::Step(step) => Some(step.cells_used),
        _ => None,
    });
    steps.next().unwrap_or(0)
}

#[test]
fn what_is_idle_takes_no_cells_while_others_run() {
    let (mut engine, _) = parked(FakeSpec::default());
    engine.step();
    assert_eq!(cells_used(&engine), 20 + 3, "the running sequence alone");
}

#[test]
fn nothing_moves_while_nobody_runs() {
    let mut engine = Engine::new(FakeSpec { parked_limit: 0, ..FakeSpec::default() });
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 50), 10))));
    engine.run_dry();
    assert!(engine.inner.slots[0].in_cells());
}

#[test]
fn a_request_goes_on_from_what_was_away_in_place() {
    let (mut engine, left) = parked(FakeSpec::default());
    let again = Admit { placement: Placement::InPlace, ..admit(3, 0, [left.clone(), prompt(9, 5)].concat(), 10) };
    let expected = fake::continuation(&engine.spec, &again.tokens, 10);
    engine.apply(EngineCommand::Admit(Box::new(again)));
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!((outcome.reused[&3], &outcome.tokens[&3]), (59, &expected));
}

#[test]
fn many_copy_from_what_was_away() {
    let (mut engine, left) = parked(FakeSpec::default());
    for request in 3..8 {
        let tokens = [left[..40].to_vec(), prompt(request, 5)].concat();
        let placement = Placement::Copy { from: 0, tokens: 40 };
        engine.apply(EngineCommand::Admit(Box::new(Admit { placement, ..admit(request, request as u32, tokens, 10) })));
        engine.step();
    }
    engine.run_dry();
    let outcome = engine.outcome();
    for request in 3..8 {
        let tokens = [left[..40].to_vec(), prompt(request, 5)].concat();
        assert_eq!(outcome.reused[&request], 40);
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &tokens, 10));
    }
}

#[test]
fn a_reset_still_lists_what_is_away() {
    let (mut engine, left) = parked(FakeSpec::default());
    engine.apply(EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
    let events = engine.events.borrow();
    let listed = events.iter().rev().find_map(|event| match event {
        EngineEvent::Inventory { sequences, .. } => Some(sequences.clone()),
        _ => None,
    });
    let listed = listed.expect("an inventory");
    assert_eq!(listed.iter().find(|held| held.sequence == 0).map(|held| &held.tokens), Some(&left));
}

#[test]
fn cells_of_idle_sequences_serve_those_that_run_before_anybody_is_told() {
    let mut engine = Engine::new(FakeSpec { n_ctx: 100, parked_limit: 1000, ..FakeSpec::default() });
    let (one, two) = (prompt(1, 50), prompt(2, 60));
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, one.clone(), 10))));
    engine.run_dry();
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, two.clone(), 20))));
    engine.run_dry();
    assert_eq!(engine.outcome().tokens[&2], fake::continuation(&engine.spec, &two, 20));
    assert_eq!(engine.cells_short(), 0);
    engine.apply(EngineCommand::Evict { epoch: 1, sequence: 1 });
    let again = Admit { placement: Placement::InPlace, ..admit(3, 0, [one, vec![97; 20]].concat(), 1) };
    engine.apply(EngineCommand::Admit(Box::new(again)));
    assert_eq!(engine.outcome().reused[&3], 50);
}

#[test]
fn what_has_no_whole_state_stays_in_its_cells_and_others_make_way() {
    let mut engine = Engine::new(FakeSpec { n_ctx: 120, parked_limit: 0, window: Some(30), ..FakeSpec::default() });
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 40), 1))));
    engine.run_dry();
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, prompt(2, 25), 1))));
    engine.run_dry();
    engine.apply(EngineCommand::Admit(Box::new(admit(3, 2, prompt(3, 60), 10))));
    engine.run_dry();
    assert_eq!(engine.cells_short(), 0);
    assert_eq!((engine.inner.slots[0].in_cells(), engine.inner.slots[1].in_cells()), (true, false));
}

#[test]
fn no_more_leaves_the_cells_than_memory_may_hold() {
    // Room for one of the two, each 16 bytes a token.
    let mut engine = Engine::new(FakeSpec { parked_limit: 0, parked_bytes: 16 * 70, ..FakeSpec::default() });
    for request in 0..2 {
        engine.apply(EngineCommand::Admit(Box::new(admit(request, request as u32, prompt(request, 50), 1))));
        engine.run_dry();
    }
    engine.apply(EngineCommand::Admit(Box::new(admit(9, 9, prompt(9, 20), 20))));
    engine.run_dry();
    assert_eq!((engine.inner.slots[0].in_cells(), engine.inner.slots[1].in_cells()), (false, true));
    // What is back in cells keeps its bytes, and goes again for nothing.
    for request in 10..13 {
        let tokens = [prompt(0, 50), prompt(request, 5)].concat();
        let placement = Placement::Copy { from: 0, tokens: 50 };
        engine.apply(EngineCommand::Admit(Box::new(Admit { placement, ..admit(request, 9, tokens, 5) })));
        engine.run_dry();
        assert_eq!(engine.outcome().reused[&request], 50);
    }
    assert!(!engine.inner.slots[0].in_cells());
}

#[test]
fn bytes_that_can_never_come_back_are_given_up_at_once() {
    let (mut engine, left) = parked(FakeSpec::default());
    engine.apply(EngineCommand::Admit(Box::new(admit(3, 3, prompt(3, 5), 1))));
    engine.step();
    assert!(!engine.inner.slots[0].in_cells());
    engine.inner.slots[0].kv = Kv::Memory(vec![1, 2, 3]);
    let again = Admit { placement: Placement::Copy { from: 0, tokens: 40 }, ..admit(4, 4, left, 1) };
    engine.apply(EngineCommand::Admit(Box::new(again)));
    assert_eq!(engine.outcome().reused[&4], 0);
    assert!(engine.inner.slots[3].in_cells(), "nobody makes way in vain");
    assert_eq!((engine.inner.slots[0].n_cached, &engine.inner.slots[0].kv), (0, &Kv::Cells));
}

/// Two buffers and as many running; sequence 0 is idle with 59 tokens in one of them.
fn split() -> (Engine, Vec<Token>) {
    let mut engine = Engine::new(FakeSpec { streams: Some(2), parked_limit: 1000, ..FakeSpec::default() });
    let tokens = prompt(1, 50);
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, tokens.clone(), 10))));
    engine.run_dry();
    let mut left = tokens.clone();
    left.extend(fake::continuation(&engine.spec, &tokens, 9));
    (engine, left)
}

#[test]
fn in_a_split_context_the_idle_keep_their_buffer_until_it_is_needed() {
    let (mut engine, _) = split();
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, prompt(2, 20), 30))));
    (0..3).for_each(|_| engine.step());
    assert!(engine.inner.slots[0].in_cells(), "nobody needs it");
    engine.apply(EngineCommand::Admit(Box::new(admit(3, 2, prompt(3, 20), 30))));
    engine.step();
    assert!(!engine.inner.slots[0].in_cells());
    assert_eq!(engine.inner.slots[0].n_cached, 59, "and nothing is lost");
    engine.run_dry();
    let outcome = engine.outcome();
    for request in [2, 3] {
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &prompt(request, 20), 30));
    }
}

#[test]
fn in_a_split_context_prefixes_are_copied_from_buffers_memory_and_running_sequences() {
    let (mut engine, left) = split();
    let tokens_of = |request: u64| [left[..40].to_vec(), prompt(request, 5)].concat();
    let copy = |engine: &mut Engine, request: u64, to: u32, from: u32, count: u32| {
        let placement = Placement::Copy { from, tokens: 40 };
        let admit = admit(request, to, tokens_of(request), count);
        engine.apply(EngineCommand::Admit(Box::new(Admit { placement, ..admit })));
        engine.step();
        assert_eq!(engine.outcome().reused[&request], 40, "{request}");
    };
    copy(&mut engine, 3, 1, 0, 40);
    assert!(engine.inner.slots[0].in_cells(), "there was another buffer");
    copy(&mut engine, 4, 2, 0, 10);
    assert!(!engine.inner.slots[0].in_cells(), "its own was needed");
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 4 });
    copy(&mut engine, 5, 3, 1, 10);
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 5 });
    copy(&mut engine, 6, 4, 0, 10);
    engine.run_dry();
    let outcome = engine.outcome();
    for (request, count) in [(3, 40), (6, 10)] {
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &tokens_of(request), count));
    }
    assert_eq!(engine.cells_short(), 0);
}

#[test]
fn in_a_split_context_more_than_there_are_buffers_for_wait() {
    let mut engine = Engine::new(FakeSpec { streams: Some(2), ..FakeSpec::default() });
    for request in 1..=3 {
        engine.apply(EngineCommand::Admit(Box::new(admit(request, request as u32, prompt(request, 20), 30))));
    }
    engine.run_dry();
    assert!(engine.cells_short() > 0);
    let outcome = engine.outcome();
    for request in 1..=3 {
        assert_eq!(outcome.tokens[&request], fake::continuation(&engine.spec, &prompt(request, 20), 30));
    }
}
