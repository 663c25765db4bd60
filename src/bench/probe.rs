//! Asks `/livez` again and again while a server is busy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::report::ms;
use super::server::Server;

const EVERY: Duration = Duration::from_millis(50);
/// What a probe without an answer counts as: it must not look fast.
const FAILED_MS: f64 = 10_000.0;

/// A probe under way; it ends on drop.
#[derive(Debug)]
pub(super) struct Probe {
    task: JoinHandle<()>,
    times: Arc<Mutex<Times>>,
}

/// The times so far.
#[derive(Debug)]
struct Times {
    /// When the one that is under way was due, or the next one is.
    due: Instant,
    answered_ms: Vec<f64>,
}

impl Probe {
    /// Begins; `None` for a server that has no `/livez`.
    pub(super) fn begin(server: &Arc<Server>) -> Option<Self> {
        if !server.has_livez {
            return None;
        }
        let began = Instant::now();
        let times = Arc::new(Mutex::new(Times::new(began)));
        let (server, seen) = (Arc::clone(server), Arc::clone(&times));
        let task = tokio::spawn(async move {
            // Each is due at its time, however long the one before took.
            let mut interval = tokio::time::interval_at(began, EVERY);
            loop {
                interval.tick().await;
                match server.get("/livez").await {
                    Ok((StatusCode::OK, _)) => lock(&seen).answer(Instant::now()),
                    _ => lock(&seen).fail(),
                }
            }
        });
        Some(Self { task, times })
    }

    /// Ends it. The times that answers took, in milliseconds, those still awaited among them with their time so far: at
    /// least one.
    pub(super) fn end(self) -> Vec<f64> {
        lock(&self.times).end(Instant::now())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(times: &Mutex<Times>) -> std::sync::MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Times {
    fn new(began: Instant) -> Self {
        Self { due: began, answered_ms: Vec::new() }
    }

    /// Counts from when it was due: a server that stalls keeps the later ones waiting, too.
    fn answer(&mut self, now: Instant) {
        self.push(ms(now - self.due));
    }

    fn fail(&mut self) {
        self.push(FAILED_MS);
    }

    fn push(&mut self, time_ms: f64) {
        self.answered_ms.push(time_ms);
        self.due += EVERY;
    }

    /// A stall at the end counts like any other: for the one under way and for those that it keeps waiting.
    fn end(&mut self, now: Instant) -> Vec<f64> {
        while self.due <= now {
            self.answer(now);
        }
        std::mem::take(&mut self.answered_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_at_the_end_counts_from_when_each_probe_was_due() {
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let mut times = Times::new(began);
        times.answer(at(2));
        times.fail();
        assert_eq!(times.end(at(230)), [2.0, FAILED_MS, 130.0, 80.0, 30.0]);
        let mut never = Times::new(began);
        assert_eq!(never.end(at(40)), [40.0], "a round in which nothing was answered has its sample");
    }
}
