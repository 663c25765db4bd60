//! Events of several sequences in one stream.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cllm_actors::FinishReason;
use cllm_actors::request::{Delta, Timings, Usage};
use futures_util::stream;
use http_body_util::{BodyExt, Empty};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

fn delta(text: &str) -> GenerationEvent {
    GenerationEvent::Delta(Delta { text: text.to_owned(), ..Delta::default() })
}

fn finished() -> GenerationEvent {
    let (usage, timings) = (Usage::default(), Timings::default());
    GenerationEvent::Finished(Finished { reason: FinishReason::Length, usage, timings, resumed: 0 })
}

#[tokio::test]
async fn the_deltas_of_each_sequence_become_its_text() {
    let first = stream::iter(vec![delta("a"), delta("b"), finished()]);
    let second = stream::iter(vec![GenerationEvent::Queued { position: 3 }, delta("x"), finished()]);
    let outcomes = Sequences::new(vec![first, second]).collect().await.unwrap();
    let texts: Vec<_> = outcomes.iter().map(|outcome| outcome.text.as_str()).collect();
    assert_eq!(texts, ["ab", "x"]);
}

#[tokio::test]
async fn a_session_that_vanishes_is_an_error_and_no_short_answer() {
    let error = Sequences::new(vec![stream::iter(vec![delta("a")])]).collect().await.unwrap_err();
    assert!(matches!(error, GenerateError::Internal(_)));
}

#[tokio::test]
async fn one_failure_cancels_the_other_choices() {
    let (running, receiver) = mpsc::channel(1);
    let (failing, failed) = mpsc::channel(1);
    failing.send(GenerationEvent::Failed(GenerateError::ShuttingDown)).await.unwrap();
    let sequences = Sequences::new(vec![ReceiverStream::new(receiver), ReceiverStream::new(failed)]);
    assert_eq!(sequences.collect().await.unwrap_err(), GenerateError::ShuttingDown);
    assert!(running.is_closed());
}

#[tokio::test]
async fn nothing_follows_the_end_of_a_sequence() {
    let events: Vec<_> =
        Sequences::new(vec![stream::iter(vec![finished(), delta("late")])]).map(|(at, _)| at).collect().await;
    assert_eq!(events, [0]);
}

/// A connection whose handler waits for a whole answer; it waits when this returns.
async fn waiting_client() -> (DuplexStream, mpsc::Sender<GenerationEvent>) {
    let (mut client, server) = tokio::io::duplex(4096);
    let (events, receiver) = mpsc::channel(1);
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            request.into_body().collect().await.unwrap();
            // Nobody is there to see how it ends.
            let _ = Sequences::new(vec![ReceiverStream::new(receiver)]).collect().await;
            Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    // The second one finds room only when the handler has taken the first.
    for _ in 0..2 {
        events.send(delta("a")).await.unwrap();
    }
    (client, events)
}

async fn cancelled(events: mpsc::Sender<GenerationEvent>) {
    tokio::time::timeout(Duration::from_secs(20), events.closed()).await.expect("the generation goes on");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_answer_it_waited_for() {
    let (client, events) = waiting_client().await;
    drop(client);
    cancelled(events).await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_counts_as_gone() {
    let (mut client, events) = waiting_client().await;
    client.shutdown().await.unwrap();
    cancelled(events).await;
}
