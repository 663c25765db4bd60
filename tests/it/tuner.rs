//! The size of a step as an operator sees it.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::soon;
use crate::expected::{after, chunks_text, text_body};
use crate::failures::running;
use crate::server::Server;

const PATH: &str = "/v1/completions";

/// 5 ms for a step and 1 for each token in it.
const COSTS: [&str; 2] = ["backend.fake.step_time_us=5000", "backend.fake.token_time_us=1000"];

async fn scheduler(server: &Server) -> Value {
    server.get("/actors/cllm%2Fengine-0%2Fscheduler-0").await.ok()["state"].clone()
}

/// Two streams run while a long prompt is read; what the scheduler shows when that is through.
async fn after_a_long_prompt(settings: &[&str]) -> Value {
    let server = Server::start(&[&COSTS, settings].concat()).await;
    let streams = [running(&server, "one", 400).await, running(&server, "two", 400).await];
    let prompt = "a long prompt ".repeat(120);
    let mut long = server.stream(PATH, text_body(&prompt, json!({ "max_tokens": 2, "stream": true }))).await;
    assert_eq!(chunks_text(&long.chunks().await, 0), after(&prompt, 2));
    let state = scheduler(&server).await;
    let texts = streams.into_iter().map(async |(mut stream, mut chunks)| {
        chunks.extend(stream.chunks().await);
        chunks_text(&chunks, 0)
    });
    let texts = soon("the streams end", join_all(texts)).await;
    assert_eq!(texts, [after("one", 400), after("two", 400)]);
    state
}

#[tokio::test]
async fn an_adaptive_step_carries_what_fits_beside_running_streams() {
    let state = after_a_long_prompt(&["scheduler.max_step_ms=60"]).await;
    assert_eq!((&state["tuner"], &state["max_step_us"]), (&json!("adaptive"), &json!(60_000)));
    assert_eq!(state["step_tokens"], 2048, "of the fake engine, when nobody decodes: {state}");
    // 53 would make it 60 ms; a busy machine makes it less.
    let size = state["mixed_prefill_tokens"].as_u64().expect("a number");
    assert!((17..=70).contains(&size), "{state}");
    for known in ["decode_us", "prefill_token_ns", "last_step_us", "last_decode_rows", "last_prefill_tokens"] {
        assert!(state[known].is_u64(), "{known}: {state}");
    }
    assert!(state["prefill_token_ns"].as_u64() >= Some(800_000), "{state}");
}

#[tokio::test]
async fn a_static_step_is_as_configured() {
    let state = after_a_long_prompt(&["scheduler.tuner=static", "scheduler.step_tokens=100"]).await;
    assert_eq!((&state["tuner"], &state["step_tokens"]), (&json!("static"), &json!(100)));
    assert_eq!(state["mixed_prefill_tokens"], 100);
}
