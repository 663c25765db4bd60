//! The engine in a process of its own: whatever ends it, no request ends with it.

use std::path::Path;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Ask, PATIENCE, Stream, soon};
use crate::expected::{after, choice_text, chunks_text, text_body};
use crate::failures::running;
use crate::server::{MODEL, Pending, Server, signal};

const PATH: &str = "/v1/completions";

/// Slow enough that everything here happens in mid-stream.
const STEP: &str = "backend.fake.step_time_us=5000";

async fn server(settings: &[&str]) -> Server {
    Server::start(&[&["backend.fake.host=process", STEP], settings].concat()).await
}

/// The real model in a process.
async fn real(settings: &[&str]) -> Server {
    Server::start_with(&["--engine", "process", "--model", MODEL], settings).await
}

/// The engine process that was started as number `count`.
pub(crate) async fn pid(server: &Server, count: usize) -> u32 {
    soon("an engine process", async {
        loop {
            let log = server.log();
            let mut pids = log.lines().filter_map(|line| line.split("engine process started pid=").nth(1));
            match pids.nth(count - 1).and_then(|pid| pid.trim().parse().ok()) {
                Some(pid) => return pid,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

pub(crate) fn exists(pid: u32) -> bool {
    // A zombie is still listed, and would be a defect.
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Whether it does anything: an orphan that has ended is listed until the machine's first process takes note.
fn computes(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until the scheduler has at least so many requests that are `running` or `waiting`.
async fn scheduler_shows(server: &Server, what: &str, least: u64) {
    soon(what, async {
        while server.get("/actors/engine-0/scheduler-0").await.ok()["state"][what].as_u64() < Some(least) {}
    })
    .await;
}

/// So many streams of 1,000 tokens that have begun.
async fn streams(server: &Server, count: usize) -> Vec<(String, Stream, Vec<Value>)> {
    join_all((0..count).map(async |number| {
        let prompt = format!("stream {number}");
        let (stream, chunks) = running(server, &prompt, 1000).await;
        (prompt, stream, chunks)
    }))
    .await
}

/// Every stream ends with exactly its text. Returns how often they say they were resumed.
async fn all_are_whole(streams: Vec<(String, Stream, Vec<Value>)>) -> Vec<u64> {
    join_all(streams.into_iter().map(async |(prompt, mut stream, mut chunks)| {
        chunks.extend(stream.chunks().await);
        assert_eq!(chunks_text(&chunks, 0), after(&prompt, 1000), "{prompt}");
        chunks.last().map_or(0, |last| last["resumed"].as_u64().unwrap_or(0))
    }))
    .await
}

#[tokio::test]
async fn kill_9_of_the_engine_costs_no_stream_a_token() {
    let server = server(&[]).await;
    let running = streams(&server, 16).await;
    let waiting = server.begin(PATH, &text_body("whole", json!({ "max_tokens": 50, "n": 2, "echo": true })));
    scheduler_shows(&server, "waiting", 1).await;
    let killed = pid(&server, 1).await;
    signal(killed, "KILL").await;
    let resumed = all_are_whole(running).await;
    assert_eq!(resumed, [1; 16]);
    let answer = waiting.answer().await.ok();
    for choice in 0..2 {
        assert_eq!(choice_text(&answer, choice), format!("whole{}", after("whole", 50)));
    }
    assert_eq!(answer["usage"]["completion_tokens"], 100);
    server.log_line(&["signal 9"]).await;
    let backend = server.get("/actors/engine-0/backend-0").await.ok();
    let cause = backend["restarts"][0]["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("ended by signal 9"), "{cause}");
    assert!(!exists(killed), "no zombie is left");
    assert_ne!(pid(&server, 2).await, killed);
}

#[tokio::test]
async fn choices_that_are_computed_each_go_on_each() {
    let server = server(&[]).await;
    let fields = json!({ "max_tokens": 400, "n": 2, "seed": 7, "temperature": 1.0, "stream": true });
    // Equal ones would share one sequence.
    let ask = Ask::post(PATH, &text_body("both", fields)).header("cache-control", "no-store");
    let mut stream = server.open(ask).await;
    let mut chunks = Vec::new();
    while (0..2).any(|choice| chunks_text(&chunks, choice).len() < 5) {
        chunks.push(stream.chunk().await.expect("both run"));
    }
    let killed = pid(&server, 1).await;
    signal(killed, "KILL").await;
    chunks.extend(stream.chunks().await);
    for choice in 0..2 {
        assert_eq!(chunks_text(&chunks, choice), after("both", 400), "choice {choice}");
    }
    assert_eq!(chunks.last().and_then(|last| last["resumed"].as_u64()), Some(2), "both were");
}

#[tokio::test]
async fn draws_and_penalties_go_on_where_they_were() {
    let server = server(&["backend.fake.undecided=true"]).await;
    let ask = |seed: usize| {
        let fields = json!({
            "max_tokens": 400, "seed": seed, "temperature": 1.3, "top_p": 0.98, "repeat_penalty": 1.1,
            "presence_penalty": 0.4, "frequency_penalty": 0.1, "dry_multiplier": 0.5, "stream": true,
        });
        Ask::post(PATH, &text_body("drawn", fields)).header("cache-control", "no-store")
    };
    let mut streams = join_all((0..8).map(async |seed| server.open(ask(seed)).await)).await;
    let begun = join_all(streams.iter_mut().map(async |stream| stream.chunk().await.expect("it runs"))).await;
    signal(pid(&server, 1).await, "KILL").await;
    let text = async |stream: &mut Stream, mut chunks: Vec<Value>| {
        chunks.extend(stream.chunks().await);
        (chunks_text(&chunks, 0), chunks.last().and_then(|last| last["resumed"].as_u64()))
    };
    let cut = streams.iter_mut().zip(begun).map(async |(stream, first)| text(stream, vec![first]).await);
    let cut = join_all(cut).await;
    let calm = join_all((0..8).map(async |seed| text(&mut server.open(ask(seed)).await, Vec::new()).await.0)).await;
    assert!(cut.iter().all(|(text, resumed)| (text.len(), *resumed) == (400, Some(1))), "{cut:?}");
    let mut texts: Vec<_> = cut.into_iter().map(|(text, _)| text).collect();
    assert_eq!(texts, calm);
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 8, "other seeds draw other texts");
}

#[tokio::test]
async fn an_echo_that_is_cut_in_its_prompt_is_whole() {
    let slow = ["scheduler.tuner=static", "scheduler.step_tokens=16", "backend.fake.step_time_us=20000"];
    let server = Server::start(&[&["backend.fake.host=process"], &slow[..]].concat()).await;
    let prompt = "a prompt that is long enough to be cut in its middle ".repeat(20);
    let fields = json!({ "max_tokens": 20, "echo": true, "logprobs": 2 });
    let ask = || Ask::post(PATH, &text_body(&prompt, fields.clone())).header("cache-control", "no-store");
    let cut = server.begin_ask(ask());
    soon("some of the prompt is read", async {
        while server.get("/actors/engine-0/backend-0").await.ok()["state"]["cells_used"].as_u64() < Some(40) {}
    })
    .await;
    let killed = pid(&server, 1).await;
    assert!(!cut.is_answered(), "it was to be cut");
    signal(killed, "KILL").await;
    let answer = cut.answer().await.ok();
    let calm = server.ask(ask()).await.ok();
    assert_eq!(answer["choices"], calm["choices"]);
    assert_eq!((&answer["usage"]["completion_tokens"], &answer["resumed"]), (&json!(20), &json!(1)));
    assert_ne!(pid(&server, 2).await, killed);
}

#[tokio::test]
async fn the_engine_process_is_set_up_to_fail_well() {
    let server = server(&["backend.llama_cpp.spin=77"]).await;
    let pid = pid(&server, 1).await;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs");
    let limits = read("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("listed");
    assert!(core.split_whitespace().nth(4) == Some("0"), "no core file of gigabytes: {core}");
    let own: i32 =
        std::fs::read_to_string("/proc/self/oom_score_adj").expect("Linux").trim().parse().expect("a number");
    assert_eq!(read("oom_score_adj").trim(), (own + 500).min(1000).to_string(), "it goes before its server");
    let environment = read("environ");
    assert!(
        ["GGML_NO_BACKTRACE=1", "GOMP_SPINCOUNT=77"].iter().all(|set| environment.split('\0').any(|had| had == *set))
    );
    let stat = read("stat");
    let group = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(2));
    assert_eq!(group, Some(&*pid.to_string()), "a terminal's Ctrl-C is not for it");
}

#[tokio::test]
async fn an_engine_that_stands_still_is_replaced_by_the_watchdog() {
    let server = server(&["backend.watchdog_ms=2000"]).await;
    let running = streams(&server, 4).await;
    let stopped = pid(&server, 1).await;
    signal(stopped, "STOP").await;
    assert_eq!(all_are_whole(running).await, [1; 4]);
    server.log_line(&["killed by the watchdog"]).await;
    assert!(!exists(stopped));
}

#[tokio::test]
async fn a_request_that_hangs_every_engine_is_refused_and_the_others_go_on() {
    let server = server(&["backend.watchdog_ms=500", "backend.fake.hang=HANG"]).await;
    let running = streams(&server, 3).await;
    let hang = server.begin(PATH, &text_body("HANG", json!({})));
    all_are_whole(running).await;
    let refused = hang.answer().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (500, &json!("engine_crashed")));
    let answer = server.post(PATH, text_body("afterwards", json!({ "max_tokens": 9 }))).await.ok();
    assert_eq!(choice_text(&answer, 0), after("afterwards", 9));
}

#[tokio::test]
async fn a_hung_decode_is_found_however_much_is_tokenized_meanwhile() {
    let server = server(&["backend.watchdog_ms=500", "backend.fake.hang=HANG"]).await;
    let hang = server.begin(PATH, &text_body("HANG", json!({})));
    let tokenizing = async {
        while !hang.is_answered() {
            // While the engine is replaced the answer comes late, or says that it is down.
            server.post("/tokenize", json!({ "content": "busy" })).await;
        }
    };
    soon("the hung decode is found", tokenizing).await;
    let refused = hang.answer().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (500, &json!("engine_crashed")));
}

#[tokio::test]
async fn a_long_load_is_no_hang() {
    let server = server(&["backend.watchdog_ms=1000", "backend.fake.load_time_ms=1500"]).await;
    let answer = server.post(PATH, text_body("patience", json!({ "max_tokens": 9 }))).await.ok();
    assert_eq!(choice_text(&answer, 0), after("patience", 9));
    assert!(!server.log().contains("watchdog"), "{}", server.log());
}

#[tokio::test]
async fn a_long_step_of_the_real_model_is_no_hang() {
    let settings = ["backend.watchdog_ms=250", "scheduler.tuner=static", "scheduler.step_tokens=2048"];
    let server = real(&settings).await;
    let prompt: Vec<u32> = (0..1900).map(|at| 1000 + at * 7 % 20_000).collect();
    let body = json!({ "prompt": prompt, "max_tokens": 2, "temperature": 0, "ignore_eos": true });
    let answer = server.post(PATH, body).await.ok();
    assert_eq!(answer["usage"]["completion_tokens"], 2);
    let longest = answer["timings"]["prompt_ms"].as_f64().expect("measured");
    assert!(longest > 250.0, "that was no long step: {longest} ms");
    assert!(!server.log().contains("watchdog"), "{}", server.log());
}

#[tokio::test]
async fn what_an_engine_said_last_is_in_the_cause_of_its_restart() {
    let server = server(&["backend.fake.poison=POISON"]).await;
    assert_eq!(server.post(PATH, text_body("POISON", json!({}))).await.status, 500);
    let backend = server.get("/actors/engine-0/backend-0").await.ok();
    let cause = backend["restarts"][0]["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("last words: "), "{backend}");
}

#[tokio::test]
async fn a_death_under_traffic_is_charged_and_its_cause_is_known() {
    let server = server(&["backend.fake.poison=POISON"]).await;
    let poison = server.begin(PATH, &text_body("POISON", json!({})));
    let tokenizing = async {
        let mut open: Vec<_> = Vec::new();
        while !poison.is_answered() {
            // Without waiting for answers, so that some find a dead engine whose end is not told yet.
            open.retain(|question: &Pending| !question.is_answered());
            if open.len() < 100 {
                open.push(server.begin("/tokenize", &json!({ "content": "busy" })));
            }
            server.get("/livez").await;
        }
    };
    soon("the poison is found", tokenizing).await;
    let refused = poison.answer().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (500, &json!("engine_crashed")));
    let backend = server.get("/actors/engine-0/backend-0").await.ok();
    let restarts = backend["restarts"].as_array().expect("a list");
    let causes: Vec<_> = restarts.iter().filter_map(|restart| restart["cause"].as_str()).collect();
    assert!(causes.len() == 3 && causes.iter().all(|cause| cause.contains("last words: ")), "{causes:?}");
}

#[tokio::test]
async fn the_engine_ends_with_a_server_that_is_killed() {
    let mut server = server(&["backend.fake.token_time_us=3000000"]).await;
    let _pending = server.begin(PATH, &text_body("in mid-decode", json!({})));
    scheduler_shows(&server, "running", 1).await;
    let engine = pid(&server, 1).await;
    server.signal("KILL").await;
    server.exit().await;
    let gone = async {
        while computes(engine) {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("no orphan is left");
}

#[tokio::test]
async fn a_stop_drains_and_takes_the_engine_along() {
    let mut server = server(&[]).await;
    let running = streams(&server, 2).await;
    let engine = pid(&server, 1).await;
    // What a process manager sends to all of a service's processes, and a terminal to its foreground group.
    signal(engine, "TERM").await;
    signal(engine, "INT").await;
    server.signal("TERM").await;
    assert_eq!(all_are_whole(running).await, [0; 2]);
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(!exists(engine));
}

#[tokio::test]
async fn a_word_of_90_kb_is_answered_or_refused_and_nothing_dies() {
    let word = "w".repeat(90_000);
    let fake = server(&[]).await;
    // Room enough that only the tokenizer can tell.
    let real = real(&["model.max_context_length=8192"]).await;
    for server in [&fake, &real] {
        let answer = server.post(PATH, text_body(&word, json!({ "max_tokens": 2 }))).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let tokens = server.post("/tokenize", json!({ "content": word })).await;
        assert!(matches!(tokens.status.as_u16(), 200 | 400), "{}", tokens.body);
        assert_eq!(server.get("/readyz").await.status, 200);
        assert_eq!(server.get("/actors/engine-0/backend-0").await.ok()["restarts"], json!([]));
    }
}
