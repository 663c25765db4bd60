//! What happened to the actors lately, numbered: a ring that any number of readers follow at their own pace.
//!
//! A reader has no queue: it asks for what came after the number it has seen. One that is too late, or that lost events,
//! gets a snapshot of everything instead and goes on from there. So does one that comes from an earlier life of the server:
//! the numbers of a log begin with the milliseconds of its start, and no log grows by an event each millisecond.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use crate::engine::protocol::Epoch;
use crate::supervision::{EventKind, SupervisionEventRecord};

/// Events that are kept.
const CAPACITY: usize = 1024;

/// An event as it is told to the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorEvent {
    /// Grows by one for each event; a gap is events that were lost.
    pub seq: u64,
    /// When, ms since 1970.
    pub at: u64,
    /// What happened: `started`, `failed`, `restart_scheduled`, ...
    pub kind: &'static str,
    /// To whom.
    pub path: String,
    /// Of the incarnation; 0 if there was none.
    pub epoch: Epoch,
    /// Why.
    pub cause: Option<String>,
    /// Until the next try, ms.
    pub backoff_ms: Option<u64>,
}

impl ActorEvent {
    fn new(seq: u64, record: SupervisionEventRecord) -> Self {
        let (kind, backoff) = describe(record.kind);
        Self {
            seq,
            at: unix_ms(record.at),
            kind,
            path: record.path,
            epoch: record.epoch,
            cause: record.cause,
            backoff_ms: backoff.map(|backoff| backoff.as_millis() as u64),
        }
    }
}

fn describe(kind: EventKind) -> (&'static str, Option<Duration>) {
    match kind {
        EventKind::Started => ("started", None),
        EventKind::Restarted => ("restarted", None),
        EventKind::StartFailed | EventKind::FirstStartFailed => ("start_failed", None),
        EventKind::Exited | EventKind::Zombie => ("failed", None),
        EventKind::RestartScheduled { delay } => ("restart_scheduled", Some(delay)),
        EventKind::Stopped => ("stopped", None),
        EventKind::GaveUp => ("gave_up", None),
        EventKind::Held { retry_after } => ("held", Some(retry_after)),
        EventKind::Resumed => ("resumed", None),
        EventKind::Killed => ("killed", None),
        EventKind::Paused => ("paused", None),
        EventKind::Disturbed => ("disturbed", None),
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The ring; clones are the same.
#[derive(Debug, Clone)]
pub struct EventLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    events: Mutex<VecDeque<Arc<ActorEvent>>>,
    last: watch::Sender<u64>,
}

/// What a reader that has seen a certain number is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// Nothing came since.
    Nothing,
    /// The next one.
    Event(Arc<ActorEvent>),
    /// The next one is not there any more, or the number is not from this log.
    Gap,
}

impl EventLog {
    /// Nothing has happened yet. Numbers are far below 2^53, so that every JSON parser has them right.
    pub fn begun_at(time: SystemTime) -> Self {
        Self(Arc::new(Inner { events: Mutex::default(), last: watch::Sender::new(unix_ms(time)) }))
    }

    /// Number of the last event; before the first, the number before its.
    pub fn last(&self) -> u64 {
        *self.0.last.borrow()
    }

    /// Follows the number of the last event.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.0.last.subscribe()
    }

    /// The event after number `seen`.
    pub(crate) fn after(&self, seen: u64) -> After {
        let events = self.events();
        let last = self.last();
        if seen >= last {
            return if seen == last { After::Nothing } else { After::Gap };
        }
        let next = events.partition_point(|event| event.seq <= seen);
        match events.get(next) {
            Some(event) if event.seq == seen + 1 => After::Event(event.clone()),
            _ => After::Gap,
        }
    }

    pub(super) fn append(&self, record: SupervisionEventRecord) {
        let mut events = self.events();
        let seq = self.last() + 1;
        if events.len() == CAPACITY {
            events.pop_front();
        }
        events.push_back(Arc::new(ActorEvent::new(seq, record)));
        self.0.last.send_replace(seq);
    }

    /// So many records were lost on the way here.
    pub(super) fn skip(&self, missed: u64) {
        tracing::warn!(missed, "supervision records missed");
        let _events = self.events();
        self.0.last.send_modify(|last| *last += missed);
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<Arc<ActorEvent>>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(events: u64) -> EventLog {
        let log = EventLog::begun_at(UNIX_EPOCH);
        (0..events).for_each(|_| append(&log));
        log
    }

    fn append(log: &EventLog) {
        let kind = EventKind::RestartScheduled { delay: Duration::from_millis(7) };
        log.append(SupervisionEventRecord { path: "r/a".to_owned(), kind, epoch: 3, cause: None, at: UNIX_EPOCH });
    }

    fn seq_after(log: &EventLog, seen: u64) -> Option<u64> {
        match log.after(seen) {
            After::Event(event) => Some(event.seq),
            After::Nothing | After::Gap => None,
        }
    }

    #[test]
    fn events_are_numbered_and_found_by_the_one_before() {
        let log = filled(3);
        assert_eq!((seq_after(&log, 0), seq_after(&log, 2), log.after(3)), (Some(1), Some(3), After::Nothing));
    }

    #[test]
    fn who_is_too_late_or_comes_from_another_log_gets_a_gap() {
        let log = filled(CAPACITY as u64 + 10);
        assert_eq!((log.after(9), seq_after(&log, 10)), (After::Gap, Some(11)));
        assert_eq!(log.after(log.last() + 1), After::Gap);
    }

    #[test]
    fn who_comes_from_an_earlier_life_gets_a_gap() {
        let begun = UNIX_EPOCH + Duration::from_millis(1_800_000_000_000);
        let earlier = EventLog::begun_at(begun);
        (0..700).for_each(|_| append(&earlier));
        let later = EventLog::begun_at(begun + Duration::from_secs(1));
        assert_eq!(later.after(earlier.last()), After::Gap, "also before anything has happened");
        (0..CAPACITY).for_each(|_| append(&later));
        assert_eq!(later.after(earlier.last()), After::Gap);
        assert!(later.last() < 1 << 53);
    }

    #[test]
    fn lost_records_are_a_gap_too() {
        let log = filled(2);
        log.skip(5);
        assert_eq!(log.after(2), After::Gap);
        append(&log);
        assert_eq!((log.after(2), seq_after(&log, 7)), (After::Gap, Some(8)));
    }

    #[test]
    fn an_event_on_the_wire() {
        let After::Event(event) = filled(1).after(0) else { panic!("there is one") };
        let wire = serde_json::to_value(&*event).expect("plain data");
        let expected = serde_json::json!({
            "seq": 1, "at": 0, "kind": "restart_scheduled", "path": "r/a", "epoch": 3, "cause": null, "backoff_ms": 7
        });
        assert_eq!(wire, expected);
    }
}
