//! What a request has come to so far: written by its session, readable at any time, also when the session is gone.
//!
//! A request that ends early (its client left, a deadline passed, its session died) sends no bill; who wants to account
//! for it reads this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::request::{Timings, Usage};

/// Tokens and times of one sequence. Clones show the same; numbers are read one after the other.
#[derive(Debug, Clone)]
pub struct Ledger {
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    arrived_at: Instant,
    prompt_tokens: AtomicU32,
    cached_tokens: AtomicU32,
    completion_tokens: AtomicU32,
    started: Moment,
    first_token: Moment,
    last_token: Moment,
    ended: Moment,
}

/// Nanoseconds from the arrival to something, plus one; 0 until it happens.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn set(&self, since_arrival: Duration) {
        let nanos = u64::try_from(since_arrival.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos.saturating_add(1), Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_nanos)
    }
}

impl Ledger {
    /// Nothing but the arrival.
    pub(crate) fn new(arrived_at: Instant) -> Self {
        let count = AtomicU32::default;
        let moment = Moment::default;
        let counts = Counts {
            arrived_at,
            prompt_tokens: count(),
            cached_tokens: count(),
            completion_tokens: count(),
            started: moment(),
            first_token: moment(),
            last_token: moment(),
            ended: moment(),
        };
        Self { counts: Arc::new(counts) }
    }

    /// Tokens so far.
    pub fn usage(&self) -> Usage {
        let read = |count: &AtomicU32| count.load(Ordering::Relaxed);
        Usage {
            prompt_tokens: read(&self.counts.prompt_tokens),
            cached_tokens: read(&self.counts.cached_tokens),
            completion_tokens: read(&self.counts.completion_tokens),
        }
    }

    /// Times so far: what is under way lasts until now, or until the request ended.
    pub fn timings(&self) -> Timings {
        let counts = &self.counts;
        let so_far = counts.ended.get().unwrap_or_else(|| counts.arrived_at.elapsed());
        let read = counts.first_token.get().unwrap_or(so_far);
        let started = counts.started.get();
        let last = counts.last_token.get().unwrap_or(read);
        Timings {
            queue: started.unwrap_or(read),
            prefill: started.map_or(Duration::ZERO, |started| read.saturating_sub(started)),
            decode: last.saturating_sub(read),
        }
    }

    pub(crate) fn prompt(&self, tokens: u32) {
        self.counts.prompt_tokens.store(tokens, Ordering::Relaxed);
    }

    /// The engine took it for the first time, `cached` of the prompt's tokens need no prefill.
    pub(crate) fn started(&self, at: Instant, cached: u32) {
        self.counts.cached_tokens.store(cached, Ordering::Relaxed);
        self.counts.started.set(self.since_arrival(at));
    }

    /// There are so many tokens, the last one since `at`.
    pub(crate) fn tokens(&self, count: u32, at: Instant) {
        let since_arrival = self.since_arrival(at);
        if self.counts.completion_tokens.swap(count, Ordering::Relaxed) == 0 {
            self.counts.first_token.set(since_arrival);
        }
        self.counts.last_token.set(since_arrival);
    }

    pub(crate) fn ended(&self) {
        self.counts.ended.set(self.counts.arrived_at.elapsed());
    }

    fn since_arrival(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.counts.arrived_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(timings: Timings) -> [u128; 3] {
        [timings.queue, timings.prefill, timings.decode].map(|time| time.as_millis())
    }

    #[test]
    fn the_times_are_those_between_the_moments() {
        let arrived = Instant::now();
        let ledger = Ledger::new(arrived);
        let after = |ms| arrived + Duration::from_millis(ms);
        ledger.prompt(12);
        ledger.started(after(5), 7);
        ledger.tokens(1, after(25));
        ledger.tokens(4, after(125));
        assert_eq!(ledger.usage(), Usage { prompt_tokens: 12, cached_tokens: 7, completion_tokens: 4 });
        assert_eq!(milliseconds(ledger.timings()), [5, 20, 100]);
    }

    #[test]
    fn what_is_under_way_lasts_until_the_end() {
        let arrived = Instant::now().checked_sub(Duration::from_secs(60)).expect("the machine has run for a minute");
        let ledger = Ledger::new(arrived);
        assert!(ledger.timings().queue >= Duration::from_secs(60), "it still waits");
        ledger.started(arrived + Duration::from_secs(20), 0);
        ledger.ended();
        let ended = ledger.timings();
        assert_eq!((ended.queue.as_secs(), ended.decode), (20, Duration::ZERO));
        assert!(ended.prefill >= Duration::from_secs(40));
        assert_eq!(ledger.timings(), ended, "time goes on, this does not");
    }
}
