//! Sends requests, some at a time or at given times, and waits for all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::cpu;
use super::progress::Progress;
use super::server::Server;
use super::shot::{Seen, Shot};

/// When requests are sent.
#[derive(Debug, Clone)]
pub(super) enum Pace {
    /// Closed loop: so many at a time, the next when one has ended.
    AtOnce(usize),
    /// Open loop: at these times from the start, whatever the server does.
    Arrivals(Vec<Duration>),
}

/// What the clients of one round saw of one server.
#[derive(Debug, Clone)]
pub(super) struct Wave {
    /// In no order.
    pub(super) seen: Vec<Seen>,
    /// From the first request to the end of the last.
    pub(super) wall: Duration,
    /// Our own CPU time over wall time: 1.0 is one core.
    pub(super) client_cpu: Option<f64>,
}

impl Wave {
    /// Tokens that arrived, those of failed and cancelled requests among them.
    pub(super) fn tokens(&self) -> u64 {
        self.seen.iter().map(|seen| u64::from(seen.tokens)).sum()
    }

    /// Tokens over wall time; 0 when nothing was measured.
    pub(super) fn tokens_per_second(&self) -> f64 {
        let seconds = self.wall.as_secs_f64();
        if seconds > 0.0 { self.tokens() as f64 / seconds } else { 0.0 }
    }
}

/// Runs one round.
pub(super) async fn drive(server: &Arc<Server>, shots: Vec<Shot>, pace: Pace, progress: &Progress) -> Wave {
    let (began, cpu) = (Instant::now(), cpu::own());
    let mut clients = JoinSet::new();
    match pace {
        Pace::AtOnce(count) => {
            let clients_wanted = count.min(shots.len());
            let shots = Arc::new(Mutex::new(VecDeque::from(shots)));
            for _ in 0..clients_wanted {
                let (server, shots, progress) = (Arc::clone(server), Arc::clone(&shots), progress.clone());
                clients.spawn(async move {
                    let mut seen = Vec::new();
                    while let Some(shot) = next(&shots) {
                        seen.push(server.ask(&shot).await);
                        progress.advance();
                    }
                    seen
                });
            }
        }
        Pace::Arrivals(times) => {
            for (shot, at) in shots.into_iter().zip(times) {
                let (server, progress) = (Arc::clone(server), progress.clone());
                clients.spawn(async move {
                    tokio::time::sleep_until((began + at).into()).await;
                    let seen = server.ask(&shot).await;
                    progress.advance();
                    vec![seen]
                });
            }
        }
    }
    let seen: Vec<Seen> = clients.join_all().await.into_iter().flatten().collect();
    let wall = began.elapsed();
    let client_cpu = cpu.zip(cpu::own()).map(|(before, after)| (after - before).as_secs_f64() / wall.as_secs_f64());
    Wave { seen, wall, client_cpu }
}

fn next(shots: &Mutex<VecDeque<Shot>>) -> Option<Shot> {
    shots.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}
