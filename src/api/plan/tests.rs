//! Prompts times choices, and their seeds.

use cllm_actors::prompt::ChatPrompt;
use serde_json::json;

use super::*;

fn fields(body: Value) -> Fields {
    Fields::of(serde_json::from_value(body).unwrap())
}

fn defaults() -> Defaults {
    Defaults {
        sampling: SamplingParams::default(),
        max_tokens: Some(16),
        deadlines: Deadlines::default(),
        allowance: Allowance::of(None),
    }
}

fn shared(body: Value) -> Result<Shared, ApiError> {
    Shared::read(&mut fields(body), defaults())
}

fn plan(prompts: &[&str], body: Value) -> Result<Plan, ApiError> {
    let mut fields = fields(body);
    let shared = Shared::read(&mut fields, defaults())?;
    Plan::new(prompts.iter().map(|text| Prompt::Text((*text).into())).collect(), shared, &fields)
}

fn refused(body: Value) -> String {
    shared(body).unwrap_err().param().unwrap_or_default().to_owned()
}

#[test]
fn every_prompt_gets_the_choices_it_would_get_alone() {
    let plan = plan(&["a", "b"], json!({ "n": 2, "seed": 7 })).unwrap();
    let seeds: Vec<_> = plan.requests.iter().map(|request| request.sampling.seed).collect();
    assert_eq!(seeds, [Some(7), Some(8), Some(7), Some(8)]);
    let prompts: Vec<_> = plan.prompts().map(|prompt| format!("{prompt:?}")).collect();
    assert_eq!(prompts, [r#"Text("a")"#, r#"Text("b")"#]);
}

#[test]
fn choices_share_their_prompt_and_their_biases() {
    let text = plan(&["a long text"], json!({ "n": 128, "logit_bias": { "5": 1 } })).unwrap();
    let Prompt::Text(first) = &text.requests[0].prompt else { panic!("not a text") };
    let shares = |request: &GenerateRequest| {
        matches!(&request.prompt, Prompt::Text(text) if std::sync::Arc::ptr_eq(text, first))
            && std::sync::Arc::ptr_eq(&request.sampling.logit_bias, &text.requests[0].sampling.logit_bias)
    };
    assert!(text.requests.iter().all(shares));
}

#[test]
fn a_seed_at_the_end_of_its_range_wraps() {
    let plan = plan(&["a"], json!({ "n": 2, "seed": u64::MAX })).unwrap();
    assert_eq!(plan.requests[1].sampling.seed, Some(0));
}

#[test]
fn without_a_seed_each_choice_draws_its_own() {
    let plan = plan(&["a"], json!({ "n": 3 })).unwrap();
    assert!(plan.requests.iter().all(|request| request.sampling.seed.is_none()));
}

#[test]
fn more_than_128_sequences_are_refused() {
    assert_eq!(plan(&["a"], json!({ "n": 128 })).unwrap().requests.len(), 128);
    let error = plan(&["a", "b"], json!({ "n": 65 })).unwrap_err();
    assert_eq!(error.message(), "2 prompts with `n` = 65 are 130 sequences, at most 128 are allowed");
    assert_eq!(refused(json!({ "n": 129 })), "n");
    assert_eq!(refused(json!({ "n": 0 })), "n");
}

#[test]
fn the_token_limit_has_three_names_and_minus_one_lifts_it() {
    assert_eq!(shared(json!({})).unwrap().max_tokens(), Some(16));
    assert_eq!(shared(json!({ "max_tokens": 3 })).unwrap().max_tokens(), Some(3));
    assert_eq!(shared(json!({ "max_tokens": 3, "max_completion_tokens": 4 })).unwrap().max_tokens(), Some(4));
    assert_eq!(shared(json!({ "n_predict": -1, "max_tokens": 3 })).unwrap().max_tokens(), None);
    assert_eq!(shared(json!({ "max_tokens": 0 })).unwrap().max_tokens(), Some(0));
    assert_eq!(refused(json!({ "max_completion_tokens": -2 })), "max_completion_tokens");
}

#[test]
fn stop_is_one_text_or_up_to_16() {
    let stops = |stop: Value| plan(&["a"], json!({ "stop": stop })).map(|plan| plan.requests[0].stop.clone());
    assert_eq!(stops(json!("x")).unwrap(), ["x"]);
    assert_eq!(stops(json!(["x", "y"])).unwrap(), ["x", "y"]);
    assert!(stops(json!([])).unwrap().is_empty());
    assert!(stops(json!(vec!["x"; 16])).is_ok());
    for bad in [json!(vec!["x"; 17]), json!(""), json!(["x", ""]), json!([1]), json!(7), json!("x".repeat(4097))] {
        assert_eq!(stops(bad.clone()).unwrap_err().param(), Some("stop"), "{bad}");
    }
}

#[test]
fn a_request_can_shorten_its_deadline_but_not_extend_it() {
    let total = |ms: u64| plan(&["a"], json!({ "timeout_ms": ms })).unwrap().requests[0].deadlines.total;
    assert_eq!(total(1500), Duration::from_millis(1500));
    assert_eq!(total(86_400_000), Deadlines::default().total);
    assert_eq!(refused(json!({ "timeout_ms": 0 })), "timeout_ms");
}

#[test]
fn a_request_waits_for_half_of_its_time_unless_the_server_says_how_long() {
    let queue = |server: Option<Duration>, body: Value| {
        deadlines(&mut fields(body), Deadlines { queue: server, ..Deadlines::default() }).unwrap().queue
    };
    assert_eq!(queue(None, json!({})), Some(Deadlines::default().total / 2));
    assert_eq!(queue(None, json!({ "timeout_ms": 1500 })), Some(Duration::from_millis(750)));
    let configured = Some(Duration::from_secs(20));
    assert_eq!(queue(configured, json!({ "timeout_ms": 30_000 })), configured);
}

#[test]
fn only_a_stream_is_told_its_place_in_the_queue() {
    let told = |stream: bool| plan(&["a"], json!({ "stream": stream })).unwrap().requests[0].reports_position;
    assert!(told(true) && !told(false));
}

#[test]
fn usage_is_only_streamed_on_request() {
    let delivery = |body: Value| shared(body).unwrap().delivery;
    assert_eq!(delivery(json!({ "stream_options": { "include_usage": true } })), Delivery::Whole);
    assert_eq!(delivery(json!({ "stream": true })), Delivery::Stream { include_usage: false });
    let both = json!({ "stream": true, "stream_options": { "include_usage": true, "later": 1 } });
    assert_eq!(delivery(both), Delivery::Stream { include_usage: true });
    assert_eq!(refused(json!({ "stream_options": { "include_usage": 1 } })), "stream_options.include_usage");
}

#[test]
fn unknown_fields_are_ignored_and_named() {
    let plan = plan(&["a"], json!({ "user": "x", "temprature": 0 })).unwrap();
    assert_eq!(plan.ignored.as_deref(), Some("user, temprature (temperature?)"));
}

#[test]
fn tokens_outside_the_vocabulary_are_refused() {
    assert!(check_ids("prompt", [0, 99], 100).is_ok());
    for bad in [-1, 100] {
        let error = check_ids("prompt", [0, bad], 100).unwrap_err();
        assert_eq!(error.param(), Some("prompt"));
        assert!(error.message().contains("0 to 99"), "{}", error.message());
    }
    let plan = plan(&["a"], json!({ "logit_bias": { "100": 1 } })).unwrap();
    assert_eq!(plan.check_tokens(100).unwrap_err().param(), Some("logit_bias"));
    assert!(plan.check_tokens(101).is_ok());
}

fn chat(messages: usize) -> Prompt {
    Prompt::Chat(std::sync::Arc::new(ChatPrompt {
        messages: vec![json!({ "role": "user", "content": "" }); messages],
        tools: Vec::new(),
        add_generation_prompt: true,
        variables: serde_json::Map::new(),
    }))
}

#[test]
fn more_messages_than_the_context_has_tokens_are_not_laid_out() {
    let check = |messages| {
        let mut fields = fields(json!({}));
        let shared = Shared::read(&mut fields, defaults()).unwrap();
        Plan::new(vec![chat(messages)], shared, &fields).unwrap().check_messages(100)
    };
    assert_eq!(check(100), Ok(()));
    let message = check(101).unwrap_err().to_string();
    assert_eq!(message, "the prompt has at least 101 tokens, the context holds 100");
}

/// The field at fault when this plan wants `top` alternatives of every token.
fn logprobs_refused(prompt: Prompt, body: Value, top: u32, context: u32) -> Option<String> {
    let mut fields = fields(body);
    let shared = Shared::read(&mut fields, defaults()).unwrap();
    let mut plan = Plan::new(vec![prompt], shared, &fields).unwrap();
    plan.want_logprobs(Some(top));
    if fields.boolean(&["echo"]).unwrap() == Some(true) {
        plan.want_prompt_logprobs(Some(top));
    }
    let error = plan.check_logprobs(context, None).err()?;
    assert!(error.message().contains("at most 4000000"), "{}", error.message());
    error.param().map(str::to_owned)
}

#[test]
fn log_probabilities_that_would_fill_the_memory_are_refused() {
    let chat = || chat(1);
    let many = json!({ "n": 128, "max_tokens": 2000 });
    assert_eq!(logprobs_refused(chat(), many.clone(), 20, 8192).as_deref(), Some("top_logprobs"));
    assert_eq!(logprobs_refused(chat(), many.clone(), 0, 8192), None);
    assert_eq!(logprobs_refused(chat(), many, 20, 1024), None, "no context holds so many tokens");
    assert_eq!(logprobs_refused(chat(), json!({ "max_tokens": -1 }), 20, 131_072), None);
    assert_eq!(
        logprobs_refused(chat(), json!({ "n": 2, "max_tokens": -1 }), 20, 131_072).as_deref(),
        Some("top_logprobs")
    );
}

#[test]
fn an_echoed_prompt_counts_with_its_tokens() {
    let refused =
        |prompt, echo: bool| logprobs_refused(prompt, json!({ "n": 128, "max_tokens": 0, "echo": echo }), 20, 8192);
    assert_eq!(refused(Prompt::Tokens([1; 2000].into()), true).as_deref(), Some("logprobs"));
    assert_eq!(refused(Prompt::Tokens([1; 2000].into()), false), None);
    assert_eq!(refused(Prompt::Tokens([1; 1000].into()), true), None);
    assert_eq!(refused(Prompt::Text("word ".repeat(2000).into()), true).as_deref(), Some("logprobs"));
    assert_eq!(refused(Prompt::Text("a few words".into()), true), None);
}
