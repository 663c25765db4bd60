//! A context in which each running sequence has a buffer of its own.

use super::*;

fn engine_of(running: u32, kv_unified: bool) -> LlamaEngine {
    let spec = LlamaSpec { running, max_context_length: 256, n_batch: 128, kv_unified, ..spec() };
    load(&spec, |_| true).expect("loads")
}

fn split() -> LlamaEngine {
    let engine = engine_of(4, false);
    assert_eq!((engine.info().streams, engine.info().n_ctx, engine.info().n_seq_max), (Some(4), 1024, 8));
    engine
}

#[test]
fn a_split_context_says_what_a_unified_one_says_wherever_its_sequences_lie() {
    let mut unified = engine_of(4, true);
    assert_eq!(unified.info().streams, None);
    let alone = [PROMPT, OTHER_PROMPT].map(|prompt| greedy_from_scratch(&mut unified, prompt, 64));
    drop(unified);

    let mut engine = split();
    let vocabulary = engine.vocabulary();
    let mut start = |id, prompt| {
        let mut sequence = Sequence::new(id, &tokenize(&*vocabulary, prompt));
        greedy(&mut engine, &mut sequence, 64, 1);
        sequence
    };
    // Four in a row, the middle ones of which end: those left are moved together.
    let mut first = start(6, PROMPT);
    let _second = start(1, PROMPT);
    let _third = start(2, PROMPT);
    let mut last = start(5, OTHER_PROMPT);
    assert!(engine.truncate(1, 0));
    let mut batch = Batch::with_capacity(64);
    for step in 0..19 {
        if step == 8 {
            assert!(engine.truncate(2, 0));
        }
        batch.clear();
        // In the order of sequences, which is not that of buffers.
        let rows = [&mut last, &mut first].map(|sequence| sequence.push(1, &mut batch));
        engine.decode(&batch).expect("room for two");
        let tokens = rows.map(|row| argmax(engine.logits(row)));
        last.tokens.push(tokens[0]);
        first.tokens.push(tokens[1]);
    }
    for (sequence, alone) in [(first, &alone[0]), (last, &alone[1])] {
        assert_eq!(sequence.tokens[sequence.tokens.len() - 20..], alone[..]);
    }
    // What lay in the gap was emptied.
    let mut third = Sequence { computed: 0, ..Sequence::new(2, &tokenize(&*vocabulary, PROMPT)) };
    assert_eq!(greedy(&mut engine, &mut third, 64, 20), alone[0]);
}

#[test]
fn an_idle_sequence_in_the_gap_is_moved_and_goes_on() {
    let mut engine = split();
    let vocabulary = engine.vocabulary();
    let fresh = greedy_from_scratch(&mut engine, PROMPT, 64);
    let mut sequences = [0, 1, 2].map(|id| {
        let mut sequence = Sequence::new(id, &tokenize(&*vocabulary, PROMPT));
        greedy(&mut engine, &mut sequence, 64, 1);
        sequence
    });
    let mut batch = Batch::with_capacity(64);
    let (one, idle_and_other) = sequences.split_at_mut(1);
    let (idle, other) = idle_and_other.split_at_mut(1);
    for _ in 0..3 {
        batch.clear();
        let rows = [&mut one[0], &mut other[0]].map(|sequence| (sequence.push(1, &mut batch), sequence));
        engine.decode(&batch).expect("room for two");
        for (row, sequence) in rows {
            sequence.tokens.push(argmax(engine.logits(row)));
        }
    }
    let said = greedy(&mut engine, &mut idle[0], 64, 19);
    assert_eq!(said, fresh[1..]);
}

#[test]
fn three_that_go_on_are_moved_together_and_nobody_loses_anything() {
    let mut engine = engine_of(6, false);
    let vocabulary = engine.vocabulary();
    // Each of another length, so that nobody could take another one's place unnoticed.
    let prompts = [0, 1, 2, 3, 4, 5].map(|at| format!("{}{PROMPT}", "Be brief. ".repeat(at)));
    let alone = prompts.each_ref().map(|prompt| greedy_from_scratch(&mut engine, prompt, 64));
    let mut sequences = [0, 1, 2, 3, 4, 5].map(|at| {
        let mut sequence = Sequence::new(at, &tokenize(&*vocabulary, &prompts[at as usize]));
        greedy(&mut engine, &mut sequence, 64, 1);
        sequence
    });
    let (running, idle) = ([0, 3, 4], [1, 2, 5]);
    idle.into_iter().for_each(|sequence| engine.rest(sequence));
    let mut batch = Batch::with_capacity(64);
    for _ in 0..19 {
        batch.clear();
        let rows = running.map(|at| sequences[at].push(1, &mut batch));
        engine.decode(&batch).expect("room for three");
        for (at, row) in running.into_iter().zip(rows) {
            sequences[at].tokens.push(argmax(engine.logits(row)));
        }
    }
    for at in running {
        let tokens = &sequences[at].tokens;
        assert_eq!(tokens[tokens.len() - 20..], alone[at][..], "{at}");
    }
    for at in idle {
        let at = at as usize;
        assert_eq!(greedy(&mut engine, &mut sequences[at], 64, 19), alone[at][1..], "{at}");
    }
}

#[test]
fn a_fifth_sequence_has_no_cells_until_one_is_emptied() {
    let mut engine = split();
    let tokens = tokenize(&*engine.vocabulary(), PROMPT);
    (0..4).for_each(|id| drop(greedy(&mut engine, &mut Sequence::new(id, &tokens), 64, 1)));
    let state = engine.save(0).expect("a state");
    let len = u32::try_from(tokens.len()).expect("short");
    let mut batch = Batch::with_capacity(64);
    let row = Sequence::new(4, &tokens).push(tokens.len(), &mut batch);
    assert_eq!(engine.decode(&batch), Err(DecodeError::NoCells));
    assert!(!engine.restore(4, &state, len));
    assert!(!engine.copy(0, 1, len), "buffers are not copied in part");
    assert_eq!(engine.decode(&batch), Ok(()), "the target of a copy is empty");
    assert!(!engine.logits(row).is_empty());
    let fresh = argmax(engine.logits(row));
    assert!(engine.truncate(4, 0));
    assert!(engine.restore(5, &state, len));
    assert!(engine.truncate(5, len - 1));
    let mut restored = Sequence { id: 5, tokens, computed: len as usize - 1 };
    assert_eq!(greedy(&mut engine, &mut restored, 64, 1), [fresh]);
}
