//! A small HTTP client: one connection for each request, closed when its answer or stream is dropped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Far beyond anything these tests wait for on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits, but not for ever.
#[track_caller]
pub(crate) fn soon<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        let result = tokio::time::timeout(PATIENCE, future).await;
        result.unwrap_or_else(|_| panic!("{place}: never happened: {what}"))
    }
}

/// A request to be sent.
pub(crate) struct Ask {
    request: Request<BoxBody<Bytes, Infallible>>,
}

impl Ask {
    /// Without a body.
    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self::with_body(method, path, Full::default().boxed())
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// With this JSON.
    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self::post_bytes(path, body.to_string())
    }

    /// With these bytes, declared as JSON.
    pub(crate) fn post_bytes(path: &str, body: impl Into<Bytes>) -> Self {
        Self::with_body(Method::POST, path, Full::new(body.into()).boxed()).header("content-type", "application/json")
    }

    /// With a body that announces no length.
    pub(crate) fn post_chunked(path: &str, chunks: Vec<Bytes>) -> Self {
        let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
        Self::with_body(Method::POST, path, StreamBody::new(stream::iter(frames)).boxed())
            .header("content-type", "application/json")
    }

    fn with_body(method: Method, path: &str, body: BoxBody<Bytes, Infallible>) -> Self {
        let request = Request::builder().method(method).uri(path).header("host", "cllm");
        Self { request: request.body(body).expect("tests write valid paths") }
    }

    /// Sets a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.request.headers_mut().insert(name, value.parse().expect("tests write valid headers"));
        self
    }

    /// Sends it and waits for the head of the response.
    ///
    /// # Errors
    /// No connection, or none any more.
    pub(crate) async fn send(self, address: SocketAddr) -> Result<Stream, Box<dyn std::error::Error + Send + Sync>> {
        let socket = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let wire = Wire(tokio::spawn(async move {
            // An error of the connection shows in the response as well.
            let _ = connection.await;
        }));
        let response = sender.send_request(self.request).await?;
        Ok(Stream::new(response, wire))
    }
}

/// A connection; closed on drop.
struct Wire(JoinHandle<()>);

impl Drop for Wire {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The body as JSON of a request that succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }

    /// A header, empty when absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ours are ASCII"))
    }
}

/// What a stream of server-sent events brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Data(String),
    Comment(String),
    /// With an id and a name.
    Named {
        id: String,
        name: String,
        data: String,
    },
}

/// A response whose head is there. Dropping it closes the connection.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// Bytes that are no whole event yet.
    rest: Vec<u8>,
    events: VecDeque<Event>,
    _wire: Wire,
}

impl Stream {
    fn new(response: Response<Incoming>, wire: Wire) -> Self {
        let (head, body) = response.into_parts();
        let (rest, events) = (Vec::new(), VecDeque::new());
        Self { status: head.status, headers: head.headers, body, rest, events, _wire: wire }
    }

    /// Reads the whole body, which must be UTF-8.
    pub(crate) async fn answer(mut self) -> Answer {
        let mut body = Vec::new();
        while let Some(bytes) = self.bytes().await {
            body.extend_from_slice(&bytes);
        }
        let body = String::from_utf8(body).expect("bodies are UTF-8");
        Answer { status: self.status, headers: self.headers.clone(), body }
    }

    /// The next event; `None` at the end of the body.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let Some(bytes) = self.bytes().await else {
                assert!(self.rest.is_empty(), "the stream ends inside an event: {:?}", self.rest);
                return None;
            };
            self.rest.extend_from_slice(&bytes);
            self.split();
        }
    }

    /// The next `data:` as JSON; `None` at `[DONE]` or the end of the body.
    pub(crate) async fn chunk(&mut self) -> Option<Value> {
        loop {
            match self.event().await? {
                Event::Comment(_) => {}
                Event::Data(data) if data == "[DONE]" => return None,
                Event::Data(data) => return Some(serde_json::from_str(&data).expect("data is JSON")),
                Event::Named { .. } => panic!("an event of another kind of stream"),
            }
        }
    }

    /// All `data:` up to the end of the body.
    pub(crate) async fn data(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(event) = self.event().await {
            if let Event::Data(data) = event {
                all.push(data);
            }
        }
        all
    }

    /// All chunks of an OpenAI stream, which must end with `[DONE]`.
    pub(crate) async fn chunks(&mut self) -> Vec<Value> {
        assert_eq!(self.status, 200);
        let mut data = self.data().await;
        assert_eq!(data.pop().as_deref(), Some("[DONE]"), "{:?}", data.last());
        data.iter().map(|data| serde_json::from_str(data).expect("data is JSON")).collect()
    }

    fn split(&mut self) {
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            let text = std::str::from_utf8(&event[..end]).expect("events are UTF-8");
            self.events.push_back(match (text.strip_prefix("data: "), text.strip_prefix(": ")) {
                (Some(data), _) => Event::Data(data.to_owned()),
                (None, Some(comment)) => Event::Comment(comment.to_owned()),
                (None, None) => named(text).unwrap_or_else(|| panic!("no event: {text:?}")),
            });
        }
    }

    async fn bytes(&mut self) -> Option<Bytes> {
        let frame = soon("more of the body", self.body.frame()).await?;
        Some(frame.expect("the connection lives").into_data().unwrap_or_default())
    }
}

fn named(text: &str) -> Option<Event> {
    let (id, rest) = text.strip_prefix("id: ")?.split_once("\nevent: ")?;
    let (name, data) = rest.split_once("\ndata: ")?;
    Some(Event::Named { id: id.to_owned(), name: name.to_owned(), data: data.to_owned() })
}
