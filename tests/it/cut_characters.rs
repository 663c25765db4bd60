//! An answer that is cut off inside a character: valid UTF-8 and valid JSON everywhere, and no U+FFFD.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::expected::{chat, chat_body, choice_text, chunks_text, multibyte, plain, text, text_body};
use crate::server::Server;

/// Tokens of an answer; no multiple of 3 or 4, and where a character ends depends on the prompt.
const TOKENS: usize = 50;

fn prompts() -> Vec<String> {
    (0..40).map(|number| format!("{}{number}", "x".repeat(number % 7))).collect()
}

fn expected(prompt: &str) -> String {
    text(&multibyte(), &plain(prompt), TOKENS)
}

async fn start() -> Server {
    Server::start(&["backend.fake.alphabet=multibyte", "scheduler.max_queue=4096"]).await
}

#[test]
fn the_prompts_cut_characters_after_every_number_of_bytes() {
    // What is missing of the 50 bytes was cut off.
    let cut: BTreeSet<usize> = prompts().iter().map(|prompt| TOKENS - expected(prompt).len()).collect();
    assert_eq!(cut, BTreeSet::from([0, 1, 2, 3]));
}

#[tokio::test]
async fn completions_end_with_a_whole_character() {
    let server = start().await;
    join_all(prompts().iter().map(async |prompt| {
        let body = |stream: bool| text_body(prompt, json!({ "max_tokens": TOKENS, "stream": stream }));
        let answer = server.post("/v1/completions", body(false)).await.ok();
        assert_eq!(choice_text(&answer, 0), expected(prompt));
        assert_eq!(answer["usage"]["completion_tokens"], TOKENS);
        let chunks = server.stream("/v1/completions", body(true)).await.chunks().await;
        assert_eq!(chunks_text(&chunks, 0), expected(prompt));
        assert_whole_characters(&chunks);
    }))
    .await;
}

#[tokio::test]
async fn chats_end_with_a_whole_character() {
    let server = start().await;
    join_all(prompts().iter().map(async |prompt| {
        let body = |stream: bool| chat_body(prompt, json!({ "max_tokens": TOKENS, "stream": stream }));
        let expected = text(&multibyte(), &chat(prompt), TOKENS);
        let answer = server.post("/v1/chat/completions", body(false)).await.ok();
        assert_eq!(choice_text(&answer, 0), expected);
        let chunks = server.stream("/v1/chat/completions", body(true)).await.chunks().await;
        assert_eq!(chunks_text(&chunks, 0), expected);
        assert_whole_characters(&chunks);
    }))
    .await;
}

#[tokio::test]
async fn generate_ends_with_a_whole_character() {
    let server = start().await;
    join_all(prompts().iter().map(async |prompt| {
        let body = json!({ "prompt": prompt, "temperature": 0, "max_tokens": TOKENS });
        let answer = server.post("/generate", body.clone()).await.ok();
        assert_eq!(answer["data"]["text"], expected(prompt));
        let frames = server.stream("/generate_stream", body).await.data().await;
        let frames: Vec<Value> = frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
        let streamed: String = frames.iter().filter_map(|frame| frame["token"].as_str()).collect();
        assert_eq!(streamed, expected(prompt));
        assert_whole_characters(&frames);
    }))
    .await;
}

#[tokio::test]
async fn a_stop_text_in_the_middle_of_a_character_sequence_is_found() {
    let server = start().await;
    let full = expected("stop");
    let stop: String = full.chars().skip(4).take(2).collect();
    let before = full.split(&stop).next().unwrap();
    let body = text_body("stop", json!({ "max_tokens": TOKENS, "stop": stop }));
    assert_eq!(choice_text(&server.post("/v1/completions", body).await.ok(), 0), before);
}

/// A character that came in two chunks would show as U+FFFD in each.
#[track_caller]
fn assert_whole_characters(chunks: &[Value]) {
    let broken = chunks.iter().find(|chunk| chunk.to_string().contains('\u{FFFD}'));
    assert_eq!(broken, None);
}
