//! Readiness tells the truth about an engine that does not get on, wherever it runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::soon;
use crate::engine_process::{exists, pid};
use crate::expected::{after, choice_text, text_body};
use crate::server::{Server, signal};

const PATH: &str = "/v1/completions";

/// An answer of 40 steps takes longer than the limit, each of its steps far less.
const STEADY: [&str; 2] = ["backend.watchdog_ms=3000", "backend.fake.step_time_us=100000"];

const LONGER_THAN_THE_LIMIT: Duration = Duration::from_millis(3300);

async fn ready(server: &Server) -> (u16, Value) {
    let answer = server.get("/readyz").await;
    (answer.status.as_u16(), answer.json())
}

/// Waits until readiness is lost; why.
async fn lost(server: &Server) -> Value {
    soon("not ready", async {
        loop {
            if let (503, why) = ready(server).await {
                return why;
            }
        }
    })
    .await
}

async fn works_again(server: &Server) {
    soon("ready again", async { while ready(server).await.0 != 200 {} }).await;
    let answer = server.post(PATH, text_body("again", json!({ "max_tokens": 5 }))).await.ok();
    assert_eq!(choice_text(&answer, 0), after("again", 5));
}

#[tokio::test]
async fn an_engine_thread_that_hangs_is_not_ready_and_the_server_lives() {
    let server = Server::start(&["backend.watchdog_ms=500", "backend.fake.hang=HANG"]).await;
    let _hung = server.begin(PATH, &text_body("HANG", json!({})));
    let why = lost(&server).await;
    assert_eq!(why["status"], "stalled", "{why}");
    assert!(why["silent_ms"].as_u64() >= Some(500) && why["cause"].is_string(), "{why}");
    let shown = server.get("/actors").await.ok();
    assert_eq!((&shown["status"]["state"], shown["status"]["cause"].is_string()), (&json!("stalled"), true));
    // It stays so: nothing can end a thread.
    assert_eq!(ready(&server).await.0, 503);
    assert_eq!(
        (server.get("/health").await.status, server.get("/livez").await.status.as_u16()),
        (503.try_into().unwrap(), 200)
    );
}

#[tokio::test]
async fn a_server_whose_engine_thread_hangs_for_good_says_that_it_is_lost() {
    let server = Server::start(&["backend.watchdog_ms=100", "backend.fake.hang=HANG"]).await;
    let _hung = server.begin(PATH, &text_body("HANG", json!({})));
    assert_eq!(lost(&server).await["status"], "stalled");
    soon("not alive", async { while server.get("/livez").await.status == 200 {} }).await;
    assert_eq!(server.get("/livez").await.json()["status"], "hung");
}

#[tokio::test]
async fn an_engine_process_that_hangs_is_not_ready_until_it_is_replaced() {
    let settings = ["backend.fake.host=process", "backend.watchdog_ms=500", "backend.fake.hang=HANG"];
    let server = Server::start(&settings).await;
    let hung = server.begin(PATH, &text_body("HANG", json!({})));
    let why = lost(&server).await;
    assert!(why["status"] == "stalled" || why["status"] == "restarting", "{why}");
    assert_eq!(hung.answer().await.status, 500, "it hangs every engine");
    works_again(&server).await;
}

#[tokio::test]
async fn an_idle_engine_process_that_stands_still_is_found_by_its_missing_beats() {
    let server = Server::start(&["backend.fake.host=process", "backend.watchdog_ms=500"]).await;
    let suspended = pid(&server, 1).await;
    signal(suspended, "STOP").await;
    let why = lost(&server).await;
    assert_eq!(why["status"], "restarting", "{why}");
    works_again(&server).await;
    assert!(!exists(suspended), "the old one is gone");
}

#[tokio::test]
async fn long_work_and_idleness_are_no_stall() {
    for host in ["thread", "process"] {
        let host = format!("backend.fake.host={host}");
        let server = Server::start(&[&STEADY[..], &[&host]].concat()).await;
        let mut long = server.stream(PATH, text_body("long", json!({ "max_tokens": 40, "stream": true }))).await;
        while long.chunk().await.is_some() {
            assert_eq!(ready(&server).await, (200, json!({ "status": "ok" })));
        }
        let idle = Instant::now();
        while idle.elapsed() < LONGER_THAN_THE_LIMIT {
            assert_eq!(ready(&server).await.0, 200);
        }
        // Work again: counted from the new request.
        let mut next = server.stream(PATH, text_body("next", json!({ "max_tokens": 3, "stream": true }))).await;
        assert_eq!(ready(&server).await.0, 200);
        while next.chunk().await.is_some() {}
    }
}
