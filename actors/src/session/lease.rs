//! A session's claim on scheduler and quarantine: whatever way the session ends, its request is cancelled and its account closed.

use std::sync::Arc;

use super::Phase;
use crate::engine::protocol::RequestId;
use crate::error::GenerateError;
use crate::quarantine::Verdict;
use crate::scheduler::{CancelCause, SchedulerMsg};
use crate::wiring::Wiring;

/// Cancels the request and closes its account when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) request: RequestId,
    pub(super) wiring: Arc<Wiring>,
}

impl Lease {
    /// Whether the request may go on after an engine has ended. A text cannot run alone: the second death over it decides.
    pub(super) fn unless_guilty(&self, phase: Phase) -> Result<(), GenerateError> {
        match self.wiring.quarantine.verdict(self.request) {
            Verdict::Guilty => Err(GenerateError::EngineCrashed),
            Verdict::Suspect if phase == Phase::Tokenizing => Err(GenerateError::EngineCrashed),
            Verdict::Suspect | Verdict::Trusted => Ok(()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Undeliverable: a scheduler that is not there runs nothing.
        let _ =
            self.wiring.scheduler.cast(SchedulerMsg::Cancel { request: self.request, cause: CancelCause::Unwanted });
        self.wiring.quarantine.clear(self.request);
    }
}
