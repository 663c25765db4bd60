//! What the fake engine says, computed here.

use cllm_actors::engine::fake::{FakeVocabulary, continuation};
use cllm_actors::engine::model::{ControlTokens, Vocabulary};
use cllm_actors::engine::protocol::{AddSpecial, TextPart, Token, Trust};
use cllm_actors::engine::spec::{Alphabet, FakeSpec};
use serde_json::{Value, json};

/// The text after a plain prompt, at most `count` tokens.
pub(crate) fn after(prompt: &str, count: usize) -> String {
    text(&FakeSpec::default(), &plain(prompt), count)
}

/// The answer to one message of a user.
pub(crate) fn reply(content: &str, count: usize) -> String {
    text(&FakeSpec::default(), &chat(content), count)
}

/// A model that speaks characters of several tokens.
pub(crate) fn multibyte() -> FakeSpec {
    FakeSpec { alphabet: Alphabet::Multibyte, ..FakeSpec::default() }
}

/// The text after these tokens, without a last character that is incomplete.
pub(crate) fn text(spec: &FakeSpec, prompt: &[Token], count: usize) -> String {
    let mut bytes = Vec::new();
    for token in continuation(spec, prompt, count) {
        FakeVocabulary.piece(token, ControlTokens::Hide, &mut bytes);
    }
    let whole = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    assert!(whole.len() + 4 > bytes.len(), "only the last character may be incomplete");
    whole.to_owned()
}

/// A plain text's tokens: its bytes.
pub(crate) fn plain(prompt: &str) -> Vec<Token> {
    prompt.bytes().map(Token::from).collect()
}

/// The tokens of a chat with one message of a user. `content` must hold no control token's text.
pub(crate) fn chat(content: &str) -> Vec<Token> {
    let text = format!("<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n");
    let parts = [TextPart { text, trust: Trust::Template }];
    FakeVocabulary.tokenize(&parts, AddSpecial::Never).expect("it takes any text")
}

/// A chat request with one message, greedy, with these further fields.
pub(crate) fn chat_body(content: &str, fields: Value) -> Value {
    merge(json!({ "messages": [{ "role": "user", "content": content }], "temperature": 0 }), fields)
}

/// A completion request, greedy, with these further fields.
pub(crate) fn text_body(prompt: &str, fields: Value) -> Value {
    merge(json!({ "prompt": prompt, "temperature": 0 }), fields)
}

/// The fields of both objects, the second's where they differ.
pub(crate) fn merge(mut base: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().expect("fields are an object") {
        base[name] = value.clone();
    }
    base
}

/// The text of a choice, of a whole chat or completion answer.
pub(crate) fn choice_text(answer: &Value, index: usize) -> String {
    let choice = &answer["choices"][index];
    assert_eq!(choice["index"], index, "{answer}");
    let text = choice["message"]["content"].as_str().or(choice["text"].as_str());
    text.unwrap_or_else(|| panic!("no text: {answer}")).to_owned()
}

/// The text of a choice, put together from the chunks of a chat or a completion.
pub(crate) fn chunks_text(chunks: &[Value], index: usize) -> String {
    chunks.iter().map(|chunk| chunk_text(chunk, index)).collect()
}

/// The text that one chunk adds to a choice.
pub(crate) fn chunk_text(chunk: &Value, index: usize) -> String {
    let choices = chunk["choices"].as_array().unwrap_or_else(|| panic!("no choices: {chunk}"));
    let choices = choices.iter().filter(|choice| choice["index"] == index);
    choices.filter_map(|choice| choice["delta"]["content"].as_str().or(choice["text"].as_str())).collect()
}
