//! Places in the queue for those who ask: counted for all at once, because that costs as much as counting for one. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::engine::protocol::RequestId;

/// So long a count is told to whoever asks.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The last count.
#[derive(Debug, Default)]
pub(super) struct Positions {
    places: HashMap<RequestId, u32>,
    counted_at: Option<Instant>,
}

impl Positions {
    /// How many went before a request when they were counted last, which is done now if it was longer than a second ago.
    /// `None`: it was not queued then.
    pub(super) fn of(
        &mut self,
        request: RequestId,
        now: Instant,
        count: impl FnOnce() -> HashMap<RequestId, u32>,
    ) -> Option<u32> {
        if self.counted_at.is_none_or(|at| now.saturating_duration_since(at) > GOOD_FOR) {
            self.places = count();
            self.counted_at = Some(now);
        }
        self.places.get(&request).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_ask_the_queue_is_counted_once_a_second() {
        let mut positions = Positions::default();
        let (start, mut counts) = (Instant::now(), 0);
        for asked_at_ms in 0..2500 {
            let now = start + Duration::from_millis(asked_at_ms);
            let place = positions.of(7, now, || {
                counts += 1;
                HashMap::from([(7, counts)])
            });
            assert_eq!(place, Some(asked_at_ms as u32 / 1001 + 1));
        }
        assert_eq!(counts, 3);
        assert_eq!(positions.of(8, start, HashMap::new), None, "it came after the count");
    }
}
