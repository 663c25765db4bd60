//! The actors as an operator sees and commands them.

use futures_util::FutureExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{Answer, Ask, Event, Stream, soon};
use crate::expected::chat_body;
use crate::server::Server;

const SCHEDULER: &str = "cllm/engine-0/scheduler-0";
const ADMIN: &[&str] = &["server.api_keys=[user]", "server.admin_keys=[boss]"];

fn with_key(ask: Ask, key: &str) -> Ask {
    ask.header("x-api-key", key)
}

async fn get(server: &Server, path: &str) -> Answer {
    server.ask(with_key(Ask::get(path), "user")).await
}

async fn command(server: &Server, path: &str, key: &str) -> Answer {
    server.ask(with_key(Ask::new(Method::POST, path), key)).await
}

async fn feed(server: &Server, after: Option<&str>) -> Stream {
    let ask = with_key(Ask::get("/actors/events"), "user");
    let ask = if let Some(after) = after { ask.header("last-event-id", after) } else { ask };
    let mut feed = server.open(ask).await;
    assert_eq!(feed.status, 200);
    assert!(matches!(feed.event().await, Some(Event::Comment(_))), "the feed is open");
    feed
}

/// Reads the feed until these have happened to the scheduler, in this order; their ids and data.
async fn happened(feed: &mut Stream, kinds: &[&str]) -> Vec<(String, Value)> {
    let mut found: Vec<(String, Value)> = Vec::new();
    while found.len() < kinds.len() {
        let Event::Named { id, name, data } = feed.event().await.expect("the feed does not end") else { continue };
        let data: Value = serde_json::from_str(&data).expect("data is JSON");
        if name == kinds[found.len()] && data["path"] == SCHEDULER {
            assert_eq!((&data["kind"], &data["seq"]), (&json!(name), &json!(id.parse::<u64>().expect("a number"))));
            found.push((id, data));
        }
    }
    found
}

#[tokio::test]
async fn the_tree_is_there_as_json_and_as_a_drawing() {
    let server = Server::start(&[]).await;
    server.post("/v1/chat/completions", chat_body("hi", json!({ "max_tokens": 8 }))).await.ok();
    let tree = server.get("/actors").await.ok();
    let paths: Vec<_> = tree["actors"].as_array().expect("a list").iter().map(|actor| &actor["path"]).collect();
    for path in ["cllm", "cllm/engine-0", "cllm/engine-0/backend-0", SCHEDULER, "cllm/sessions", "cllm/http"] {
        assert!(paths.contains(&&json!(path)), "{path} in {paths:?}");
    }
    assert_eq!((&tree["status"]["state"], &tree["totals"]["generated_tokens"]), (&json!("ready"), &json!(8)));
    assert!(tree["totals"]["ttft_p50_us"].is_u64() && tree["captured_at_ms"].is_u64(), "{tree}");
    let drawing = server.get("/actors?format=text").await;
    assert!(drawing.header("content-type").starts_with("text/plain"));
    assert!(drawing.body.starts_with("cllm  running"), "{}", drawing.body);
    assert!(
        drawing.body.contains("├─ engine-0  running") && drawing.body.contains("│  └─ scheduler-0"),
        "{}",
        drawing.body
    );
    assert_eq!(server.get("/actors?format=svg").await.status, 400);
}

#[tokio::test]
async fn one_actor_is_found_by_either_path_and_another_is_a_404() {
    let server = Server::start(&[]).await;
    let http = server.get("/actors/cllm/http").await.ok();
    for key in
        ["path", "kind", "status", "epoch", "uptime_ms", "mailbox", "messages", "restarts", "last_error", "state"]
    {
        assert!(http.get(key).is_some(), "{key}: {http}");
    }
    for key in ["depth", "max", "oldest_wait_ms"] {
        assert!(http["mailbox"].get(key).is_some(), "mailbox.{key}: {http}");
    }
    for key in ["handled", "wait_p50_us", "wait_p99_us", "handle_p50_us", "handle_p99_us"] {
        assert!(http["messages"].get(key).is_some(), "messages.{key}: {http}");
    }
    assert_eq!((&http["kind"], &http["state"]["listening"]), (&json!("http"), &json!(true)));
    assert!(http["state"]["connections"].as_u64() >= Some(1), "{http}");
    assert_eq!(server.get("/actors/engine-0/scheduler-0").await.ok()["path"], SCHEDULER);
    let nobody = server.get("/actors/engine-0/nobody").await;
    assert_eq!((nobody.status.as_u16(), &nobody.json()["error"]["code"]), (404, &json!("actor_not_found")));
}

#[tokio::test]
async fn a_kill_and_its_repair_are_seen_live_and_again_by_their_numbers() {
    let server = Server::start(ADMIN).await;
    let mut live = feed(&server, None).await;
    let before = get(&server, "/actors/engine-0/scheduler-0").await.ok();
    let killed = command(&server, "/actors/engine-0/scheduler-0/kill", "boss").await.ok();
    assert_eq!(killed, json!({ "path": SCHEDULER, "action": "kill", "epoch": before["epoch"] }));
    let seen = happened(&mut live, &["killed", "failed", "restart_scheduled", "restarted"]).await;
    assert!(seen[3].1["epoch"].as_u64() > before["epoch"].as_u64());
    let mut again = feed(&server, Some(&seen[0].0)).await;
    assert_eq!(happened(&mut again, &["failed", "restart_scheduled", "restarted"]).await, seen[1..]);
    let after = get(&server, "/actors/engine-0/scheduler-0").await.ok();
    assert_eq!((&after["restarts_total"], &after["restarts"][0]["cause"]), (&json!(1), &json!("killed")));
    let mut foreign = feed(&server, Some("999999999")).await;
    let Some(Event::Named { name, data, .. }) = foreign.event().await else { panic!("no snapshot") };
    assert_eq!(name, "snapshot");
    assert!(data.contains(SCHEDULER));
}

#[tokio::test]
async fn commands_need_an_admin_and_make_sense() {
    let server = Server::start(ADMIN).await;
    for (path, key, status, code) in [
        ("/actors/http/restart", "user", 403, "admin_required"),
        ("/actors/http/restart", "nobody", 401, "invalid_api_key"),
        ("/actors/nobody/restart", "boss", 404, "actor_not_found"),
        ("/actors/http/explode", "boss", 404, "not_found"),
        ("/actors/inspector/pause", "boss", 409, "not_pausable"),
        ("/actors/cllm/restart", "boss", 409, "not_restartable"),
    ] {
        let answer = command(&server, path, key).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (status, &json!(code)), "{path}");
    }
    let open = Server::start(&[]).await;
    let answer = command(&open, "/actors/http/restart", "boss").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (403, &json!("admin_disabled")));
}

#[tokio::test]
async fn a_paused_scheduler_lets_requests_wait_until_it_is_resumed() {
    let server = Server::start(&["server.admin_keys=[boss]"]).await;
    let mut live = server.open(with_key(Ask::get("/actors/events"), "boss")).await;
    command(&server, "/actors/engine-0/scheduler-0/pause", "boss").await.ok();
    happened(&mut live, &["paused"]).await;
    let body = chat_body("hi", json!({ "max_tokens": 4, "stream": true }));
    let mut waiting = server.open(with_key(Ask::post("/v1/chat/completions", &body), "boss")).await;
    let tree = server.ask(with_key(Ask::get("/actors"), "boss")).await.ok();
    assert_eq!((&tree["totals"]["requests_running"], &tree["totals"]["requests_waiting"]), (&json!(0), &json!(1)));
    command(&server, "/actors/engine-0/scheduler-0/resume", "boss").await.ok();
    happened(&mut live, &["resumed"]).await;
    assert!(!waiting.chunks().await.is_empty());
}

#[tokio::test]
async fn a_paused_http_accepts_nobody_and_an_open_connection_resumes_it() {
    let server = Server::start(ADMIN).await;
    let mut open = Connection::to(&server).await;
    open.command("/actors/http/pause").await;
    let http = open.ask("GET", "/actors/http").await;
    assert!(http.contains(r#""listening":false"#) && http.contains(r#""status":"paused""#), "{http}");
    // The system takes the connection, the server does not.
    let mut waiting = Connection::to(&server).await;
    let mut answer = Box::pin(async move { waiting.ask("GET", "/livez").await });
    let livez = open.ask("GET", "/livez").await;
    assert!(livez.starts_with("HTTP/1.1 200"), "{livez}");
    assert!(answer.as_mut().now_or_never().is_none(), "answered by a paused server");
    open.command("/actors/http/resume").await;
    let answer = soon("the answer", answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(get(&server, "/actors/http").await.ok()["status"], "running");
}

#[tokio::test]
async fn whoever_cannot_pause_says_so() {
    let server = Server::start(ADMIN).await;
    let tree = get(&server, "/actors").await.ok();
    let paths = tree["actors"].as_array().expect("a list").iter().filter_map(|actor| actor["path"].as_str());
    for path in paths.filter(|path| !path.ends_with("/http") && *path != SCHEDULER) {
        for action in ["pause", "resume"] {
            let answer = command(&server, &format!("/actors/{path}/{action}"), "boss").await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["error"]["code"]),
                (409, &json!("not_pausable")),
                "{path}"
            );
        }
    }
}

/// A connection that stays open, for one request after the other.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn to(server: &Server) -> Self {
        Self(BufReader::new(TcpStream::connect(server.address).await.expect("it listens")))
    }

    async fn command(&mut self, path: &str) {
        let answer = self.ask("POST", path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Head and body of the answer.
    async fn ask(&mut self, method: &str, path: &str) -> String {
        let ask = format!("{method} {path} HTTP/1.1\r\nhost: cllm\r\nx-api-key: boss\r\n\r\n");
        self.0.write_all(ask.as_bytes()).await.expect("it reads");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).await.expect("text"), 0, "closed: {head}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a document");
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).await.expect("the whole body");
        head + &String::from_utf8(body).expect("JSON")
    }
}

#[tokio::test]
async fn an_engine_whose_budget_is_used_up_holds_and_an_admin_ends_the_hold() {
    let settings =
        ["server.admin_keys=[boss]", "supervision.engine.max_restarts=0", "supervision.engine.hold_ms=600000"];
    let server = Server::start(&settings).await;
    let mut live = server.open(with_key(Ask::get("/actors/events"), "boss")).await;
    command(&server, "/actors/engine-0/scheduler-0/kill", "boss").await.ok();
    happened(&mut live, &["killed", "failed", "gave_up"]).await;
    command(&server, "/actors/engine-0/scheduler-0/restart", "boss").await.ok();
    happened(&mut live, &["restarted"]).await;
}

#[tokio::test]
async fn an_actor_is_restarted_as_it_is_configured() {
    let kinds = ["supervision.restart.response_cache=temporary", "supervision.restart.kv_cache=transient"];
    let server = Server::start(&[ADMIN, &kinds].concat()).await;
    command(&server, "/actors/response-cache/kill", "boss").await.ok();
    command(&server, "/actors/engine-0/kv-cache-0/kill", "boss").await.ok();
    let restarts = async |path: &str| get(&server, path).await.ok()["restarts"].as_array().map_or(0, Vec::len);
    soon("a failure of the transient one is followed by a restart", async {
        while restarts("/actors/engine-0/kv-cache-0").await == 0 {}
    })
    .await;
    let restart = get(&server, "/actors/engine-0/kv-cache-0").await.ok()["restarts"][0].clone();
    assert!(["at", "cause", "backoff_ms"].iter().all(|key| restart.get(key).is_some()), "{restart}");
    assert_eq!(restarts("/actors/response-cache").await, 0);
    let answer =
        server.ask(with_key(Ask::post("/v1/chat/completions", &chat_body("hi", json!({ "max_tokens": 8 }))), "user"));
    assert_eq!(answer.await.ok()["usage"]["completion_tokens"], 8, "without a cache");
}
