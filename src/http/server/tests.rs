//! The HTTP side over real sockets, with routes made for the tests.

mod connections;
mod log_lines;
mod requests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cllm_actors::system::Status;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use warp::Reply;

use super::{HttpServer, HttpServerArgs, HttpServerRef};
use crate::http::context::{Call, HttpSettings};
use crate::http::error::{ApiError, ErrorShape};
use crate::http::health;
use crate::http::route::Route;
use crate::http::sse;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

struct TestServer {
    args: HttpServerArgs,
    actor: HttpServerRef,
    parent: ActorRef<Never>,
    status: watch::Sender<Status>,
    /// Feeds the body of the next `GET /stream`.
    chunks: mpsc::Sender<Bytes>,
}

#[derive(Debug)]
enum Never {}

impl ractor::Message for Never {}

/// Lets its children die.
struct Parent;

#[ractor::actor(message = Never, state = (), arguments = ())]
impl Parent {
    async fn pre_start(&self, _myself: ActorRef<Never>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Never>,
        _event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl TestServer {
    async fn start(settings: HttpSettings) -> Self {
        let (status, follow) = watch::channel(Status::Ready);
        let (chunks, receiver) = mpsc::channel(4);
        let mut routes = health::routes(follow, || None, || false);
        routes.extend(test_routes(receiver));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = HttpServerArgs::new(listener, routes, Arc::new(settings));
        let (parent, _) = Parent::spawn(None, Parent, ()).await.unwrap();
        let actor = start_actor(&args, &parent).await;
        Self { args, actor, parent, status, chunks }
    }

    async fn connect(&self) -> Client {
        let address = self.args.listener.local_addr().unwrap();
        Client { socket: TcpStream::connect(address).await.unwrap(), seen: String::new() }
    }

    /// One request on a connection of its own.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }
}

async fn start_actor(args: &HttpServerArgs, parent: &ActorRef<Never>) -> HttpServerRef {
    let name = format!("test-http-{:x}", fastrand::u64(..));
    Actor::spawn_linked(Some(name), HttpServer, args.clone(), parent.get_cell()).await.unwrap().0
}

fn test_routes(chunks: mpsc::Receiver<Bytes>) -> Vec<Route> {
    let chunks = Arc::new(Mutex::new(Some(chunks)));
    let stream = move |_| {
        let chunks = chunks.lock().unwrap().take().unwrap();
        async move { Ok(sse::response(ReceiverStream::new(chunks))) }
    };
    vec![
        Route::get("/v1/whoami", whoami),
        Route::post("/json", echo),
        Route::post("/seed", echo).errors(ErrorShape::Cllm),
        Route::get("/panic", |_| async { panic!("on purpose") }),
        Route::get("/stream", stream),
    ]
}

async fn whoami(call: Call) -> Result<warp::reply::Response, ApiError> {
    let tenant = call.tenant.as_ref().map(|tenant| tenant.as_str());
    Ok(warp::reply::json(&json!({ "id": &*call.request_id, "tenant": tenant })).into_response())
}

async fn echo(mut call: Call) -> Result<warp::reply::Response, ApiError> {
    let body: Value = call.json().await?;
    Ok(warp::reply::json(&body).into_response())
}

/// A client that sees every byte.
struct Client {
    socket: TcpStream,
    seen: String,
}

impl Client {
    /// Line ends are written `\n` in tests.
    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.replace('\n', "\r\n").as_bytes()).await.unwrap();
    }

    /// Reads until this text was seen; fails at the end of the connection.
    async fn until(&mut self, text: &str) -> &str {
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut buffer)).await.unwrap().unwrap();
            assert_ne!(read, 0, "closed before {text:?}; seen: {}", self.seen);
            self.seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        &self.seen
    }

    /// Reads until the server closes the connection.
    async fn rest(mut self) -> Answer {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.socket.read_to_end(&mut rest)).await.unwrap().unwrap();
        self.seen.push_str(std::str::from_utf8(&rest).unwrap());
        Answer(self.seen)
    }
}

/// A whole response as text.
struct Answer(String);

impl Answer {
    fn status(&self) -> u16 {
        self.0.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {}", self.0))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\nhost: x\nconnection: close\n\n")
}
