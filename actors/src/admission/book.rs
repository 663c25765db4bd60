//! Who holds how many permits, whether there is one more, and when to come back if not. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::rate::CompletionRate;
use super::{AdmissionLimits, Claim, Refusal};
use crate::request::TenantId;

/// Bounds of a computed `Retry-After`.
const RETRY_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The books of a pool.
#[derive(Debug)]
pub(super) struct Book {
    limits: AdmissionLimits,
    in_use: u32,
    /// By tenant; whoever holds none has no entry.
    held: HashMap<TenantId, u32>,
    rate: CompletionRate,
}

impl Book {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        Self { limits, in_use: 0, held: HashMap::new(), rate: CompletionRate::default() }
    }

    pub(super) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Whether the permits are there.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, claim: Claim, now: Instant) -> Result<(), Refusal> {
        let Claim { tenant, priority, count } = claim;
        let (pool, share) = (self.limits.pool(priority), self.limits.share(tenant));
        if count > pool.min(share) {
            return Err(Refusal::Never { limit: pool.min(share) });
        }
        let held = self.held.get(&tenant).copied().unwrap_or(0);
        if held + count > share {
            return Err(Refusal::OverQuota { limit: share, retry_after: self.tenants_wait(held, count, now) });
        }
        if self.in_use + count > pool {
            return Err(Refusal::Full { limit: pool, retry_after: self.wait(self.in_use, count, now) });
        }
        Ok(())
    }

    /// Writes the permits down as taken.
    ///
    /// # Errors
    /// Why not; nothing is taken then.
    pub(super) fn take(&mut self, claim: Claim, now: Instant) -> Result<(), Refusal> {
        self.check(claim, now)?;
        let Claim { tenant, count, .. } = claim;
        if self.in_use == 0 && count > 0 {
            self.rate.set_busy(true, now);
        }
        self.in_use += count;
        if count > 0 {
            *self.held.entry(tenant).or_default() += count;
        }
        Ok(())
    }

    /// One permit comes back.
    pub(super) fn give_back(&mut self, tenant: TenantId, now: Instant) {
        self.in_use = self.in_use.saturating_sub(1);
        if let Some(held) = self.held.get_mut(&tenant) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&tenant);
            }
        }
        self.rate.note(now);
        if self.in_use == 0 {
            self.rate.set_busy(false, now);
        }
    }

    /// Until what waits now has been served, at the rate at which requests end.
    fn wait(&self, requests: u32, count: u32, now: Instant) -> Duration {
        let waiting = requests.saturating_sub(self.limits.running).max(count);
        let (least, most) = RETRY_AFTER_BOUNDS;
        self.rate.time_for(waiting, now).clamp(least, most)
    }

    /// The same for one tenant, which has its part of the rate and of the places.
    fn tenants_wait(&self, held: u32, count: u32, now: Instant) -> Duration {
        let tenants = (self.held.len() as u32).max(1);
        self.wait(held.saturating_mul(tenants), count.saturating_mul(tenants), now)
    }
}
