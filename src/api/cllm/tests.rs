//! The shapes of cLLM's own endpoints.

use cllm_actors::FinishReason;
use cllm_actors::request::{Deadlines, Delta, Finished, Timings, Usage};

use super::*;
use crate::api::priority::Allowance;
use crate::api::stream::{Dialect, Frames};

fn plan_of(body: Value) -> Result<Plan, ApiError> {
    let sampling = SamplingParams { temperature: 0.7, ..SamplingParams::default() };
    let (deadlines, allowance) = (Deadlines::default(), Allowance::of(None));
    let defaults = Defaults { sampling, max_tokens: Some(100), deadlines, allowance };
    plan(Fields::of(serde_json::from_value(body).unwrap()), defaults)
}

fn finished(reason: FinishReason) -> Finished {
    let usage = Usage { completion_tokens: 8, ..Usage::default() };
    Finished { reason, usage, timings: Timings::default(), resumed: 0 }
}

#[test]
fn a_prompt_alone_is_enough() {
    let plan = plan_of(json!({ "prompt": "hello", "top_k": 50 })).unwrap();
    let request = &plan.requests[0];
    assert_eq!((request.max_tokens, request.sampling.temperature, request.sampling.top_k), (Some(100), 0.7, 50));
}

#[test]
fn temperature_zero_is_greedy_and_not_the_default() {
    let plan = plan_of(json!({ "prompt": "hello", "temperature": 0 })).unwrap();
    assert_eq!(plan.requests[0].sampling.temperature, 0.0);
}

#[test]
fn bad_requests_are_refused_and_not_filled_with_defaults() {
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({ "prompt": "" }), "prompt"),
        (json!({ "prompt": ["a"] }), "prompt"),
        (json!({ "prompt": "a", "max_tokens": "x" }), "max_tokens"),
        (json!({ "prompt": "a", "n": 2 }), "n"),
    ] {
        assert_eq!(plan_of(body.clone()).unwrap_err().param(), Some(param), "{body}");
    }
}

#[test]
fn the_end_token_is_not_counted() {
    assert_eq!(generated_tokens(&finished(FinishReason::EndToken)), 7);
    assert_eq!(generated_tokens(&finished(FinishReason::Length)), 8);
}

#[test]
fn an_answer_has_the_old_fields() {
    let finished = finished(FinishReason::Length);
    let outcome =
        Outcome { text: "hi".to_owned(), logprobs: Vec::new(), prompt_logprobs: Vec::new(), finished, cache: None };
    let mut data = answer_data(&outcome, Some(100), 2.0);
    assert_eq!(data["id"].take().as_str().unwrap().len(), 32);
    data.as_object_mut().unwrap().retain(|name, _| !["usage", "timings"].contains(&name.as_str()));
    let expected = json!({
        "id": null, "text": "hi", "response_time": 2.0, "tokens_per_second": 4.0, "generated_tokens": 8,
        "max_tokens": 100,
    });
    assert_eq!(data, expected);
}

#[test]
fn a_stream_has_the_old_frames_and_no_done_marker() {
    let mut frames = Frames::default();
    let mut dialect = TokenFrames::new("7".to_owned());
    dialect.delta(0, &Delta { text: "hi".to_owned(), ..Delta::default() }, &mut frames);
    dialect.delta(0, &Delta::default(), &mut frames);
    dialect.finished(0, &finished(FinishReason::EndToken), None, &mut frames);
    dialect.failed(&ApiError::shutting_down(), &mut frames);
    let expected = "data: {\"id\":\"7\",\"token\":\"hi\",\"done\":false}\n\n\
                    data: {\"id\":\"7\",\"token\":\"\",\"done\":true,\"generated_tokens\":7}\n\n\
                    data: {\"id\":\"7\",\"error\":\"the server is shutting down\",\"done\":true}\n\n";
    assert_eq!(String::from_utf8(frames.take()).unwrap(), expected);
}

#[test]
fn the_index_lists_the_endpoints() {
    let index = info::index_data();
    assert_eq!(index["name"], "cLLM Server");
    let paths: Vec<_> = index["endpoints"].as_array().unwrap().iter().map(|endpoint| &endpoint["path"]).collect();
    assert!(paths.contains(&&json!("/v1/chat/completions")) && paths.contains(&&json!("/generate")));
}

#[test]
fn the_quantization_is_read_off_the_description() {
    assert_eq!(info::quantization("llama 135M Q4_1"), json!({ "enabled": true, "type": "Q4_1" }));
    assert_eq!(info::quantization("qwen3 0.6B Q4_K - Medium")["type"], "Q4_K - Medium");
    assert_eq!(info::quantization("llama 135M F16"), json!({ "enabled": false, "type": null }));
}

#[test]
fn the_readme_has_every_endpoint() {
    let readme = include_str!("../../../README.md");
    let table = readme.split("\n## Endpoints\n").nth(1).and_then(|rest| rest.split("\nSampling:").next()).unwrap();
    for (_, path, _) in info::ENDPOINTS {
        assert!(table.contains(&format!("`{path}`")), "{path}");
    }
}

#[test]
fn the_last_of_an_answer_has_its_bill() {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 3, completion_tokens: 8 };
    let finished = Finished { usage, resumed: 2, ..finished(FinishReason::Length) };
    let mut frames = Frames::default();
    let mut dialect = TokenFrames::new("7".to_owned());
    dialect.finished(0, &finished, Some(&Bill::new([&finished], 1)), &mut frames);
    let frame = String::from_utf8(frames.take()).unwrap();
    let last: Value = serde_json::from_str(frame.trim().strip_prefix("data: ").unwrap()).unwrap();
    let (text, logprobs, prompt_logprobs) = (String::new(), Vec::new(), Vec::new());
    let whole = answer_data(&Outcome { text, logprobs, prompt_logprobs, finished, cache: None }, Some(100), 2.0);
    for answer in [last, whole] {
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 3, "{answer}");
        assert_eq!((&answer["timings"]["cache_n"], &answer["timings"]["predicted_n"]), (&json!(3), &json!(8)));
        assert_eq!(answer["resumed"], 2);
    }
}
