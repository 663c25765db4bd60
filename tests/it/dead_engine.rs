//! An engine that dies in every start: its model is taken away, and comes back.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::client::soon;
use crate::engine_process::pid;
use crate::expected::text_body;
use crate::server::{MODEL, Server, signal};

const PATH: &str = "/v1/completions";

/// A name for the model that can be taken away.
struct Link(PathBuf);

impl Link {
    fn new() -> Self {
        let link =
            Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dead-engine-{}.gguf", std::process::id())));
        link.put();
        link
    }

    fn put(&self) {
        std::os::unix::fs::symlink(MODEL, &self.0).expect("the folder for temporary files is ours");
    }

    fn take(&self) {
        std::fs::remove_file(&self.0).expect("it is there");
    }

    fn as_str(&self) -> &str {
        self.0.to_str().expect("our paths are UTF-8")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Not there when the test failed half-way.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn an_engine_that_dies_in_every_start_is_held_says_why_and_recovers_with_its_cause() {
    let model = Link::new();
    let settings = [
        "backend.llama_cpp.n_ctx=512",
        "supervision.engine.max_restarts=2",
        "supervision.engine.backoff_min_ms=10",
        "supervision.engine.hold_ms=3000",
    ];
    let server = Server::start_with(&["--engine", "process", "--model", model.as_str()], &settings).await;
    let waiting = server.begin(PATH, &text_body("Once upon a time", json!({ "max_tokens": 400, "ignore_eos": true })));
    model.take();
    signal(pid(&server, 1).await, "KILL").await;

    let why = soon("the engine is held", async {
        loop {
            let ready = server.get("/readyz").await;
            if ready.json()["status"] == "engine_down" {
                return ready;
            }
        }
    })
    .await;
    assert_eq!(why.status, 503);
    assert!(why.json()["cause"].as_str().is_some_and(|cause| cause.contains(model.as_str())), "{}", why.body);
    let ended = waiting.answer().await;
    let refused = server.post(PATH, text_body("hi", json!({}))).await;
    for answer in [ended, refused] {
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (503, &json!("engine_down")));
        let seconds = answer.header("retry-after").parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| (1..=3).contains(&seconds)), "{}", answer.header("retry-after"));
    }
    assert_eq!(server.get("/livez").await.status, 200);

    model.put();
    soon("ready again", async { while server.get("/readyz").await.status != 200 {} }).await;
    let answer = server.post(PATH, text_body("The capital of France is", json!({ "max_tokens": 4 }))).await.ok();
    assert_eq!(answer["usage"]["completion_tokens"], 4);
}
