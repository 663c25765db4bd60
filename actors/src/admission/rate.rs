//! How many requests end per second, lately. Pure.

use std::time::{Duration, Instant};

/// What ended so long ago weighs about a third of what ends now.
const WINDOW: Duration = Duration::from_secs(30);

/// Ends of requests, the older the less they weigh. Its clock stands still while there is nothing to end.
#[derive(Debug, Default)]
pub(super) struct CompletionRate {
    /// Ends, weighed at `measured`.
    weight: f64,
    measured: Duration,
    /// Time with something to end, up to `busy_since`.
    busy: Duration,
    busy_since: Option<Instant>,
}

impl CompletionRate {
    /// Something is there to end, or nothing any more.
    pub(super) fn set_busy(&mut self, busy: bool, now: Instant) {
        self.busy = self.clock(now);
        self.busy_since = busy.then_some(now);
    }

    /// A request ended.
    pub(super) fn note(&mut self, now: Instant) {
        let clock = self.clock(now);
        self.weight = self.weight_at(clock) + 1.0;
        self.measured = clock;
    }

    /// How long so many ends will take. Before the first one, as if one happened now.
    pub(super) fn time_for(&self, ends: u32, now: Instant) -> Duration {
        let clock = self.clock(now);
        let seen = if self.weight > 0.0 { self.weight_at(clock) } else { 1.0 };
        // So much an end every second would weigh by now.
        let window = WINDOW.as_secs_f64();
        let weight_of_one = window * -(-clock.as_secs_f64() / window).exp_m1();
        let seconds = f64::from(ends) * weight_of_one / seen;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn weight_at(&self, clock: Duration) -> f64 {
        let age = clock.saturating_sub(self.measured);
        self.weight * (-age.as_secs_f64() / WINDOW.as_secs_f64()).exp()
    }

    fn clock(&self, now: Instant) -> Duration {
        self.busy + self.busy_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}
