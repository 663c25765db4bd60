//! Errors as statuses, headers and bodies.

use std::time::Duration;

use cllm_actors::{Counted, GenerateError};
use hyper::header::RETRY_AFTER;
use serde_json::json;

use super::{ApiError, ErrorShape, whole_seconds};

#[test]
fn context_overflow_names_both_numbers_under_the_code_agents_look_for() {
    let counted = Counted::Exactly;
    let error =
        ApiError::from(GenerateError::ContextLengthExceeded { prompt_tokens: 900, counted, context_tokens: 512 });
    assert_eq!(error.status(), 400);
    assert_eq!(
        error.clone().or_param("messages").body(ErrorShape::OpenAi),
        json!({"error": {
            "message": "the prompt has 900 tokens, the context holds 512",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
            "n_prompt_tokens": 900,
            "n_ctx": 512,
        }})
    );
    assert_eq!(
        error.with_room(Some(8192)).message(),
        "the prompt has 900 tokens, the context holds 512 (`model.max_context_length` of the server; the model was \
         trained with 8192)"
    );
}

#[test]
fn overload_is_429_with_a_wait_in_whole_seconds() {
    let overloaded = GenerateError::Overloaded { limit: 8, retry_after: Duration::from_millis(2300) };
    let response = ApiError::from(overloaded).response(ErrorShape::OpenAi);
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[RETRY_AFTER], "3");
    assert_eq!(response.headers()["retry-after-ms"], "2300");
    assert_eq!(whole_seconds(Duration::ZERO), 1);
}

#[test]
fn a_passed_deadline_is_not_worth_a_retry() {
    let passed = GenerateError::DeadlineExceeded { which: "queue", limit: Duration::from_secs(3) };
    let response = ApiError::from(passed).response(ErrorShape::OpenAi);
    assert_eq!(response.status(), 408);
    assert_eq!(response.headers()["x-should-retry"], "false");
}

#[test]
fn internal_details_stay_in_the_log() {
    let error = ApiError::from(GenerateError::Internal("session 7 vanished".to_owned()));
    assert_eq!(error.status(), 500);
    assert_eq!(error.detail(), Some("session 7 vanished"));
    assert!(!error.sse_payload(ErrorShape::OpenAi).contains("session 7"));
}

#[test]
fn an_engine_that_is_down_says_why_and_when_it_is_tried_again() {
    let down = GenerateError::EngineDown { cause: "out of memory".to_owned(), retry_after: Duration::from_secs(60) };
    let error = ApiError::from(down);
    assert!(error.message().contains("out of memory"));
    let response = error.response(ErrorShape::OpenAi);
    assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &"60".parse().unwrap()));
}

#[test]
fn the_seed_shape_has_success_and_error_only() {
    let body = ApiError::invalid("prompt".to_owned(), "invalid_value", "the prompt is empty").body(ErrorShape::Cllm);
    assert_eq!(body, json!({"success": false, "error": "the prompt is empty"}));
}
