//! When the head of a stream goes out, and what goes out while it is silent.

use cllm_actors::FinishReason;
use cllm_actors::request::{Timings, Usage};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warp::reply::Response;

use super::*;
use crate::http::error::ErrorShape;

/// Writes each event's text and nothing else.
struct Plain;

impl Dialect for Plain {
    fn prompt(&mut self, _index: usize, _logprobs: Vec<TokenLogprob>, _frames: &mut Frames) {}

    fn delta(&mut self, _index: usize, delta: &Delta, frames: &mut Frames) {
        if !delta.text.is_empty() {
            frames.data(&delta.text);
        }
    }

    fn finished(&mut self, _index: usize, _finished: &Finished, bill: Option<&Bill<'_>>, frames: &mut Frames) {
        frames.data(if bill.is_some() { "all over" } else { "over" });
    }

    fn failed(&mut self, error: &ApiError, frames: &mut Frames) {
        frames.data(&error.sse_payload(ErrorShape::OpenAi));
    }
}

type Events = mpsc::Sender<GenerationEvent>;

/// A request of this many sequences, and where their events come from.
fn sequences(count: usize) -> (Vec<Events>, Sequences<ReceiverStream<GenerationEvent>>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(32)).unzip();
    (senders, Sequences::new(receivers.into_iter().map(ReceiverStream::new).collect()))
}

async fn start(sequences: Sequences<ReceiverStream<GenerationEvent>>) -> Result<Response, ApiError> {
    respond(sequences, Plain, 1, RequestLog::default()).await
}

async fn send(events: &Events, event: GenerationEvent) {
    events.send(event).await.unwrap();
}

fn delta(text: &str) -> GenerationEvent {
    GenerationEvent::Delta(Delta { text: text.to_owned(), ..Delta::default() })
}

fn finished() -> GenerationEvent {
    let (usage, timings) = (Usage::default(), Timings::default());
    GenerationEvent::Finished(Finished { reason: FinishReason::Length, usage, timings, resumed: 0 })
}

async fn next(response: &mut Response) -> Option<String> {
    let frame = response.body_mut().frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_head_waits_for_the_first_text() {
    let (events, sequences) = sequences(1);
    let began = Instant::now();
    send(&events[0], GenerationEvent::Started { prompt_tokens: 3, cache: None }).await;
    send(&events[0], delta("")).await;
    send(&events[0], delta("a")).await;
    let mut response = start(sequences).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(next(&mut response).await.unwrap(), "data: a\n\n");
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_text_is_a_plain_error() {
    let (events, sequences) = sequences(1);
    send(&events[0], GenerationEvent::Queued { position: 1 }).await;
    send(&events[0], GenerationEvent::Failed(GenerateError::ModelLoading)).await;
    assert_eq!(start(sequences).await.unwrap_err().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_queued_request_gets_its_head_after_a_second_and_its_place() {
    let (events, sequences) = sequences(1);
    send(&events[0], GenerationEvent::Queued { position: 3 }).await;
    let began = Instant::now();
    let mut response = start(sequences).await.unwrap();
    assert_eq!(began.elapsed(), HEAD_WAIT);
    assert_eq!(next(&mut response).await.unwrap(), ": queued 3\n\n");
    send(&events[0], GenerationEvent::Queued { position: 3 }).await;
    send(&events[0], GenerationEvent::Queued { position: 2 }).await;
    assert_eq!(next(&mut response).await.unwrap(), ": queued 2\n\n");
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_pings() {
    let (events, sequences) = sequences(1);
    send(&events[0], delta("a")).await;
    let mut response = start(sequences).await.unwrap();
    next(&mut response).await;
    for _ in 0..2 {
        let began = Instant::now();
        assert_eq!(next(&mut response).await.unwrap(), ": ping\n\n");
        assert_eq!(began.elapsed(), PING_AFTER);
    }
}

#[tokio::test(start_paused = true)]
async fn the_stream_ends_with_its_last_sequence() {
    let (events, sequences) = sequences(2);
    send(&events[0], finished()).await;
    let mut response = start(sequences).await.unwrap();
    assert_eq!(next(&mut response).await.unwrap(), "data: over\n\n");
    send(&events[1], finished()).await;
    assert_eq!(next(&mut response).await.unwrap(), "data: all over\n\n");
    assert_eq!(next(&mut response).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_mid_stream_ends_it_and_cancels_the_rest() {
    let (events, sequences) = sequences(2);
    send(&events[0], delta("a")).await;
    let mut response = start(sequences).await.unwrap();
    send(&events[1], GenerationEvent::Failed(GenerateError::ShuttingDown)).await;
    let sent = next(&mut response).await.unwrap();
    assert!(sent.contains("data: a\n\n") && sent.contains("shutting_down"), "{sent}");
    assert_eq!(next(&mut response).await, None);
    assert!(events[0].is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_vanishes_in_mid_stream_is_an_error_frame() {
    let (events, sequences) = sequences(1);
    send(&events[0], delta("a")).await;
    let mut response = start(sequences).await.unwrap();
    drop(events);
    assert!(next(&mut response).await.unwrap().contains("internal_error"));
    assert_eq!(next(&mut response).await, None);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_body_cancels_the_generations() {
    let (events, sequences) = sequences(1);
    send(&events[0], delta("a")).await;
    drop(start(sequences).await.unwrap());
    assert!(events[0].is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_piled_up_behind_a_slow_client_goes_out_together() {
    let (events, sequences) = sequences(1);
    for text in ["a", "b", "c"] {
        send(&events[0], delta(text)).await;
    }
    let mut response = start(sequences).await.unwrap();
    assert_eq!(next(&mut response).await.unwrap(), "data: a\n\ndata: b\n\ndata: c\n\n");
}
