//! What surrounds every request whatever its route: the request id, the log line, the count of running requests,
//! the catch of a panic, the headers of every response.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::{HeaderMap, Request, Response};

use crate::http::error::{ApiError, ErrorShape};
use crate::http::gauge::{Gauge, Present};
use crate::http::request_log::{LogLine, RequestLog};

/// The header a request id comes and goes in.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Milliseconds from the head of the request to the head of the response.
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// Where an answer comes from: `hit`, `miss` or `coalesced`. Absent where the response cache has no say.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Longest request id taken from a caller, in bytes.
const MAX_ID_BYTES: usize = 128;

/// What a connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Welcome,
    /// Only probes: the server is at its limit of connections.
    Crowded,
    /// Only probes: the server stops.
    Draining,
}

/// What the envelope knows and the routes need; travels as an extension of the request.
#[derive(Debug, Clone)]
pub struct Enclosed {
    /// The request id.
    pub request_id: Arc<str>,
    /// When the head was read.
    pub arrived: Instant,
    /// Where the handler puts what the log line shall say.
    pub log: RequestLog,
    /// What the connection may ask for.
    pub standing: Standing,
}

type Inner = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<InnerBody>> + Send + Sync>;
type InnerBody = Pin<Box<dyn Body<Data = Bytes, Error = warp::Error> + Send>>;

/// The service behind every connection; cheap to clone.
#[derive(Clone)]
pub struct Envelope {
    inner: Inner,
    running: Arc<Gauge>,
}

impl Envelope {
    /// Wraps a service; `running` counts the requests whose response is not finished.
    pub fn new<S, B>(service: S, running: Arc<Gauge>) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes, Error = warp::Error> + Send + 'static,
    {
        let inner: Inner = Arc::new(move |request| {
            let response = service.call(request);
            Box::pin(async move {
                match response.await {
                    Ok(response) => response.map(|body| Box::pin(body) as InnerBody),
                    Err(never) => match never {},
                }
            })
        });
        Self { inner, running }
    }

    /// Answers one request. Dropping the future or the body is what a vanished client looks like.
    pub async fn answer(&self, mut request: Request<Incoming>, standing: Standing) -> Response<LoggedBody> {
        let request_id = request_id(request.headers());
        let mut line = LogLine::new(Arc::clone(&request_id), request.method().clone(), request.uri().path().to_owned());
        let present = self.running.enter();
        let (log, arrived) = (line.log().clone(), line.arrived());
        request.extensions_mut().insert(Enclosed { request_id: request_id.clone(), arrived, log, standing });

        let mut response = match catch(|| (self.inner)(request)).await {
            Ok(response) => response,
            Err(error) => {
                line.log().failed(&error);
                error.response(ErrorShape::OpenAi).map(|body| Box::pin(body) as InnerBody)
            }
        };
        line.set_status(response.status());
        add_headers(response.headers_mut(), &request_id, arrived, standing);
        if let Some(cache) = line.log().cache()
            && response.status().is_success()
        {
            response.headers_mut().insert(X_CACHE, HeaderValue::from_static(cache.as_str()));
        }
        response.map(|body| LoggedBody::new(body, line, present))
    }
}

/// Turns a panic of a handler into an error for this one request.
async fn catch<F, R>(call: F) -> Result<R::Output, ApiError>
where
    F: FnOnce() -> R,
    R: Future,
{
    // Nothing is shared with the handler but the log, which bears a half-done change.
    let answer = AssertUnwindSafe(async { call().await }).catch_unwind().await;
    answer.map_err(|panic| ApiError::internal(format!("a handler panicked: {}", panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn add_headers(headers: &mut HeaderMap, request_id: &str, arrived: Instant, standing: Standing) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(PROCESSING_MS, HeaderValue::from(arrived.elapsed().as_millis() as u64));
    if standing != Standing::Welcome {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The caller's id if it is sane, else a new one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).filter(|id| is_sane(id));
    match given {
        Some(id) => Arc::from(id),
        None => Arc::from(format!("req-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))),
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A response body that knows when it is over.
pub struct LoggedBody {
    inner: InnerBody,
    line: LogLine,
    _present: Present,
}

impl LoggedBody {
    /// A body that is empty from the start is never polled.
    fn new(inner: InnerBody, mut line: LogLine, present: Present) -> Self {
        if inner.is_end_stream() {
            line.set_body_ended();
        }
        Self { inner, line, _present: present }
    }
}

impl Body for LoggedBody {
    type Data = Bytes;
    type Error = warp::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, warp::Error>>> {
        let frame = self.inner.as_mut().poll_frame(context);
        if matches!(frame, Poll::Ready(None)) || (frame.is_ready() && self.inner.is_end_stream()) {
            self.line.set_body_ended();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
