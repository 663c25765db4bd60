//! KV of idle sequences in ordinary memory: it costs no cells, and nobody notices that it was away.

use super::*;

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
    engine.apply(EngineCommand::Reset { epoch: 2 });
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
