//! Faults at random under a mixed load: every request ends once, with exactly its tokens, whatever is hit comes back, and
//! nothing is left behind.
//!
//! A short run is part of the tests. Longer ones are set by the environment: `CLLM_CHAOS_SECONDS` of faults,
//! `CLLM_CHAOS_SEED`, `CLLM_CHAOS_INTERVAL_MS` between two faults, `CLLM_CHAOS_ENGINE` (`fake`, or `llama` for the model of
//! `make setup`, whose texts cannot be foretold: their tokens are counted). `--nocapture` shows the figures.

mod books;
mod footprint;
mod load;

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use self::books::Books;
use self::footprint::{Footprint, Process};
use self::load::Load;
use crate::client::{Ask, soon};
use crate::server::{MODEL, Server};

/// Requests in the system at most; more than the load has at once.
const QUEUE: usize = 64;

/// The load before the first fault: by then every thread, buffer and pool that a load needs is there.
const WARM_UP: Duration = Duration::from_secs(2);

/// What memory may grow by. Kept for good are the last 1024 events and the last 16 restarts of each actor, well under
/// 1 MiB; the rest is the allocator's, whose arenas keep what a burst took. A leak of 10 kB a fault would break it in ten minutes.
const GROWTH_KIB: u64 = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Fake,
    Llama,
}

struct Options {
    engine: Engine,
    seed: u64,
    faults: Duration,
    interval_ms: u64,
}

impl Options {
    fn of_environment() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
        };
        let engine = match std::env::var("CLLM_CHAOS_ENGINE").as_deref() {
            Err(_) | Ok("fake") => Engine::Fake,
            Ok("llama") => Engine::Llama,
            Ok(other) => panic!("CLLM_CHAOS_ENGINE is `fake` or `llama`, not `{other}`"),
        };
        let interval_ms = if engine == Engine::Fake { 300 } else { 1500 };
        Self {
            engine,
            seed: number("CLLM_CHAOS_SEED").unwrap_or(7),
            faults: Duration::from_secs(number("CLLM_CHAOS_SECONDS").unwrap_or(8)),
            interval_ms: number("CLLM_CHAOS_INTERVAL_MS").unwrap_or(interval_ms),
        }
    }

    async fn server(&self) -> Server {
        let chaos = format!("chaos.seed={}", self.seed);
        let interval = format!("chaos.interval_ms={}", self.interval_ms);
        let queue = format!("scheduler.max_queue={QUEUE}");
        let mut settings = vec!["server.admin_keys=[boss]", "logging.format=json", &chaos, &interval, &queue];
        match self.engine {
            Engine::Fake => {
                settings.extend([
                    "backend.fake.host=process",
                    "backend.fake.step_time_us=2000",
                    "backend.watchdog_ms=2000",
                ]);
                Server::start(&settings).await
            }
            Engine::Llama => {
                settings.extend(["backend.watchdog_ms=4000", "model.max_context_length=512"]);
                Server::start_with(&["--engine", "process", "--model", MODEL], &settings).await
            }
        }
    }
}

/// Leaves the server's log behind, for whoever has to find out what went wrong.
struct KeptLog<'a> {
    server: &'a Server,
    engine: Engine,
}

impl Drop for KeptLog<'_> {
    fn drop(&mut self) {
        let path = format!("{}/chaos-{:?}.log", env!("CARGO_TARGET_TMPDIR"), self.engine);
        if let Err(error) = std::fs::write(&path, self.server.log()) {
            eprintln!("{path}: {error}");
        }
    }
}

/// Has the faults stop or go on.
async fn chaos(server: &Server, action: &str) {
    let ask = Ask::new(Method::POST, &format!("/actors/chaos/{action}"));
    server.ask(ask.header("x-api-key", "boss")).await.ok();
}

async fn actor(server: &Server, path: &str) -> Value {
    server.ask(Ask::get(&format!("/actors/{path}")).header("x-api-key", "boss")).await.ok()
}

/// Until nothing runs and everybody is up.
async fn at_rest(server: &Server) {
    soon("everything at rest", async {
        loop {
            let scheduler = actor(server, "engine-0/scheduler-0").await;
            let open = actor(server, "sessions").await["state"]["open"].clone();
            let idle = [&scheduler["state"]["running"], &scheduler["state"]["waiting"], &open].map(|count| count == 0);
            if idle == [true; 3] && server.get("/readyz").await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_hit_no_request_loses_or_repeats_a_token_and_all_comes_back() {
    let options = Options::of_environment();
    let server = options.server().await;
    let _log = KeptLog { server: &server, engine: options.engine };
    chaos(&server, "pause").await;
    let mut load = Load::new(&server, options.engine, options.seed);
    load.run(WARM_UP).await;
    at_rest(&server).await;
    let before = Footprint::of(server.pid());

    chaos(&server, "resume").await;
    load.run(options.faults).await;
    chaos(&server, "pause").await;
    // Faults that wait for their victim's next message get one.
    load.run(Duration::from_millis(300)).await;
    at_rest(&server).await;

    load.every_request_ended_once(&server.log());
    // All permits are back: they can be had at once.
    let prompts: Vec<_> = (0..QUEUE).map(|number| format!("permit {number}")).collect();
    let all = json!({ "prompt": prompts, "temperature": 0, "max_tokens": 1 });
    server.ask(Ask::post("/v1/completions", &all).header("x-api-key", "boss")).await.ok();

    let books = Books::of(&server.log());
    let tree = server.ask(Ask::get("/actors").header("x-api-key", "boss")).await.ok();
    books.balance(&tree);
    let after = soon("handles, threads and processes as before", before.returns(server.pid())).await;
    println!("{books}\n{load}\nbefore {before}\nafter  {after}");
    let grown = |before: &Process, after: &Process| after.resident_kib.saturating_sub(before.resident_kib);
    assert!(grown(&before.server, &after.server) <= GROWTH_KIB, "before {before}, after {after}");
    // What a real engine has of its KV buffers in memory is what its life has used of them.
    if options.engine == Engine::Fake {
        let children = before.children.iter().zip(&after.children);
        assert!(children.map(|(before, after)| grown(before, after)).all(|kib| kib <= GROWTH_KIB), "{before}; {after}");
    }
    let expected = options.faults.as_millis() as u64 / options.interval_ms / 3;
    assert!(books.faults() as u64 > expected, "too few faults to show anything: {books}");
}
