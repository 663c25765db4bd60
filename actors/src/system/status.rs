//! What the system can do, derived from what its supervisors report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::names;
use crate::supervision::registry::parent;
use crate::supervision::{EventKind, SupervisionEventRecord};
use crate::wiring::Wiring;

/// What stands for a time that no clock has.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the system can do right now.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// The model loads for the first time.
    Loading {
        /// 0 to 1.
        progress: f32,
    },
    /// Requests are served.
    Ready,
    /// The engine is being restarted; requests wait.
    Restarting {
        /// Why it went down.
        cause: String,
    },
    /// The engine failed too often and is left down for a while.
    Held {
        /// Why it went down.
        cause: String,
        /// When it is tried again.
        retry_at: Instant,
    },
    /// The first start failed, or the root gave up. Final.
    Failed {
        /// Why.
        cause: String,
    },
    /// New requests are refused, running ones finish.
    Draining,
}

impl Status {
    /// How long a held engine is left down from now on, at least a second; `None` for every other status.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Held { retry_at, .. } => Some(left_until(*retry_at)),
            _ => None,
        }
    }
}

/// What is left of a hold; at least a second, since sooner nobody should ask again.
pub(crate) fn left_until(retry_at: Instant) -> Duration {
    retry_at.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}

/// Turns supervision records into statuses until the feed ends. `Ready` and `Restarting` are set where they happen,
/// because their order matters; here come those that last.
pub(super) async fn follow(
    mut feed: broadcast::Receiver<SupervisionEventRecord>,
    wiring: Arc<Wiring>,
    instance: String,
) {
    let engine = format!("{instance}/{}", names::ENGINE);
    loop {
        match feed.recv().await {
            Ok(record) => {
                if let Some(status) = lasting_status(&record, &engine, &instance) {
                    wiring.set_status_if(status, |current| applies(record.kind, current));
                }
            }
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "supervision records missed"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Whether what happened means what it says: the feed may tell it late.
fn applies(kind: EventKind, current: &Status) -> bool {
    match kind {
        // Once it has served, a load that fails is one more failed restart.
        EventKind::FirstStartFailed => matches!(current, Status::Loading { .. }),
        // By now it may serve again, and nobody would say so a second time.
        EventKind::Resumed => matches!(current, Status::Held { .. }),
        _ => true,
    }
}

fn lasting_status(record: &SupervisionEventRecord, engine: &str, root: &str) -> Option<Status> {
    let cause = || record.cause.clone().unwrap_or_else(|| "unknown".to_owned());
    match record.kind {
        EventKind::FirstStartFailed if record.path.starts_with(engine) => Some(Status::Failed { cause: cause() }),
        EventKind::GaveUp if parent(&record.path) == root => Some(Status::Failed { cause: cause() }),
        EventKind::Held { retry_after } if record.path == engine => {
            let retry_at = Instant::now().checked_add(retry_after).unwrap_or_else(|| Instant::now() + NEVER);
            Some(Status::Held { cause: cause(), retry_at })
        }
        EventKind::Resumed if record.path == engine => Some(Status::Restarting { cause: "tried again".to_owned() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    async fn after(kind: EventKind, path: &str, status: Status) -> Status {
        let wiring = Arc::new(Wiring::new());
        wiring.set_status(status);
        let (events, feed) = broadcast::channel(4);
        let record = SupervisionEventRecord {
            path: path.to_owned(),
            kind,
            epoch: 1,
            cause: Some("no memory".to_owned()),
            at: SystemTime::UNIX_EPOCH,
        };
        events.send(record).expect("the feed is open");
        drop(events);
        follow(feed, wiring.clone(), "cllm".to_owned()).await;
        wiring.status.borrow().clone()
    }

    #[tokio::test]
    async fn only_a_load_that_fails_before_anything_was_served_is_final() {
        let failed = Status::Failed { cause: "no memory".to_owned() };
        let after = |status| after(EventKind::FirstStartFailed, "cllm/engine-0/backend-0", status);
        assert_eq!(after(Status::Loading { progress: 0.5 }).await, failed);
        // A supervisor that was restarted starts its children for the first time, in its own eyes.
        let restarting = Status::Restarting { cause: "engine-0 went down".to_owned() };
        assert_eq!(after(restarting.clone()).await, restarting);
    }

    #[tokio::test]
    async fn an_engine_that_serves_again_is_not_said_to_be_restarting_by_late_news() {
        let after = |status| after(EventKind::Resumed, "cllm/engine-0", status);
        assert_eq!(after(Status::Ready).await, Status::Ready);
        assert!(matches!(after(held(Instant::now())).await, Status::Restarting { .. }));
    }

    fn held(retry_at: Instant) -> Status {
        Status::Held { cause: "no memory".to_owned(), retry_at }
    }

    #[test]
    fn a_hold_says_what_is_left_of_it() {
        let now = Instant::now();
        let left = held(now + Duration::from_secs(40)).retry_after();
        assert!(left > Some(Duration::from_secs(30)) && left <= Some(Duration::from_secs(40)), "{left:?}");
        assert_eq!(held(now).retry_after(), Some(Duration::from_secs(1)), "never a busy loop");
        assert_eq!(Status::Ready.retry_after(), None);
    }
}
