//! How fast requests are answered, lately. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most answers that are remembered.
const MOST_REMEMBERED: usize = 1024;

/// When the last requests were answered, by a clock that goes as fast as places are taken: it stands still while there is
/// nothing to answer, and light use is not taken for low capacity.
///
/// How long the next so many answers take is told by how long the last so many took, the time since the last one
/// included. So there is no window to choose: it works for ten answers a second and for one in five minutes alike.
#[derive(Debug, Default)]
pub(super) struct CompletionRate {
    answers: VecDeque<Duration>,
    /// When the last forgotten one was answered; the start if none is forgotten.
    since: Duration,
    /// Time with something to answer, up to `busy_since`.
    busy: Duration,
    /// Since when which part of the places is wanted, above 0 and up to 1.
    busy_since: Option<(Instant, f64)>,
}

impl CompletionRate {
    /// So much of the places is wanted, 0 to 1.
    pub(super) fn set_load(&mut self, load: f64, now: Instant) {
        self.busy = self.clock(now);
        self.busy_since = (load > 0.0).then_some((now, load));
    }

    /// A request was answered.
    pub(super) fn note(&mut self, now: Instant) {
        self.answers.push_back(self.clock(now));
        if self.answers.len() > MOST_REMEMBERED {
            self.since = self.answers.pop_front().unwrap_or(self.since);
        }
    }

    /// Whether so many have been answered.
    pub(super) fn has_seen(&self, answers: u32) -> bool {
        self.answers.len() >= (answers as usize).min(MOST_REMEMBERED)
    }

    /// How long so many answers will take, by at least `sample` of the last ones if there are so many. Before the first
    /// one, as if one happened now.
    pub(super) fn time_for(&self, answers: u32, sample: u32, now: Instant) -> Duration {
        let known = self.answers.len();
        let looked_at = (answers.max(sample) as usize).clamp(1, known.max(1));
        let begun = known.checked_sub(looked_at + 1).and_then(|before| self.answers.get(before));
        let span = self.clock(now).saturating_sub(*begun.unwrap_or(&self.since));
        let seconds = span.as_secs_f64() * f64::from(answers) / looked_at as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn clock(&self, now: Instant) -> Duration {
        let since = |(since, load): (Instant, f64)| now.saturating_duration_since(since).mul_f64(load);
        self.busy + self.busy_since.map_or(Duration::ZERO, since)
    }
}
