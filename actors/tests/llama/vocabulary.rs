//! Text to tokens and back, with a byte-pair vocabulary and a SentencePiece one.

use std::sync::Arc;

use cllm_actors::engine::llama::{LlamaEngine, load};
use cllm_actors::engine::model::{ControlTokens, Model, Vocabulary};
use cllm_actors::engine::protocol::{AddSpecial, Trust};
use cllm_actors::engine::spec::LlamaSpec;

use crate::{engine, part, scratch, spec, text, tiny, tokenize};

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
    assert!(error.contains("without white space"), "{error}");
    // The stack of the vocabulary thread.
    let stack = std::thread::Builder::new().stack_size(64 << 20);
    let longest = move || {
        let mixed = ["a1".repeat(50_000), "a\u{301}".repeat(33_000), "語".repeat(33_000), "!?".repeat(50_000)];
        let texts = [["a".repeat(100_000), " ".repeat(100_000)].as_slice(), &mixed].concat();
        texts.iter().all(|text| {
            let tokens = vocabulary.tokenize(&[part(Trust::Template, text)], AddSpecial::Never);
            tokens.is_ok_and(|tokens| !tokens.is_empty())
        })
    };
    assert!(stack.spawn(longest).expect("a thread").join().expect("no panic"));
}

#[test]
fn no_token_takes_more_of_a_text_than_the_model_says() {
    for engine in [engine(), spm_engine("spm-longest.gguf")] {
        let (info, vocabulary) = (engine.info(), engine.vocabulary());
        let longest = info.max_token_bytes.expect("both kinds are known") as usize;
        let texts =
            ["word ".repeat(300), " ".repeat(3000), "\u{2581}".repeat(900), "\n\t\u{4}\u{50000}é語🙂".repeat(90)];
        for text in texts {
            let tokens = tokenize(&*vocabulary, &text);
            let bytes = text.bytes().filter(|byte| !info.lost_bytes.contains(byte)).count();
            assert!(tokens.len() >= bytes.div_ceil(longest), "{} tokens of {bytes} bytes, {longest}", tokens.len());
        }
    }
}

#[test]
fn the_longest_token_of_the_model_is_known() {
    let engine = engine();
    let info = engine.info();
    // A line break and eighty spaces, in two bytes each; control characters that SmolLM2 has no tokens for.
    assert_eq!(info.max_token_bytes, Some(162));
    assert!(info.lost_bytes.contains(&4) && !info.lost_bytes.contains(&b'a') && !info.lost_bytes.contains(&b' '));
}

/// An engine with a SentencePiece vocabulary, which puts a space before text that follows nothing or a special token.
fn spm_engine(name: &str) -> LlamaEngine {
    let path = scratch(name, &tiny::spm_model());
    load(&LlamaSpec { path, ..spec() }, |_| true).expect("the tiny model loads")
}

#[test]
fn a_space_is_put_before_the_text_and_not_before_its_parts() {
    let vocabulary = spm_engine("spm-space.gguf").vocabulary();
    let whole = tokenize(&*vocabulary, "hello hello");
    assert_eq!(text(&*vocabulary, &whole, ControlTokens::Show), " hello hello");
    for cut in 1..10 {
        let (left, right) = "hello hello".split_at(cut);
        for trust in [(Trust::Template, Trust::User), (Trust::User, Trust::Template), (Trust::User, Trust::User)] {
            let parts = [part(trust.0, left), part(trust.1, right)];
            assert_eq!(vocabulary.tokenize(&parts, AddSpecial::Never).as_ref(), Ok(&whole), "{cut}");
        }
    }
}

#[test]
fn parts_around_special_tokens_give_the_tokens_of_the_whole() {
    let vocabulary = spm_engine("spm-parts.gguf").vocabulary();
    let whole = tokenize(&*vocabulary, "<s>hello\n\nhello</s>he");
    let parts = [part(Trust::Template, "<s>he"), part(Trust::User, "llo\n\nh"), part(Trust::Template, "ello</s>he")];
    assert_eq!(vocabulary.tokenize(&parts, AddSpecial::Never), Ok(whole));
}

#[test]
fn the_beginning_token_is_added_once_and_a_users_is_no_beginning() {
    let engine = spm_engine("spm-bos.gguf");
    let vocabulary = engine.vocabulary();
    assert!(engine.info().add_bos);
    let beginnings = |trust, text: &str| {
        let tokens = vocabulary.tokenize(&[part(trust, text)], AddSpecial::Model).expect("short text");
        (tokens[0], tokens.iter().filter(|token| **token == 1).count())
    };
    assert_eq!(beginnings(Trust::Template, "hello"), (1, 1));
    assert_eq!(beginnings(Trust::Template, "<s>hello"), (1, 1));
    assert_eq!(beginnings(Trust::User, "<s>hello"), (1, 1));
    assert_eq!(beginnings(Trust::Template, ""), (1, 1));
    let plain = vocabulary.tokenize(&[part(Trust::User, "<s>语")], AddSpecial::Never).expect("short text");
    assert_eq!(text(&*vocabulary, &plain, ControlTokens::Hide), " <s>语");
}
