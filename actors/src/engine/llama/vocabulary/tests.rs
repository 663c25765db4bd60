//! The search for special tokens against llama.cpp's own.

use std::path::Path;

use super::*;
use crate::engine::protocol::Trust;
use crate::engine::spec::LlamaSpec;

fn vocabulary() -> LlamaVocabulary {
    backend::init();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let weights = Weights::load(&LlamaSpec::new(path), &mut |_| true).expect("the model, which `make setup` brings");
    LlamaVocabulary::new(Arc::new(weights), Progress::default()).expect("tokens with texts")
}

/// As llama.cpp tokenizes a text with special tokens in it.
fn whole(vocabulary: &LlamaVocabulary, text: &str) -> Vec<Token> {
    let mut tokens = vec![0; text.len() + 2];
    let (length, room) = (text.len() as i32, tokens.len() as i32);
    let (vocab, out) = (vocabulary.weights.vocab(), tokens.as_mut_ptr());
    // SAFETY: the vocabulary is alive, and text and tokens are as long as said.
    let count = unsafe { sys::llama_tokenize(vocab, text.as_ptr().cast(), length, out, room, false, true) };
    tokens.truncate(usize::try_from(count).expect("room enough"));
    tokens
}

fn of_template(vocabulary: &LlamaVocabulary, text: &str) -> Vec<Token> {
    let parts = [TextPart { text: text.to_owned(), trust: Trust::Template }];
    vocabulary.tokenize(&parts, AddSpecial::Never).expect("a text that it takes")
}

#[test]
fn a_templates_text_has_the_tokens_that_llama_cpp_finds() {
    let vocabulary = vocabulary();
    let texts = [
        "",
        "plain",
        "<|im_start|>",
        "<|im_start|>user\n  What is <b>this</b>? <|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|><|im_start|> <|im_end|>",
        "<|endoftext|>a<filename>b<gh_stars><|im_start<|im_end|>|>",
        "\n\n<|im_start|>\n\n\té🙂<|im_end|> \n",
    ];
    for text in texts {
        assert_eq!(of_template(&vocabulary, text), whole(&vocabulary, text), "{text}");
    }
}

#[test]
fn a_text_full_of_special_tokens_is_cut_in_one_pass() {
    // llama.cpp's own search takes minutes for it: it walks over all that it has found for each that it finds.
    let vocabulary = vocabulary();
    let tokens = of_template(&vocabulary, &("<filename>".repeat(5_000) + " ").repeat(40));
    assert_eq!(tokens.iter().filter(|token| **token == tokens[0]).count(), 200_000);
    assert_eq!(tokens.len(), 200_040);
}
