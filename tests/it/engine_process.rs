//! The engine in a process of its own: whatever ends it, no request ends with it.

use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{PATIENCE, Stream, soon};
use crate::expected::{after, choice_text, chunks_text, text_body};
use crate::failures::running;
use crate::server::{Server, signal};

const PATH: &str = "/v1/completions";

/// Slow enough that everything here happens in mid-stream.
const STEP: &str = "backend.fake.step_time_us=5000";

async fn server(settings: &[&str]) -> Server {
    Server::start(&[&["backend.fake.host=process", STEP], settings].concat()).await
}

/// The engine process that was started as number `count`.
pub(crate) async fn pid(server: &Server, count: usize) -> u32 {
    soon("an engine process", async {
        loop {
            let log = server.log();
            let mut pids = log.lines().filter_map(|line| line.split("engine process started pid=").nth(1));
            match pids.nth(count - 1).and_then(|pid| pid.trim().parse().ok()) {
                Some(pid) => return pid,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

pub(crate) fn exists(pid: u32) -> bool {
    // A zombie is still listed, and would be a defect.
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Whether it does anything: an orphan that has ended is listed until the machine's first process takes note.
fn computes(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// So many streams of 200 tokens that have begun.
async fn streams(server: &Server, count: usize) -> Vec<(String, Stream, Vec<Value>)> {
    join_all((0..count).map(async |number| {
        let prompt = format!("stream {number}");
        let (stream, chunks) = running(server, &prompt, 200).await;
        (prompt, stream, chunks)
    }))
    .await
}

/// Every stream ends with exactly its text. Returns how often they say they were resumed.
async fn all_are_whole(streams: Vec<(String, Stream, Vec<Value>)>) -> Vec<u64> {
    join_all(streams.into_iter().map(async |(prompt, mut stream, mut chunks)| {
        chunks.extend(stream.chunks().await);
        assert_eq!(chunks_text(&chunks, 0), after(&prompt, 200), "{prompt}");
        chunks.last().map_or(0, |last| last["resumed"].as_u64().unwrap_or(0))
    }))
    .await
}

#[tokio::test]
async fn kill_9_of_the_engine_costs_no_stream_a_token() {
    let server = server(&[]).await;
    let running = streams(&server, 16).await;
    let waiting = server.begin(PATH, &text_body("whole", json!({ "max_tokens": 50, "n": 2, "echo": true })));
    let killed = pid(&server, 1).await;
    signal(killed, "KILL").await;
    let resumed = all_are_whole(running).await;
    assert_eq!(resumed, [1; 16]);
    let answer = waiting.answer().await.ok();
    for choice in 0..2 {
        assert_eq!(choice_text(&answer, choice), format!("whole{}", after("whole", 50)));
    }
    assert_eq!(answer["usage"]["completion_tokens"], 100);
    server.log_line(&["signal 9"]).await;
    assert!(!exists(killed), "no zombie is left");
    assert_ne!(pid(&server, 2).await, killed);
}

#[tokio::test]
async fn an_engine_that_stands_still_is_replaced_by_the_watchdog() {
    let server = server(&["backend.watchdog_ms=1000"]).await;
    let running = streams(&server, 4).await;
    let stopped = pid(&server, 1).await;
    signal(stopped, "STOP").await;
    assert_eq!(all_are_whole(running).await, [1; 4]);
    server.log_line(&["killed by the watchdog"]).await;
    assert!(!exists(stopped));
}

#[tokio::test]
async fn a_request_that_hangs_every_engine_is_refused_and_the_others_go_on() {
    let server = server(&["backend.watchdog_ms=500", "backend.fake.hang=HANG"]).await;
    let running = streams(&server, 3).await;
    let hang = server.begin(PATH, &text_body("HANG", json!({})));
    all_are_whole(running).await;
    let refused = hang.answer().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (500, &json!("engine_crashed")));
    let answer = server.post(PATH, text_body("afterwards", json!({ "max_tokens": 9 }))).await.ok();
    assert_eq!(choice_text(&answer, 0), after("afterwards", 9));
}

#[tokio::test]
async fn a_long_load_is_no_hang() {
    let server = server(&["backend.watchdog_ms=1000", "backend.fake.load_time_ms=1500"]).await;
    let answer = server.post(PATH, text_body("patience", json!({ "max_tokens": 9 }))).await.ok();
    assert_eq!(choice_text(&answer, 0), after("patience", 9));
    assert!(!server.log().contains("watchdog"), "{}", server.log());
}

#[tokio::test]
async fn the_engine_ends_with_a_server_that_is_killed() {
    let mut server = server(&["backend.fake.token_time_us=3000000"]).await;
    let _pending = server.begin(PATH, &text_body("in mid-decode", json!({})));
    let engine = pid(&server, 1).await;
    server.signal("KILL").await;
    server.exit().await;
    let gone = async {
        while computes(engine) {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("no orphan is left");
}

#[tokio::test]
async fn a_stop_drains_and_takes_the_engine_along() {
    let mut server = server(&[]).await;
    let running = streams(&server, 2).await;
    let engine = pid(&server, 1).await;
    // What a process manager sends to all of a service's processes, and a terminal to its foreground group.
    signal(engine, "TERM").await;
    signal(engine, "INT").await;
    server.signal("TERM").await;
    assert_eq!(all_are_whole(running).await, [0; 2]);
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(!exists(engine));
}

#[tokio::test]
async fn a_word_of_90_kb_is_answered_or_refused_and_nothing_dies() {
    let server = server(&[]).await;
    let answer = server.post(PATH, text_body(&"w".repeat(90_000), json!({ "max_tokens": 2 }))).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(server.get("/readyz").await.status, 200);
}
