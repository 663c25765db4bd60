//! The llama.cpp engine on a real model, SmolLM2-135M. `make setup` downloads it; `CLLM_TEST_MODEL` names another place.

#![cfg(feature = "llama")]

#[path = "llama/apart.rs"]
mod apart;
#[path = "llama/architectures.rs"]
mod architectures;
#[path = "llama/loading.rs"]
mod loading;
#[path = "llama/prefixes.rs"]
mod prefixes;
#[path = "llama/split.rs"]
mod split;
#[path = "llama/tiny.rs"]
mod tiny;
#[path = "llama/together.rs"]
mod together;
#[path = "llama/vocabulary.rs"]
mod vocabulary;

use std::fs;
use std::path::{Path, PathBuf};

use cllm_actors::engine::batch::{Batch, Row};
use cllm_actors::engine::llama::{LlamaEngine, load};
use cllm_actors::engine::model::{ControlTokens, DecodeError, Model, Vocabulary};
use cllm_actors::engine::protocol::{AddSpecial, SequenceId, TextPart, Token, Trust};
use cllm_actors::engine::spec::{KvType, LlamaSpec};

const PROMPT: &str = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
const OTHER_PROMPT: &str = "<|im_start|>user\nCount from one to five.<|im_end|>\n<|im_start|>assistant\n";

fn model_path() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = std::env::var_os("CLLM_TEST_MODEL")
        .map_or_else(|| root.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"), |path| root.join(path));
    assert!(path.is_file(), "no test model at {}: run `make setup`, or set CLLM_TEST_MODEL", path.display());
    path
}

/// One compute thread: several wait for each other at every step of a graph, and tests share their cores with others.
fn spec() -> LlamaSpec {
    LlamaSpec {
        n_ctx: Some(1024),
        max_context_length: 512,
        running: 4,
        retained: 4,
        n_batch: 64,
        n_threads: 1,
        ..LlamaSpec::new(model_path())
    }
}

fn engine() -> LlamaEngine {
    load(&spec(), |_| true).expect("the test model loads")
}

fn part(trust: Trust, text: &str) -> TextPart {
    TextPart { text: text.to_owned(), trust }
}

fn tokenize(vocabulary: &dyn Vocabulary, text: &str) -> Vec<Token> {
    vocabulary.tokenize(&[part(Trust::Template, text)], AddSpecial::Never).expect("short text")
}

fn text(vocabulary: &dyn Vocabulary, tokens: &[Token], control: ControlTokens) -> String {
    let mut bytes = Vec::new();
    for token in tokens {
        vocabulary.piece(*token, control, &mut bytes);
    }
    String::from_utf8(bytes).expect("whole characters")
}

/// One sequence of a test: what is in its KV and what comes next.
struct Sequence {
    id: SequenceId,
    tokens: Vec<Token>,
    /// How many of `tokens` have KV.
    computed: usize,
}

impl Sequence {
    fn new(id: SequenceId, tokens: &[Token]) -> Self {
        Self { id, tokens: tokens.to_vec(), computed: 0 }
    }

    /// Adds the next `count` tokens; the row of the last one is an output.
    fn push(&mut self, count: usize, batch: &mut Batch) -> usize {
        let mut last = 0;
        for i in self.computed..self.computed + count {
            let position = u32::try_from(i).expect("short");
            let output = i + 1 == self.computed + count;
            last = batch.push(Row { token: self.tokens[i], position, sequence: self.id, output });
        }
        self.computed += count;
        last
    }

    fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }
}

fn argmax(logits: &[f32]) -> Token {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("logits of an output row");
    Token::try_from(best).expect("a token")
}

/// Prefills in chunks, then takes the likeliest token `count` times; returns the new tokens.
fn greedy(engine: &mut LlamaEngine, sequence: &mut Sequence, chunk: usize, count: usize) -> Vec<Token> {
    let mut batch = Batch::with_capacity(64);
    let start = sequence.tokens.len();
    while sequence.tokens.len() < start + count {
        batch.clear();
        let row = sequence.push(sequence.left().min(chunk), &mut batch);
        engine.decode(&batch).expect("room for a short text");
        if sequence.left() == 0 {
            sequence.tokens.push(argmax(engine.logits(row)));
        }
    }
    sequence.tokens[start..].to_vec()
}

fn greedy_from_scratch(engine: &mut LlamaEngine, prompt: &str, chunk: usize) -> Vec<Token> {
    let tokens = tokenize(&*engine.vocabulary(), prompt);
    assert!(engine.truncate(7, 0));
    let made = greedy(engine, &mut Sequence::new(7, &tokens), chunk, 20);
    assert!(engine.truncate(7, 0));
    made
}

#[test]
fn a_greedy_answer_makes_sense_whatever_the_chunks() {
    let mut engine = engine();
    let at_once = greedy_from_scratch(&mut engine, PROMPT, 64);
    let answer = text(&*engine.vocabulary(), &at_once, ControlTokens::Hide);
    assert!(answer.contains("Paris"), "{answer}");
    assert_eq!(greedy_from_scratch(&mut engine, PROMPT, 7), at_once);
}

#[test]
fn sequences_in_one_batch_do_not_mix() {
    let mut engine = engine();
    let alone = [PROMPT, OTHER_PROMPT].map(|prompt| greedy_from_scratch(&mut engine, prompt, 64));
    let vocabulary = engine.vocabulary();
    let mut sequences =
        [(0, PROMPT), (3, OTHER_PROMPT)].map(|(id, prompt)| Sequence::new(id, &tokenize(&*vocabulary, prompt)));
    let starts = sequences.each_ref().map(|sequence| sequence.tokens.len());
    let mut batch = Batch::with_capacity(64);
    for _ in 0..20 {
        batch.clear();
        let rows = sequences.each_mut().map(|sequence| sequence.push(sequence.left(), &mut batch));
        engine.decode(&batch).expect("room for two");
        let next = rows.map(|row| argmax(engine.logits(row)));
        for (sequence, token) in sequences.iter_mut().zip(next) {
            sequence.tokens.push(token);
        }
    }
    for ((sequence, start), alone) in sequences.iter().zip(starts).zip(alone) {
        let together = text(&*vocabulary, &sequence.tokens[start..], ControlTokens::Show);
        assert_eq!(together, text(&*vocabulary, &alone, ControlTokens::Show));
    }
}

#[test]
fn a_copied_prefix_continues_like_a_fresh_one() {
    let mut engine = engine();
    let fresh = greedy_from_scratch(&mut engine, PROMPT, 64);
    let tokens = tokenize(&*engine.vocabulary(), PROMPT);
    let mut source = Sequence::new(1, &tokens);
    greedy(&mut engine, &mut source, 64, 5);
    let prefix = tokens.len() - 3;
    assert!(engine.copy(1, 2, u32::try_from(prefix).expect("short")));
    // The copy does not need the original any more.
    assert!(engine.truncate(1, 0));
    let mut copy = Sequence { id: 2, tokens, computed: prefix };
    assert_eq!(greedy(&mut engine, &mut copy, 64, 20), fresh);
}

#[test]
fn a_copy_of_more_than_there_is_leaves_the_target_empty() {
    let mut engine = engine();
    let tokens = tokenize(&*engine.vocabulary(), PROMPT);
    greedy(&mut engine, &mut Sequence::new(1, &tokens), 64, 1);
    greedy(&mut engine, &mut Sequence::new(2, &tokens), 64, 1);
    let len = u32::try_from(tokens.len()).expect("short");
    assert!(!engine.copy(1, 2, len + 1));
    assert!(!engine.copy(1, 1, len));
    assert!(!engine.copy(1, 8, len));
    // Empty: position 0 follows.
    greedy(&mut engine, &mut Sequence::new(2, &tokens), 64, 1);
}

#[test]
fn a_truncated_sequence_continues_like_a_fresh_one() {
    let mut engine = engine();
    let fresh = greedy_from_scratch(&mut engine, PROMPT, 64);
    let tokens = tokenize(&*engine.vocabulary(), PROMPT);
    greedy(&mut engine, &mut Sequence::new(0, &tokens), 64, 10);
    let kept = tokens.len() - 4;
    assert!(engine.truncate(0, u32::try_from(kept).expect("short")));
    let mut sequence = Sequence { id: 0, tokens, computed: kept };
    assert_eq!(greedy(&mut engine, &mut sequence, 64, 20), fresh);
}

#[test]
fn a_state_in_bytes_continues_like_a_fresh_one_and_a_damaged_one_leaves_nothing() {
    let mut engine = engine();
    let fresh = greedy_from_scratch(&mut engine, PROMPT, 64);
    let tokens = tokenize(&*engine.vocabulary(), PROMPT);
    greedy(&mut engine, &mut Sequence::new(0, &tokens), 64, 1);
    let len = u32::try_from(tokens.len()).expect("short");
    let state = engine.save(0).expect("a state");
    assert!(engine.truncate(0, 0));
    for damaged in [&state[..0], &state[..state.len() - 1], &state[..state.len() / 2], &[0xff; 4000]] {
        assert!(!engine.restore(3, damaged, len));
    }
    assert!(!engine.restore(3, &state, len + 1), "of so many tokens it is not");
    assert!(!engine.restore(8, &state, len), "no such sequence");
    assert!(engine.restore(3, &state, len));
    assert!(engine.truncate(3, len - 1));
    let mut sequence = Sequence { id: 3, tokens, computed: len as usize - 1 };
    assert_eq!(greedy(&mut engine, &mut sequence, 64, 20), fresh);
}

#[test]
fn truncating_beyond_the_end_empties_the_sequence() {
    let mut engine = engine();
    let tokens = tokenize(&*engine.vocabulary(), PROMPT);
    greedy(&mut engine, &mut Sequence::new(0, &tokens), 64, 1);
    assert!(!engine.truncate(0, 500));
    assert!(!engine.truncate(99, 0));
    greedy(&mut engine, &mut Sequence::new(0, &tokens), 64, 1);
}

#[test]
fn no_cells_leaves_the_context_usable() {
    let mut engine = load(&LlamaSpec { n_ctx: Some(256), max_context_length: 256, ..spec() }, |_| true).expect("loads");
    let vocabulary = engine.vocabulary();
    let filler = tokenize(&*vocabulary, &"word ".repeat(240));
    let mut full = Sequence::new(0, &filler);
    greedy(&mut engine, &mut full, 64, 1);
    let prompt = tokenize(&*vocabulary, PROMPT);
    let mut batch = Batch::with_capacity(64);
    let row = Sequence::new(1, &prompt).push(prompt.len(), &mut batch);
    assert_eq!(engine.decode(&batch), Err(DecodeError::NoCells));
    assert!(engine.logits(row).is_empty());
    assert!(engine.truncate(0, 0));
    assert_eq!(engine.decode(&batch), Ok(()));
    assert_eq!(engine.logits(row).len(), engine.info().n_vocab as usize);
}

#[test]
fn a_batch_that_llama_would_abort_on_fails() {
    let mut engine = engine();
    let row = Row { token: 1, position: 0, sequence: 0, output: true };
    let too_long = (0..65).map(|position| Row { position, ..row }).collect();
    let bad =
        [vec![Row { token: -1, ..row }], vec![Row { sequence: 8, ..row }], vec![Row { position: 5, ..row }], too_long];
    for rows in bad {
        let mut batch = Batch::with_capacity(rows.len());
        for row in rows {
            batch.push(row);
        }
        assert!(matches!(engine.decode(&batch), Err(DecodeError::Failed(_))), "{batch:?}");
    }
}

#[test]
fn only_output_rows_have_logits() {
    let mut engine = engine();
    let mut batch = Batch::with_capacity(2);
    let silent = batch.push(Row { token: 1, position: 0, sequence: 0, output: false });
    let output = batch.push(Row { token: 2, position: 1, sequence: 0, output: true });
    engine.decode(&batch).expect("two tokens");
    assert!(engine.logits(silent).is_empty());
    assert!(engine.logits(99).is_empty());
    assert!(engine.logits(output).iter().all(|logit| logit.is_finite()));
}

#[test]
fn quantized_kv_computes() {
    let spec = LlamaSpec { type_k: KvType::Q8_0, type_v: KvType::Q8_0, ..spec() };
    let mut engine = load(&spec, |_| true).expect("loads");
    assert!(engine.info().kv_bytes_per_token < 30 * 3 * 64 * 2 * 2);
    let answer = greedy_from_scratch(&mut engine, PROMPT, 64);
    assert!(text(&*engine.vocabulary(), &answer, ControlTokens::Hide).contains("Paris"));
}

#[test]
fn several_compute_threads_give_the_same_token() {
    let first = |n_threads| {
        let mut engine = load(&LlamaSpec { n_threads, ..spec() }, |_| true).expect("loads");
        let tokens = tokenize(&*engine.vocabulary(), "The capital of France is");
        greedy(&mut engine, &mut Sequence::new(0, &tokens), 64, 1)
    };
    assert_eq!(first(2), first(1));
}

/// A file in a folder of the test's own.
fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("llama");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file");
    path
}
