//! The only bound on queued work: permits that move with the request and come back when it ends.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A pool of permits.
#[derive(Debug, Clone)]
pub struct Admission {
    permits: Arc<Semaphore>,
    limit: u32,
}

/// The right to have one sequence in the system; returned on drop.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// A pool of `limit` permits.
    pub fn new(limit: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit as usize)),
            limit,
        }
    }

    /// Takes `count` permits, or none at all.
    pub fn try_acquire(&self, count: u32) -> Option<Vec<Permit>> {
        let mut all = self.permits.clone().try_acquire_many_owned(count).ok()?;
        let permits = (0..count)
            .filter_map(|_| all.split(1))
            .map(|one| Permit { _permit: one })
            .collect();
        Some(permits)
    }

    /// Permits in all.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Permits that are taken.
    pub fn in_use(&self) -> u32 {
        self.limit - self.permits.available_permits() as u32
    }
}
