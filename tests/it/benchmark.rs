//! `/benchmark`: cLLM's load run inside the server.

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, soon};
use crate::server::{Server, signal};

const ADMIN: [&str; 2] = ["server.api_keys=[user]", "server.admin_keys=[boss]"];

fn ask(key: &str, body: &Value) -> Ask {
    Ask::post("/benchmark", body).header("x-api-key", key)
}

async fn run(server: &Server, body: Value) -> Answer {
    server.ask(ask("boss", &body)).await
}

#[tokio::test]
async fn an_admin_gets_honest_figures() {
    // 16 tokens of at least 2 ms each.
    let server = Server::start(&[ADMIN.as_slice(), &["backend.fake.step_time_us=2000"]].concat()).await;
    let body = json!({ "requests": 6, "concurrency": 2, "max_tokens": 16, "prompt": "count" });
    let answer = run(&server, body).await.ok();
    assert_eq!(answer["success"], true);
    let data = &answer["data"];
    assert_eq!(
        (&data["total_requests"], &data["successful_requests"], &data["failed_requests"]),
        (&json!(6), &json!(6), &json!(0))
    );
    let number = |name: &str| data[name].as_f64().unwrap_or_else(|| panic!("{name} in {data}"));
    assert!(number("min_response_time") >= 0.002 * number("avg_generated_tokens") * 0.5, "{data}");
    assert!(number("min_response_time") <= number("avg_response_time"));
    assert!(number("avg_response_time") <= number("max_response_time"));
    assert!(number("total_time") >= 3.0 * number("min_response_time"), "six, two at a time: {data}");
    let generated = 6.0 * number("avg_generated_tokens");
    assert!((number("avg_throughput") * number("total_time") - generated).abs() < 1e-6, "{data}");
    assert_eq!(number("total_tokens_processed"), generated + 6.0 * "count".len() as f64);
}

#[tokio::test]
async fn only_admins_may_run_it_and_nonsense_is_refused() {
    let server = Server::start(&ADMIN).await;
    assert_eq!(server.ask(ask("user", &json!({}))).await.status, 403);
    assert_eq!(server.ask(ask("nobody", &json!({}))).await.status, 401);
    assert_eq!(run(&server, json!({ "requests": 0 })).await.status, 400);
    let get = Ask::new(Method::GET, "/benchmark").header("x-api-key", "boss");
    assert_eq!(server.ask(get).await.status, 405);
    let open = Server::start(&[]).await;
    assert_eq!(open.post("/benchmark", json!({})).await.status, 403, "without admins nobody is one");
}

#[tokio::test]
async fn one_runs_at_a_time_and_it_ends_when_its_client_leaves() {
    let server = Server::start(&[ADMIN.as_slice(), &["backend.fake.step_time_us=5000"]].concat()).await;
    let body = json!({ "requests": 1000, "concurrency": 4, "max_tokens": 200, "temperature": 0 });
    let first = server.begin_ask(ask("boss", &body));
    while server.ask(Ask::get("/actors").header("x-api-key", "user")).await.ok()["totals"]["generated_tokens"] == 0 {}
    let second = run(&server, body.clone()).await;
    assert_eq!((second.status.as_u16(), &second.json()["success"]), (409, &json!(false)));
    drop(first);
    // As soon as the first one is gone, and long before it would have ended, another may run.
    let short = json!({ "requests": 1, "max_tokens": 1 });
    let after = loop {
        let answer = run(&server, short.clone()).await;
        if answer.status != 409 {
            break answer;
        }
    };
    assert_eq!(after.ok()["data"]["successful_requests"], 1);
}

#[tokio::test]
async fn while_the_engine_restarts_it_is_a_503() {
    let settings = ["backend.fake.host=process", "backend.fake.load_time_ms=3000"];
    let server = Server::start(&[ADMIN.as_slice(), &settings].concat()).await;
    let line = server.log_line(&["engine process started pid="]).await;
    let pid = line.split("pid=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a process");
    signal(pid, "KILL").await;
    soon("the restart", async { while server.get("/readyz").await.status == 200 {} }).await;
    let refused = run(&server, json!({})).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["success"]), (503, &json!(false)));
    assert_ne!(refused.header("retry-after"), "");
}
