//! What a chat completion request turns into.

use cllm_actors::SamplingParams;
use cllm_actors::request::Deadlines;
use serde_json::{Value, json};

use super::*;
use crate::api::priority::Allowance;
use crate::http::error::ErrorShape;

fn plan_of(body: Value) -> Result<Plan, ApiError> {
    let defaults = Defaults {
        sampling: SamplingParams::default(),
        max_tokens: None,
        deadlines: Deadlines::default(),
        allowance: Allowance::of(None),
    };
    plan(Fields::of(serde_json::from_value(body).unwrap()), defaults)
}

fn hello(more: Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": "hello" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn messages_and_template_variables_reach_the_template() {
    let body = hello(json!({ "chat_template_kwargs": { "thinking": false }, "add_generation_prompt": false }));
    let plan = plan_of(body).unwrap();
    let Prompt::Chat(chat) = &plan.requests[0].prompt else { panic!("not a chat") };
    assert_eq!(chat.messages, [json!({ "role": "user", "content": "hello" })]);
    assert_eq!(chat.variables["thinking"], json!(false));
    assert!(!chat.add_generation_prompt);
}

#[test]
fn template_variables_are_bounded() {
    let with = |count: usize| plan_of(hello(json!({ "chat_template_kwargs": { "x": vec![0; count] } })));
    assert!(with(60_000).is_ok());
    assert_eq!(with(66_000).unwrap_err().param(), Some("chat_template_kwargs"));
}

#[test]
fn a_chat_without_a_limit_runs_until_the_context_is_full() {
    assert_eq!(plan_of(hello(json!({}))).unwrap().requests[0].max_tokens, None);
}

#[test]
fn logprobs_are_a_flag_and_a_count() {
    let wanted = |more: Value| plan_of(hello(more)).unwrap().requests[0].logprobs;
    assert_eq!(wanted(json!({})), None);
    assert_eq!(wanted(json!({ "logprobs": true })), Some(0));
    assert_eq!(wanted(json!({ "logprobs": true, "top_logprobs": 20 })), Some(20));
    assert_eq!(wanted(json!({ "logprobs": false, "top_logprobs": 0 })), None);
}

#[test]
fn the_client_is_told_what_is_wrong() {
    let bad = [
        json!({}),
        json!({ "messages": [] }),
        json!({ "messages": "hello" }),
        json!({ "messages": ["hello"] }),
        json!({ "messages": [{ "role": "robot", "content": "hello" }] }),
        json!({ "messages": [{ "role": "user" }] }),
        hello(json!({ "temperature": "hot" })),
        hello(json!({ "temperature": 3 })),
        hello(json!({ "top_p": 0 })),
        hello(json!({ "n": 200 })),
        hello(json!({ "max_tokens": 1.5 })),
        hello(json!({ "top_logprobs": 3 })),
        hello(json!({ "logprobs": true, "top_logprobs": 21 })),
        hello(json!({ "logprobs": 5 })),
        hello(json!({ "stop": ["a", 1] })),
        hello(json!({ "stream": "yes" })),
        hello(json!({ "model": 7 })),
        hello(json!({ "tools": [{}] })),
        hello(json!({ "response_format": "json" })),
        hello(json!({ "chat_template_kwargs": [] })),
    ];
    let bodies: Vec<_> = bad.into_iter().map(|body| plan_of(body).unwrap_err().body(ErrorShape::OpenAi)).collect();
    insta::assert_json_snapshot!(bodies);
}
