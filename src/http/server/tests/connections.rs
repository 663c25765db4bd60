//! Connections over time: limits, slow and vanished clients, drain, restart of the actor.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{PATIENCE, TestServer, get, start_actor};
use crate::http::connection::SPARE_CONNECTIONS;
use crate::http::context::HttpSettings;

const STREAM: &str = "GET /stream HTTP/1.1\nhost: x\n\n";

async fn server() -> TestServer {
    TestServer::start(HttpSettings::default()).await
}

async fn within<F: Future>(waited: F) -> F::Output {
    tokio::time::timeout(PATIENCE, waited).await.unwrap()
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_the_connection() {
    let mut settings = HttpSettings::default();
    settings.connections.header_timeout = Duration::from_millis(30);
    let server = TestServer::start(settings).await;
    let silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.send("GET /livez HTTP/1.1\nhost:").await;
    assert!(!silent.rest().await.0.contains("200"));
    assert!(!slow.rest().await.0.contains("200"));
    within(server.args.connections.shut_down()).await;
}

#[tokio::test]
async fn a_full_server_still_answers_its_probes_and_says_503_to_the_rest() {
    let mut settings = HttpSettings::default();
    settings.connections.max_connections = 1;
    let server = TestServer::start(settings).await;
    let mut first = server.connect().await;
    first.send(STREAM).await;
    server.chunks.send(Bytes::from_static(b": here\n\n")).await.unwrap();
    first.until(": here").await;

    let mut probe = server.connect().await;
    probe.send("GET /livez HTTP/1.1\nhost: x\n\n").await;
    let probe = probe.rest().await;
    assert_eq!((probe.status(), probe.header("connection")), (200, Some("close")));
    let refused = server.ask(&get("/whoami")).await;
    assert_eq!((refused.status(), refused.code().as_str()), (503, "too_many_connections"));
    assert_eq!(refused.header("retry-after"), Some("1"));

    drop(first);
    server.chunks.closed().await;
    within(async { while server.ask(&get("/whoami")).await.status() != 200 {} }).await;
}

#[tokio::test]
async fn a_connection_beyond_all_limits_is_closed_and_keeps_no_probe_waiting() {
    let mut settings = HttpSettings::default();
    settings.connections.max_connections = 1;
    let server = TestServer::start(settings).await;
    let mut silent = Vec::new();
    for _ in 0..=SPARE_CONNECTIONS {
        silent.push(server.connect().await);
    }
    assert_eq!(server.connect().await.rest().await.0, "", "it is closed without a word");
    silent.pop();
    let alive = async {
        loop {
            let mut probe = server.connect().await;
            // One that is closed already may refuse to be written to.
            let _ = probe.socket.write_all(get("/livez").replace('\n', "\r\n").as_bytes()).await;
            let mut answer = String::new();
            if probe.socket.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    within(alive).await;
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_stream() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send(STREAM).await;
    server.chunks.send(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
    client.until("data: 1").await;
    drop(client);
    within(server.chunks.closed()).await;
    within(server.args.connections.idle()).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let mut settings = HttpSettings::default();
    settings.connections.write_timeout = Duration::from_millis(50);
    let server = TestServer::start(settings).await;
    let mut client = server.connect().await;
    client.send(STREAM).await;
    let flood = async { while server.chunks.send(Bytes::from(vec![b'x'; 1 << 20])).await.is_ok() {} };
    within(flood).await;
    within(server.args.connections.idle()).await;
}

#[tokio::test]
async fn a_draining_server_finishes_what_runs_and_refuses_the_rest() {
    let server = server().await;
    let mut running = server.connect().await;
    running.send(STREAM).await;
    server.chunks.send(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
    running.until("data: 1").await;
    let mut idle = server.connect().await;
    idle.send("GET /livez HTTP/1.1\nhost: x\n\n").await;
    idle.until("ok").await;

    let connections = server.args.connections.clone();
    connections.drain();
    let refused = server.ask(&get("/whoami")).await;
    assert_eq!((refused.status(), refused.code().as_str()), (503, "shutting_down"));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(server.ask(&get("/livez")).await.status(), 200);
    assert_eq!(connections.running().count(), 1);

    server.chunks.send(Bytes::from_static(b"data: 2\n\n")).await.unwrap();
    drop(server.chunks);
    within(connections.idle()).await;
    within(connections.shut_down()).await;
    assert!(running.rest().await.0.contains("data: 2"));
    assert_eq!(idle.rest().await.status(), 200);
    assert_eq!(connections.open(), 0);
}

#[tokio::test]
async fn shutting_down_cuts_off_a_stream_that_does_not_end() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send(STREAM).await;
    server.chunks.send(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
    client.until("data: 1").await;
    within(server.args.connections.shut_down()).await;
    within(server.chunks.closed()).await;
}

#[tokio::test]
async fn streams_go_on_while_the_http_actor_restarts() {
    let server = server().await;
    let mut client = server.connect().await;
    client.send(STREAM).await;
    server.chunks.send(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
    client.until("data: 1").await;

    server.actor.kill_and_wait(Some(PATIENCE)).await.unwrap();
    server.chunks.send(Bytes::from_static(b"data: 2\n\n")).await.unwrap();
    client.until("data: 2").await;
    let mut waiting = server.connect().await;
    waiting.send(&get("/whoami")).await;

    let _restarted = start_actor(&server.args, &server.parent).await;
    assert_eq!(waiting.rest().await.status(), 200);
    server.chunks.send(Bytes::from_static(b"data: 3\n\n")).await.unwrap();
    client.until("data: 3").await;
}
