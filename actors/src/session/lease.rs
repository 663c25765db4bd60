//! A session's claim on the scheduler: whatever way the session ends, its request is cancelled there.

use std::sync::Arc;

use crate::engine::protocol::RequestId;
use crate::scheduler::SchedulerMsg;
use crate::wiring::Wiring;

/// Cancels the request and closes its account when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) request: RequestId,
    pub(super) wiring: Arc<Wiring>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Undeliverable: a scheduler that is not there runs nothing.
        let _ = self.wiring.scheduler.cast(SchedulerMsg::Cancel { request: self.request });
        self.wiring.quarantine.clear(self.request);
    }
}
