//! Faults at random under a mixed load: every request ends once, with exactly its tokens, and everything comes back.

use futures_util::future::join_all;
use serde_json::json;

use crate::client::soon;
use crate::expected::{after, chunks_text, text_body};
use crate::server::Server;

const PATH: &str = "/v1/completions";

/// Clients at a time.
const CLIENTS: usize = 12;

/// Requests of each.
const REQUESTS: usize = 4;

const TOKENS: usize = 150;

#[tokio::test]
async fn whatever_is_killed_or_suspended_no_request_loses_or_repeats_a_token() {
    let server = Server::start(&[
        "backend.fake.host=process",
        "backend.fake.step_time_us=2000",
        "backend.watchdog_ms=600",
        "scheduler.max_queue=24",
        "chaos.seed=7",
        "chaos.interval_ms=300",
    ])
    .await;
    join_all((0..CLIENTS).map(async |client| {
        for request in 0..REQUESTS {
            let prompt = format!("client {client} request {request}");
            let mut stream =
                server.stream(PATH, text_body(&prompt, json!({ "max_tokens": TOKENS, "stream": true }))).await;
            assert_eq!(stream.status, 200);
            if (client + request) % 4 == 3 {
                // This one leaves in mid-stream.
                stream.chunk().await.expect("it runs");
                continue;
            }
            let chunks = stream.chunks().await;
            assert_eq!(chunks_text(&chunks, 0), after(&prompt, TOKENS), "{prompt}");
            let ends = chunks.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null());
            assert_eq!(ends.count(), 1, "{prompt}");
        }
    }))
    .await;
    let faults = server.log().matches("fault injected").count();
    assert!(faults > 3, "the load was over after {faults} faults");
    // Every permit is back: all of them can be had at once.
    let prompts: Vec<_> = (0..24).map(|number| format!("permit {number}")).collect();
    let all = json!({ "prompt": prompts, "temperature": 0, "max_tokens": 1 });
    soon("all permits", async { while server.post(PATH, all.clone()).await.status != 200 {} }).await;
}
