//! Counters and latencies over all requests, written by the sessions, read without asking anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::supervision::histogram::{Counts, Window};

/// Latencies are counted in periods of so many seconds; a reader sees the last 60 to 70 s.
const PERIOD_S: u64 = 10;

/// What all requests of a system came to.
#[derive(Debug)]
pub struct Meters {
    begun: Instant,
    /// Requests that ended, however.
    pub finished: AtomicU64,
    /// Tokens of prompts that were taken.
    pub prompt_tokens: AtomicU64,
    /// Tokens given to callers.
    pub generated_tokens: AtomicU64,
    first_token: Window,
    token_gap: Window,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            finished: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            first_token: Window::default(),
            token_gap: Window::default(),
        }
    }
}

impl Meters {
    /// Notes a request's first token, so long after its arrival.
    pub fn first_token(&self, after: Duration) {
        self.first_token.record(self.period(), after);
    }

    /// Notes tokens that came together, so long after those before them.
    pub fn token_gap(&self, gap: Duration) {
        self.token_gap.record(self.period(), gap);
    }

    /// From arrival to first token, about over the last minute.
    pub fn first_tokens_lately(&self) -> Counts {
        self.first_token.counts(self.period())
    }

    /// From token to token within a request, about over the last minute.
    pub fn token_gaps_lately(&self) -> Counts {
        self.token_gap.counts(self.period())
    }

    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    fn period(&self) -> u64 {
        self.begun.elapsed().as_secs() / PERIOD_S
    }
}
