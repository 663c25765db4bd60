//! What a text completion request turns into.

use cllm_actors::SamplingParams;
use cllm_actors::request::Deadlines;
use serde_json::json;

use super::*;
use crate::api::priority::Allowance;
use crate::http::error::ErrorShape;

fn plan_of(body: Value) -> Result<CompletionPlan, ApiError> {
    let max_tokens = Some(DEFAULT_MAX_TOKENS);
    let defaults = Defaults {
        sampling: SamplingParams::default(),
        max_tokens,
        deadlines: Deadlines::default(),
        allowance: Allowance::of(None),
    };
    plan(Fields::of(serde_json::from_value(body).unwrap()), defaults)
}

fn prompts_of(prompt: Value) -> Vec<String> {
    let request = plan_of(json!({ "prompt": prompt })).unwrap();
    request.plan.prompts().map(|prompt| format!("{prompt:?}")).collect()
}

#[test]
fn a_prompt_is_text_or_tokens_or_several_of_them() {
    assert_eq!(prompts_of(json!("a")), [r#"Text("a")"#]);
    assert_eq!(prompts_of(json!([1, 2])), ["Tokens([1, 2])"]);
    assert_eq!(prompts_of(json!(["a", "b"])), [r#"Text("a")"#, r#"Text("b")"#]);
    assert_eq!(prompts_of(json!([[1], [2, 3]])), ["Tokens([1])", "Tokens([2, 3])"]);
}

#[test]
fn echo_with_logprobs_scores_the_prompt_even_when_nothing_is_generated() {
    let body = json!({ "prompt": [1, 2], "echo": true, "logprobs": 1, "max_tokens": 0 });
    let request = plan_of(body).unwrap();
    assert!(request.echo);
    let sequence = &request.plan.requests[0];
    assert_eq!((sequence.max_tokens, sequence.logprobs, sequence.prompt_logprobs), (Some(0), Some(1), Some(1)));
}

#[test]
fn without_echo_the_prompt_is_not_scored() {
    let request = plan_of(json!({ "prompt": "a", "logprobs": 5 })).unwrap();
    assert_eq!((request.plan.requests[0].logprobs, request.plan.requests[0].prompt_logprobs), (Some(5), None));
}

#[test]
fn the_limit_is_openais_when_none_is_given() {
    assert_eq!(plan_of(json!({ "prompt": "a" })).unwrap().plan.requests[0].max_tokens, Some(16));
}

#[test]
fn the_client_is_told_what_is_wrong() {
    let bad = [
        json!({}),
        json!({ "prompt": "" }),
        json!({ "prompt": [] }),
        json!({ "prompt": [[]] }),
        json!({ "prompt": ["a", ""] }),
        json!({ "prompt": 7 }),
        json!({ "prompt": [1, "a"] }),
        json!({ "prompt": ["a", 1] }),
        json!({ "prompt": [1.5] }),
        json!({ "prompt": [5_000_000_000_u64] }),
        json!({ "prompt": "a", "logprobs": 21 }),
        json!({ "prompt": "a", "logprobs": true }),
        json!({ "prompt": "a", "echo": 1 }),
        json!({ "prompt": "a", "best_of": 3 }),
        json!({ "prompt": vec!["a"; 129] }),
    ];
    let bodies: Vec<_> = bad.into_iter().map(|body| plan_of(body).unwrap_err().body(ErrorShape::OpenAi)).collect();
    insta::assert_json_snapshot!(bodies);
}
