//! The log line of a request says what it cost, whatever ended it.

use hyper::Method;
use serde_json::{Value, json};

use crate::client::Ask;
use crate::expected::text_body;
use crate::failures::running;
use crate::server::Server;

const PATH: &str = "/v1/completions";

const PROMPT: &str = "what does it cost";

/// Makes a request of 3,000 tokens take a minute.
const SETTINGS: [&str; 2] = ["backend.fake.step_time_us=20000", "logging.format=json"];

/// The line of the one generation request that the server had.
async fn line(server: &Server) -> Value {
    let line = server.log_line(&["request finished", PATH]).await;
    serde_json::from_str(&line).expect("the log is JSON")
}

fn long(fields: Value) -> Value {
    crate::expected::merge(text_body(PROMPT, json!({ "max_tokens": 3000 })), fields)
}

/// It ran: every part of the bill is there and plausible. Returns the tokens that were generated.
#[track_caller]
fn assert_billed(line: &Value, outcome: &str) -> u64 {
    assert_eq!(line["outcome"], outcome, "{line}");
    assert_eq!(line["prompt_tokens"], PROMPT.len(), "{line}");
    assert!(line["cached_tokens"].is_u64(), "{line}");
    let [total, queue, prefill, decode] =
        ["duration_ms", "queue_ms", "prefill_ms", "decode_ms"].map(|key| line[key].as_f64().expect("a number"));
    assert!(prefill > 0.0 && queue + prefill + decode <= total + 1.0, "{line}");
    line["completion_tokens"].as_u64().expect("a number")
}

#[tokio::test]
async fn a_stream_whose_client_leaves_is_billed_for_what_it_got() {
    let server = Server::start(&SETTINGS).await;
    let (mut stream, mut chunks) = running(&server, PROMPT, 3000).await;
    while chunks.len() < 10 {
        chunks.push(stream.chunk().await.expect("it runs"));
    }
    drop(stream);
    let line = line(&server).await;
    let tokens = assert_billed(&line, "client_gone");
    assert!((10..3000).contains(&tokens), "{line}");
    assert!(line["decode_ms"].as_f64() > Some(100.0), "{line}");
}

#[tokio::test]
async fn a_deadline_is_billed_whether_the_answer_is_whole_or_a_stream() {
    for stream in [false, true] {
        let server = Server::start(&SETTINGS).await;
        server.post(PATH, long(json!({ "timeout_ms": 1500, "stream": stream }))).await;
        let line = line(&server).await;
        let tokens = assert_billed(&line, "error");
        assert!((1..3000).contains(&tokens), "{line}");
        assert_eq!(
            (&line["code"], &line["status"]),
            (&json!("deadline_exceeded"), &json!(if stream { 200 } else { 408 }))
        );
    }
}

#[tokio::test]
async fn an_engine_that_is_lost_in_mid_stream_leaves_a_bill() {
    let held = ["supervision.engine.max_restarts=0", "server.admin_keys=[boss]"];
    let server = Server::start(&[&SETTINGS[..], &held].concat()).await;
    let with_key = |ask: Ask| ask.header("x-api-key", "boss");
    let mut stream = server.open(with_key(Ask::post(PATH, &long(json!({ "stream": true }))))).await;
    stream.chunk().await.expect("it runs");
    server.ask(with_key(Ask::new(Method::POST, "/actors/engine-0/backend-0/kill"))).await.ok();
    stream.data().await;
    let line = line(&server).await;
    assert!(assert_billed(&line, "error") >= 1);
    assert_eq!((&line["code"], &line["status"]), (&json!("engine_down"), &json!(200)));
}

#[tokio::test]
async fn a_request_that_left_the_queue_is_billed_for_its_wait_alone() {
    let server = Server::start(&[&SETTINGS[..], &["scheduler.max_batch_size=1"]].concat()).await;
    let (stream, _) = running(&server, "keeps the only place", 3000).await;
    let queued = server.stream(PATH, long(json!({ "stream": true }))).await;
    drop(queued);
    let line = line(&server).await;
    assert_eq!((&line["outcome"], &line["prompt_tokens"]), (&json!("client_gone"), &json!(PROMPT.len())));
    assert_eq!((&line["completion_tokens"], &line["prefill_ms"]), (&json!(0), &json!(0.0)));
    assert!(line["queue_ms"].as_f64() > Some(0.0), "{line}");
    drop(stream);
}

#[tokio::test]
async fn the_choices_of_a_whole_answer_share_their_prompt() {
    let server = Server::start(&SETTINGS).await;
    server.post(PATH, text_body(PROMPT, json!({ "max_tokens": 7, "n": 3 }))).await.ok();
    let line = line(&server).await;
    assert_eq!(assert_billed(&line, "completed"), 21);
}

#[tokio::test]
async fn fields_that_nobody_reads_are_named_and_cannot_forge_a_line() {
    let server = Server::start(&[]).await;
    server.post(PATH, text_body("a", json!({ "temprature": 0.5, "user\nforged": "secret" }))).await.ok();
    let line = server.log_line(&["request finished", PATH]).await;
    assert!(line.contains(r#"ignored="temprature (temperature?), user\nforged""#), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[tokio::test]
async fn probes_and_starts_are_no_news() {
    let server = Server::start(&[]).await;
    for path in ["/livez", "/readyz", "/v1/models"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    server.log_line(&["request finished", "/v1/models"]).await;
    let log = server.log();
    assert!(!log.contains("/livez") && !log.contains("/readyz") && !log.contains("actor started"), "{log}");
}
