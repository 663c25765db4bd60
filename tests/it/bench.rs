//! `cllm bench` against the real server with the fake engine, and against servers that fail.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::client::soon;
use crate::server::Server;

/// Room for a prompt of 2,000 words, each of whose bytes is a token of the fake engine.
const ROOMY: &[&str] =
    &["backend.fake.max_context_length=40000", "backend.fake.n_ctx=400000", "backend.fake.token_time_us=20"];

/// Runs `cllm bench`; its output and its JSON report.
async fn bench(name: &str, url: &str, arguments: &[&str]) -> (Output, Value) {
    let json = report_path(&format!("{name}.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    command.args(["bench", "--url", url, "--json"]).arg(&json).args(arguments).stdin(Stdio::null());
    let output = soon("the end of the bench", command.kill_on_drop(true).output()).await.expect("it starts");
    let report = std::fs::read_to_string(&json).unwrap_or_default();
    (output, serde_json::from_str(&report).unwrap_or_default())
}

fn report_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"))
}

fn url(server: &Server) -> String {
    format!("http://{}/v1/", server.address)
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn measure<'r>(scenario: &'r Value, name: &str) -> &'r Value {
    let measures = scenario["measures"].as_array().expect("a list");
    let found = measures.iter().find(|measure| measure["name"] == name);
    &found.unwrap_or_else(|| panic!("no {name} in {measures:?}"))["value"]
}

#[tokio::test]
async fn every_scenario_runs_and_counts_every_request() {
    let server = Server::start(ROOMY).await;
    let scenarios = "seed-sequential,seed-concurrent,throughput,shared-prefix,repeat,long-prompt,mixed,contention";
    let html = report_path("all.html");
    let arguments =
        ["--scenario", scenarios, "--rounds", "2", "--concurrency", "2", "--requests", "4", "--max-tokens", "30"];
    let arguments = [arguments.as_slice(), &["--targets", "--html", html.to_str().expect("UTF-8")]].concat();
    let (output, report) = bench("all", &url(&server), &arguments).await;
    let table = succeeded(&output);
    assert!(table.contains("no request failed") && table.contains("not measured"), "{table}");

    let names: Vec<&str> = scenarios.split(',').collect();
    let found = report["scenarios"].as_array().expect("a list");
    assert_eq!(found.iter().map(|scenario| scenario["name"].as_str().unwrap_or_default()).collect::<Vec<_>>(), names);
    let requests = |place: usize, case: usize| &found[place]["cases"][case]["sides"][0]["requests"];
    let expected = [(0, 0, 8), (1, 0, 8), (2, 0, 8), (3, 0, 8), (4, 0, 2), (4, 1, 10), (5, 0, 4), (5, 1, 2), (6, 0, 8)];
    for (place, case, count) in expected {
        assert_eq!(requests(place, case), &json!(count), "{} case {case}", names[place]);
    }
    // 4 requests of 30 tokens in each of 2 rounds.
    assert_eq!(found[2]["cases"][0]["sides"][0]["completion_tokens"], 240);
    let rows = found[0]["seed_table"]["rows"].as_array().expect("a list");
    let counted = rows.iter().find(|row| row["name"] == "completion tokens (counted)").expect("the honest row");
    assert_eq!((&counted["measured"][0], &counted["published_after"]), (&json!(120.0), &json!(500.0)));
    assert!(measure(&found[4], "repeated_share")["median"].as_f64() > Some(0.0));
    assert!(measure(&found[5], "gap_max_over_median")["median"].as_f64() >= Some(1.0));
    assert!(measure(&found[7], "beside_over_alone")["rounds"].as_array().is_some_and(|rounds| rounds.len() == 2));
    assert!(report["machine"]["cores"].as_u64() >= Some(1) && report["servers"][0]["model"] == "fake");
    assert!(std::fs::read_to_string(html).expect("it was written").contains("<svg"));
}

#[tokio::test]
async fn two_servers_take_turns_and_are_compared() {
    let fast = Server::start(&["backend.fake.step_time_us=200"]).await;
    let slow = Server::start(&["backend.fake.step_time_us=100000"]).await;
    let second = url(&slow);
    let arguments = ["--url", &second, "--scenario", "throughput,repeat@2", "--rounds", "3", "--concurrency", "2"];
    let notes = ["--note", "the fast one", "--note", "the slow one"];
    let arguments = [arguments.as_slice(), &["--requests", "2", "--max-tokens", "10"], &notes].concat();
    let (output, report) = bench("two", &url(&fast), &arguments).await;
    assert!(succeeded(&output).contains("(fake), the fast one\n"));
    assert_eq!(report["servers"][1]["note"], "the slow one");
    let ratio = &report["scenarios"][0]["cases"][0]["ratios"][0];
    assert_eq!((&ratio["server"], ratio["tokens_per_second"]["rounds"].as_array().map(Vec::len)), (&json!(1), Some(3)));
    assert!(ratio["tokens_per_second"]["min"].as_f64() > Some(1.5), "{ratio}");
    let alone = report["scenarios"][1]["cases"][0]["sides"].as_array().expect("a list");
    assert_eq!((alone.len(), &alone[0]["server"]), (1, &json!(1)), "`@2` means the second URL alone");
}

#[tokio::test]
async fn a_round_fills_each_place_twice_with_at_least_ten_requests() {
    let server = Server::start(&[]).await;
    let arguments = ["--scenario", "throughput,contention", "--rounds", "1", "--max-tokens", "4"];
    let (output, report) =
        bench("refill", &url(&server), &[arguments.as_slice(), &["--concurrency", "1,2,8"]].concat()).await;
    succeeded(&output);
    let requests = |scenario: usize, case: usize| {
        let case = &report["scenarios"][scenario]["cases"][case];
        (case["at_once"].as_u64(), case["sides"][0]["requests"].as_u64())
    };
    let found = [requests(0, 0), requests(0, 1), requests(0, 2), requests(1, 0), requests(1, 1)];
    assert_eq!(found, [(1, 10), (2, 10), (8, 16), (10, 20), (10, 20)].map(|(n, m)| (Some(n), Some(m))));
}

#[tokio::test]
async fn an_open_loop_sends_at_its_rate_whatever_the_server_does() {
    // 16 places of 0.4 s each: 50 requests per second are more than it can serve.
    let server = Server::start(&["backend.fake.step_time_us=40000"]).await;
    let arguments = ["--scenario", "throughput", "--rate", "50", "--rounds", "1", "--requests", "50"];
    let (output, report) =
        bench("rate", &url(&server), &[arguments.as_slice(), &["--max-tokens", "10"]].concat()).await;
    succeeded(&output);
    let case = &report["scenarios"][0]["cases"][0];
    assert_eq!((&case["rate"], &case["at_once"]), (&json!(50.0), &Value::Null));
    let side = &case["sides"][0];
    assert_eq!(side["requests"], 50);
    let (alone, worst) = (side["answer_ms"]["min"].as_f64(), side["answer_ms"]["max"].as_f64());
    assert!(worst > alone.map(|alone| 1.2 * alone), "a queue grew, because nobody waited for answers: {side}");
    assert_eq!(report["scenarios"][0]["measures"], json!([]), "no claim that the server was saturated");
}

#[tokio::test]
async fn a_rate_is_refused_where_there_is_no_open_loop() {
    for scenario in ["repeat", "throughput,contention", "capacity"] {
        let arguments = ["--scenario", scenario, "--rate", "5"];
        let (output, _) = bench("rate-refused", "http://127.0.0.1:1", &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = scenario.rsplit(',').next().expect("a name");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("`{name}` has no open loop")), "{said}");
    }
}

#[tokio::test]
async fn capacity_starts_its_own_servers_and_reads_their_cpu_time() {
    let server = Server::start(&[]).await;
    let arguments = ["--scenario", "capacity", "--rounds", "1", "--concurrency", "20", "--max-tokens", "40"];
    let (output, report) = bench("capacity", &url(&server), &arguments).await;
    succeeded(&output);
    let scenario = &report["scenarios"][0];
    for (case, host) in ["process", "thread"].into_iter().enumerate() {
        let case = &scenario["cases"][case];
        assert_eq!(case["label"], format!("20 streams, engine in a {host}"));
        assert_eq!(case["sides"][0]["completion_tokens"], 800);
        assert_eq!(case["sides"][0]["server"], Value::Null, "not the server of the URL");
    }
    for name in ["cpu_per_token", "cpu_per_token_process_host"] {
        assert!(measure(scenario, name)["median"].as_f64().is_some_and(|cost| cost >= 0.0));
    }
}

#[tokio::test]
async fn survival_kills_the_engine_and_finds_no_token_lost() {
    let server = Server::start(&["backend.fake.host=process", "backend.fake.step_time_us=5000"]).await;
    let pid = server.pid().to_string();
    let arguments = ["--scenario", "survival", "--server-pid", &pid, "--rounds", "1", "--concurrency", "4"];
    let (output, report) = bench("survival", &url(&server), &arguments).await;
    succeeded(&output);
    let scenario = &report["scenarios"][0];
    assert_eq!(measure(scenario, "kills")["median"], 1.0);
    assert_eq!(measure(scenario, "wrong_tokens")["max"], 0.0);
    assert_eq!(measure(scenario, "same_text")["min"], 100.0, "the fake engine's arithmetic is exact");
}

#[tokio::test]
async fn failed_requests_are_shown_and_end_with_1() {
    let server = Server::start(&["scheduler.max_queue=1", "backend.fake.step_time_us=5000"]).await;
    let arguments = ["--scenario", "throughput", "--rounds", "1", "--concurrency", "4", "--requests", "4"];
    let (output, report) = bench("refused", &url(&server), &arguments).await;
    assert_eq!(output.status.code(), Some(1));
    let side = &report["scenarios"][0]["cases"][0]["sides"][0];
    let refused = side["failures"]["status 429 rate_limit_exceeded"].as_u64().expect("some were refused");
    assert_eq!((side["failed"].as_u64(), &side["requests"]), (Some(refused), &json!(4)));
    assert_eq!(report["failed_requests"], json!(refused));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILED [1]"));
}

#[tokio::test]
async fn a_cut_stream_and_an_answer_that_is_too_short_are_failures() {
    let chunk = |rest: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}{rest}}}]}}\n\n");
    let cut = chunk("");
    let short = format!("{}data: [DONE]\n\n", chunk(",\"finish_reason\":\"stop\""));
    for (name, body, reason) in [("cut", cut, "the stream was cut"), ("short", short, "fewer tokens than asked for")] {
        let url = canned(body).await;
        let arguments = ["--scenario", "throughput", "--rounds", "1", "--concurrency", "1", "--requests", "2"];
        let (output, report) = bench(name, &url, &arguments).await;
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert_eq!(report["scenarios"][0]["cases"][0]["sides"][0]["failures"], json!({ reason: 2 }));
    }
}

#[tokio::test]
async fn a_livez_that_stalls_counts_and_one_that_is_not_there_does_not() {
    let arguments = ["--scenario", "throughput", "--rounds", "2", "--concurrency", "8", "--accept-short"];
    let body = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n";
    let (output, report) = bench("stalls", &canned_with(body.to_owned(), Livez::Stalls).await, &arguments).await;
    succeeded(&output);
    let livez = measure(&report["scenarios"][0], "livez_p99");
    assert_eq!(livez["rounds"].as_array().map(Vec::len), Some(2), "{livez}");
    let (output, report) = bench("none", &canned(body.to_owned()).await, &arguments).await;
    succeeded(&output);
    assert_eq!(report["scenarios"][0]["measures"], json!([]));
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closes_is_no_failure() {
    let url = canned("data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n".to_owned()).await;
    let arguments = ["--scenario", "throughput", "--rounds", "1", "--concurrency", "1", "--requests", "3"];
    let (output, report) = bench("kept", &url, &[arguments.as_slice(), &["--accept-short"]].concat()).await;
    succeeded(&output);
    let side = &report["scenarios"][0]["cases"][0]["sides"][0];
    assert_eq!((&side["requests"], &side["failed"]), (&json!(3), &json!(0)));
    // The close may be seen before the next request goes out; then there is nothing to send again.
    assert!(side["resent"].as_u64().is_some_and(|count| (1..=3).contains(&count)), "counted: {side}");
}

#[tokio::test]
async fn wrong_options_end_with_2_and_a_server_that_is_not_there_with_1() {
    let code = async |url: &str, arguments: &[&str]| bench("wrong", url, arguments).await.0.status.code();
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let gone = format!("http://{}", nobody.local_addr().expect("it is bound"));
    drop(nobody);
    assert_eq!(code(&gone, &["--scenario", "throughput"]).await, Some(1));
    assert_eq!(code("https://127.0.0.1", &["--scenario", "throughput"]).await, Some(2));
    assert_eq!(code(&gone, &["--scenario", "throughputt"]).await, Some(2));
    assert_eq!(code(&gone, &["--scenario", "mixed@2"]).await, Some(2));
    assert_eq!(code(&gone, &["--scenario", "survival"]).await, Some(2));
    assert_eq!(code(&gone, &["--scenario", "mixed", "--note", "a", "--note", "b"]).await, Some(2));
    assert_eq!(code(&gone, &["--scenario", "mixed", "--rounds", "0"]).await, Some(2));
}

#[tokio::test]
async fn a_server_that_loads_its_model_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    // It loads for two questions, and can do nothing else.
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.expect("it listens");
            let Some(request) = read_request(&mut socket).await else { continue };
            let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
            let status = if asked.len() < 2 { "503 Service Unavailable" } else { "404 Not Found" };
            asked.push(path);
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = socket.write_all(head.as_bytes()).await;
            if asked.len() == 4 {
                return asked;
            }
        }
    });
    let (output, _) = bench("loading", &url, &["--scenario", "throughput", "--rounds", "1", "--requests", "1"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("{url} is not ready: waiting")), "{said}");
    let asked = soon("four questions", asked).await.expect("no panic");
    assert_eq!(asked, ["/readyz", "/readyz", "/readyz", "/v1/models"]);
}

#[tokio::test]
async fn the_burner_ends_with_whoever_started_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    let mut burner = command.arg("burn-one-core").stdin(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
    assert!(burner.try_wait().expect("it is our child").is_none(), "it burns");
    // What the kernel does to the pipe of a process that was killed.
    drop(burner.stdin.take());
    assert!(soon("the end of the burner", burner.wait()).await.expect("it is our child").success());
}

/// A server that knows nothing, answers every `POST` with this stream, and closes its connections without a word when
/// the second request has come. Returns its URL.
async fn canned(body: String) -> String {
    canned_with(body, Livez::Missing).await
}

/// What `/livez` of such a server does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Livez {
    /// It is a 404.
    Missing,
    /// It answers once; later it takes the question and says nothing.
    Stalls,
}

async fn canned_with(body: String, livez: Livez) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let asked = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (body, asked) = (body.clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                let Some(request) = read_request(&mut socket).await else { return };
                let alive = livez == Livez::Stalls && request.starts_with(b"GET /livez");
                if alive && asked.swap(true, Ordering::Relaxed) {
                    read_request(&mut socket).await;
                    return;
                }
                let (status, kind, body) = if request.starts_with(b"POST") {
                    ("200 OK", "text/event-stream", body.as_str())
                } else if alive {
                    ("200 OK", "text/plain", "")
                } else {
                    ("404 Not Found", "text/plain", "")
                };
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
                read_request(&mut socket).await;
            });
        }
    });
    url
}

/// A whole request; `None` if the connection ends first.
async fn read_request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut bytes = [0; 4096];
        match socket.read(&mut bytes).await {
            Ok(count @ 1..) => request.extend_from_slice(&bytes[..count]),
            _ => return None,
        }
    }
    Some(request)
}

/// Whether a request is there with its body: closing before it is read would reset the connection.
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    body.len() >= length
}
