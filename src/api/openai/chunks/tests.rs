//! Chunks of a stream in the OpenAI shapes.

use cllm_actors::FinishReason;
use cllm_actors::engine::protocol::TokenBytes;
use cllm_actors::request::{Timings, Usage};
use serde_json::Value;

use super::*;
use crate::api::openai::answer::Echo;

fn stamp() -> Stamp {
    Stamp { id: "x-1".to_owned(), created: 7, model: "m".to_owned(), service_tier: None }
}

fn token(text: &str) -> TokenLogprob {
    let bytes = TokenBytes::from_slice(text.as_bytes());
    TokenLogprob { id: 1, bytes, logprob: Some(-1.0), top: Vec::new() }
}

fn delta(text: &str) -> Delta {
    Delta { text: text.to_owned(), tokens: vec![1], logprobs: vec![token(text)] }
}

fn echo(text: &str) -> Echo {
    Echo { text: text.into(), added: None }
}

fn end() -> Finished {
    let usage = Usage { prompt_tokens: 4, cached_tokens: 1, completion_tokens: 2 };
    Finished { reason: FinishReason::EndToken, usage, timings: Timings::default(), resumed: 0 }
}

/// The JSON of each frame, in order; `[DONE]` as a string.
fn frames(write: impl FnOnce(&mut Frames)) -> Vec<Value> {
    let mut frames = Frames::default();
    write(&mut frames);
    let text = String::from_utf8(frames.take()).unwrap();
    let payloads = text.split_terminator("\n\n").map(|frame| frame.strip_prefix("data: ").unwrap());
    payloads.map(|payload| serde_json::from_str(payload).unwrap_or_else(|_| payload.into())).map(plain).collect()
}

/// The fingerprint changes with every version.
fn plain(mut chunk: Value) -> Value {
    if let Some(chunk) = chunk.as_object_mut() {
        chunk.shift_remove("system_fingerprint");
    }
    chunk
}

fn finish(dialect: &mut impl Dialect, frames: &mut Frames) {
    let end = end();
    dialect.finished(0, &end, Some(&Bill::new([&end], 1)), frames);
}

#[test]
fn a_chat_stream_is_role_deltas_reason_usage_and_done() {
    let mut chunks = ChatChunks::new(stamp(), 1, true, false);
    let sent = frames(|frames| {
        chunks.delta(0, &delta("a"), frames);
        chunks.delta(0, &delta("b"), frames);
        finish(&mut chunks, frames);
    });
    insta::assert_json_snapshot!(sent);
}

#[test]
fn without_include_usage_no_chunk_speaks_of_it_and_timings_ride_on_the_last() {
    let mut chunks = ChatChunks::new(stamp(), 1, false, false);
    let sent = frames(|frames| {
        chunks.delta(0, &delta("a"), frames);
        finish(&mut chunks, frames);
    });
    assert!(sent.iter().all(|chunk| chunk.get("usage").is_none()));
    let timed: Vec<bool> = sent.iter().map(|chunk| chunk.get("timings").is_some()).collect();
    assert_eq!(timed, [false, false, true, false]);
    assert_eq!(sent[3], "[DONE]");
}

#[test]
fn a_choice_that_ends_before_the_others_ends_nothing_else() {
    let mut chunks = ChatChunks::new(stamp(), 2, false, false);
    let sent = frames(|frames| chunks.finished(1, &end(), None, frames));
    assert_eq!(sent.len(), 2);
    assert_eq!((&sent[1]["choices"][0]["index"], &sent[1]["choices"][0]["finish_reason"]), (&1.into(), &"stop".into()));
}

#[test]
fn tokens_without_text_make_a_chunk_only_for_their_logprobs() {
    let mut silent = ChatChunks::new(stamp(), 1, false, false);
    assert!(frames(|frames| silent.delta(0, &delta(""), frames)).is_empty());
    let mut scored = ChatChunks::new(stamp(), 1, false, true);
    let sent = frames(|frames| scored.delta(0, &delta(""), frames));
    assert_eq!(sent[1]["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 1);
}

#[test]
fn a_text_stream_with_echo_begins_with_the_prompt() {
    let extras = TextExtras { echo: Some(vec![echo("pq")]), logprobs: true };
    let mut chunks = TextChunks::new(stamp(), 1, false, extras);
    let sent = frames(|frames| {
        chunks.prompt(0, vec![token("p"), token("q")], frames);
        chunks.delta(0, &delta("a"), frames);
        finish(&mut chunks, frames);
    });
    insta::assert_json_snapshot!(sent);
}

#[test]
fn echo_of_a_request_that_generates_nothing_still_shows_the_prompt() {
    let extras = TextExtras { echo: Some(vec![echo("pq")]), ..TextExtras::default() };
    let mut chunks = TextChunks::new(stamp(), 1, false, extras);
    let sent = frames(|frames| finish(&mut chunks, frames));
    assert_eq!(sent[0]["choices"][0]["text"], "pq");
}

#[test]
fn a_failure_in_mid_stream_is_an_error_frame_without_done() {
    let mut chunks = ChatChunks::new(stamp(), 1, false, false);
    let sent = frames(|frames| chunks.failed(&ApiError::shutting_down(), frames));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["error"]["code"], "shutting_down");
}
