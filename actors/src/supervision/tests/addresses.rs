//! Addresses that survive restarts.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cast_after_a_restart_reaches_the_new_incarnation_and_says_which() {
    let mut tree = Tree::running("addr", Rules::default(), 1).await;
    let mut epochs = tree.parts[0].addr.epochs();
    let first = *epochs.borrow_and_update();
    tree.tell(0, WorkerMsg::Panic);
    tree.wait_for(0, EventKind::Restarted).await;
    epochs.changed().await.unwrap();
    let second = *epochs.borrow();
    assert!(second > first);
    let (reply_to, answer) = ractor::concurrency::oneshot();
    let reached = tree.parts[0].addr.cast(WorkerMsg::Epoch { reply_to: reply_to.into() }).unwrap();
    assert_eq!((reached, answer.await.unwrap()), (second, second));
    tree.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_to_nobody_comes_back() {
    let addr = Addr::new();
    assert!(matches!(addr.cast(WorkerMsg::Panic).unwrap_err().message, Some(WorkerMsg::Panic)));
    let mut tree = Tree::running("nobody", Rules::default(), 1).await;
    tree.stop().await;
    let back = tree.parts[0].addr.cast(WorkerMsg::Finish).unwrap_err().message;
    assert!(matches!(back, Some(WorkerMsg::Finish)));
}

#[tokio::test(start_paused = true)]
async fn an_older_incarnation_neither_replaces_nor_clears_a_newer_one() {
    let script = Arc::new(Script::default());
    let (actor, _) = Worker::spawn(None, Worker, ("a".into(), 7, script)).await.unwrap();
    let addr = Addr::new();
    addr.publish(actor.clone(), 7);
    addr.publish(actor.clone(), 6);
    addr.clear(6);
    assert_eq!((addr.epoch(), addr.current().is_some()), (7, true));
    addr.clear(7);
    assert_eq!((addr.epoch(), addr.current().is_some()), (7, false));
    actor.stop_and_wait(None, Some(LONG)).await.unwrap();
}

#[test]
fn epochs_of_a_system_never_repeat() {
    let source = EpochSource::default();
    let other = source.clone();
    let mut drawn: Vec<_> = (0..100).flat_map(|_| [source.next_epoch(), other.next_epoch()]).collect();
    assert!(drawn.is_sorted());
    drawn.dedup();
    assert_eq!(drawn.len(), 200);
}
