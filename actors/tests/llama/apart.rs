//! Steps with long decoding sequences and a long prompt chunk, which are computed in two runs.

use super::*;

fn spec_of(n_ctx: u32) -> LlamaSpec {
    LlamaSpec { n_ctx: Some(n_ctx), n_batch: 256, ..spec() }
}

/// So many even or odd numbers: what comes next is beyond doubt, also in the last bits of an other order of sums.
fn numbers(engine: &LlamaEngine, first: usize, count: usize) -> Vec<Token> {
    let numbers: Vec<_> = (first..).step_by(2).take(count).map(|number| number.to_string()).collect();
    tokenize(&*engine.vocabulary(), &(numbers.join(", ") + ","))
}

/// A sequence that has computed all tokens but the last.
fn begun(engine: &mut LlamaEngine, id: SequenceId, tokens: &[Token]) -> Sequence {
    let mut sequence = Sequence::new(id, tokens);
    let mut batch = Batch::with_capacity(256);
    sequence.push(tokens.len() - 1, &mut batch);
    engine.decode(&batch).expect("room for a prompt");
    sequence
}

#[test]
fn two_runs_give_what_each_sequence_says_alone() {
    let mut engine = load(&spec_of(2048), |_| true).expect("loads");
    let prompts = [numbers(&engine, 1, 60), numbers(&engine, 2, 50)];
    let alone = prompts.each_ref().map(|tokens| {
        let mut sequence = begun(&mut engine, 0, tokens);
        let said = greedy(&mut engine, &mut sequence, 64, 4);
        assert!(engine.truncate(0, 0));
        said
    });
    let long = numbers(&engine, 1, 99);
    let long_alone = greedy(&mut engine, &mut Sequence::new(4, &long), 64, 1);

    let mut decoding = [(0, &prompts[0]), (1, &prompts[1])].map(|(id, tokens)| begun(&mut engine, id, tokens));
    let mut prompt = Sequence::new(3, &long);
    let chunk = long.len().div_ceil(4);
    assert!(chunk >= 64, "{chunk} tokens are no tile");
    let (mut batch, mut said, mut last) = (Batch::with_capacity(256), [Vec::new(), Vec::new()], 0);
    for _ in 0..4 {
        batch.clear();
        let rows = decoding.each_mut().map(|sequence| sequence.push(1, &mut batch));
        last = prompt.push(prompt.left().min(chunk), &mut batch);
        engine.decode(&batch).expect("room for three");
        for ((sequence, row), said) in decoding.iter_mut().zip(rows).zip(&mut said) {
            let token = argmax(engine.logits(row));
            sequence.tokens.push(token);
            said.push(token);
        }
    }
    assert_eq!(said, alone);
    assert_eq!((prompt.left(), vec![argmax(engine.logits(last))]), (0, long_alone));
}

#[test]
fn no_cells_for_the_second_run_undoes_the_first() {
    let mut engine = load(&spec_of(512), |_| true).expect("loads");
    let half = numbers(&engine, 1, 99)[..200].to_vec();
    let mut decoding = [0, 1].map(|id| begun(&mut engine, id, &half));
    let used: usize = decoding.iter().map(|sequence| sequence.computed).sum();
    let long = numbers(&engine, 1, 99);
    let mut batch = Batch::with_capacity(256);
    let rows = decoding.each_mut().map(|sequence| sequence.push(1, &mut batch));
    // All but one of the cells that are left: enough for the prompt, which is computed first, and not for the others.
    Sequence::new(2, &long).push(511 - used, &mut batch);
    assert_eq!(engine.decode(&batch), Err(DecodeError::NoCells));
    assert!(rows.iter().all(|row| engine.logits(*row).is_empty()));
    assert!(engine.truncate(1, 0));
    batch.clear();
    Sequence { computed: decoding[0].computed - 1, ..Sequence::new(0, &decoding[0].tokens) }.push(1, &mut batch);
    let row = Sequence::new(2, &long).push(511 - used, &mut batch);
    assert_eq!(engine.decode(&batch), Ok(()), "each goes on where it was");
    assert!(!engine.logits(row).is_empty());
}
