//! The `http` actor: accepts connections.
//!
//! Supervised by the root. Nobody sends it anything but itself, its supervisor and the code that stops the server. When
//! it dies accepting pauses until it is restarted: the listening socket and all open connections are outside of it, and
//! what arrives meanwhile waits in the kernel's backlog. It stops by dropping its accept loop.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cllm_actors::supervision::{Board, Gate, mailbox};
use futures_util::FutureExt;
use hyper_util::service::TowerToHyperService;
use ractor::{ActorProcessingErr, ActorRef};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http::connection::{Connections, LISTENING};
use crate::http::context::HttpSettings;
use crate::http::dispatch;
use crate::http::envelope::Envelope;
use crate::http::route::{Route, RouteTable};

/// Pause after the process ran out of file descriptors or buffers, in the hope that connections close meanwhile.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// The address of the actor.
pub type HttpServerRef = ActorRef<HttpServerMsg>;

/// Messages of [`HttpServer`].
#[derive(Debug)]
pub enum HttpServerMsg {
    /// From an operator: accept no connections, or go on. Open ones go on in any case, and through one of them the pause
    /// can be ended. It ends with the incarnation.
    SetGate(Gate),
    /// The accept loop ended; sent by the actor to itself, which then fails on purpose.
    AcceptFailed {
        /// Why.
        error: io::Error,
    },
}

cllm_actors::impl_message!(HttpServerMsg);

/// What the actor starts with; the same for every incarnation.
#[derive(Clone)]
pub struct HttpServerArgs {
    /// The listening socket.
    pub listener: Arc<TcpListener>,
    /// Where connections live.
    pub connections: Arc<Connections>,
    /// What answers them.
    pub envelope: Envelope,
}

impl HttpServerArgs {
    /// Puts the HTTP side together; nothing is accepted before the actor is spawned.
    pub fn new(listener: TcpListener, routes: Vec<Route>, settings: Arc<HttpSettings>) -> Self {
        let connections = Connections::new(settings.connections);
        let filter = dispatch::filter(RouteTable::new(routes), settings);
        let service = TowerToHyperService::new(warp::service(filter));
        let envelope = Envelope::new(service, Arc::clone(connections.running()));
        Self { listener: Arc::new(listener), connections, envelope }
    }
}

/// Owns the accept loop.
#[derive(Debug)]
pub struct HttpServerState {
    accepting: JoinHandle<()>,
    gate: watch::Sender<Gate>,
    board: Arc<Board>,
}

impl Drop for HttpServerState {
    fn drop(&mut self) {
        self.accepting.abort();
        self.board.set(LISTENING, 0);
    }
}

impl HttpServerState {
    fn on_set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
        self.board.set(LISTENING, u64::from(gate == Gate::Open));
    }
}

/// The actor.
#[derive(Debug)]
pub struct HttpServer;

#[ractor::actor(message = HttpServerMsg, state = HttpServerState, arguments = HttpServerArgs)]
impl HttpServer {
    async fn pre_start(
        &self,
        myself: HttpServerRef,
        args: HttpServerArgs,
    ) -> Result<HttpServerState, ActorProcessingErr> {
        let (gate, passing) = watch::channel(Gate::Open);
        let board = Arc::clone(args.connections.board());
        board.set(LISTENING, 1);
        let accepting = tokio::spawn(async move {
            let failure = AssertUnwindSafe(accept_until_failure(&args, passing)).catch_unwind().await;
            let error = failure.unwrap_or_else(|_| io::Error::other("the accept loop panicked"));
            // An actor that is gone needs no telling.
            let _ = myself.cast(HttpServerMsg::AcceptFailed { error });
        });
        Ok(HttpServerState { accepting, gate, board })
    }

    async fn handle(
        &self,
        _myself: HttpServerRef,
        message: HttpServerMsg,
        state: &mut HttpServerState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            HttpServerMsg::SetGate(gate) => state.on_set_gate(gate),
            HttpServerMsg::AcceptFailed { error } => return Err(error.into()),
        }
        Ok(())
    }
}

async fn accept_until_failure(args: &HttpServerArgs, mut gate: watch::Receiver<Gate>) -> io::Error {
    loop {
        if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
            return io::Error::other("the actor is gone");
        }
        let accepted = tokio::select! {
            accepted = args.listener.accept() => accepted,
            _ = gate.changed() => continue,
        };
        match accepted {
            Ok((socket, peer)) => match args.connections.slot() {
                Some(slot) => args.connections.serve(socket, slot, args.envelope.clone()),
                // Closed at once: one that waits here would keep the next probe waiting behind it.
                None => tracing::debug!(%peer, "connection refused: no more can be served"),
            },
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Connection => tracing::debug!(%error, "connection lost while it was accepted"),
                AcceptError::Exhausted => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                AcceptError::Listener => return error,
            },
        }
    }
}

/// Whose fault a failed `accept` is.
#[derive(Debug, PartialEq, Eq)]
enum AcceptError {
    /// That connection's.
    Connection,
    /// The process ran out of something.
    Exhausted,
    /// The listening socket's.
    Listener,
}

impl AcceptError {
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, OutOfMemory};
        match error.kind() {
            ConnectionAborted | ConnectionRefused | ConnectionReset => Self::Connection,
            OutOfMemory => Self::Exhausted,
            _ if matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS)) => Self::Exhausted,
            _ => Self::Listener,
        }
    }
}

const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
/// Linux; elsewhere the number differs and the actor is restarted instead of pausing.
const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests;
