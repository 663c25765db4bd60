//! What is seen of a running system, and what commands do to it.

use std::collections::HashSet;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::*;
use crate::engine::spec::{EngineSpec, FakeSpec};
use crate::request::{GenerateRequest, GenerationEvent};
use crate::supervision::ActorStatus;

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const SCHEDULER: &str = "engine-0/scheduler-0";

async fn start(test: &str) -> System {
    let engine = EngineSpec::Fake(FakeSpec { step_time: Duration::from_millis(1), ..FakeSpec::default() });
    let system = System::builder().instance(test).engine(engine).start().await.expect("starts");
    timeout(PATIENCE, system.ready()).await.expect("in time").expect("loads");
    system
}

fn request(max_tokens: u32) -> GenerateRequest {
    let mut request = GenerateRequest::text("tell me");
    request.max_tokens = Some(max_tokens);
    request
}

/// Reads the feed up to the last of these kinds, which must come in this order for this actor.
async fn expect(feed: &mut ActorFeedStream, path: &str, kinds: &[&str]) -> Vec<Arc<ActorEvent>> {
    let mut found = Vec::new();
    while found.len() < kinds.len() {
        let next = timeout(PATIENCE, feed.next()).await.unwrap_or_else(|_| panic!("{kinds:?}, but only {found:?}"));
        match next.expect("the feed does not end") {
            ActorFeed::Event(event) if event.path.ends_with(path) && event.kind == kinds[found.len()] => {
                found.push(event)
            }
            ActorFeed::Event(_) => {}
            ActorFeed::Snapshot(_) => panic!("nothing was missed"),
        }
    }
    found
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let polled = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tree_shows_every_actor_with_its_numbers() {
    let system = start("seen").await;
    let mut generation = system.generate(request(20)).await.expect("admitted");
    while let Some(event) = generation.next().await {
        assert!(!matches!(event, GenerationEvent::Failed(_)), "{event:?}");
    }
    eventually("the session is gone", || system.actors().actors.iter().all(|actor| actor.kind != "session")).await;
    let seen = system.actors();
    let paths: Vec<_> = seen.actors.iter().map(|actor| actor.path.trim_start_matches("seen").to_owned()).collect();
    let engine = ["", "/engine-0", "/engine-0/backend-0", "/engine-0/kv-cache-0", "/engine-0/scheduler-0"];
    assert_eq!(paths, [&engine[..], &["/sessions", "/inspector", "/response-cache"]].concat());
    assert!(seen.actors.iter().all(|actor| actor.status == ActorStatus::Running && actor.uptime_ms.is_some()));
    let epochs: HashSet<_> = seen.actors[1..].iter().map(|actor| actor.epoch).collect();
    assert_eq!((epochs.len(), epochs.contains(&0)), (7, false));
    assert_eq!((seen.totals.requests_finished, seen.totals.generated_tokens), (1, 20));
    assert!(seen.totals.ttft_p50_us.is_some() && seen.totals.token_gap_p99_us.is_some());
    let backend = system.actor("engine-0/backend-0").expect("there is one");
    let state = backend.state.expect("it has worked");
    assert_eq!((&state["engine"], state["pid"].is_null()), (&"fake".into(), true));
    assert!(state["steps"].as_u64() >= Some(20), "{state}");
    let messages = backend.messages;
    assert!(messages.handled > 20 && messages.handle_p50_us.is_some() && messages.wait_p99_us.is_some());
    assert_eq!(system.actor("seen/engine-0").map(|actor| actor.kind), Some("engine".to_owned()));
    assert_eq!(system.actor("nobody"), None);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_is_followed_from_the_feed_and_leaves_its_traces_in_the_row() {
    let system = start("killed").await;
    let handled = system.actor(SCHEDULER).expect("there").messages.handled;
    let mut feed = system.actor_events(None);
    let (path, epoch) = system.act(SCHEDULER, ActorAction::Kill).await.expect("it runs");
    assert_eq!(path, format!("killed/{SCHEDULER}"));
    let events = expect(&mut feed, SCHEDULER, &["killed", "failed", "restart_scheduled", "restarted"]).await;
    assert!(events[0].epoch == epoch && events[3].epoch > epoch);
    assert_eq!(events[2].backoff_ms, Some(0));
    let row = system.actor(SCHEDULER).expect("there");
    assert_eq!((row.restarts_total, row.restarts[0].cause.as_str()), (1, "killed"));
    assert_eq!((row.status, row.last_error.as_deref()), (ActorStatus::Running, Some("killed")));
    eventually("messages are counted over both lives", || {
        system.actor(SCHEDULER).is_some_and(|row| row.messages.handled > handled)
    })
    .await;
    // Who saw the first of them is told the rest again.
    let mut again = system.actor_events(Some(events[0].seq));
    expect(&mut again, SCHEDULER, &["failed", "restart_scheduled", "restarted"]).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_from_the_feed_when_the_inspector_itself_dies() {
    let system = start("inspected").await;
    let mut feed = system.actor_events(None);
    system.act("inspector", ActorAction::Kill).await.expect("it runs");
    expect(&mut feed, "inspector", &["killed", "failed", "restart_scheduled", "restarted"]).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_to_restart_stops_and_starts_and_is_no_error() {
    let system = start("ordered").await;
    let mut feed = system.actor_events(None);
    system.act("engine-0/kv-cache-0", ActorAction::Restart).await.expect("it runs");
    expect(&mut feed, "kv-cache-0", &["stopped", "restarted"]).await;
    expect(&mut feed, SCHEDULER, &["restarted"]).await;
    let row = system.actor("engine-0/kv-cache-0").expect("there");
    assert_eq!((row.restarts_total, row.last_error), (1, None));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_scheduler_admits_nobody_and_what_runs_goes_on() {
    let system = start("paused").await;
    let mut running = system.generate(request(200)).await.expect("admitted");
    while !matches!(running.next().await, Some(GenerationEvent::Delta(_))) {}
    let mut feed = system.actor_events(None);
    system.act(SCHEDULER, ActorAction::Pause).await.expect("it runs");
    expect(&mut feed, SCHEDULER, &["paused"]).await;
    assert_eq!(system.actor(SCHEDULER).map(|row| row.status), Some(ActorStatus::Paused));
    let mut waiting = system.generate(request(5)).await.expect("admitted");
    while let Some(event) = running.next().await {
        assert!(!matches!(event, GenerationEvent::Failed(_)), "{event:?}");
    }
    eventually("it waits, with a free place", || {
        let totals = system.actors().totals;
        (totals.requests_running, totals.requests_waiting) == (0, 1)
    })
    .await;
    system.act(SCHEDULER, ActorAction::Resume).await.expect("it runs");
    while let Some(event) = waiting.next().await {
        assert!(!matches!(event, GenerationEvent::Failed(_)), "{event:?}");
    }
    assert_eq!(system.actor(SCHEDULER).map(|row| row.status), Some(ActorStatus::Running));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused() {
    let system = start("refused").await;
    let path = |path: &str| path.to_owned();
    for (actor, action, error) in [
        ("nobody", ActorAction::Kill, ActorActionError::NotFound(path("nobody"))),
        ("inspector", ActorAction::Pause, ActorActionError::NotPausable(path("refused/inspector"))),
        ("refused", ActorAction::Restart, ActorActionError::NotRestartable(path("refused"))),
        ("refused", ActorAction::Kill, ActorActionError::NotRestartable(path("refused"))),
    ] {
        assert_eq!(system.act(actor, action).await, Err(error));
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_with_a_number_from_another_life_gets_a_snapshot_first() {
    let system = start("lagging").await;
    let mut feed = system.actor_events(Some(1 << 40));
    let first = timeout(PATIENCE, feed.next()).await.expect("in time");
    let Some(ActorFeed::Snapshot(snapshot)) = first else { panic!("no snapshot: {first:?}") };
    assert_eq!(snapshot.actors.len(), 8);
    system.act(SCHEDULER, ActorAction::Kill).await.expect("it runs");
    expect(&mut feed, SCHEDULER, &["killed", "failed", "restarted"]).await;
    system.stop().await;
}
