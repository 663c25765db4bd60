//! The registry, without actors.

use std::time::{Duration, SystemTime};

use super::*;
use crate::supervision::board::Field;
use crate::supervision::record::EventKind;

const FIELDS: &[Field] = &[Field::Number("tokens")];

fn record(path: &str, kind: EventKind, cause: &str) -> SupervisionEventRecord {
    let cause = Some(cause.to_owned());
    SupervisionEventRecord { path: path.to_owned(), kind, epoch: 1, cause, at: SystemTime::UNIX_EPOCH }
}

#[test]
fn rows_come_parents_first_and_children_in_the_order_of_their_start() {
    let registry = ActorRegistry::default();
    for path in ["r", "r/b", "r/a", "r/b/z", "r/b/y", "r/a/1", "r/a-2"] {
        registry.row(path, None);
    }
    let paths: Vec<_> = registry.in_tree_order().iter().map(|row| row.path().to_owned()).collect();
    assert_eq!(paths, ["r", "r/b", "r/b/z", "r/b/y", "r/a", "r/a/1", "r/a-2"]);
}

#[test]
fn a_session_has_a_row_as_long_as_it_lives() {
    let registry = ActorRegistry::default();
    let session = registry.session("r/sessions/1".to_owned(), Arc::new(Board::new(FIELDS)));
    session.board().unwrap().set(0, 3);
    assert_eq!(registry.find("r/sessions/1").unwrap().board().unwrap().get(0), Some(3));
    drop(session);
    assert!(registry.in_tree_order().is_empty());
}

#[test]
fn the_last_sixteen_restarts_are_kept_with_cause_and_backoff_and_all_are_counted() {
    let registry = ActorRegistry::default();
    let row = registry.row("r/a", None);
    for n in 0..20 {
        let delay = Duration::from_millis(n);
        registry.note(&record("r/a", EventKind::Exited, &format!("crash {n}")));
        registry.note(&record("r/a", EventKind::RestartScheduled { delay }, &format!("crash {n}")));
        registry.note(&record("r/a", EventKind::Restarted, ""));
    }
    let facts = row.facts();
    assert_eq!((facts.restarts.len(), facts.restarts_total), (16, 20));
    assert_eq!(
        (facts.restarts[15].cause.as_str(), facts.restarts[15].backoff),
        ("crash 19", Duration::from_millis(19))
    );
    assert_eq!(facts.last_error.as_deref(), Some("crash 19"));
}

#[test]
fn a_restart_by_command_counts_too_and_one_of_a_crash_counts_once() {
    let registry = ActorRegistry::default();
    let row = registry.row("r/a", None);
    registry.note(&record("r/a", EventKind::Restarted, ""));
    assert_eq!(row.facts().restarts_total, 1);
    assert_eq!(row.facts().last_error, None);
}

#[test]
fn who_holds_is_held_until_it_resumes() {
    let registry = ActorRegistry::default();
    let row = registry.row("r/a", None);
    registry.status("r/a", ChildStatus::Running, 4);
    registry.note(&record("r/a", EventKind::Held { retry_after: Duration::from_secs(1) }, "crash"));
    assert_eq!((row.facts().status, row.epoch()), (ActorStatus::Held, 4));
    registry.note(&record("r/a", EventKind::Resumed, ""));
    assert_eq!(row.facts().status, ActorStatus::Running);
}

#[test]
fn what_is_below_goes_down_with_its_supervisor_and_siblings_do_not() {
    let registry = ActorRegistry::default();
    for path in ["r/a", "r/a/1", "r/a-2"] {
        registry.row(path, None);
        registry.status(path, ChildStatus::Running, 1);
    }
    registry.down("r/a");
    let status = |path| registry.find(path).unwrap().facts().status;
    assert_eq!(
        [status("r/a"), status("r/a/1"), status("r/a-2")],
        [ActorStatus::Stopped, ActorStatus::Stopped, ActorStatus::Running]
    );
}
