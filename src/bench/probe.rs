//! Asks `/livez` again and again while a server is busy.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::task::JoinHandle;

use super::report::ms;
use super::server::Server;

const EVERY: Duration = Duration::from_millis(50);
/// What a probe without an answer counts as: it must not look fast.
const FAILED_MS: f64 = 10_000.0;

/// A probe under way; it ends on drop.
#[derive(Debug)]
pub(super) struct Probe {
    task: JoinHandle<()>,
    times_ms: Arc<Mutex<Vec<f64>>>,
}

impl Probe {
    /// Begins; on a server that has no `/livez` there will be no times.
    pub(super) fn begin(server: &Arc<Server>) -> Self {
        let times_ms = Arc::<Mutex<Vec<f64>>>::default();
        let (server, times) = (Arc::clone(server), Arc::clone(&times_ms));
        let task = tokio::spawn(async move {
            let mut interval = tokio::time::interval(EVERY);
            loop {
                // From when it was due: a server that stalls keeps the later ones waiting, too.
                let due = interval.tick().await;
                let time = match server.get("/livez").await {
                    Ok((StatusCode::OK, _)) => ms(due.elapsed()),
                    // Another server's way to say that it has none.
                    Ok((StatusCode::NOT_FOUND, _)) => return,
                    _ => FAILED_MS,
                };
                times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
            }
        });
        Self { task, times_ms }
    }

    /// Ends it; the times that answers took, in milliseconds.
    pub(super) fn end(self) -> Vec<f64> {
        std::mem::take(&mut self.times_ms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}
