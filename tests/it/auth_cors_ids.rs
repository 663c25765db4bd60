//! Who may call, from which web pages, and how a request is found again in the log.

use hyper::Method;
use serde_json::{Value, json};

use crate::client::Ask;
use crate::expected::{chat_body, text_body};
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";
const PAGE: &str = "https://chat.example";

/// A path with something in its places.
fn path(pattern: &str) -> String {
    pattern.replace("{id}", "default").replace("{path}", "http").replace("{action}", "restart")
}

/// All routes, as the server lists them.
async fn routes(server: &Server, key: &str) -> Vec<(Method, String)> {
    let index = server.ask(Ask::get("/").header("x-api-key", key)).await.ok();
    let routes = index["data"]["endpoints"].as_array().expect("a list").iter().map(|route| {
        let text = |name: &str| route[name].as_str().expect("a text").to_owned();
        (text("method").parse().expect("a method"), path(&text("path")))
    });
    routes.collect()
}

#[tokio::test]
async fn with_keys_configured_only_the_probes_and_the_page_are_open() {
    let server = Server::start(&["server.api_keys=[first-key, second-key]"]).await;
    let routes = routes(&server, "second-key").await;
    assert!(routes.len() >= 16, "{routes:?}");
    for (method, path) in routes {
        let answer = server.ask(Ask::new(method.clone(), &path)).await;
        if ["/livez", "/readyz", "/ui"].contains(&path.as_str()) {
            assert_eq!(answer.status, 200, "{path}");
            continue;
        }
        assert_eq!(answer.status, 401, "{method} {path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let body = answer.json();
        let cllm_shape = body["success"] == json!(false) && body["error"].is_string();
        assert!(body["error"]["code"] == "invalid_api_key" || cllm_shape, "{path}: {body}");
        for (name, value) in
            [("authorization", "Bearer wrong"), ("x-api-key", ""), ("authorization", "Basic first-key")]
        {
            let answer = server.ask(Ask::new(method.clone(), &path).header(name, value)).await;
            assert_eq!(answer.status, 401, "{method} {path} with {name}: {value}");
        }
    }
    assert_eq!(server.get("/v1/nothing").await.status, 404);
    for (name, value) in
        [("authorization", "Bearer first-key"), ("authorization", "bearer second-key"), ("x-api-key", "first-key")]
    {
        let ask = Ask::post(CHAT, &chat_body("hi", json!({ "max_tokens": 2 })));
        assert_eq!(server.ask(ask.header(name, value)).await.ok()["usage"]["completion_tokens"], 2);
    }
    assert!(!server.log().contains("first-key"), "keys stay out of the log");
}

#[tokio::test]
async fn the_request_id_goes_in_and_out_and_into_the_log() {
    let server = Server::start(&[]).await;
    let good = Ask::post(CHAT, &chat_body("hi", json!({ "max_tokens": 2 }))).header("x-request-id", "mine-1");
    let stream =
        Ask::post(CHAT, &chat_body("hi", json!({ "stream": true, "max_tokens": 2 }))).header("x-request-id", "mine-2");
    let bad = Ask::post(CHAT, &json!({})).header("x-request-id", "mine-3");
    for (ask, id, outcome) in [(good, "mine-1", "completed"), (stream, "mine-2", "completed"), (bad, "mine-3", "error")]
    {
        let answer = server.ask(ask).await;
        assert_eq!(answer.header("x-request-id"), id);
        let line = server.log_line(&[id, "request finished"]).await;
        assert!(line.contains(outcome) && line.contains(CHAT), "{line}");
    }
    let own = server.get("/v1/models").await;
    assert!(own.header("x-request-id").starts_with("req-"));
    server.log_line(&[own.header("x-request-id"), "/v1/models"]).await;
    let insane = server.ask(Ask::get("/livez").header("x-request-id", "has spaces in it")).await;
    assert!(insane.header("x-request-id").starts_with("req-"));
}

#[tokio::test]
async fn a_json_log_has_one_line_with_the_bill_for_each_request() {
    let server = Server::start(&["logging.format=json", "server.api_keys=[key]"]).await;
    let ask = Ask::post("/v1/completions", &text_body("count me", json!({ "max_tokens": 5 })));
    server.ask(ask.header("x-request-id", "billed").header("x-api-key", "key")).await.ok();
    let line = server.log_line(&["billed", "request finished"]).await;
    let line: Value = serde_json::from_str(&line).expect("a line is a JSON object");
    for (name, value) in [
        ("level", json!("INFO")),
        ("request_id", json!("billed")),
        ("status", json!(200)),
        ("outcome", json!("completed")),
        ("prompt_tokens", json!(8)),
        ("completion_tokens", json!(5)),
        ("cached_tokens", json!(0)),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    for name in ["duration_ms", "queue_ms", "prefill_ms", "decode_ms"] {
        assert!(line[name].is_number(), "{name}: {line}");
    }
    assert_eq!(line["tenant"].as_str().map(str::len), Some(8), "{line}");
    assert!(!server.log().contains("count me"), "prompts stay out of the log");
}

fn preflight(origin: &str) -> Ask {
    Ask::new(Method::OPTIONS, CHAT)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization, content-type")
}

#[tokio::test]
async fn by_default_no_page_may_call() {
    let server = Server::start(&[]).await;
    let call = Ask::post(CHAT, &chat_body("hi", json!({ "max_tokens": 1 }))).header("origin", PAGE);
    for answer in [server.ask(preflight(PAGE)).await, server.ask(call).await] {
        assert!(answer.status.is_success());
        assert_eq!(answer.header("access-control-allow-origin"), "");
        assert_eq!(answer.header("access-control-allow-methods"), "");
    }
}

#[tokio::test]
async fn a_configured_page_may_call_and_others_may_not() {
    let server = Server::start(&["server.cors_origins=[\"https://chat.example\"]", "server.api_keys=[key]"]).await;
    let allowed = server.ask(preflight(PAGE)).await;
    assert_eq!(allowed.status, 204, "browsers send no key with a preflight");
    assert_eq!(allowed.header("access-control-allow-origin"), PAGE);
    assert_eq!(allowed.header("access-control-allow-methods"), "POST, OPTIONS");
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization, content-type");
    let other = server.ask(preflight("https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), "");
    assert_eq!(other.header("access-control-allow-methods"), "");

    let call = |key: &str, body: Value| Ask::post(CHAT, &body).header("origin", PAGE).header("x-api-key", key);
    let body = chat_body("hi", json!({ "max_tokens": 1 }));
    for (ask, status) in [(call("key", body.clone()), 200), (call("key", json!({})), 400), (call("no", body), 401)] {
        let answer = server.ask(ask).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (status, PAGE));
        assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
        assert_eq!(answer.header("vary"), "origin");
    }
}

#[tokio::test]
async fn a_star_lets_every_page_call() {
    let server = Server::start(&["server.cors_origins=[\"*\"]"]).await;
    assert_eq!(server.ask(preflight(PAGE)).await.header("access-control-allow-origin"), "*");
    let listed = server.ask(Ask::get("/v1/models").header("origin", PAGE)).await;
    assert_eq!(listed.header("access-control-allow-origin"), "*");
}
