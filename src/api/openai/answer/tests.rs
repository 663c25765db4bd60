//! Whole answers in the OpenAI shapes.

use std::time::Duration;

use cllm_actors::FinishReason;
use cllm_actors::engine::protocol::{TokenBytes, TokenLogprob};
use cllm_actors::request::{Finished, Timings, Usage};
use serde_json::Value;

use super::*;

fn stamp() -> Stamp {
    Stamp { id: "x-1".to_owned(), created: 7, model: "m".to_owned(), service_tier: None }
}

fn token(text: &str, logprob: Option<f32>) -> TokenLogprob {
    TokenLogprob { id: 1, bytes: TokenBytes::from_slice(text.as_bytes()), logprob, top: Vec::new() }
}

fn outcome(text: &str, reason: FinishReason) -> Outcome {
    let usage = Usage { prompt_tokens: 4, cached_tokens: 1, completion_tokens: 2 };
    let ms = Duration::from_millis;
    let timings = Timings { queue: ms(1), prefill: ms(30), decode: ms(10) };
    Outcome {
        text: text.to_owned(),
        logprobs: vec![token(text, Some(-1.0))],
        prompt_logprobs: vec![token("p", None), token("q", Some(-2.0))],
        finished: Finished { reason, usage, timings, resumed: 0 },
        cache: None,
    }
}

/// The fingerprint changes with every version.
fn without_fingerprint(answer: &[u8]) -> Value {
    let mut answer: Value = serde_json::from_slice(answer).unwrap();
    assert!(answer["system_fingerprint"].take().is_string());
    answer
}

#[test]
fn a_chat_answer_has_openais_shape() {
    let outcomes = [outcome("a", FinishReason::EndToken), outcome("b", FinishReason::Length)];
    insta::assert_json_snapshot!(without_fingerprint(&chat(&stamp(), &outcomes, false).unwrap()));
}

#[test]
fn a_text_answer_with_echo_begins_with_the_prompt_and_its_scores() {
    let echo = Echo { text: "pq".into(), added: None };
    let extras = TextExtras { echo: Some(vec![echo]), logprobs: true };
    let outcomes = [outcome("a", FinishReason::StopText("b".to_owned()))];
    insta::assert_json_snapshot!(without_fingerprint(&text(&stamp(), &outcomes, 1, &extras).unwrap()));
}

#[test]
fn a_text_answer_without_extras_is_plain() {
    let outcomes = [outcome("a", FinishReason::Length)];
    let answer = without_fingerprint(&text(&stamp(), &outcomes, 1, &TextExtras::default()).unwrap());
    assert_eq!(answer["choices"][0]["text"], "a");
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn a_whole_answer_writes_numbers_as_a_stream_does() {
    let mut outcome = outcome("a", FinishReason::Length);
    outcome.logprobs =
        vec![TokenLogprob { top: vec![(2, TokenBytes::from_slice(b"b"), -0.2)], ..token("a", Some(-0.1)) }];
    let extras = TextExtras { logprobs: true, ..TextExtras::default() };
    let outcomes = [outcome];
    for answer in [chat(&stamp(), &outcomes, true), text(&stamp(), &outcomes, 1, &extras)] {
        let answer = String::from_utf8(answer.unwrap()).unwrap();
        assert!(answer.contains("-0.1") && answer.contains("-0.2") && !answer.contains("-0.1000"), "{answer}");
    }
}

#[test]
fn a_beginning_token_has_a_place_in_the_text_only_if_the_client_sent_it() {
    let offsets = |text: &str, added: Option<Token>| {
        let mut outcome = outcome("a", FinishReason::Length);
        outcome.prompt_logprobs = vec![token("<s>", None), token("q", Some(-2.0))];
        let extras = TextExtras { echo: Some(vec![Echo { text: text.into(), added }]), logprobs: true };
        let answer = without_fingerprint(&super::text(&stamp(), &[outcome], 1, &extras).unwrap());
        answer["choices"][0]["logprobs"]["text_offset"].to_string()
    };
    assert_eq!(offsets("q", Some(1)), "[0,0,1]", "a prompt of text: the server has added it");
    assert_eq!(offsets("<s>q", None), "[0,3,4]", "a prompt of tokens: the echo shows it");
}
