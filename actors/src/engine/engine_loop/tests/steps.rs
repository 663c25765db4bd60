//! What a step is made of.

use super::*;

fn of_class(request: RequestId, priority: i32, prompt_len: usize, max_new_tokens: u32) -> EngineCommand {
    let admit = admit(request, request as u32, prompt(request, prompt_len), max_new_tokens);
    EngineCommand::Admit(Box::new(Admit { rank: priority::rank(priority, request), ..admit }))
}

#[test]
fn a_step_never_exceeds_its_token_budget() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(limits(64));
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 1000), 5))));
    engine.run_dry();
    let events = engine.events.borrow();
    let sizes = events.iter().filter_map(|event| match event {
        EngineEvent::Step(step) => Some(step.batch_tokens),
        _ => None,
    });
    assert_eq!(sizes.max(), Some(64));
}

#[test]
fn patience_puts_no_prompt_before_one_of_a_better_class() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(EngineCommand::SetLimits(Limits {
        step_tokens: 16,
        mixed_prefill_tokens: u32::MAX,
        prefill_wait_ms: 1,
        waiting: Waiting::Nobody,
    }));
    let mut admit_of_class = |request: RequestId, priority: i32| {
        let admit = admit(request, request as u32, prompt(request, 16), 1);
        let rank = priority::rank(priority, 100 - request);
        engine.apply(EngineCommand::Admit(Box::new(Admit { rank, ..admit })));
    };
    admit_of_class(1, 5);
    let waits_since = Instant::now();
    while waits_since.elapsed() < Duration::from_millis(3) {
        std::hint::spin_loop();
    }
    admit_of_class(2, 0);
    admit_of_class(3, 0);
    engine.run_dry();
    let order: Vec<_> = engine.events.borrow().iter().filter_map(ended).collect();
    assert_eq!(order, [3, 2, 1]);
}

#[test]
fn a_short_prompt_of_a_better_class_has_its_first_token_after_one_step_and_a_long_one_stops_nobody() {
    for length in [40, 200] {
        let mut engine = Engine::new(FakeSpec::default());
        engine.apply(sizes(256, 8));
        for request in 1..=3 {
            engine.apply(of_class(request, 0, 10, 50));
        }
        engine.step();
        engine.apply(of_class(4, -1, length, 50));
        let before = engine.said(1..=4);
        engine.step();
        let after = engine.said(1..=4);
        assert_eq!(after[..3], before[..3], "the others were left out of one step");
        assert_eq!(after[3], usize::from(length == 40));
        engine.step();
        let later = engine.said(1..=4);
        assert_eq!(later[..3], before[..3].iter().map(|count| count + 1).collect::<Vec<_>>());
        engine.run_dry();
        for request in 1..=4 {
            let tokens = prompt(request, if request == 4 { length } else { 10 });
            assert_eq!(engine.outcome().tokens[&request], fake::continuation(&engine.spec, &tokens, 50));
        }
    }
}

#[test]
fn beside_one_of_its_own_class_a_better_class_is_read_in_four_shares() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(sizes(256, 10));
    (1..=3).for_each(|request| engine.apply(of_class(request, 0, 10, 50)));
    engine.apply(of_class(4, -1, 10, 50));
    engine.step();
    engine.step();
    engine.apply(of_class(5, -1, 40, 50));
    let before = engine.said(1..=4);
    engine.step();
    assert_eq!(engine.said([5]), [1]);
    assert_eq!(engine.said(1..=3), before[..3], "left out");
    assert_eq!(engine.said([4]), [before[3] + 1], "not left out");
}

#[test]
fn nobody_is_left_out_twice_in_a_row_or_for_a_prompt_that_is_not_the_next() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(sizes(256, 8));
    engine.apply(of_class(1, 1, 10, 200));
    engine.step();
    // One short prompt of a better class for each step.
    for request in 2..8 {
        engine.apply(of_class(request, 0, 10, 200));
        engine.step();
    }
    assert_eq!(engine.said([1]), [1 + 3], "every other step");
    // A long one of the best class is being read, and one of the class between has come: the worst goes on.
    engine.apply(of_class(8, -1, 300, 200));
    engine.step();
    engine.step();
    engine.apply(of_class(9, 0, 10, 200));
    let before = engine.said([1])[0];
    (0..4).for_each(|_| engine.step());
    assert_eq!(engine.said([1]), [before + 4]);
}

#[test]
fn prefill_is_bounded_only_while_somebody_decodes_and_never_below_four_tokens() {
    for (mixed_prefill_tokens, most) in [(40, 40), (3, 4)] {
        let mut engine = Engine::new(FakeSpec::default());
        engine.apply(sizes(200, mixed_prefill_tokens));
        engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 300), 50))));
        engine.run_dry();
        engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, prompt(2, 10), 50))));
        engine.step();
        engine.apply(EngineCommand::Admit(Box::new(admit(3, 2, prompt(3, 300), 50))));
        engine.run_dry();
        let events = engine.events.borrow();
        let steps =
            || events.iter().filter_map(|event| if let EngineEvent::Step(step) = event { Some(step) } else { None });
        assert_eq!(steps().map(|step| step.prefill_tokens).max(), Some(200));
        let mixed = steps().filter(|step| step.batch_tokens > step.prefill_tokens);
        assert_eq!(mixed.map(|step| step.prefill_tokens).max(), Some(most));
    }
}

#[test]
fn many_prompts_of_the_same_class_beside_a_stream_are_read_in_larger_steps() {
    let most_beside_one_stream = |prompts: RequestId, priority: i32| {
        let mut engine = Engine::new(FakeSpec::default());
        engine.apply(sizes(200, 10));
        let mut admit_of_class = |request: RequestId, tokens, priority| {
            engine.apply(of_class(request, priority, tokens, 100));
            engine.step();
        };
        admit_of_class(0, 5, 0);
        (1..=prompts).for_each(|request| admit_of_class(request, 150, priority));
        engine.run_dry();
        let events = engine.events.borrow();
        let mixed = events.iter().filter_map(|event| match event {
            EngineEvent::Step(step) if step.batch_tokens == step.prefill_tokens + 1 => Some(step.prefill_tokens),
            _ => None,
        });
        mixed.max().expect("prompts were read beside a stream")
    };
    assert_eq!(most_beside_one_stream(1, 0), 10);
    assert_eq!(most_beside_one_stream(3, 0), 30);
    assert_eq!(most_beside_one_stream(6, 0), 40, "four times at most");
    assert_eq!(most_beside_one_stream(6, 1), 10, "a worse class holds up nobody");
}

#[test]
fn after_a_restart_nobody_decodes_before_those_that_it_cut_off_are_read_again() {
    let mut engine = Engine::after_another();
    engine.apply(limits(64));
    for request in 1..=4 {
        let admit = admit(request, request as u32, prompt(request, 50), 20);
        engine.apply(EngineCommand::Admit(Box::new(Admit { prompt_len: 40, ..admit })));
    }
    // Fifty tokens each, in steps of 64.
    (0..3).for_each(|_| engine.step());
    assert_eq!(engine.said(1..=4), [1, 1, 1, 0]);
    engine.step();
    assert_eq!(engine.said([4]), [1]);
    engine.apply(EngineCommand::Admit(Box::new(admit(5, 5, prompt(5, 300), 20))));
    engine.step();
    assert_eq!(engine.said(1..=4), [2; 4], "a new one holds up nobody");
    engine.let_the_restart_pass();
    engine.apply(EngineCommand::Admit(Box::new(Admit { prompt_len: 40, ..admit(6, 6, prompt(6, 300), 20) })));
    engine.step();
    assert_eq!(engine.said([1]), [3], "nor one that comes later, preempted perhaps");
}

/// Requests that were cut off, with so many tokens each.
fn submit_again_to_a_new_scheduler(engine: &mut Engine, requests: [(RequestId, usize); 2]) {
    engine.apply(EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
    for (request, length) in requests {
        let admit = admit(request, request as u32, prompt(request, length), 20);
        engine.apply(EngineCommand::Admit(Box::new(Admit { epoch: 2, prompt_len: 5, ..admit })));
    }
}

#[test]
fn nobody_waits_for_one_of_a_worse_class_that_was_cut_off_or_after_a_new_scheduler_alone() {
    let mut engine = Engine::after_another();
    engine.apply(limits(64));
    let cut_off = |request, priority, length| {
        let admit = admit(request, request as u32, prompt(request, length), 20);
        let rank = priority::rank(priority, request);
        EngineCommand::Admit(Box::new(Admit { prompt_len: 5, rank, ..admit }))
    };
    engine.apply(cut_off(1, 0, 50));
    engine.apply(cut_off(2, 5, 500));
    engine.step();
    engine.step();
    assert_eq!(engine.said([1, 2]), [2, 0], "the better class goes on");
    engine.let_the_restart_pass();
    submit_again_to_a_new_scheduler(&mut engine, [(3, 50), (4, 500)]);
    engine.step();
    engine.step();
    assert_eq!(engine.said([3, 4]), [2, 0], "this engine's own");
}

#[test]
fn a_new_scheduler_takes_nothing_from_those_that_are_not_read_again_yet() {
    let mut engine = Engine::after_another();
    engine.apply(limits(64));
    submit_again_to_a_new_scheduler(&mut engine, [(1, 50), (2, 500)]);
    engine.step();
    engine.step();
    assert_eq!(engine.said([1, 2]), [1, 0]);
}

#[test]
fn an_idle_loop_takes_a_whole_burst_before_its_first_step() {
    let mut engine = Engine::new(FakeSpec::default());
    let (commands, queue) = crossbeam_channel::bounded(8);
    for request in 0..4 {
        commands
            .send(EngineCommand::Admit(Box::new(admit(request, request as u32, prompt(request, 9), 5))))
            .expect("room");
    }
    assert!(matches!(engine.inner.take_commands(&queue), Flow::Continue));
    engine.step();
    assert_eq!(engine.said(0..4), [1; 4]);
}

#[test]
fn a_place_that_was_freed_waits_a_little_for_its_next_request_if_there_is_one() {
    let waits = |waiting: Waiting| {
        let mut engine = Engine::new(FakeSpec::default());
        let limits = Limits { step_tokens: 256, mixed_prefill_tokens: 64, prefill_wait_ms: 0, waiting };
        engine.apply(EngineCommand::SetLimits(limits));
        for request in 1..=2 {
            engine.apply(EngineCommand::Admit(Box::new(admit(request, request as u32, prompt(request, 9), 50))));
        }
        engine.step();
        let (commands, queue) = crossbeam_channel::bounded(8);
        commands.send(EngineCommand::Cancel { epoch: 1, request: 1 }).expect("room");
        let waited = Instant::now();
        assert!(matches!(engine.inner.take_commands(&queue), Flow::Continue));
        waited.elapsed()
    };
    assert!(waits(Waiting::Somebody) >= PLACE_WAIT);
    let shortest = (0..20).map(|_| waits(Waiting::Nobody)).min();
    assert!(shortest < Some(PLACE_WAIT), "there is nobody to wait for: {shortest:?}");
}

#[test]
fn whoever_is_held_while_nobody_runs_tries_again() {
    let mut engine = Engine::new(FakeSpec::default());
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 9), 5))));
    engine.inner.slots[0].run.as_mut().expect("it runs").held = true;
    assert!(!engine.inner.has_work());
    let (commands, queue) = crossbeam_channel::bounded(8);
    let begun = Instant::now();
    while !engine.inner.has_work() {
        // Other commands do not put it off.
        commands.send(limits(64)).expect("room");
        assert!(matches!(engine.inner.take_commands(&queue), Flow::Continue));
        assert!(begun.elapsed() < Duration::from_secs(60), "it never does");
    }
    engine.run_dry();
    assert_eq!(engine.outcome().tokens[&1].len(), 5);
}

#[test]
fn a_new_scheduler_is_told_who_is_in_a_step_also_when_they_are_the_same() {
    let mut engine = Engine::new(FakeSpec::default());
    for epoch in [1, 2] {
        engine.apply(EngineCommand::Reset { epoch, cut_off_first: Duration::ZERO });
        let admit = Admit { epoch, ..admit(7, 0, prompt(1, 10), 3) };
        engine.apply(EngineCommand::Admit(Box::new(admit)));
        engine.step();
        engine.step();
    }
    let told: Vec<_> = engine
        .events
        .borrow()
        .iter()
        .filter_map(|event| match event {
            EngineEvent::StepStarted { epoch, requests } => Some((*epoch, requests.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(1, vec![7]), (2, vec![7])]);
}
