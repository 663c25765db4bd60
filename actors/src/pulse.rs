//! How long an engine with requests under way has not finished a step: what readiness goes by, whatever host it runs in. And how
//! long those before it worked.
//!
//! A watchdog replaces a hung engine process, but nothing can end a hung thread, and either way requests wait meanwhile.
//! Written by the backend, read without asking it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// At rest, or since when a step is awaited.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// µs since `begun`, plus one; 0: nothing is under way.
    awaited: AtomicU64,
    /// When the engine was loaded, counted the same way; 0: none was yet.
    loaded: AtomicU64,
    /// When its last step ended; 0: none has.
    stepped: AtomicU64,
    /// How many µs the engine before it worked; `u64::MAX`: there was none.
    worked_before: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            awaited: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
            stepped: AtomicU64::new(0),
            worked_before: AtomicU64::new(u64::MAX),
        }
    }
}

impl Pulse {
    /// A new engine is loaded, and rests. How long the better of the last two before it worked, from its load to its last step:
    /// one that ends soon is an accident, two are a condition. `None`: it is the first.
    pub(crate) fn next_engine(&self) -> Option<Duration> {
        self.rest();
        let loaded = self.loaded.swap(self.now(), Ordering::Relaxed);
        let stepped = self.stepped.swap(0, Ordering::Relaxed);
        if loaded == 0 {
            return None;
        }
        let worked = stepped.saturating_sub(loaded);
        let before = self.worked_before.swap(worked, Ordering::Relaxed);
        Some(Duration::from_micros(worked.max(before)))
    }

    /// The engine has got work and had none before.
    pub(crate) fn begin(&self) {
        self.awaited.store(self.now(), Ordering::Relaxed);
    }

    /// A step has ended.
    pub(crate) fn beat(&self) {
        let now = self.now();
        self.stepped.store(now, Ordering::Relaxed);
        if self.awaited.load(Ordering::Relaxed) != 0 {
            self.awaited.store(now, Ordering::Relaxed);
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn rest(&self) {
        self.awaited.store(0, Ordering::Relaxed);
    }

    /// Since the last step, or since there was something to do; `None` while nothing is under way.
    pub fn silence(&self) -> Option<Duration> {
        let awaited = self.awaited.load(Ordering::Relaxed);
        (awaited != 0).then(|| Duration::from_micros(self.now().saturating_sub(awaited)))
    }

    /// The silence, if it is longer than it should ever be.
    pub fn stalled(&self, longest: Duration) -> Option<Duration> {
        self.silence().filter(|silence| *silence > longest)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun_ago(seconds: u64) -> Pulse {
        let begun = Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine has run that long");
        Pulse { begun, ..Pulse::default() }
    }

    #[test]
    fn only_awaited_steps_are_missed() {
        let pulse = begun_ago(60);
        pulse.beat();
        assert_eq!(pulse.silence(), None, "an idle engine is silent by right");
        pulse.begin();
        assert!(pulse.silence() < Some(Duration::from_secs(60)), "counted from the first request");
        // As if that had been 59 seconds ago.
        pulse.awaited.store(1_000_000, Ordering::Relaxed);
        assert!(pulse.silence() >= Some(Duration::from_secs(59)));
        pulse.beat();
        assert!(pulse.silence() < Some(Duration::from_secs(59)));
        pulse.rest();
        assert_eq!(pulse.silence(), None);
    }

    #[test]
    fn two_engines_that_end_soon_are_a_condition() {
        let pulse = begun_ago(60);
        assert_eq!(pulse.next_engine(), None, "the first cuts nobody off");
        assert_eq!(pulse.next_engine(), Some(Duration::from_micros(u64::MAX)), "one that never stepped is an accident");
        assert_eq!(pulse.next_engine(), Some(Duration::ZERO));
        // As if this one had been loaded 50 seconds ago.
        pulse.loaded.store(10_000_000, Ordering::Relaxed);
        pulse.beat();
        assert!(pulse.next_engine() >= Some(Duration::from_secs(50)));
        assert!(pulse.next_engine() >= Some(Duration::from_secs(50)), "an accident again");
        assert_eq!(pulse.next_engine(), Some(Duration::ZERO));
    }
}
