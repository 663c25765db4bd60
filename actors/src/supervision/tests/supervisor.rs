//! Supervisors with real actors on a paused clock.

use ractor::{ActorStatus, registry};
use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rest_for_one() -> Rules {
    Rules { strategy: Strategy::RestForOne, ..Rules::default() }
}

fn at_most(max_restarts: u32, when_exhausted: WhenExhausted) -> Rules {
    let intensity = Intensity { max_restarts, ..Intensity::default() };
    Rules { intensity, when_exhausted, ..Rules::default() }
}

#[tokio::test(start_paused = true)]
async fn a_panic_restarts_the_child_with_a_larger_epoch() {
    let mut tree = Tree::running("panic", Rules::default(), 1).await;
    let before = tree.epoch(0).await;
    tree.tell(0, WorkerMsg::Panic);
    let exited = tree.wait_for(0, EventKind::Exited).await;
    assert_eq!((exited.epoch, exited.cause.as_deref()), (before, Some("told to")));
    let restarted = tree.wait_for(0, EventKind::Restarted).await;
    assert!(restarted.epoch > before);
    assert_eq!(tree.epoch(0).await, restarted.epoch);
    let facts = tree.children().await.remove(0);
    assert_eq!((facts.status, facts.restarts, facts.epoch), (ChildStatus::Running, 1, restarted.epoch));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn children_start_in_order_and_stop_in_reverse() {
    let mut tree = Tree::running("order", Rules::default(), 3).await;
    assert_eq!(tree.take_journal(), ["start a", "start b", "start c"]);
    tree.stop().await;
    assert_eq!(tree.take_journal(), ["stop c", "stop b", "stop a"]);
    assert!(registry::where_is(format!("{}/a", tree.prefix)).is_none());
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_restarts_the_later_ones_and_not_the_earlier_ones() {
    let mut tree = Tree::running("rest", rest_for_one(), 3).await;
    let before = tree.epoch(0).await;
    tree.take_journal();
    tree.tell(1, WorkerMsg::Panic);
    tree.wait_for(2, EventKind::Restarted).await;
    assert_eq!(tree.take_journal(), ["stop c", "start b", "start c"]);
    assert_eq!(tree.epoch(0).await, before);
    assert!(tree.epoch(2).await > tree.epoch(1).await);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_restart_is_tried_again_after_longer_and_longer_delays() {
    let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
    let mut tree = Tree::running("backoff", Rules { backoff, ..Rules::default() }, 1).await;
    tree.parts[0].script.failing_starts.store(2, Ordering::SeqCst);
    let begun = Instant::now();
    tree.tell(0, WorkerMsg::Panic);
    for delay_ms in [0, 200, 400] {
        tree.wait_for(0, EventKind::RestartScheduled { delay: Duration::from_millis(delay_ms) }).await;
    }
    tree.wait_for(0, EventKind::Restarted).await;
    let took = begun.elapsed().as_millis();
    assert!((600..700).contains(&took), "took {took} ms");
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_start_does_not_make_the_supervisor_deaf() {
    let mut tree = Tree::start("deaf", Rules::default(), 2, |index, part| {
        part.script.start_ms.store(if index == 0 { 180_000 } else { 0 }, Ordering::SeqCst);
        part
    })
    .await;
    let begun = Instant::now();
    let status: Vec<_> = tree.children().await.into_iter().map(|facts| facts.status).collect();
    assert_eq!(status, [ChildStatus::Starting, ChildStatus::Waiting]);
    assert!(begun.elapsed() < SECOND);
    tree.wait_for(1, EventKind::Started).await;
    assert!(begun.elapsed() >= 180 * SECOND);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_the_supervisor_cancels_a_start_that_is_under_way() {
    let mut tree = Tree::start("cancel", Rules::default(), 1, |_, part| {
        part.script.start_ms.store(180_000, Ordering::SeqCst);
        part
    })
    .await;
    assert_eq!(tree.children().await[0].status, ChildStatus::Starting);
    let begun = Instant::now();
    tree.stop().await;
    assert!(begun.elapsed() < SECOND);
    assert_eq!(tree.parts[0].script.alive.load(Ordering::SeqCst), 0);
    assert!(registry::where_is(format!("{}/a", tree.prefix)).is_none());
    assert!(tree.parts[0].addr.current().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_start_beyond_its_deadline_fails() {
    let mut tree = Tree::start("start-deadline", Rules::default(), 1, |_, part| {
        part.script.start_ms.store(180_000, Ordering::SeqCst);
        Part { spec: part.spec.clone().start_deadline(5 * SECOND), ..part }
    })
    .await;
    let failed = tree.wait_for(0, EventKind::FirstStartFailed).await;
    assert_eq!(failed.cause.as_deref(), Some("it did not start within 5s"));
    timeout(LONG, &mut tree.ended).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_kill_counts_as_abnormal_and_a_stop_as_normal() {
    let transient = |_, part: Part| Part { spec: part.spec.clone().restart(Restart::Transient), ..part };
    let mut tree = Tree::start("kill", Rules::default(), 1, transient).await;
    tree.wait_for(0, EventKind::Started).await;
    tree.parts[0].addr.current().unwrap().kill();
    assert_eq!(tree.wait_for(0, EventKind::Exited).await.cause.as_deref(), Some("killed"));
    tree.wait_for(0, EventKind::Restarted).await;
    tree.tell(0, WorkerMsg::Finish);
    assert_eq!(tree.wait_for(0, EventKind::Exited).await.cause.as_deref(), Some("finished"));
    assert_eq!(tree.children().await[0].status, ChildStatus::Stopped);
    assert!(tree.parts[0].addr.current().is_none());
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_over_budget_ends_and_its_own_supervisor_restarts_it() {
    let prefix = unique("escalate");
    let journal = Arc::default();
    let worker = part(&prefix, "worker", &journal);
    let (feed, _) = broadcast::channel(256);
    let args = |path: String, rules, children| SupervisorArgs {
        path,
        rules,
        children,
        epochs: EpochSource::default(),
        events: feed.clone(),
        registry: ActorRegistry::default(),
    };
    let inner = args(format!("{prefix}/inner"), at_most(0, WhenExhausted::Escalate), vec![worker.spec.clone()]);
    let spec = ChildSpec::supervisor(&prefix, "inner", Addr::new(), inner);
    let root = args(prefix.clone(), Rules::default(), vec![spec]);
    let events = feed.subscribe();
    let (supervisor, ended) = Supervisor::spawn(None, Supervisor, root).await.unwrap();
    let mut tree = Tree { prefix: prefix.clone(), supervisor, ended, parts: vec![worker], journal, events };
    let worker_path = format!("{prefix}/inner/worker");
    tree.wait_until(|record| record.path == worker_path && record.kind == EventKind::Started).await;
    tree.tell(0, WorkerMsg::Panic);
    let exited = tree.wait_until(|record| record.path == format!("{prefix}/inner") && record.kind == EventKind::Exited);
    assert_eq!(exited.await.cause.as_deref(), Some("gave up restarting `worker`: told to"));
    tree.wait_until(|record| record.path == worker_path && record.kind == EventKind::Started).await;
    tree.stop().await;
    assert_eq!(tree.take_journal().last().map(String::as_str), Some("stop worker"));
}

#[tokio::test(start_paused = true)]
async fn over_budget_with_hold_keeps_the_children_down_and_tries_again_after_a_minute() {
    let hold = WhenExhausted::Hold { retry_after: 60 * SECOND };
    let rules = Rules { strategy: Strategy::RestForOne, ..at_most(0, hold) };
    let mut tree = Tree::running("hold", rules, 2).await;
    tree.tell(0, WorkerMsg::Panic);
    let held = tree.wait_until(|record| record.kind == EventKind::Held { retry_after: 60 * SECOND }).await;
    let begun = Instant::now();
    assert_eq!((held.path, held.cause.as_deref()), (tree.prefix.clone(), Some("told to")));
    tree.wait_for(1, EventKind::Stopped).await;
    let status: Vec<_> = tree.children().await.into_iter().map(|facts| facts.status).collect();
    assert_eq!(status, [ChildStatus::Held; 2]);
    assert!(tree.parts[1].addr.cast(WorkerMsg::Finish).is_err());
    tree.wait_for(1, EventKind::Restarted).await;
    assert_eq!(begun.elapsed().as_secs(), 60);
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_command_ends_a_hold() {
    let mut tree = Tree::running("command", at_most(0, WhenExhausted::Hold { retry_after: LONG }), 1).await;
    tree.tell(0, WorkerMsg::Panic);
    tree.wait_until(|record| matches!(record.kind, EventKind::Held { .. })).await;
    let restart = |id: &str| {
        let (id, supervisor) = (id.to_owned(), tree.supervisor.clone());
        async move { ask(&supervisor, |reply_to| SupervisorMsg::RestartChild { id, reply_to }).await }
    };
    assert_eq!(restart("nobody").await, Err(CommandError::UnknownChild("nobody".into())));
    assert_eq!(restart("a").await, Ok(()));
    tree.wait_for(0, EventKind::Restarted).await;
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_start_ends_the_supervisor_with_its_cause() {
    let mut tree = Tree::start("first", Rules::default(), 2, |index, part| {
        part.script.failing_starts.store(index as u32, Ordering::SeqCst);
        part
    })
    .await;
    let failed = tree.wait_for(1, EventKind::FirstStartFailed).await;
    assert_eq!(failed.cause.as_deref(), Some("no such file"));
    timeout(LONG, &mut tree.ended).await.unwrap().unwrap();
    assert_eq!(tree.take_journal(), ["start a", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_can_be_added_and_a_failure_of_its_first_start_is_told_to_the_adder() {
    let mut tree = Tree::running("add", Rules::default(), 1).await;
    let late = part(&tree.prefix, "late", &tree.journal);
    late.script.failing_starts.store(1, Ordering::SeqCst);
    assert_eq!(tree.add(&late).await.err(), Some(AddError::StartFailed("no such file".into())));
    assert!(tree.add(&late).await.is_ok());
    assert_eq!(tree.add(&late).await.err(), Some(AddError::Duplicate("late".into())));
    late.addr.cast(WorkerMsg::Panic).unwrap();
    tree.wait_until(|record| record.path.ends_with("/late") && record.kind == EventKind::Restarted).await;
    tree.take_journal();
    tree.stop().await;
    assert_eq!(tree.take_journal(), ["stop late", "stop a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_is_killed_after_its_deadline() {
    let mut tree = Tree::running("hang", Rules::default(), 2).await;
    tree.tell(0, WorkerMsg::Hang);
    let begun = Instant::now();
    tree.stop().await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(tree.take_journal(), ["start a", "start b", "stop b"]);
    let stopped = tree.wait_for(0, EventKind::Stopped).await;
    assert_eq!(stopped.cause.as_deref(), Some("killed after its stop deadline"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_blocks_its_thread_is_given_up_as_a_zombie() {
    let mut tree = Tree::start("zombie", Rules::default(), 1, |_, part| Part {
        spec: part.spec.clone().stop_deadline(Duration::from_millis(10)),
        ..part
    })
    .await;
    tree.wait_for(0, EventKind::Started).await;
    // Both round trips, or the supervisor's wake-up by `ActorStarted` may be in the run slot of the very thread that is
    // going to be blocked, where tokio lets nobody else take it from.
    tree.epoch(0).await;
    tree.children().await;
    let (release, until) = std::sync::mpsc::channel();
    let (begun, blocked) = tokio::sync::oneshot::channel();
    tree.tell(0, WorkerMsg::Block { begun, until });
    // A stop would overtake the message.
    blocked.await.unwrap();
    tree.stop().await;
    tree.wait_for(0, EventKind::Zombie).await;
    drop(release);
}

#[tokio::test(start_paused = true)]
async fn what_others_linked_to_a_supervisor_is_noted_and_stopped_with_it() {
    let mut tree = Tree::running("linked", Rules::default(), 1).await;
    let script = Arc::new(Script { journal: tree.journal.clone(), ..Script::default() });
    let link = || Worker::spawn_linked(None, Worker, ("guest".into(), 0, script.clone()), tree.supervisor.get_cell());
    link().await.unwrap().0.cast(WorkerMsg::Panic).unwrap();
    tree.wait_until(|record| record.kind == EventKind::Exited).await;
    let (guest, _) =
        Worker::spawn_linked(None, Worker, ("guest".into(), 0, script), tree.supervisor.get_cell()).await.unwrap();
    tree.take_journal();
    tree.stop().await;
    assert_eq!(tree.take_journal(), ["stop guest", "stop a"]);
    assert_eq!(guest.get_status(), ActorStatus::Stopped);
}

#[tokio::test(start_paused = true)]
async fn stop_all_ends_the_supervisor_after_its_children() {
    let mut tree = Tree::running("stop-all", Rules::default(), 2).await;
    tree.supervisor.cast(SupervisorMsg::StopAll).unwrap();
    timeout(LONG, &mut tree.ended).await.unwrap().unwrap();
    assert_eq!(tree.take_journal()[2..], ["stop b", "stop a"]);
}
