//! How long places are taken, and when they will be free. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most answers that are remembered.
const MOST_REMEMBERED: usize = 512;

/// Since when each place is taken, the earliest first, and for how long they lately were.
///
/// A rate of answers says how long many of them take, and nothing of how they lie in time: those that begin together end
/// together, and whoever comes just then waits for all of their time, at the head of the queue or not. Which of the places
/// an answer leaves nobody says: the earliest is taken for it, which makes no difference to the mean.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    since: VecDeque<Instant>,
    lately: VecDeque<Duration>,
}

impl Occupancy {
    /// So many places are taken: further ones from now on. Without an answer whoever came last leaves: an answer from elsewhere
    /// is there at once, and clients leave before their first token.
    pub(super) fn set_taken(&mut self, places: u32, now: Instant) {
        self.since.resize(places as usize, now);
    }

    /// One of them was answered.
    pub(super) fn answered(&mut self, now: Instant) {
        let Some(since) = self.since.pop_front() else { return };
        if self.lately.len() == MOST_REMEMBERED {
            self.lately.pop_front();
        }
        self.lately.push_back(now.saturating_duration_since(since));
    }

    /// How long a place is taken, the mean of the last so many answers.
    pub(super) fn time_of_an_answer(&self, sample: u32) -> Duration {
        let count = self.lately.len().min(sample as usize).max(1);
        self.lately.iter().rev().take(count).sum::<Duration>() / count as u32
    }

    /// How long until the `nth` place is free, counted from 1, if each is taken for so long.
    pub(super) fn time_until_free(&self, nth: u32, each: Duration, now: Instant) -> Duration {
        let places = self.since.len() as u32;
        let at = nth.saturating_sub(1);
        let Some((rounds, place)) = at.checked_div(places).zip(at.checked_rem(places)) else { return Duration::ZERO };
        let taken = now.saturating_duration_since(self.since[place as usize]);
        each.saturating_sub(taken).saturating_add(each.saturating_mul(rounds))
    }
}
