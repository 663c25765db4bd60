//! The response of a stream of server-sent events. What is sent and when is the handler's business, framing included.
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

/// nginx and its relatives hold responses back unless told otherwise.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A `200` that sends each item as soon as the connection takes it. Dropping the body drops the stream.
pub fn response<S>(events: S) -> Response
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let mut response = warp::reply::stream(Body(Mutex::new(Box::pin(events)))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
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
        events.as_mut().poll_next(context).map(|event| event.map(Ok))
    }
}
