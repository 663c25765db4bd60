//! Equal requests: an answer that is kept, one that is followed, and what a client can say about it.

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Stream, soon};
use crate::expected::{after, chat_body, choice_text, chunks_text, merge, reply, text_body};
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const CACHE: &str = "/actors/response-cache";

/// Slow enough that others can join in the middle.
const SLOW: &str = "backend.fake.step_time_us=5000";

fn cache_of(stream: &Stream) -> &str {
    stream.headers.get("x-cache").map_or("", |value| value.to_str().expect("ours are ASCII"))
}

/// An answer without what is different every time.
fn lasting(mut answer: Value) -> Value {
    for key in ["id", "created", "timings"] {
        answer.as_object_mut().expect("an object").remove(key);
    }
    if let Some(usage) = answer.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("prompt_tokens_details");
    }
    answer
}

async fn counters(server: &Server, key: &str) -> Value {
    server.ask(Ask::get(CACHE).header("x-api-key", key)).await.ok()["state"].clone()
}

#[tokio::test]
async fn the_same_request_again_is_answered_from_the_cache_in_every_dialect_and_delivery() {
    let server = Server::start(&[]).await;
    let logprobs = json!({ "max_tokens": 20, "logprobs": true, "top_logprobs": 2 });
    for (path, body) in [
        (CHAT, chat_body("twice", logprobs)),
        (TEXT, text_body("twice", json!({ "max_tokens": 20, "logprobs": 1, "echo": true }))),
        (TEXT, json!({ "prompt": ["one", "two"], "temperature": 0, "n": 2, "max_tokens": 5 })),
        (CHAT, chat_body("dice", json!({ "max_tokens": 5, "temperature": 1, "seed": 7, "n": 3 }))),
    ] {
        let first = server.post(path, body.clone()).await;
        let again = server.post(path, body.clone()).await;
        assert_eq!((first.header("x-cache"), again.header("x-cache")), ("miss", "hit"), "{body}");
        assert_eq!(lasting(again.ok()), lasting(first.ok()));
        let usage = &again.json()["usage"];
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"], "none was computed");
        assert_eq!(again.json()["timings"]["prompt_n"], 0);

        // The deliveries have the answer in common. A stream that was computed gives the same chunks again.
        let options = json!({ "stream": true, "stream_options": { "include_usage": true } });
        let streamed = merge(body.clone(), options);
        let mut kept = server.stream(path, streamed.clone()).await;
        assert_eq!(cache_of(&kept), "hit");
        let mut computed = server.open(Ask::post(path, &streamed).header("cache-control", "no-store")).await;
        assert_eq!(cache_of(&computed), "");
        let by_choice = |chunks: Vec<Value>| {
            let mut chunks: Vec<_> = chunks.into_iter().map(lasting).collect();
            chunks.sort_by_key(|chunk| chunk["choices"][0]["index"].as_u64());
            chunks
        };
        assert_eq!(by_choice(kept.chunks().await), by_choice(computed.chunks().await));
    }
}

#[tokio::test]
async fn cllms_own_endpoints_use_it_too() {
    let server = Server::start(&[]).await;
    let body = json!({ "prompt": "own dialect", "temperature": 0, "max_tokens": 12 });
    let first = server.post("/generate", body.clone()).await;
    let again = server.post("/generate", body.clone()).await;
    assert_eq!((first.header("x-cache"), again.header("x-cache")), ("miss", "hit"));
    assert_eq!(again.ok()["data"]["text"], first.ok()["data"]["text"]);
    let mut stream = server.stream("/generate_stream", body).await;
    assert_eq!(cache_of(&stream), "hit");
    let frames: Vec<Value> = stream.data().await.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    let text: String = frames.iter().filter_map(|frame| frame["token"].as_str()).collect();
    assert_eq!((json!(text), frames.len()), (first.json()["data"]["text"].clone(), 13));
    server.log_line(&["request finished", "cache=\"hit\""]).await;
}

#[tokio::test]
async fn a_client_can_go_past_the_cache() {
    let server = Server::start(&[]).await;
    let ask = async |control: Option<&'static str>, fields: Value| {
        let ask = Ask::post(CHAT, &chat_body("control", merge(json!({ "max_tokens": 5 }), fields)));
        let answer =
            server.ask(if let Some(control) = control { ask.header("cache-control", control) } else { ask }).await;
        assert_eq!(choice_text(&answer.ok(), 0), reply("control", 5));
        answer.header("x-cache").to_owned()
    };
    assert_eq!(ask(Some("no-store"), json!({})).await, "");
    assert_eq!(ask(None, json!({})).await, "miss", "no-store keeps nothing");
    assert_eq!(ask(None, json!({})).await, "hit");
    assert_eq!(ask(Some("max-age=0, No-Cache"), json!({})).await, "miss");
    assert_eq!(ask(Some("no-cache, no-store"), json!({})).await, "");
    assert_eq!(ask(None, json!({ "max_tokens": 5, "user": "whoever" })).await, "hit");
    // The fake engine is so sure of itself that temperature changes nothing but this.
    assert_eq!(ask(None, json!({ "temperature": 1 })).await, "", "nothing determines the answer");
    assert_eq!(ask(None, json!({ "temperature": 1, "seed": 3 })).await, "miss");

    let off = Server::start(&["cache.enabled=false"]).await;
    for _ in 0..2 {
        assert_eq!(off.post(CHAT, chat_body("off", json!({ "max_tokens": 5 }))).await.header("x-cache"), "");
    }
    assert_eq!(off.get(CACHE).await.status, 404);
}

#[tokio::test]
async fn no_key_sees_what_another_one_asked() {
    let server = Server::start(&["server.api_keys=[one, two]"]).await;
    let ask = async |key: &'static str| {
        let body = text_body("a secret", json!({ "max_tokens": 5 }));
        server.ask(Ask::post(TEXT, &body).header("x-api-key", key)).await.header("x-cache").to_owned()
    };
    assert_eq!((ask("one").await.as_str(), ask("two").await.as_str()), ("miss", "miss"));
    assert_eq!((ask("one").await.as_str(), ask("two").await.as_str()), ("hit", "hit"));
}

#[tokio::test]
async fn an_answer_grows_old() {
    let server = Server::start(&["cache.ttl_s=1"]).await;
    let body = text_body("for a second", json!({ "max_tokens": 5 }));
    let cache = async || server.post(TEXT, body.clone()).await.header("x-cache").to_owned();
    assert_eq!(cache().await, "miss");
    soon("it is computed again", async { while cache().await == "hit" {} }).await;
}

#[tokio::test]
async fn equal_streams_at_once_are_computed_once_also_when_the_first_client_leaves() {
    let server = Server::start(&[SLOW]).await;
    let body = text_body("shared", json!({ "max_tokens": 300, "stream": true }));
    let mut first = server.stream(TEXT, body.clone()).await;
    assert_eq!(cache_of(&first), "miss");
    first.chunk().await.expect("it runs");
    let mut others = join_all((0..8).map(|_| server.stream(TEXT, body.clone()))).await;
    assert!(others.iter().all(|other| cache_of(other) == "coalesced"));
    drop(first);
    for text in join_all(others.iter_mut().map(async |other| chunks_text(&other.chunks().await, 0))).await {
        assert_eq!(text, after("shared", 300));
    }
    let state = counters(&server, "").await;
    assert_eq!([&state["misses"], &state["coalesced"], &state["entries"]], [&json!(1), &json!(8), &json!(1)]);
    assert!(state["bytes"].as_u64() > Some(300), "{state}");
    let whole = server.post(TEXT, merge(body, json!({ "stream": false }))).await;
    assert_eq!((whole.header("x-cache"), choice_text(&whole.ok(), 0)), ("hit", after("shared", 300)));
}

#[tokio::test]
async fn a_cache_that_is_killed_or_restarted_under_load_costs_no_request() {
    let server = Server::start(&["server.admin_keys=[boss]", "backend.fake.step_time_us=1000"]).await;
    let command = async |action: &str| -> Answer {
        let ask = Ask::new(Method::POST, &format!("{CACHE}/{action}")).header("x-api-key", "boss");
        server.ask(ask).await
    };
    let clients = join_all((0..12).map(async |client: usize| {
        for round in 0..12 {
            let prompt = format!("load {}", (client + round) % 5);
            let body = text_body(&prompt, json!({ "max_tokens": 60, "stream": client.is_multiple_of(2) }));
            let mut stream = server.open(Ask::post(TEXT, &body).header("x-api-key", "boss")).await;
            assert_ne!(cache_of(&stream), "");
            let text = match client % 2 {
                0 => chunks_text(&stream.chunks().await, 0),
                _ => choice_text(&stream.answer().await.ok(), 0),
            };
            assert_eq!(text, after(&prompt, 60), "client {client}, round {round}");
        }
    }));
    let faults = async {
        for action in ["kill", "restart", "kill"] {
            let answered = |state: &Value| {
                ["hits", "misses", "coalesced"].map(|key| state[key].as_u64()).into_iter().flatten().sum::<u64>()
            };
            let before = answered(&counters(&server, "boss").await);
            soon("more requests", async { while answered(&counters(&server, "boss").await) < before + 15 {} }).await;
            command(action).await.ok();
        }
    };
    tokio::join!(clients, faults);
    let restarts =
        async { server.ask(Ask::get(CACHE).header("x-api-key", "boss")).await.ok()["restarts_total"].clone() };
    assert!(restarts.await.as_u64() >= Some(2));
    let body = text_body("load 0", json!({ "max_tokens": 60 }));
    let hit = async {
        while server.ask(Ask::post(TEXT, &body).header("x-api-key", "boss")).await.header("x-cache") != "hit" {}
    };
    soon("a hit", hit).await;
}
