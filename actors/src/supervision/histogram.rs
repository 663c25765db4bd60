//! Durations counted on a logarithmic scale, without locks: four buckets for each doubling, from 64 ns to nine minutes.
//!
//! A quantile is the middle of its bucket, so it is at most an eighth beside the truth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(test)]
mod tests;

const BUCKETS: usize = 128;
/// log2 of the width of the first buckets in ns.
const FLOOR_BITS: u32 = 6;
/// log2 of the buckets of a doubling.
const SUB_BITS: u32 = 2;
const SUBS: u64 = 1 << SUB_BITS;

/// Slots of a [`Window`]: six whole ones and the one that is being filled.
const SLOTS: u64 = 7;

/// How often durations of each size were seen.
#[derive(Debug)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Histogram {
    /// Counts a duration; any thread may.
    pub fn record(&self, duration: Duration) {
        self.bucket(duration).fetch_add(1, Ordering::Relaxed);
    }

    /// The same, cheaper, for a histogram that one thread at a time writes to.
    pub fn record_alone(&self, duration: Duration) {
        let bucket = self.bucket(duration);
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|index| self.0[index].load(Ordering::Relaxed)))
    }

    fn bucket(&self, duration: Duration) -> &AtomicU64 {
        &self.0[index_of(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))]
    }

    fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

/// A [`Histogram`] at one moment, or the sum of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; BUCKETS]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Counts {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, more)| *own += more);
    }

    /// The duration that a share of all (0 to 1) does not exceed; `None` if nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.0.iter().sum();
        let rank = ((total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        let (from, to) = (floor_of(index), floor_of(index + 1));
        Some(Duration::from_nanos(from + (to - from) / 2))
    }
}

fn index_of(ns: u64) -> usize {
    let units = ns >> FLOOR_BITS;
    if units < SUBS {
        return units as usize;
    }
    let exponent = units.ilog2();
    let sub = (units >> (exponent - SUB_BITS)) & (SUBS - 1);
    ((u64::from(exponent - 1) * SUBS + sub) as usize).min(BUCKETS - 1)
}

/// The least ns of a bucket.
fn floor_of(index: usize) -> u64 {
    let index = index as u64;
    if index < SUBS {
        return index << FLOOR_BITS;
    }
    (SUBS + index % SUBS) << (index / SUBS - 1) << FLOOR_BITS
}

/// What was counted lately: the six last whole periods and the one under way. A period is whatever the caller counts in.
#[derive(Debug, Default)]
pub struct Window([Slot; SLOTS as usize]);

#[derive(Debug, Default)]
struct Slot {
    period: AtomicU64,
    histogram: Histogram,
}

impl Window {
    /// Counts a duration in this period. Of two threads that begin a period together one may lose what it counts.
    pub fn record(&self, period: u64, duration: Duration) {
        let slot = &self.0[(period % SLOTS) as usize];
        let seen = slot.period.load(Ordering::Relaxed);
        if seen != period && slot.period.compare_exchange(seen, period, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            slot.histogram.clear();
        }
        slot.histogram.record(duration);
    }

    /// The counts of this period and the six before it.
    pub fn counts(&self, period: u64) -> Counts {
        let mut sum = Counts::default();
        let recent = |slot: &&Slot| slot.period.load(Ordering::Relaxed) + SLOTS > period;
        self.0.iter().filter(recent).for_each(|slot| sum.add(&slot.histogram.counts()));
        sum
    }
}
