//! The llama.cpp engine on a real model, SmolLM2-135M. `make setup` downloads it; `CLLM_TEST_MODEL` names another place.

#![cfg(feature = "llama")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cllm_actors::engine::batch::{Batch, Row};
use cllm_actors::engine::llama::{LlamaEngine, LoadError, load};
use cllm_actors::engine::model::{ControlTokens, DecodeError, Model, Vocabulary};
use cllm_actors::engine::protocol::{AddSpecial, MemoryKind, SequenceId, TextPart, Token, Trust};
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
fn any_text_comes_back_from_its_tokens() {
    let engine = engine();
    let vocabulary = engine.vocabulary();
    for original in
        ["", "Hello, world!", "你好，世界。今天天气很好", "👩‍👩‍👧‍👦🏳️‍🌈🎉", " \n\t leading", "nul \0 inside", "Ελληνικά עברית"]
    {
        for trust in [Trust::Template, Trust::User] {
            let tokens = vocabulary.tokenize(&[part(trust, original)], AddSpecial::Never).expect("short text");
            assert_eq!(text(&*vocabulary, &tokens, ControlTokens::Hide), original);
        }
    }
}

#[test]
fn special_tokens_in_a_users_text_stay_text() {
    let engine = engine();
    let vocabulary = engine.vocabulary();
    let start = tokenize(&*vocabulary, "<|im_start|>");
    assert_eq!(start.len(), 1);
    let parts = [
        part(Trust::Template, "<|im_start|>user\n"),
        part(Trust::User, "what is <|im_start|>?"),
        part(Trust::Template, "<|im_end|>\n"),
    ];
    let tokens = vocabulary.tokenize(&parts, AddSpecial::Never).expect("short text");
    assert_eq!(tokens.iter().filter(|token| **token == start[0]).count(), 1);
    let shown = text(&*vocabulary, &tokens, ControlTokens::Show);
    assert_eq!(shown, "<|im_start|>user\nwhat is <|im_start|>?<|im_end|>\n");
    assert!(engine.info().control_tokens.iter().any(|text| text == "<|im_start|>"));
}

#[test]
fn parts_give_the_tokens_of_the_whole() {
    let engine = engine();
    let vocabulary = engine.vocabulary();
    let parts = [
        part(Trust::Template, "<|im_start|>user\nunbe"),
        part(Trust::User, "liev"),
        part(Trust::Template, "able<|im_end|>"),
    ];
    let tokens = vocabulary.tokenize(&parts, AddSpecial::Never).expect("short text");
    assert_eq!(tokens, tokenize(&*vocabulary, "<|im_start|>user\nunbelievable<|im_end|>"));
}

#[test]
fn control_tokens_are_hidden_unless_shown() {
    let engine = engine();
    let vocabulary = engine.vocabulary();
    let tokens = tokenize(&*vocabulary, "a<|im_end|>");
    assert_eq!(text(&*vocabulary, &tokens, ControlTokens::Hide), "a");
    assert_eq!(text(&*vocabulary, &tokens, ControlTokens::Show), "a<|im_end|>");
    assert!(vocabulary.is_end(*tokens.last().expect("two tokens")));
    assert!(!vocabulary.is_end(tokens[0]));
}

#[test]
fn the_beginning_token_is_never_doubled() {
    let engine = engine();
    let vocabulary = engine.vocabulary();
    let count = |text: &str| {
        let tokens = vocabulary.tokenize(&[part(Trust::Template, text)], AddSpecial::Model).expect("short text");
        tokens.iter().filter(|token| Some(**token) == engine.info().bos).count()
    };
    let bos = engine.info().bos_text.clone().expect("the model has one");
    assert_eq!(count(&format!("{bos}hello")), 1);
    assert_eq!(count("hello"), usize::from(engine.info().add_bos));
}

#[test]
fn a_very_long_word_is_refused_and_long_text_is_not() {
    let vocabulary: Arc<dyn Vocabulary> = engine().vocabulary();
    let error =
        vocabulary.tokenize(&[part(Trust::User, &"a".repeat(200_000))], AddSpecial::Never).expect_err("one word");
    assert!(error.contains("letters"), "{error}");
    // The stack of the vocabulary thread.
    let stack = std::thread::Builder::new().stack_size(64 << 20);
    let longest = move || {
        let texts =
            ["a".repeat(100_000), " ".repeat(100_000), "a1".repeat(100_000), "語".repeat(33_000), "!?".repeat(50_000)];
        texts.map(|text| {
            vocabulary.tokenize(&[part(Trust::Template, &text)], AddSpecial::Never).map(|tokens| !tokens.is_empty())
        })
    };
    let done = stack.spawn(longest).expect("a thread").join().expect("no panic");
    assert_eq!(done, [const { Ok(true) }; 5]);
}

#[test]
fn the_model_describes_itself() {
    let engine = engine();
    let info = engine.info();
    assert_eq!((info.architecture.as_str(), info.n_vocab, info.n_layer), ("llama", 49_152, 30));
    assert_eq!((info.n_ctx, info.n_ctx_seq, info.n_seq_max, info.n_batch), (1024, 512, 8, 64));
    // 30 layers, 3 heads of 64 elements, K and V, two bytes each.
    assert_eq!(info.kv_bytes_per_token, 30 * 3 * 64 * 2 * 2);
    assert_eq!(info.memory, MemoryKind::Attention);
    assert!(info.chat_template.is_some());
    assert!(info.system.contains("CPU"), "{}", info.system);
    assert!(
        info.metadata.iter().any(|(key, value)| key == "general.file_type" && value == "Q4_1"),
        "{:?}",
        info.metadata
    );
    assert!(!info.end_tokens.is_empty());
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

#[test]
fn loading_reports_progress_and_can_be_cancelled() {
    let mut seen = Vec::new();
    load(&spec(), |progress| {
        seen.push(progress);
        true
    })
    .expect("loads");
    assert!(seen.is_sorted() && seen.last() == Some(&1.0), "{seen:?}");
    assert!(matches!(load(&spec(), |_| false), Err(LoadError::Cancelled)));
}

#[test]
#[should_panic(expected = "from the callback")]
fn a_panic_of_the_progress_callback_passes_through() {
    let _ = load(&spec(), |_| panic!("from the callback"));
}

fn load_error(spec: &LlamaSpec) -> String {
    let error = load(spec, |_| true).map(|_| ()).expect_err("a bad model").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// A file in a folder of the test's own.
fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("llama");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

#[test]
fn a_file_that_is_no_whole_model_is_named_with_its_fault() {
    let whole = fs::read(model_path()).expect("the test model");
    let wrong = |name: &str, bytes: &[u8]| {
        let path = scratch(name, bytes);
        let error = load_error(&LlamaSpec { path: path.clone(), ..spec() });
        fs::remove_file(path).expect("our own file");
        error
    };
    assert!(wrong("garbage.gguf", &[0xA5; 4096]).contains("not a GGUF file"));
    assert!(wrong("empty.gguf", &[]).contains("not a GGUF file"));
    let cut = wrong("cut.gguf", &whole[..whole.len() - 1000]);
    assert!(cut.contains("cut.gguf") && cut.contains("truncated"), "{cut}");
    assert!(wrong("head.gguf", &whole[..5000]).contains("truncated"));
    let missing = load_error(&LlamaSpec { path: "/nonexistent.gguf".into(), ..spec() });
    assert!(missing.contains("/nonexistent.gguf") && missing.contains("No such file"), "{missing}");
}

#[test]
fn what_llama_refuses_is_told_in_its_words() {
    let mut bytes = fs::read(model_path()).expect("the test model");
    let value = b"general.architecture".len() + 12;
    let at = bytes.windows(20).position(|window| window == b"general.architecture").expect("the key") + value;
    assert_eq!(&bytes[at..at + 5], b"llama");
    bytes[at..at + 5].copy_from_slice(b"nope!");
    let path = scratch("architecture.gguf", &bytes);
    let error = load_error(&LlamaSpec { path: path.clone(), ..spec() });
    fs::remove_file(path).expect("our own file");
    assert!(error.contains("unknown model architecture: 'nope!'"), "{error}");
}

#[test]
fn bad_parameters_are_refused_before_loading() {
    let error = load_error(&LlamaSpec { devices: vec!["CUDA7".to_owned()], ..spec() });
    assert!(error.contains("CUDA7"), "{error}");
    let error = load_error(&LlamaSpec { tensor_split: vec![1.0; 1000], ..spec() });
    assert!(error.contains("tensor_split"), "{error}");
    let error = load_error(&LlamaSpec { n_batch: 2, ..spec() });
    assert!(error.contains("n_batch"), "{error}");
}

#[test]
fn a_context_that_does_not_fit_is_an_error() {
    let spec = LlamaSpec { n_ctx: Some(1 << 31), ..spec() };
    let error = load_error(&spec);
    assert!(error.contains("cannot create a context") && error.contains("MiB"), "{error}");
}

#[test]
fn layers_for_a_missing_gpu_stay_on_the_cpu() {
    let mut engine = load(&LlamaSpec { n_gpu_layers: 10, ..spec() }, |_| true).expect("loads");
    assert!(!greedy_from_scratch(&mut engine, PROMPT, 64).is_empty());
}
