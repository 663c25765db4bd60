//! What the log says about a request. These tests run on one thread, which has its own log.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use serde_json::Value;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

use super::{PATIENCE, TestServer, get};
use crate::http::context::HttpSettings;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// While there is one subscriber only, a thread without it decides for all that nobody wants an event.
static ANOTHER: OnceLock<Dispatch> = OnceLock::new();

impl Lines {
    fn capture() -> (Self, DefaultGuard) {
        ANOTHER.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
        let lines = Self::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        (lines, tracing::subscriber::set_default(log.finish()))
    }

    fn finished(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        let lines = String::from_utf8(bytes).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["message"] == "request finished").collect()
    }
}

#[tokio::test]
async fn every_request_is_one_line_with_its_id_status_and_outcome() {
    let (lines, _guard) = Lines::capture();
    let server = TestServer::start(HttpSettings::default()).await;
    server.ask(&get("/whoami?secret=1")).await;
    server.ask(&get("/nowhere")).await;
    server.ask(&get("/panic")).await;
    tokio::time::timeout(PATIENCE, server.args.connections.idle()).await.unwrap();
    let seen = lines.finished();
    let facts: Vec<_> = seen.iter().map(|line| (line["status"].as_u64(), line["outcome"].as_str())).collect();
    assert_eq!(facts, [(Some(200), Some("completed")), (Some(404), Some("error")), (Some(500), Some("error"))]);
    assert_eq!((seen[0]["path"].as_str(), seen[0]["method"].as_str()), (Some("/whoami"), Some("GET")));
    assert_eq!(seen[1]["code"], "not_found");
    assert!(seen[0]["request_id"].as_str().unwrap().starts_with("req-"));
}

#[tokio::test]
async fn a_stream_is_logged_at_its_end_and_says_who_ended_it() {
    for (client_leaves, outcome) in [(true, "client_gone"), (false, "completed")] {
        let (lines, _guard) = Lines::capture();
        let server = TestServer::start(HttpSettings::default()).await;
        let mut client = server.connect().await;
        client.send(&get("/stream")).await;
        server.chunks.send(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
        client.until("data: 1").await;
        assert!(lines.finished().is_empty());
        if client_leaves {
            drop(client);
            server.chunks.closed().await;
        } else {
            drop(server.chunks);
            client.rest().await;
        }
        tokio::time::timeout(PATIENCE, server.args.connections.idle()).await.unwrap();
        assert_eq!(lines.finished()[0]["outcome"], outcome);
    }
}
