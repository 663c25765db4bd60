//! What is counted of mailboxes, and that nothing stays behind.

use super::*;

async fn worker() -> ActorRef<WorkerMsg> {
    Worker::spawn(None, Worker, ("w".into(), 1, Arc::default())).await.unwrap().0
}

#[tokio::test(start_paused = true)]
async fn depth_falls_back_to_zero_and_handled_messages_are_counted() {
    let actor = worker().await;
    for _ in 0..4 {
        let (reply_to, _) = ractor::concurrency::oneshot();
        actor.cast(WorkerMsg::Epoch { reply_to: reply_to.into() }).unwrap();
    }
    let stats = mailbox_stats(actor.get_id()).unwrap();
    assert_eq!((stats.snapshot().depth, stats.snapshot().handled), (4, 0));
    ask(&actor, |reply_to| WorkerMsg::Epoch { reply_to }).await;
    let seen = stats.snapshot();
    assert_eq!((seen.depth, seen.max_depth, seen.handled, seen.lost), (0, 5, 5, 0));
    assert!(seen.longest_wait > Duration::ZERO && seen.longest_wait <= seen.waited);
    actor.stop_and_wait(None, Some(LONG)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_lost_in_a_dead_mailbox_are_counted_as_lost() {
    let actor = worker().await;
    actor.cast(WorkerMsg::Panic).unwrap();
    actor.cast(WorkerMsg::Finish).unwrap();
    actor.cast(WorkerMsg::Finish).unwrap();
    let stats = mailbox_stats(actor.get_id()).unwrap();
    actor.wait(Some(LONG)).await.unwrap();
    let seen = stats.snapshot();
    assert_eq!((seen.depth, seen.handled, seen.lost), (0, 1, 2));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_unsupervised_actors_leave_nothing_behind() {
    let mut mine = std::collections::HashSet::new();
    for _ in 0..10_000 {
        let actor = worker().await;
        mine.insert(actor.get_id());
        actor.cast(WorkerMsg::Finish).unwrap();
        actor.wait(Some(LONG)).await.unwrap();
        // Other tests use the table too; what counts is that it does not grow with the number of the dead.
        assert!(mailbox::table_len() < 2_000);
    }
    assert!(mailbox::all_mailboxes().iter().all(|(actor, _)| !mine.contains(actor)));
}
