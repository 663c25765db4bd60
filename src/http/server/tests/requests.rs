//! One request at a time: routes, keys, bodies, ids, origins.

use std::time::Duration;

use cllm_actors::system::Status;
use serde_json::json;

use super::{Answer, TestServer, get};
use crate::http::auth::KeyRing;
use crate::http::context::HttpSettings;
use crate::http::cors::AllowedOrigins;

async fn server() -> TestServer {
    TestServer::start(HttpSettings::default()).await
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\nhost: x\nconnection: close\ncontent-length: {}\n{headers}\n{body}", body.len())
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_known_one_says_what_it_allows() {
    let server = server().await;
    let unknown = server.ask(&get("/nowhere")).await;
    assert_eq!((unknown.status(), unknown.code().as_str()), (404, "not_found"));
    let wrong = server.ask(&get("/json")).await;
    assert_eq!((wrong.status(), wrong.header("allow")), (405, Some("POST, OPTIONS")));
    assert_eq!(wrong.code(), "method_not_allowed");
    let seed = server.ask(&get("/seed")).await;
    assert_eq!((seed.status(), &seed.json()["success"]), (405, &json!(false)));
}

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let server = server().await;
    let whole = server.ask(&get("/livez")).await;
    let head = server.ask("HEAD /livez HTTP/1.1\nhost: x\nconnection: close\n\n").await;
    assert_eq!((head.status(), head.body()), (200, ""));
    assert_eq!(head.header("content-length").unwrap(), whole.body().len().to_string());
}

#[tokio::test]
async fn options_names_the_methods() {
    let answer = server().await.ask("OPTIONS /whoami/ HTTP/1.1\nhost: x\nconnection: close\n\n").await;
    assert_eq!((answer.status(), answer.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_415_or_400() {
    let server = server().await;
    let text = server.ask(&post("/json", "content-type: text/plain\n", "{}")).await;
    assert_eq!((text.status(), text.code().as_str()), (415, "unsupported_media_type"));
    let broken = server.ask(&post("/json", "content-type: application/json\n", "{")).await;
    assert_eq!((broken.status(), broken.code().as_str()), (400, "invalid_json"));
    let good = server.ask(&post("/json", "", "{\"a\":1}")).await;
    assert_eq!((good.status(), good.json()), (200, json!({"a": 1})));
}

#[tokio::test]
async fn a_chunked_body_is_counted_and_refused_over_the_limit() {
    let mut settings = HttpSettings::default();
    settings.body.max_bytes = 1000;
    let server = TestServer::start(settings).await;
    let head = "POST /json HTTP/1.1\nhost: x\nconnection: close\ntransfer-encoding: chunked\n\n";
    let chunk = format!("1f4\n{}\n", " ".repeat(500));
    let too_much = server.ask(&format!("{head}{}0\n\n", chunk.repeat(3))).await;
    assert_eq!((too_much.status(), too_much.code().as_str()), (413, "request_too_large"));
    let enough = server.ask(&format!("{head}{chunk}2\n{{}}\n0\n\n")).await;
    assert_eq!(enough.status(), 200);
    let announced = server.ask(&post("/json", "expect: 100-continue\n", &" ".repeat(1001))).await;
    assert_eq!(announced.status(), 413);
}

#[tokio::test]
async fn a_body_that_stalls_is_408() {
    let mut settings = HttpSettings::default();
    settings.body.deadline = Duration::from_millis(30);
    let server = TestServer::start(settings).await;
    let mut client = server.connect().await;
    client.send("POST /json HTTP/1.1\nhost: x\ncontent-length: 10\n\n{").await;
    let answer = client.rest().await;
    assert_eq!((answer.status(), answer.code().as_str()), (408, "body_timeout"));
}

#[tokio::test]
async fn with_keys_only_the_probes_are_open() {
    let keys = KeyRing::of_hashes([*blake3::hash(b"secret").as_bytes()]);
    let server = TestServer::start(HttpSettings { keys, ..HttpSettings::default() }).await;
    for open in ["/livez", "/readyz"] {
        assert_eq!(server.ask(&get(open)).await.status(), 200, "{open}");
    }
    for closed in ["/health", "/whoami", "/stream", "/panic"] {
        let answer = server.ask(&get(closed)).await;
        assert_eq!((answer.status(), answer.code().as_str()), (401, "invalid_api_key"), "{closed}");
    }
    let known = "GET /whoami HTTP/1.1\nhost: x\nconnection: close\nauthorization: Bearer secret\n\n";
    assert_eq!(server.ask(known).await.json()["tenant"].as_str().map(str::len), Some(8));
}

fn from_page(server_line: &str, more: &str) -> String {
    format!("{server_line} HTTP/1.1\nhost: x\nconnection: close\norigin: https://a.example\n{more}\n")
}

#[tokio::test]
async fn a_browser_gets_through_preflight_and_sees_errors_too() {
    let keys = KeyRing::of_hashes([*blake3::hash(b"secret").as_bytes()]);
    let origins = AllowedOrigins::These(vec!["https://a.example".to_owned()]);
    let server = TestServer::start(HttpSettings { keys, origins, ..HttpSettings::default() }).await;
    let asked = "access-control-request-method: POST\naccess-control-request-headers: authorization\n";
    let preflight = server.ask(&from_page("OPTIONS /json", asked)).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("authorization"));
    let refused = server.ask(&from_page("POST /json", "")).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://a.example"));
}

#[tokio::test]
async fn cors_is_off_by_default() {
    let answer = server().await.ask(&from_page("GET /whoami", "")).await;
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (200, None));
}

async fn ask_with_id(server: &TestServer, path: &str, id: &str) -> Answer {
    server.ask(&format!("GET {path} HTTP/1.1\nhost: x\nconnection: close\nx-request-id: {id}\n\n")).await
}

#[tokio::test]
async fn a_request_id_is_taken_if_sane_and_made_otherwise_on_errors_too() {
    let server = server().await;
    let taken = ask_with_id(&server, "/whoami", "trace-1").await;
    assert_eq!((taken.header("x-request-id"), taken.json()["id"].as_str()), (Some("trace-1"), Some("trace-1")));
    assert_eq!(ask_with_id(&server, "/nowhere", "trace-2").await.header("x-request-id"), Some("trace-2"));
    for insane in ["two words", &"x".repeat(129), ""] {
        let made = ask_with_id(&server, "/whoami", insane).await;
        assert!(made.header("x-request-id").unwrap().starts_with("req-"), "{insane}");
    }
    assert!(taken.header("openai-processing-ms").is_some());
}

#[tokio::test]
async fn a_handler_that_panics_is_a_500_for_its_own_request_only() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send("GET /panic HTTP/1.1\nhost: x\nx-request-id: p\n\n").await;
    let seen = client.until("internal_error").await;
    assert!(seen.starts_with("HTTP/1.1 500") && !seen.contains("on purpose"), "{seen}");
    client.send(&get("/livez")).await;
    assert!(client.rest().await.0.ends_with(r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn readiness_follows_the_actors() {
    let server = server().await;
    assert_eq!(server.ask(&get("/readyz")).await.status(), 200);
    server.status.send_replace(Status::Loading { progress: 0.25 });
    let loading = server.ask(&get("/readyz")).await;
    assert_eq!((loading.status(), loading.json()), (503, json!({"status": "loading", "progress": 0.25})));
    server.status.send_replace(Status::Restarting { cause: "killed".to_owned() });
    assert_eq!(server.ask(&get("/health")).await.json()["cause"], "killed");
    assert_eq!(server.ask(&get("/livez")).await.status(), 200);
}
