//! Who goes first: priorities, service tiers, keys that share, and the permits they may hold.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Event, Stream, soon};
use crate::expected::{after, choice_text, chunks_text, text_body};
use crate::failures::running;
use crate::server::Server;

const PATH: &str = "/v1/completions";
const ONE_PLACE: &str = "scheduler.max_batch_size=1";

fn keyed(key: &str, body: &Value) -> Ask {
    Ask::post(PATH, body).header("x-api-key", key)
}

/// A stream of `tokens` tokens in this class that has said something.
async fn running_in(server: &Server, priority: i32, prompt: &str, tokens: u32) -> Stream {
    let body = text_body(prompt, json!({ "max_tokens": tokens, "stream": true, "priority": priority }));
    let mut stream = server.stream(PATH, body).await;
    stream.chunk().await.expect("it runs");
    stream
}

/// Waits until so many requests are queued.
async fn queued(server: &Server, count: u64) {
    let all_there = async {
        loop {
            let scheduler = server.get("/actors/cllm%2Fengine-0%2Fscheduler-0").await.ok();
            if scheduler["state"]["waiting"] == count {
                return;
            }
        }
    };
    soon("requests are queued", all_there).await;
}

#[tokio::test]
async fn better_classes_go_first_and_in_a_class_the_first_to_come() {
    let server = Server::start(&[ONE_PLACE, "backend.fake.step_time_us=3000"]).await;
    let first = running_in(&server, -1000, "holds the place", 4000).await;
    let mut answers = FuturesUnordered::new();
    for (waiting, (name, fields)) in (1..).zip([
        ("last", json!({ "priority": 7 })),
        ("flex", json!({ "service_tier": "flex", "priority": null })),
        ("ordinary", json!({})),
        ("ordinary too", json!({ "service_tier": "auto" })),
        ("urgent", json!({ "service_tier": "priority" })),
        ("most urgent", json!({ "priority": -101 })),
    ]) {
        let body = crate::expected::merge(text_body(name, json!({ "max_tokens": 50 })), fields);
        let path = if name == "last" { "/generate" } else { PATH };
        let pending = server.begin(path, &body);
        answers.push(async move { (name, pending.answer().await) });
        queued(&server, waiting).await;
    }
    drop(first);
    let mut order = Vec::new();
    while let Some((name, answer)) = answers.next().await {
        let answer = answer.ok();
        let text = answer["data"]["text"].as_str().map_or_else(|| choice_text(&answer, 0), str::to_owned);
        assert!(text == after(name, 50) || name == "last", "{answer}");
        order.push(name);
    }
    assert_eq!(order, ["most urgent", "urgent", "ordinary", "ordinary too", "last", "flex"]);
}

/// A long answer in a bad class is under way when a short one in a better class comes.
async fn overtakes(settings: &[&str], prompt: &str) {
    let server = Server::start(&[&["backend.fake.step_time_us=2000"], settings].concat()).await;
    let long = server.begin(PATH, &text_body("long and patient", json!({ "max_tokens": 3000, "priority": 10 })));
    soon("it runs", async {
        while server.get("/actors/cllm%2Fengine-0%2Fbackend-0").await.ok()["state"]["steps"].as_u64() < Some(20) {}
    })
    .await;
    let urgent = server.post(PATH, text_body(prompt, json!({ "max_tokens": 20 }))).await.ok();
    assert!(!long.is_answered(), "it had to wait");
    assert_eq!(choice_text(&urgent, 0), after(prompt, 20));
    let long = long.answer().await.ok();
    assert_eq!(choice_text(&long, 0), after("long and patient", 3000));
    assert_eq!((&long["usage"]["completion_tokens"], &long["resumed"]), (&json!(3000), &json!(null)));
}

#[tokio::test]
async fn a_better_class_takes_the_place_of_a_worse_one_and_nothing_of_it_is_lost() {
    overtakes(&[ONE_PLACE], "urgent").await;
}

#[tokio::test]
async fn a_better_class_takes_the_cells_of_a_worse_one_and_nothing_of_it_is_lost() {
    overtakes(&["backend.fake.n_ctx=3100"], &"urgent".repeat(505)).await;
}

/// Keeps this many requests with this key under way until told to stop, each of 40 tokens; counts the answers.
async fn keep_busy(server: &Server, key: &str, at_once: usize, stop: &AtomicBool, answered: &AtomicUsize) {
    let worker = async |worker: usize| {
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let prompt = format!("{key} {worker} {round}");
            let answer = server.ask(keyed(key, &text_body(&prompt, json!({ "max_tokens": 40 })))).await.ok();
            assert_eq!(choice_text(&answer, 0), after(&prompt, 40));
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    join_all((0..at_once).map(worker)).await;
}

#[tokio::test]
async fn a_key_gets_its_half_while_another_one_floods() {
    let settings = ["server.api_keys=[flood, light]", "scheduler.max_batch_size=4", "backend.fake.step_time_us=2000"];
    let server = Server::start(&settings).await;
    let (stop, flood, light) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let measured = async {
        let at_least = async |count: usize| {
            while light.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
            (light.load(Ordering::Relaxed), flood.load(Ordering::Relaxed))
        };
        let (light_before, flood_before) = at_least(10).await;
        let (light_after, flood_after) = at_least(90).await;
        stop.store(true, Ordering::Relaxed);
        let (light, flood) = (light_after - light_before, flood_after - flood_before);
        // All requests have as many tokens.
        light as f64 / (light + flood) as f64
    };
    let flooding = keep_busy(&server, "flood", 60, &stop, &flood);
    let light_load = keep_busy(&server, "light", 8, &stop, &light);
    let (_, share) = soon("both are served", join(join(flooding, light_load), measured)).await;
    assert!((0.4..=0.6).contains(&share), "the light key got {share} of the tokens");
}

#[tokio::test]
async fn a_key_at_its_share_is_refused_and_the_others_are_not() {
    let settings = ["server.api_keys=[one, other]", "scheduler.max_queue=5", "backend.fake.step_time_us=20000"];
    let server = Server::start(&settings).await;
    let long = |prompt: &str| text_body(prompt, json!({ "max_tokens": 3000, "stream": true }));
    let never = server.ask(keyed("one", &text_body("n", json!({ "n": 3 })))).await;
    assert_eq!((never.status.as_u16(), &never.json()["error"]["param"]), (400, &json!("n")));
    let mut held = Vec::new();
    for number in 0..2 {
        held.push(server.open(keyed("one", &long(&format!("held {number}")))).await);
    }
    assert!(held.iter().all(|stream| stream.status == 200));
    let refused = server.ask(keyed("one", &long("too much"))).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert!(refused.body.contains("this API key is at its limit of 2"), "{}", refused.body);
    assert_wait(&refused);
    let other = server.open(keyed("other", &long("not my flood"))).await;
    assert_eq!(other.status, 200);
}

/// A 429 says when to come back, twice.
fn assert_wait(refused: &Answer) {
    let seconds: u64 = refused.header("retry-after").parse().expect("whole seconds");
    let milliseconds: u64 = refused.header("retry-after-ms").parse().expect("milliseconds");
    assert!((1..=60).contains(&seconds) && milliseconds.div_ceil(1000) == seconds, "{seconds} s, {milliseconds} ms");
}

#[tokio::test]
async fn a_full_server_has_a_place_in_reserve_for_better_classes() {
    let server = Server::start(&["scheduler.max_queue=2", "backend.fake.step_time_us=20000"]).await;
    let _one = running(&server, "one", 3000).await;
    let _two = running(&server, "two", 3000).await;
    let ask = |priority: i32| text_body("short", json!({ "max_tokens": 2, "priority": priority }));
    for priority in [0, 1, 1000] {
        let refused = server.post(PATH, ask(priority)).await;
        assert_eq!(refused.status, 429);
        assert_wait(&refused);
    }
    assert_eq!(choice_text(&server.post(PATH, ask(-1)).await.ok(), 0), after("short", 2));
}

#[tokio::test]
async fn a_queued_stream_is_told_its_true_place() {
    let server = Server::start(&[ONE_PLACE, "backend.fake.step_time_us=20000", "server.api_keys=[a, b]"]).await;
    let stream = |key: &'static str, prompt: &'static str, priority: i32| {
        keyed(key, &text_body(prompt, json!({ "max_tokens": 3000, "stream": true, "priority": priority })))
    };
    let mut first = server.open(stream("a", "runs", 0)).await;
    first.chunk().await.expect("it runs");
    // The other key has been served nothing, so it goes before what came earlier from this one; worse classes go last.
    let asks = [("a", "second", 0), ("a", "third", 0), ("b", "of the other key", 0), ("b", "worse", 5)];
    let mut streams = Vec::new();
    for (key, prompt, priority) in asks {
        streams.push(server.open(stream(key, prompt, priority)).await);
    }
    for (stream, place) in streams.iter_mut().zip(["queued 1", "queued 2", "queued 0", "queued 3"]) {
        let told = async { while stream.event().await.expect("it waits") != Event::Comment(place.to_owned()) {} };
        soon(place, told).await;
    }
}

#[tokio::test]
async fn a_key_has_its_priority_and_asks_for_nothing_better() {
    let keys = ["server.api_keys=[gold, plain]", "server.api_key_priorities=[-100]"];
    let server = Server::start(&[&keys[..], &[ONE_PLACE, "backend.fake.step_time_us=2000"]].concat()).await;
    let mut plain =
        server.open(keyed("plain", &text_body("plain", json!({ "max_tokens": 3000, "stream": true })))).await;
    let first = plain.chunk().await.expect("it runs");
    let answer = server.ask(keyed("gold", &text_body("gold", json!({ "max_tokens": 20 })))).await.ok();
    assert_eq!((choice_text(&answer, 0), &answer["service_tier"]), (after("gold", 20), &json!(null)));

    let mut chunks = vec![first];
    chunks.extend(plain.chunks().await);
    assert_eq!(chunks_text(&chunks, 0), after("plain", 3000));

    for (key, asked, tier) in [
        ("gold", "auto", "priority"),
        ("gold", "flex", "flex"),
        ("plain", "priority", "default"),
        ("plain", "auto", "default"),
    ] {
        let body =
            |stream: bool| text_body("tier", json!({ "max_tokens": 2, "service_tier": asked, "stream": stream }));
        assert_eq!(server.ask(keyed(key, &body(false))).await.ok()["service_tier"], tier, "{key} {asked}");
        let chunks = server.open(keyed(key, &body(true))).await.chunks().await;
        assert!(chunks.iter().all(|chunk| chunk["service_tier"] == tier), "{key} {asked}: {chunks:?}");
    }

    for (path, body) in [
        (PATH, text_body("x", json!({ "priority": -1 }))),
        ("/v1/chat/completions", json!({ "messages": [{ "role": "user", "content": "x" }], "priority": -1 })),
    ] {
        let refused = server.ask(Ask::post(path, &body).header("x-api-key", "plain")).await;
        let error = &refused.json()["error"];
        assert_eq!((refused.status.as_u16(), &error["param"]), (400, &json!("priority")));
        assert_eq!(error["code"], "priority_not_allowed");
    }
    let refused = server
        .ask(Ask::post("/generate", &json!({ "prompt": "x", "priority": -1 })).header("x-api-key", "plain"))
        .await;
    assert_eq!((refused.status.as_u16(), &refused.json()["success"]), (400, &json!(false)));
}
