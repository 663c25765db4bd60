//! Ten times more than the server can do: what it takes on it finishes in time, the rest is refused at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, soon};
use crate::expected::{after, choice_text, text_body};
use crate::server::{Pending, Server};

const PATH: &str = "/v1/completions";

/// Of each request. Four run at once and a step takes 10 ms, so ten are answered in a second.
const TOKENS: u32 = 40;

/// A hundred in a second come for five seconds.
const WAVES: usize = 50;
const WAVE: usize = 10;
const WAVE_INTERVAL: Duration = Duration::from_millis(100);

const TIMEOUT_MS: u32 = 6000;

fn body(prompt: &str, fields: Value) -> Value {
    crate::expected::merge(text_body(prompt, json!({ "max_tokens": TOKENS })), fields)
}

fn prompt(wave: usize, number: usize) -> String {
    format!("request {number} of wave {wave}")
}

/// The code of an error.
fn code(answer: &Answer) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn far_beyond_its_capacity_a_server_finishes_what_it_takes_on_and_refuses_the_rest_at_once() {
    let server = Server::start(&["scheduler.max_batch_size=4", "backend.fake.step_time_us=10000"]).await;
    // By then it knows how fast it is.
    let warm_up: Vec<_> = (0..20).map(|number| format!("warm up {number}")).collect();
    let warm_up = json!({ "prompt": warm_up, "temperature": 0, "max_tokens": TOKENS });
    server.post(PATH, warm_up).await.ok();

    let mut load: Vec<(String, Pending)> = Vec::new();
    let mut urgent = Vec::new();
    let mut waves = tokio::time::interval(WAVE_INTERVAL);
    for wave in 0..WAVES {
        waves.tick().await;
        for number in 0..WAVE {
            let prompt = prompt(wave, number);
            let pending = server.begin(PATH, &body(&prompt, json!({ "timeout_ms": TIMEOUT_MS })));
            load.push((prompt, pending));
        }
        if wave % 10 == 9 {
            let prompt = format!("urgent in wave {wave}");
            let pending = server.begin(PATH, &body(&prompt, json!({ "priority": -1 })));
            urgent.push((prompt, pending));
        }
    }
    for (prompt, pending) in urgent {
        assert_eq!(choice_text(&pending.answer().await.ok(), 0), after(&prompt, TOKENS as usize));
    }
    let (mut answered, mut refused, mut late) = (0, 0, 0);
    for (prompt, pending) in load {
        let answer = pending.answer().await;
        match answer.status.as_u16() {
            200 => {
                assert_eq!(choice_text(&answer.json(), 0), after(&prompt, TOKENS as usize));
                answered += 1;
            }
            429 => {
                assert_eq!(code(&answer), "rate_limit_exceeded");
                assert!((1..=60).contains(&answer.header("retry-after").parse::<u32>().expect("whole seconds")));
                assert!(answer.body.contains("the queue is too long"), "{}", answer.body);
                refused += 1;
            }
            408 => {
                assert!(answer.body.contains("deadline exceeded: queue"), "it had a place: {}", answer.body);
                late += 1;
            }
            other => panic!("{other}: {}", answer.body),
        }
    }
    println!("{answered} answered, {refused} refused, {late} too late");
    assert!(refused > answered, "that was no overload: {answered} answered, {refused} refused");
    // A queue as long as the permits let it be would have let more than half of all wait in vain.
    assert!(answered > late, "{answered} answered, {late} waited in vain");
    let again = server.post(PATH, body("afterwards", json!({ "timeout_ms": TIMEOUT_MS }))).await.ok();
    assert_eq!(choice_text(&again, 0), after("afterwards", TOKENS as usize));
}

#[tokio::test]
async fn where_all_at_once_are_too_slow_for_their_deadlines_fewer_run_at_once() {
    // Sixteen at once take 3.2 s each, and eight 1.6.
    let server = Server::start(&["backend.fake.token_time_us=5000"]).await;
    let answered = AtomicUsize::new(0);
    let client = async |client: usize| {
        for round in 0.. {
            if answered.load(Ordering::Relaxed) >= 30 {
                return;
            }
            let prompt = prompt(client, round);
            let answer = server.post(PATH, body(&prompt, json!({ "timeout_ms": 2500 }))).await;
            match answer.status.as_u16() {
                200 => {
                    assert_eq!(choice_text(&answer.json(), 0), after(&prompt, TOKENS as usize));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                429 => tokio::time::sleep(WAVE_INTERVAL).await,
                other => assert_eq!(other, 408, "{}", answer.body),
            }
        }
    };
    soon("thirty answers", join_all((0..16).map(client))).await;
    let places = server.get("/actors/engine-0/scheduler-0").await.ok()["state"]["places"].as_u64();
    assert!((1..16).contains(&places.expect("shown")), "{places:?}");
}
