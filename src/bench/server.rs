//! One server under measurement: its address, its keep-alive connections, and requests over them.

use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::BenchError;
use super::answer::{self, Piece};
use super::shot::{Caching, Delivery, Ending, Resent, Seen, Shot};
use super::sse::SseReader;

/// Longest wait for facts about a server and for a probe.
const FACT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a server that loads its model.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at such a server.
const READY_POLL: Duration = Duration::from_millis(500);
/// Longest answer that is read in one piece.
const MAX_DOCUMENT_BYTES: usize = 64 << 20;

type Anything = Box<dyn std::error::Error + Send + Sync>;

/// A server as its clients see it.
#[derive(Debug)]
pub(super) struct Server {
    /// Without `/v1` and without a slash at the end.
    pub(super) url: String,
    /// The model that is asked for.
    pub(super) model: Option<String>,
    /// What it says of itself, such as a name and a version.
    pub(super) version: String,
    /// Whether it has cLLM's own endpoints.
    pub(super) speaks_cllm: bool,
    /// Whether there is a `/livez`: anything but a 404.
    pub(super) has_livez: bool,
    authority: String,
    /// What stands before every path.
    prefix: String,
    settings: Settings,
    idle: Mutex<Vec<Wire>>,
}

/// How a client asks.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) api_key: Option<String>,
    /// Longest wait for one answer.
    pub(super) patience: Duration,
    /// Answers with fewer tokens than asked for are no failures.
    pub(super) accept_short: bool,
}

/// A connection; closed on drop.
#[derive(Debug)]
struct Wire {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Takes a base URL apart and asks the server what it is.
    ///
    /// # Errors
    /// A URL that is none, or nobody there.
    pub(super) async fn meet(url: &str, model: Option<&str>, settings: Settings) -> Result<Self, BenchError> {
        let url = url.trim_end_matches('/');
        let url = url.strip_suffix("/v1").unwrap_or(url).to_owned();
        let bad = |reason: &'static str| BenchError::BadUrl { url: url.clone(), reason };
        let rest = url.strip_prefix("http://").ok_or_else(|| bad("it must begin with http://"))?;
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        if authority.is_empty() || authority.contains(['@', ' ']) {
            return Err(bad("it names no host"));
        }
        let authority = if has_port(authority) { authority.to_owned() } else { format!("{authority}:80") };
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let mut server = Self {
            model: model.map(str::to_owned),
            version: "unknown".to_owned(),
            speaks_cllm: false,
            has_livez: false,
            authority,
            prefix,
            settings,
            idle: Mutex::default(),
            url: url.clone(),
        };
        server.wait_until_ready().await?;
        server.learn().await?;
        Ok(server)
    }

    /// A cLLM that loads its model says so at `/readyz`; other servers have no such thing, and are not waited for.
    async fn wait_until_ready(&self) -> Result<(), BenchError> {
        let is_ready = async || match self.get("/readyz").await {
            Ok((status, _)) => status != StatusCode::SERVICE_UNAVAILABLE,
            // Whoever asks next says why.
            Err(_) => true,
        };
        if is_ready().await {
            return Ok(());
        }
        let limit_s = LOAD_DEADLINE.as_secs();
        // Nobody misses a line that cannot be written.
        let _ = writeln!(io::stderr().lock(), "{} is not ready: waiting for up to {limit_s} s", self.url);
        let ready = async {
            while !is_ready().await {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        let waited = tokio::time::timeout(LOAD_DEADLINE, ready).await;
        let reason = || format!("`/readyz` says 503, for {limit_s} s");
        waited.map_err(|_| BenchError::Unreachable { url: self.url.clone(), reason: reason() })
    }

    async fn learn(&mut self) -> Result<(), BenchError> {
        let models = self
            .fact("/v1/models")
            .await
            .map_err(|reason| BenchError::Unreachable { url: self.url.clone(), reason: reason.to_string() })?;
        let listed = models.and_then(|models| models["data"][0]["id"].as_str().map(str::to_owned));
        self.model = self.model.take().or(listed);
        if let Ok(Some(index)) = self.fact("/").await
            && let (Some(name), Some(version)) = (index["data"]["name"].as_str(), index["data"]["version"].as_str())
        {
            self.version = format!("{name} {version}");
            self.speaks_cllm = true;
        } else if let Ok(Some(props)) = self.fact("/props").await
            && let Some(build) = props["build_info"].as_str()
        {
            self.version = format!("llama.cpp {build}");
        }
        self.has_livez = !matches!(self.get("/livez").await, Ok((StatusCode::NOT_FOUND, _)));
        Ok(())
    }

    /// A JSON document; `None` when there is nothing of that kind.
    async fn fact(&self, path: &str) -> Result<Option<Value>, Anything> {
        let (status, body) = self.get(path).await?;
        Ok(if status == StatusCode::OK { serde_json::from_slice(&body).ok() } else { None })
    }

    /// Status and body of a `GET`.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Anything> {
        let request = self.request(Method::GET, path).body(Full::default())?;
        let exchange = async {
            let (response, wire, _) = self.send(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_DOCUMENT_BYTES).collect().await?.to_bytes();
            self.keep(wire);
            Ok((status, body))
        };
        tokio::time::timeout(FACT_DEADLINE, exchange).await?
    }

    /// Sends a request and follows its answer to the end. What goes wrong is in the result.
    pub(super) async fn ask(&self, shot: &Shot) -> Seen {
        let mut seen = Seen::begin(shot.prompt());
        let answered = tokio::time::timeout(self.settings.patience, self.follow(shot, &mut seen)).await;
        let ending = match answered {
            Ok(Ok(ending)) => ending,
            Ok(Err(error)) => Ending::Failed(failure(&error)),
            Err(_) => Ending::Failed(format!("no whole answer in {} s", self.settings.patience.as_secs())),
        };
        seen.end(ending);
        if seen.tokens == 0 {
            seen.tokens = seen.arrivals.len() as u32;
        }
        if seen.ending == Ending::Complete && seen.tokens < shot.max_tokens && !self.settings.accept_short {
            seen.ending = Ending::Failed("fewer tokens than asked for".to_owned());
        }
        seen
    }

    async fn follow(&self, shot: &Shot, seen: &mut Seen) -> Result<Ending, Anything> {
        let mut request = self.request(Method::POST, shot.path()).header("content-type", "application/json");
        if shot.caching == Caching::Refused {
            request = request.header("cache-control", "no-store");
        }
        let body = shot.body(self.model.as_deref()).to_string();
        let (response, wire, resent) = self.send(request.body(Full::new(body.into()))?).await?;
        seen.resent = resent;
        let status = response.status();
        if status == StatusCode::OK && shot.delivery == Delivery::Stream {
            return self.follow_stream(response.into_body(), wire, shot, seen).await;
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT_BYTES).collect().await?.to_bytes();
        self.keep(wire);
        if status != StatusCode::OK {
            return Ok(Ending::Failed(answer::refusal(status.as_u16(), &body)));
        }
        Ok(answer::document(&body, seen).map_or_else(Ending::Failed, |()| Ending::Complete))
    }

    async fn follow_stream(
        &self,
        mut body: Incoming,
        wire: Wire,
        shot: &Shot,
        seen: &mut Seen,
    ) -> Result<Ending, Anything> {
        let mut reader = SseReader::default();
        let (mut finished, mut failed) = (false, None);
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame?.into_data() else { continue };
            let now = std::time::Instant::now();
            reader.push(&bytes, |data| match answer::event(data, seen) {
                Piece::Text => seen.arrive(now, shot),
                Piece::LastText => {
                    seen.arrive(now, shot);
                    finished = true;
                }
                Piece::Finished | Piece::Done => finished = true,
                Piece::Error(error) => failed = Some(error),
                Piece::Other => {}
            });
            if failed.is_some() || shot.leave_after.is_some_and(|pieces| seen.arrivals.len() >= pieces) {
                // Dropping the connection tells the server.
                return Ok(failed.map_or(Ending::Left, Ending::Failed));
            }
        }
        if !finished || reader.is_inside_event() {
            return Ok(Ending::Failed("the stream was cut".to_owned()));
        }
        self.keep(wire);
        Ok(Ending::Complete)
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.prefix));
        let request = request.header("host", &self.authority).header("accept", "*/*");
        match &self.settings.api_key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    /// Sends over a connection that is open, or else over a new one. Says whether it had to be sent again: some
    /// servers close a kept connection without a word, and may do so just when a request is on its way.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Wire, Resent), Anything> {
        let mut resent = Resent::No;
        while let Some(mut wire) = self.open_wire() {
            if wire.sender.ready().await.is_err() {
                continue;
            }
            match wire.sender.send_request(request.clone()).await {
                Ok(response) => return Ok((response, wire, resent)),
                Err(error) if error.is_canceled() => {}
                Err(_) => {
                    resent = Resent::Yes;
                    break;
                }
            }
        }
        let mut wire = self.connect().await?;
        let response = wire.sender.send_request(request).await?;
        Ok((response, wire, resent))
    }

    async fn connect(&self) -> Result<Wire, Anything> {
        let socket = TcpStream::connect(&self.authority).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let task = tokio::spawn(async move {
            // An error of the connection shows in the response as well.
            let _ = connection.await;
        });
        Ok(Wire { sender, task })
    }

    fn open_wire(&self) -> Option<Wire> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, wire: Wire) {
        if !wire.sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(wire);
        }
    }
}

/// Whether a port stands behind the host, which may be an IPv6 address in brackets.
fn has_port(authority: &str) -> bool {
    authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The innermost cause: it tells "connection refused" from "reset".
fn failure(error: &Anything) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error.as_ref();
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("connection: {cause}")
}
