//! The only bound on queued work: permits that move with the request and come back when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of a computed `Retry-After`.
const RETRY_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A pool of permits.
#[derive(Debug, Clone)]
pub struct Admission {
    permits: Arc<Semaphore>,
    limit: u32,
    holding: Arc<HoldingTime>,
}

/// The right to have one sequence in the system; returned on drop.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    taken_at: Instant,
    limit: u32,
    holding: Arc<HoldingTime>,
}

impl Permit {
    /// Permits in all.
    pub fn limit(&self) -> u32 {
        self.limit
    }
}

/// Moving average of how long permits are held, µs; 0: none came back yet.
#[derive(Debug, Default)]
struct HoldingTime(AtomicU64);

impl HoldingTime {
    /// Every return counts one eighth. A lost update under contention only weighs a return less.
    fn note(&self, held: Duration) {
        let (held, mean) = (held.as_micros() as u64, self.0.load(Ordering::Relaxed));
        let mean = if mean == 0 { held } else { mean - mean / 8 + held / 8 };
        self.0.store(mean, Ordering::Relaxed);
    }

    fn mean(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.holding.note(self.taken_at.elapsed());
    }
}

impl Admission {
    /// A pool of `limit` permits.
    pub fn new(limit: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(limit as usize)), limit, holding: Arc::default() }
    }

    /// Takes `count` permits, or none at all.
    pub fn try_acquire(&self, count: u32) -> Option<Vec<Permit>> {
        let mut all = self.permits.clone().try_acquire_many_owned(count).ok()?;
        let taken_at = Instant::now();
        let permit = |permit| Permit { _permit: permit, taken_at, limit: self.limit, holding: self.holding.clone() };
        Some((0..count).filter_map(|_| all.split(1)).map(permit).collect())
    }

    /// When `count` permits will be free, by how long permits have been held lately; 1 to 60 s.
    pub fn retry_after(&self, count: u32) -> Duration {
        let (least, most) = RETRY_AFTER_BOUNDS;
        (self.holding.mean() * count / self.limit.max(1)).clamp(least, most)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_taken_all_or_none_and_come_back() {
        let admission = Admission::new(3);
        let two = admission.try_acquire(2).expect("free");
        assert!(admission.try_acquire(2).is_none());
        assert_eq!(admission.in_use(), 2);
        drop(two);
        assert_eq!(admission.in_use(), 0);
    }

    #[test]
    fn retry_after_follows_the_holding_time() {
        let admission = Admission::new(2);
        assert_eq!(admission.retry_after(1), Duration::from_secs(1));
        (0..64).for_each(|_| admission.holding.note(Duration::from_secs(20)));
        assert_eq!(admission.retry_after(1).as_secs(), 10);
    }
}
