//! The four failure stories as a client sees them: overload, a client that leaves, a stop with requests in flight, an
//! engine that dies.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Ask, Event, PATIENCE, Stream, soon};
use crate::expected::{after, choice_text, chunk_text, chunks_text, text_body};
use crate::server::{Pending, Server};

const PATH: &str = "/v1/completions";

/// Longest time for "at once" on a busy machine; what it is compared with takes far longer.
const AT_ONCE: Duration = Duration::from_secs(15);

/// Makes a request of 3,000 tokens take a minute.
const SLOW: &str = "backend.fake.step_time_us=20000";

fn long(prompt: &str) -> Value {
    text_body(prompt, json!({ "max_tokens": 3000 }))
}

/// A stream of up to `tokens` tokens that has said something.
pub(crate) async fn running(server: &Server, prompt: &str, tokens: u32) -> (Stream, Vec<Value>) {
    let mut stream = server.stream(PATH, text_body(prompt, json!({ "max_tokens": tokens, "stream": true }))).await;
    assert_eq!(stream.status, 200);
    let first = stream.chunk().await.expect("it runs");
    (stream, vec![first])
}

async fn rest(mut stream: Stream, mut chunks: Vec<Value>) -> String {
    chunks.extend(stream.chunks().await);
    chunks_text(&chunks, 0)
}

/// A request that is not answered for long, once it holds a permit that nothing is left of.
async fn occupy(server: &Server, body: Value) -> Pending {
    let occupied = async {
        loop {
            let pending = server.begin(PATH, &body);
            // A probe may hold the permit at the wrong moment; then the request itself is refused.
            while !pending.is_answered() {
                if probe(server).await == 429 {
                    return pending;
                }
            }
        }
    };
    soon("the last permit is taken", occupied).await
}

/// Status of a request that is over at once if it is admitted and runs.
async fn probe(server: &Server) -> u16 {
    server.post(PATH, text_body("probe", json!({ "max_tokens": 1 }))).await.status.as_u16()
}

/// Waits until a request is admitted, which must not take long.
async fn admitted_at_once(server: &Server) {
    let since = Instant::now();
    soon("a permit comes back", async { while probe(server).await == 429 {} }).await;
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_full_server_answers_429_and_finishes_what_it_admitted() {
    let server =
        Server::start(&["scheduler.max_queue=2", "scheduler.max_batch_size=1", "backend.fake.step_time_us=10000"])
            .await;
    let body = json!({ "prompt": ["one", "two"], "temperature": 0, "max_tokens": 300, "stream": true });
    let mut admitted = server.stream(PATH, body).await;
    let first = admitted.chunk().await.expect("it runs");
    for path in [PATH, "/v1/chat/completions"] {
        let message = json!([{ "role": "user", "content": "hi" }]);
        let refused = server.post(path, json!({ "prompt": "x", "messages": message, "stream": true })).await;
        assert_eq!(refused.status, 429, "{}", refused.body);
        assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1));
        let error = &refused.json()["error"];
        assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("rate_limit_exceeded")));
    }
    let refused = server.post("/generate", json!({ "prompt": "x" })).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["success"]), (429, &json!(false)));
    assert_eq!(server.get("/livez").await.status, 200);

    let mut chunks = vec![first];
    chunks.extend(admitted.chunks().await);
    assert_eq!(chunks_text(&chunks, 0), after("one", 300));
    assert_eq!(chunks_text(&chunks, 1), after("two", 300));
    admitted_at_once(&server).await;
}

#[tokio::test]
async fn in_a_storm_a_request_is_refused_before_its_body_is_read() {
    let server = Server::start(&["scheduler.max_queue=1", SLOW]).await;
    let (_ordinary, _) = running(&server, "the only place", 3000).await;
    let urgent = json!({ "max_tokens": 3000, "priority": -1, "stream": true });
    let mut reserve = server.stream(PATH, text_body("the reserve", urgent)).await;
    reserve.chunk().await.expect("it runs");
    let mut socket = TcpStream::connect(server.address).await.expect("it accepts");
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{{");
    socket.write_all(head.as_bytes()).await.expect("it reads");
    let since = Instant::now();
    let mut answer = [0; 12];
    soon("an answer", socket.read_exact(&mut answer)).await.expect("it answers");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 429");
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

#[tokio::test]
async fn more_choices_than_the_server_ever_admits_are_the_clients_mistake() {
    let server = Server::start(&["scheduler.max_queue=2"]).await;
    let answer = server.post(PATH, text_body("too many", json!({ "n": 3 }))).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status.as_u16(), &error["param"], &error["code"]), (400, &json!("n"), &json!("invalid_value")));
    assert_eq!(probe(&server).await, 200);
}

#[tokio::test]
async fn of_many_at_once_each_is_refused_or_gets_its_own_text() {
    let server = Server::start(&["scheduler.max_queue=8", "backend.fake.step_time_us=2000"]).await;
    let answers = (0..40).map(async |number: usize| {
        let prompt = format!("request {number}");
        let answer = server.post(PATH, text_body(&prompt, json!({ "max_tokens": 60 }))).await;
        match answer.status.as_u16() {
            200 => assert_eq!(choice_text(&answer.json(), 0), after(&prompt, 60)),
            status => assert_eq!(status, 429, "{}", answer.body),
        }
        answer.status == 200
    });
    let served = join_all(answers).await.into_iter().filter(|served| *served).count();
    assert!((8..40).contains(&served), "{served} of 40");
}

#[tokio::test]
async fn a_stream_whose_client_leaves_gives_its_permit_back_at_once() {
    let server = Server::start(&["scheduler.max_queue=1", SLOW]).await;
    let (stream, _) = running(&server, "left alone", 3000).await;
    assert_eq!(probe(&server).await, 429);
    drop(stream);
    admitted_at_once(&server).await;
    let line = server.log_line(&["request finished", "client_gone"]).await;
    assert!(line.contains("status=200"), "{line}");
}

#[tokio::test]
async fn a_whole_answer_whose_client_leaves_gives_its_permit_back_at_once() {
    let server = Server::start(&["scheduler.max_queue=1", SLOW]).await;
    let pending = occupy(&server, long("nobody waits for this")).await;
    drop(pending);
    admitted_at_once(&server).await;
}

#[tokio::test]
async fn a_queued_request_whose_client_leaves_gives_its_permit_back_at_once() {
    let server = Server::start(&["scheduler.max_queue=2", "scheduler.max_batch_size=1", SLOW]).await;
    let (mut stream, mut chunks) = running(&server, "keeps the only place", 3000).await;
    let mut queued = server.stream(PATH, text_body("waits", json!({ "stream": true }))).await;
    assert_eq!(queued.status, 200);
    let event = queued.event().await;
    assert!(matches!(&event, Some(Event::Comment(comment)) if comment.starts_with("queued ")), "{event:?}");
    assert_eq!(probe(&server).await, 429);
    drop(queued);
    // The next one is admitted although it has to wait for the first.
    let next = async {
        loop {
            let next = server.stream(PATH, text_body("next", json!({ "stream": true }))).await;
            if next.status != 429 {
                return next;
            }
        }
    };
    let next = soon("a permit comes back", next).await;
    assert_eq!(next.status, 200);
    chunks.push(stream.chunk().await.expect("it still runs"));
    let text: String = chunks.iter().map(|chunk| chunk_text(chunk, 0)).collect();
    assert!(after("keeps the only place", 3000).starts_with(&text));
    drop(stream);
    assert_eq!(rest(next, Vec::new()).await, after("next", 16));
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_counts_as_gone() {
    let server = Server::start(&[SLOW]).await;
    let body = long("half closed").to_string();
    let length = body.len();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: cllm\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut socket = TcpStream::connect(server.address).await.expect("it listens");
    socket.write_all((head + &body).as_bytes()).await.expect("it reads");
    let open = async |count: u64| while server.get("/actors/sessions").await.ok()["state"]["open"] != count {};
    soon("a session", open(1)).await;
    socket.shutdown().await.expect("it is open");
    soon("no session", open(0)).await;
    server.log_line(&["request finished", "client_gone"]).await;
    let mut answer = Vec::new();
    soon("the connection closes", socket.read_to_end(&mut answer)).await.expect("in order");
    assert_eq!(String::from_utf8_lossy(&answer), "", "nothing is sent to a client that is gone");
}

#[tokio::test]
async fn a_deadline_ends_a_whole_answer_with_408_and_a_stream_with_an_error() {
    let server = Server::start(&[SLOW]).await;
    let mut body = long("too slow");
    body["timeout_ms"] = json!(1500);
    let answer = server.post(PATH, body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-should-retry")), (408, "false"));
    assert_eq!(answer.json()["error"]["code"], "deadline_exceeded");
    body["stream"] = json!(true);
    let data = server.stream(PATH, body).await.data().await;
    let last: Value = serde_json::from_str(data.last().expect("something came")).expect("not [DONE]");
    assert_eq!(last["error"]["code"], "deadline_exceeded");
}

#[tokio::test]
async fn a_first_token_has_a_deadline_of_its_own() {
    let settings = ["scheduler.first_token_timeout_ms=3000", "backend.fake.token_time_us=2000"];
    let server = Server::start(&settings).await;
    let late = server.post(PATH, text_body(&"long ".repeat(700), json!({ "max_tokens": 1 })));
    let (late, slow) = tokio::join!(late, server.post(PATH, text_body("slow", json!({ "max_tokens": 2000 }))));
    assert_eq!((late.status.as_u16(), &late.json()["error"]["code"]), (408, &json!("deadline_exceeded")));
    assert_eq!(choice_text(&slow.ok(), 0), after("slow", 2000));
}

#[tokio::test]
async fn the_first_signal_lets_streams_finish_and_refuses_new_requests() {
    let mut server = Server::start(&["backend.fake.step_time_us=10000"]).await;
    let (stream, chunks) = running(&server, "finish me", 500).await;
    let pending = server.begin(PATH, &text_body("and me", json!({ "max_tokens": 3 })));
    assert_eq!(choice_text(&pending.answer().await.ok(), 0), after("and me", 3));
    server.signal("TERM").await;
    server.log_line(&["stopping"]).await;

    // Five seconds are left; a machine too busy for that sees a closed port.
    if let Ok(ready) = Ask::get("/readyz").send(server.address).await {
        let ready = ready.answer().await;
        assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &json!("shutting_down")));
    }
    if let Ok(refused) = Ask::post(PATH, &long("too late")).send(server.address).await {
        let refused = refused.answer().await;
        assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (503, &json!("shutting_down")));
        assert!(!refused.header("retry-after").is_empty());
    }
    assert_eq!(rest(stream, chunks).await, after("finish me", 500));
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    let mut server = Server::start(&[]).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    let mut feed = server.open(Ask::get("/actors/events")).await;
    assert!(matches!(feed.event().await, Some(Event::Comment(_))), "the feed is open");
    let since = Instant::now();
    server.signal("INT").await;
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    while feed.event().await.is_some() {}
}

#[tokio::test]
async fn the_second_signal_ends_everything_at_once() {
    for (second, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Server::start(&[SLOW]).await;
        let (_stream, _) = running(&server, "cut off", 3000).await;
        server.signal("TERM").await;
        server.log_line(&["stopping"]).await;
        let since = Instant::now();
        server.signal(second).await;
        assert_eq!(server.exit().await.code(), Some(code));
        assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn the_shutdown_timeout_ends_what_still_runs_with_an_error() {
    let mut server = Server::start(&["server.shutdown_timeout=0.3", "scheduler.max_queue=2", SLOW]).await;
    let (mut stream, _) = running(&server, "never finished", 3000).await;
    let pending = occupy(&server, long("not either")).await;
    server.signal("TERM").await;
    let data = stream.data().await;
    let last: Value = serde_json::from_str(data.last().expect("something came")).expect("not [DONE]");
    assert_eq!(last["error"]["code"], "shutting_down", "{data:?}");
    let answer = pending.answer().await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (503, &json!("shutting_down")));
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_engine_that_dies_is_replaced_and_streams_go_on_with_the_right_text() {
    join_all(["thread", "process"].map(streams_survive_poison)).await;
}

async fn streams_survive_poison(host: &str) {
    let host = format!("backend.fake.host={host}");
    let server = Server::start(&["backend.fake.poison=POISON", "backend.fake.step_time_us=5000", &host]).await;
    let streams = join_all((0..8).map(async |number| {
        let prompt = format!("survivor {number}");
        let (stream, chunks) = running(&server, &prompt, 300).await;
        (prompt, stream, chunks)
    }))
    .await;
    let poison = server.begin(PATH, &long("a prompt with POISON in it"));
    join_all(streams.into_iter().map(async |(prompt, stream, chunks)| {
        assert_eq!(rest(stream, chunks).await, after(&prompt, 300), "{prompt}");
    }))
    .await;
    let refused = poison.answer().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (500, &json!("engine_crashed")));
    soon("ready again", async { while server.get("/readyz").await.status != 200 {} }).await;
    let answer = server.post(PATH, text_body("afterwards", json!({ "max_tokens": 9 }))).await.ok();
    assert_eq!(choice_text(&answer, 0), after("afterwards", 9));
}

#[tokio::test]
async fn an_engine_that_dies_again_and_again_is_held_down_and_requests_say_so() {
    let server = Server::start(&["backend.fake.poison=POISON"]).await;
    let first = server.post(PATH, long("POISON")).await;
    assert_eq!((first.status.as_u16(), &first.json()["error"]["code"]), (500, &json!("engine_crashed")));
    assert_eq!(first.header("x-should-retry"), "false");
    let second = tokio::time::timeout(PATIENCE, server.post(PATH, long("POISON"))).await.expect("it ends");
    let code = &second.json()["error"]["code"];
    assert_eq!((second.status.as_u16(), code), (503, &json!("engine_down")), "{}", second.body);
    let ready = server.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &json!("engine_down")));
    let refused = server.post(PATH, text_body("hi", json!({ "stream": true }))).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (503, &json!("engine_down")));
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| (1..=60).contains(&seconds)));
    assert_eq!(server.get("/livez").await.status, 200);
}
