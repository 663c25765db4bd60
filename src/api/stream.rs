//! Server-sent events: when the head goes out, what goes out while nothing happens, and how a stream ends.
//!
//! The head waits for the first token (and, since it says where the answer comes from, for every sequence's start), for
//! an error (which then is a plain HTTP error) or for [`HEAD_WAIT`]. From then on comments keep the connection alive: the
//! place in the queue as it changes, a ping after [`PING_AFTER`] of silence.
//! The body owns the generations: when the connection drops it, they are cancelled.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cllm_actors::engine::protocol::TokenLogprob;
use cllm_actors::request::{CacheOutcome, Delta, Finished};
use cllm_actors::{GenerateError, GenerationEvent};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, Sleep};
use warp::reply::Response;

use crate::api::bill::Bill;
use crate::api::sequences::Sequences;
use crate::http::error::ApiError;
use crate::http::request_log::RequestLog;
use crate::http::sse;

#[cfg(test)]
mod tests;

/// How long the head of a stream waits for the first token.
pub(crate) const HEAD_WAIT: Duration = Duration::from_secs(1);

/// Silence after which a ping goes out: proxies close streams that say nothing.
pub(crate) const PING_AFTER: Duration = Duration::from_secs(10);

/// Events that are there already go out together, up to about this size.
const BODY_CHUNK_BYTES: usize = 16 * 1024;

/// How one endpoint writes the events of a request. `index` counts its sequences.
pub(crate) trait Dialect: Send + Unpin + 'static {
    /// The prompt's log-probabilities.
    fn prompt(&mut self, index: usize, logprobs: Vec<TokenLogprob>, frames: &mut Frames);

    /// New text, or tokens that brought none.
    fn delta(&mut self, index: usize, delta: &Delta, frames: &mut Frames);

    /// The end of a sequence; with the bill, of the answer.
    fn finished(&mut self, index: usize, finished: &Finished, bill: Option<&Bill<'_>>, frames: &mut Frames);

    /// The end of the answer without success.
    fn failed(&mut self, error: &ApiError, frames: &mut Frames);
}

/// SSE frames that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Whether something other than a comment was ever written.
    has_data: bool,
}

impl Frames {
    /// A frame with a JSON document.
    pub(crate) fn json(&mut self, value: &impl Serialize) {
        self.bytes.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut self.bytes, value).expect("our own shapes have string keys, and a Vec takes it all");
        self.bytes.extend_from_slice(b"\n\n");
        self.has_data = true;
    }

    /// A frame with one line of text.
    pub(crate) fn data(&mut self, line: &str) {
        write!(self.bytes, "data: {line}\n\n").expect("a Vec takes it all");
        self.has_data = true;
    }

    /// What waits, leaving nothing behind.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// A comment; clients ignore it.
    pub(crate) fn comment(&mut self, text: impl std::fmt::Display) {
        write!(self.bytes, ": {text}\n\n").expect("a Vec takes it all");
    }
}

/// Answers with the events of these sequences, `choices` for each prompt.
///
/// # Errors
/// A failure before anything was sent.
pub(crate) async fn respond<E, D>(
    mut sequences: Sequences<E>,
    dialect: D,
    choices: u32,
    log: RequestLog,
) -> Result<Response, ApiError>
where
    E: Stream<Item = GenerationEvent> + Send + Unpin + 'static,
    D: Dialect,
{
    let mut writer = Writer::new(dialect, sequences.total(), choices, log);
    let head_due = Instant::now() + HEAD_WAIT;
    while !writer.may_begin() {
        match tokio::time::timeout_at(head_due, sequences.next()).await {
            Ok(Some((_, GenerationEvent::Failed(error)))) => return Err(error.into()),
            Ok(Some((index, event))) => writer.write(index, event),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(sse::response(SseBody::new(sequences, writer)))
}

/// Turns events into frames and keeps the bill.
struct Writer<D> {
    dialect: D,
    frames: Frames,
    queued: Option<u32>,
    ends: Vec<Option<Finished>>,
    started: usize,
    cache: Option<CacheOutcome>,
    choices: u32,
    log: RequestLog,
    /// Nothing follows.
    over: bool,
}

impl<D: Dialect> Writer<D> {
    fn new(dialect: D, sequences: usize, choices: u32, log: RequestLog) -> Self {
        let ends = vec![None; sequences];
        let (started, cache) = (0, None);
        Self { dialect, frames: Frames::default(), queued: None, ends, started, cache, choices, log, over: false }
    }

    /// Whether the head can go out: something is to be said, and what the response cache did is known or of no interest.
    fn may_begin(&self) -> bool {
        self.frames.has_data && (self.cache.is_none() || self.started == self.ends.len())
    }

    fn write(&mut self, index: usize, event: GenerationEvent) {
        match event {
            GenerationEvent::Queued { position } => self.queued(position),
            GenerationEvent::Started { cache, .. } => self.started(cache),
            GenerationEvent::Prompt(logprobs) => self.dialect.prompt(index, logprobs, &mut self.frames),
            GenerationEvent::Delta(delta) => self.dialect.delta(index, &delta, &mut self.frames),
            GenerationEvent::Finished(finished) => self.finished(index, finished),
            GenerationEvent::Failed(error) => self.failed(error),
        }
    }

    fn queued(&mut self, position: u32) {
        if self.queued.replace(position) != Some(position) {
            self.frames.comment(format_args!("queued {position}"));
        }
    }

    fn started(&mut self, cache: Option<CacheOutcome>) {
        self.started += 1;
        self.cache = self.cache.max(cache);
        if self.started == self.ends.len() {
            self.log.cached(self.cache);
        }
    }

    fn finished(&mut self, index: usize, finished: Finished) {
        let finished = self.ends[index].insert(finished).clone();
        self.over = self.ends.iter().all(Option::is_some);
        let bill = self.over.then(|| Bill::new(self.ends.iter().flatten(), self.choices));
        self.dialect.finished(index, &finished, bill.as_ref(), &mut self.frames);
    }

    fn failed(&mut self, error: GenerateError) {
        let error = ApiError::from(error);
        self.log.failed(&error);
        self.dialect.failed(&error, &mut self.frames);
        self.over = true;
    }
}

/// The body of a stream.
struct SseBody<E, D> {
    /// `None` once the answer is over: what still ran is cancelled.
    sequences: Option<Sequences<E>>,
    writer: Writer<D>,
    ping: Pin<Box<Sleep>>,
}

impl<E, D> SseBody<E, D>
where
    E: Stream<Item = GenerationEvent> + Unpin,
    D: Dialect,
{
    fn new(sequences: Sequences<E>, writer: Writer<D>) -> Self {
        Self { sequences: Some(sequences), writer, ping: Box::pin(tokio::time::sleep(PING_AFTER)) }
    }

    /// Writes down what has happened, up to the size of a body chunk.
    fn gather(&mut self, context: &mut Context<'_>) {
        while self.writer.frames.bytes.len() < BODY_CHUNK_BYTES {
            if self.writer.over {
                self.sequences = None;
            }
            let Some(sequences) = &mut self.sequences else {
                return;
            };
            match sequences.poll_next_unpin(context) {
                Poll::Ready(Some((index, event))) => self.writer.write(index, event),
                Poll::Ready(None) => self.writer.over = true,
                Poll::Pending => return,
            }
        }
    }
}

impl<E, D> Stream for SseBody<E, D>
where
    E: Stream<Item = GenerationEvent> + Unpin,
    D: Dialect,
{
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.gather(context);
        if this.writer.frames.bytes.is_empty() {
            if this.sequences.is_none() {
                return Poll::Ready(None);
            }
            if this.ping.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.writer.frames.comment("ping");
        }
        this.ping.as_mut().reset(Instant::now() + PING_AFTER);
        Poll::Ready(Some(this.writer.frames.take().into()))
    }
}
