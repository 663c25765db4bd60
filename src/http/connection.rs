//! Open connections: how many, what each may cost, how they end. They live outside the `http` actor, so that streams go
//! on while it restarts.
//!
//! HTTP/1.1 only: telling HTTP/2 apart on a plain socket needs a read before hyper's header timeout starts, which is
//! exactly the gap a slow client would sit in.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cllm_actors::supervision::{Board, Field};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::http::context::ConnectionLimits;
use crate::http::envelope::{Envelope, Standing};
use crate::http::gauge::{Gauge, Present};
use crate::http::write_timeout::WriteTimeout;

/// Connections beyond the limit that are accepted for the probes alone: a server full of streams must not look dead.
pub const SPARE_CONNECTIONS: usize = 32;

/// How long connections without a running request get to close by themselves.
const CLOSING_TIME: Duration = Duration::from_secs(1);

/// Place of the board: connections that are open.
const OPEN: usize = 0;
/// Place of the board: whether connections are accepted.
pub(super) const LISTENING: usize = 1;

const BOARD: &[Field] = &[Field::Number("connections"), Field::Flag("listening")];

/// Where the server is on its way out; only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Closing,
    Aborting,
}

/// All connections of a server.
#[derive(Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    slots: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    phase: watch::Sender<Phase>,
    open: Arc<Gauge>,
    running: Arc<Gauge>,
    board: Arc<Board>,
}

/// The right to serve one connection.
#[derive(Debug)]
pub struct Slot {
    standing: Standing,
    _permit: OwnedSemaphorePermit,
    _present: Present,
}

impl Connections {
    /// No connection yet.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.max_connections as usize)),
            spare: Arc::new(Semaphore::new(SPARE_CONNECTIONS)),
            phase: watch::Sender::new(Phase::Serving),
            open: Arc::default(),
            running: Arc::default(),
            board: Arc::new(Board::new(BOARD)),
        })
    }

    /// Counts the requests whose response is not finished; give it to the [`Envelope`].
    pub fn running(&self) -> &Arc<Gauge> {
        &self.running
    }

    /// What the `http` actor shows of itself.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    fn show(&self) {
        self.board.set(OPEN, self.open.count() as u64);
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.count()
    }

    /// The right to serve one more connection; `None` when those for the probes are taken too.
    pub fn slot(&self) -> Option<Slot> {
        let welcome = Arc::clone(&self.slots).try_acquire_owned().map(|permit| (Standing::Welcome, permit));
        let crowded = || Arc::clone(&self.spare).try_acquire_owned().map(|permit| (Standing::Crowded, permit));
        let (standing, permit) = welcome.or_else(|_| crowded()).ok()?;
        Some(Slot { standing, _permit: permit, _present: self.open.enter() })
    }

    /// Serves a connection in a task of its own, which ends with the connection or in [`Connections::shut_down`].
    pub fn serve(self: &Arc<Self>, socket: TcpStream, slot: Slot, envelope: Envelope) {
        let all = Arc::clone(self);
        tokio::spawn(async move {
            all.show();
            serve(Arc::clone(&all), socket, slot, envelope).await;
            all.show();
        });
    }

    /// From now on only probes are answered, and every answer ends its connection.
    pub fn drain(&self) {
        self.enter(Phase::Draining);
    }

    /// Waits until no request runs. Cancel safe.
    pub async fn idle(&self) {
        self.running.reached(0).await;
    }

    /// Ends all connections: those without a running request at once, the rest after a second.
    pub async fn shut_down(&self) {
        self.enter(Phase::Closing);
        if tokio::time::timeout(CLOSING_TIME, self.open.reached(0)).await.is_err() {
            tracing::warn!(connections = self.open(), "connections are cut off");
            self.enter(Phase::Aborting);
            self.open.reached(0).await;
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    fn standing(&self, slot: Standing) -> Standing {
        if *self.phase.borrow() == Phase::Serving { slot } else { Standing::Draining }
    }
}

async fn serve(all: Arc<Connections>, socket: TcpStream, slot: Slot, envelope: Envelope) {
    // Tokens are small writes: each one would wait for the acknowledgement of the one before.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "connection lost before its first request");
        return;
    }
    let service = service_fn(|request| {
        let (envelope, standing) = (&envelope, all.standing(slot.standing));
        async move { Ok::<_, Infallible>(envelope.answer(request, standing).await) }
    });
    let io = TokioIo::new(WriteTimeout::new(socket, all.limits.write_timeout));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(all.limits.header_timeout)
            .serve_connection(io, service)
    );
    let mut phase = all.phase.subscribe();
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = phase.wait_for(|phase| *phase >= Phase::Closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                _ = phase.wait_for(|phase| *phase >= Phase::Aborting) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}
