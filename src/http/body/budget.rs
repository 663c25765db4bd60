//! How many bytes of request bodies are in memory at once, over all connections.
//!
//! Bytes are counted as they come: a client that announces much and sends little holds little. A body's share is kept
//! until what it was read for is made of it, since JSON in memory is many times its text; how many, `weight.rs` bounds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that are counted as one.
const UNIT: u64 = 1024;

/// So many bytes of each body have room whatever others send: most bodies are no larger.
const FREE: u64 = 16 << 10;

/// Longest wait for memory that other bodies have.
const WAIT: Duration = Duration::from_secs(5);

/// The memory for bodies; cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    units: Arc<Semaphore>,
}

/// What one body has of it; given back on drop.
#[derive(Debug, Default)]
pub struct BodyShare {
    permit: Option<OwnedSemaphorePermit>,
}

/// Other bodies had the memory for too long.
#[derive(Debug)]
pub struct Exhausted;

impl BodyBudget {
    /// Room for this many bytes, at least for one body of the largest size.
    pub fn new(bytes: u64, largest_body: u64) -> Self {
        let units = bytes.max(largest_body).div_ceil(UNIT).min(u64::from(u32::MAX));
        Self { units: Arc::new(Semaphore::new(units as usize)) }
    }

    /// Grows a share until it covers a body of this many bytes. Cancel safe.
    ///
    /// # Errors
    /// There was not enough for five seconds. Two that wait for each other end this way too.
    pub async fn cover(&self, share: &mut BodyShare, bytes: u64) -> Result<(), Exhausted> {
        let wanted = bytes.saturating_sub(FREE).div_ceil(UNIT).saturating_sub(share.units() as u64);
        if wanted == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.units).acquire_many_owned(wanted as u32);
        let more = tokio::time::timeout(WAIT, more).await.map_err(|_| Exhausted)?.map_err(|_| Exhausted)?;
        match &mut share.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

impl BodyShare {
    fn units(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Gives all of it back.
    pub fn release(&mut self) {
        self.permit = None;
    }
}
