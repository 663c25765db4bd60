//! Server-sent events: framing and the streaming response. What is sent and when is the handler's business.
//!
//! The body is pulled: nothing is produced while the connection cannot take it, so a slow client costs a full channel
//! at the source and no memory here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use warp::Reply;
use warp::reply::Response;

/// The last event of an OpenAI stream.
pub const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// nginx and its relatives hold responses back unless told otherwise.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// One event. `json` must be on one line, as `serde_json` writes it.
pub fn event(json: &str) -> Bytes {
    Bytes::from(format!("data: {json}\n\n"))
}

/// A comment, which clients skip: keeps proxies from closing a silent stream. One line.
pub fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}

/// A `200` that sends each item as soon as the connection takes it. Dropping the body drops the stream.
pub fn response<S>(events: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let mut response = warp::reply::stream(Body(Mutex::new(Box::pin(events)))).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// warp asks its bodies to be `Sync`, which a stream over futures is not. The mutex is never locked: polling has
/// exclusive access anyway.
struct Body(Mutex<Pin<Box<dyn Stream<Item = Bytes> + Send>>>);

impl Stream for Body {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let events = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        events
            .as_mut()
            .poll_next(context)
            .map(|event| event.map(Ok))
    }
}
