//! The state of all actors at one moment, in the shape of `GET /actors`. Drawn from the registry: no actor is asked.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::log::unix_ms;
use crate::boards::scheduler as scheduler_board;
use crate::engine::protocol::Epoch;
use crate::names;
use crate::supervision::ActorStatus;
use crate::supervision::histogram::Counts;
use crate::supervision::registry::Row;
use crate::system::Status;
use crate::wiring::Wiring;

/// Most rows of sessions.
const SESSIONS: usize = 256;

/// All actors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// Number of the last event.
    pub seq: u64,
    /// ms since 1970.
    pub captured_at_ms: u64,
    /// Age of the system, ms.
    pub uptime_ms: u64,
    /// Version of cLLM.
    pub build: &'static str,
    /// What the system can do.
    pub status: StatusFacts,
    /// Sums over everything.
    pub totals: Totals,
    /// Parents before their children; at most 256 sessions.
    pub actors: Vec<ActorFacts>,
    /// Sessions that are not among `actors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_omitted: Option<u64>,
}

/// [`Status`] as data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusFacts {
    /// `loading`, `ready`, `stalled`, `restarting`, `held`, `failed` or `draining`.
    pub state: &'static str,
    /// Why.
    pub cause: Option<String>,
    /// Until the next try, ms.
    pub retry_after_ms: Option<u64>,
    /// Of the first load, 0 to 1.
    pub progress: Option<f64>,
}

/// Sums; counters only grow. Latencies are about of the last minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    /// Actors, sessions included.
    pub actors: u64,
    /// Restarts of all of them.
    pub restarts: u64,
    /// Requests with a place.
    pub requests_running: u64,
    /// Requests queued.
    pub requests_waiting: u64,
    /// Requests that ended, however.
    pub requests_finished: u64,
    /// Tokens given to callers.
    pub generated_tokens: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// From arrival to first token, median.
    pub ttft_p50_us: Option<u64>,
    /// From arrival to first token, 99th percentile.
    pub ttft_p99_us: Option<u64>,
    /// From token to token, median.
    pub token_gap_p50_us: Option<u64>,
    /// From token to token, 99th percentile.
    pub token_gap_p99_us: Option<u64>,
}

/// One actor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActorFacts {
    /// Where it stands in the tree.
    pub path: String,
    /// `backend`, `session`, ...
    pub kind: String,
    /// What it does.
    pub status: ActorStatus,
    /// Of the newest incarnation; 0 where there is only one.
    pub epoch: Epoch,
    /// Of the running incarnation, ms.
    pub uptime_ms: Option<u64>,
    /// What waits.
    pub mailbox: MailboxFacts,
    /// What was handled, by all incarnations.
    pub messages: MessageFacts,
    /// The last 16.
    pub restarts: Vec<RestartFacts>,
    /// All of them.
    pub restarts_total: u64,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// What it shows of itself.
    pub state: Option<Value>,
    /// Time since that changed, ms.
    pub state_age_ms: Option<u64>,
}

/// What waits in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MailboxFacts {
    /// Messages.
    pub depth: u64,
    /// Most that ever were.
    pub max: u64,
    /// Age of the oldest one, ms.
    pub oldest_wait_ms: u64,
}

/// What went through a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageFacts {
    /// Messages.
    pub handled: u64,
    /// Time in the mailbox, median.
    pub wait_p50_us: Option<u64>,
    /// Time in the mailbox, 99th percentile.
    pub wait_p99_us: Option<u64>,
    /// Time in the handler, median.
    pub handle_p50_us: Option<u64>,
    /// Time in the handler, 99th percentile.
    pub handle_p99_us: Option<u64>,
}

/// One restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestartFacts {
    /// ms since 1970.
    pub at: u64,
    /// Why.
    pub cause: String,
    /// How long it waited, ms.
    pub backoff_ms: u64,
}

impl Snapshot {
    /// An engine with requests that ends no step for longer than `stall_after` is stalled.
    pub(crate) fn take(seq: u64, wiring: &Wiring, stall_after: Duration) -> Self {
        let rows = wiring.actors.in_tree_order();
        let mut sessions = 0_usize;
        let kept = rows.iter().filter(|row| {
            sessions += usize::from(is_session(row.path()));
            !is_session(row.path()) || sessions <= SESSIONS
        });
        let actors: Vec<_> = kept.map(|row| ActorFacts::of(row)).collect();
        let omitted = sessions.saturating_sub(SESSIONS) as u64;
        Self {
            seq,
            captured_at_ms: unix_ms(SystemTime::now()),
            uptime_ms: ms(wiring.actors.begun().elapsed()),
            build: env!("CARGO_PKG_VERSION"),
            status: StatusFacts::of(&wiring.status.borrow(), wiring.pulse.stalled(stall_after)),
            totals: Totals::of(wiring, rows.len() as u64, actors.iter().map(|actor| actor.restarts_total).sum()),
            actors,
            sessions_omitted: (omitted > 0).then_some(omitted),
        }
    }
}

impl StatusFacts {
    fn of(status: &Status, stalled: Option<Duration>) -> Self {
        let (state, cause, progress) = match (status, stalled) {
            (Status::Loading { progress }, _) => ("loading", None, Some(f64::from(*progress))),
            (Status::Ready, None) => ("ready", None, None),
            (Status::Ready, Some(silence)) => {
                let cause = format!("no step has ended for {} s, with requests under way", silence.as_secs());
                ("stalled", Some(cause), None)
            }
            (Status::Restarting { cause }, _) => ("restarting", Some(cause.clone()), None),
            (Status::Held { cause, .. }, _) => ("held", Some(cause.clone()), None),
            (Status::Failed { cause }, _) => ("failed", Some(cause.clone()), None),
            (Status::Draining, _) => ("draining", None, None),
        };
        Self { state, cause, retry_after_ms: status.retry_after().map(ms), progress }
    }
}

impl Totals {
    fn of(wiring: &Wiring, actors: u64, restarts: u64) -> Self {
        let (meters, scheduler) = (&wiring.meters, &wiring.boards.scheduler);
        let (first, gap) = (meters.first_tokens_lately(), meters.token_gaps_lately());
        Self {
            actors,
            restarts,
            requests_running: scheduler.get(scheduler_board::RUNNING).unwrap_or(0),
            requests_waiting: scheduler.get(scheduler_board::WAITING).unwrap_or(0),
            requests_finished: meters.finished.load(Ordering::Relaxed),
            generated_tokens: meters.generated_tokens.load(Ordering::Relaxed),
            prompt_tokens: meters.prompt_tokens.load(Ordering::Relaxed),
            ttft_p50_us: us(&first, 0.5),
            ttft_p99_us: us(&first, 0.99),
            token_gap_p50_us: us(&gap, 0.5),
            token_gap_p99_us: us(&gap, 0.99),
        }
    }
}

impl ActorFacts {
    pub(crate) fn of(row: &Row) -> Self {
        let facts = row.facts();
        let restart = |restart: &crate::supervision::registry::Restarted| RestartFacts {
            at: unix_ms(restart.at),
            cause: restart.cause.clone(),
            backoff_ms: ms(restart.backoff),
        };
        Self {
            path: row.path().to_owned(),
            kind: kind_of(row.path()),
            status: facts.status,
            epoch: facts.epoch,
            uptime_ms: facts.uptime.map(ms),
            mailbox: MailboxFacts { depth: facts.depth, max: facts.max_depth, oldest_wait_ms: ms(facts.oldest_wait) },
            messages: MessageFacts {
                handled: facts.handled,
                wait_p50_us: us(&facts.waits, 0.5),
                wait_p99_us: us(&facts.waits, 0.99),
                handle_p50_us: us(&facts.handling, 0.5),
                handle_p99_us: us(&facts.handling, 0.99),
            },
            restarts: facts.restarts.iter().map(restart).collect(),
            restarts_total: facts.restarts_total,
            last_error: facts.last_error,
            state: row.board().and_then(|board| board.show()),
            state_age_ms: row.board().and_then(|board| board.age()).map(ms),
        }
    }
}

/// Whether a path is that of a session.
pub(crate) fn is_session(path: &str) -> bool {
    path.rsplit('/').nth(1) == Some(names::SESSIONS)
}

/// What an actor is: its name without its number.
fn kind_of(path: &str) -> String {
    match path.rsplit_once('/') {
        None => "root".to_owned(),
        Some(_) if is_session(path) => "session".to_owned(),
        Some((_, name)) => name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-').to_owned(),
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn us(counts: &Counts, share: f64) -> Option<u64> {
    counts.quantile(share).map(|duration| duration.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::boards::session;

    #[test]
    fn kinds_are_names_without_numbers() {
        let kinds =
            ["cllm", "cllm/engine-0", "cllm/engine-0/kv-cache-0", "cllm/sessions", "cllm/sessions/7"].map(kind_of);
        assert_eq!(kinds, ["root", "engine", "kv-cache", "sessions", "session"]);
    }

    #[test]
    fn an_engine_that_ends_no_step_is_stalled_and_not_ready() {
        let wiring = Wiring::new();
        wiring.set_status(Status::Ready);
        let status = |stall_after| Snapshot::take(5, &wiring, stall_after).status;
        assert_eq!(status(Duration::ZERO).state, "ready", "an idle engine owes no steps");
        wiring.pulse.begin();
        while wiring.pulse.silence() == Some(Duration::ZERO) {}
        assert_eq!(status(Duration::from_secs(3600)).state, "ready");
        let stalled = status(Duration::ZERO);
        assert_eq!((stalled.state, stalled.cause.is_some()), ("stalled", true));
    }

    #[test]
    fn a_thousand_sessions_are_cut_to_256_and_counted() {
        let wiring = Wiring::new();
        let open = |n| wiring.actors.session(format!("cllm/sessions/{n}"), Arc::new(session::board()));
        let open: Vec<_> = (0..1000).map(open).collect();
        let snapshot = Snapshot::take(5, &wiring, Duration::MAX);
        assert_eq!((snapshot.actors.len(), snapshot.sessions_omitted, snapshot.totals.actors), (256, Some(744), 1000));
        drop(open);
        assert_eq!(Snapshot::take(5, &wiring, Duration::MAX).sessions_omitted, None);
    }
}
