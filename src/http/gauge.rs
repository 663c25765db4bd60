//! A count of things that are there now, and a way to wait until none is.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts; see [`Gauge::enter`].
#[derive(Debug)]
pub struct Gauge {
    count: watch::Sender<usize>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self { count: watch::Sender::new(0) }
    }
}

/// Counts as one until it is dropped.
#[derive(Debug)]
pub struct Present(Arc<Gauge>);

impl Gauge {
    /// Counts one more.
    pub fn enter(self: &Arc<Self>) -> Present {
        self.count.send_modify(|count| *count += 1);
        Present(Arc::clone(self))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until there are `wanted` exactly. Cancel safe.
    pub async fn reached(&self, wanted: usize) {
        // The sender lives in `self`, so the channel cannot close while this waits.
        let _ = self.count.subscribe().wait_for(|count| *count == wanted).await;
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}
