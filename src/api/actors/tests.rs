//! The feed on the wire, and what is told of refusals.

use std::sync::Arc;

use cllm_actors::inspector::log::ActorEvent;

use super::*;

fn event(seq: u64) -> ActorFeed {
    ActorFeed::Event(Arc::new(ActorEvent {
        seq,
        at: 5,
        kind: "failed",
        path: "cllm/http".to_owned(),
        epoch: 2,
        cause: Some("a\nb".to_owned()),
        backoff_ms: None,
    }))
}

#[test]
fn an_event_is_one_frame_with_its_number_and_kind() {
    let expected = "id: 7\nevent: failed\ndata: {\"seq\":7,\"at\":5,\"kind\":\"failed\",\"path\":\"cllm/http\",\
                    \"epoch\":2,\"cause\":\"a\\nb\",\"backoff_ms\":null}\n\n";
    assert_eq!(frame(&event(7)), expected);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_happens_comments_go_out() {
    let feed: ActorFeedStream = Box::pin(stream::once(async { event(1) }).chain(stream::pending()));
    let frames: Vec<_> = frames(feed).take(4).collect().await;
    let begin = |frame: &Bytes| String::from_utf8_lossy(&frame[..5]).into_owned();
    assert_eq!(frames.iter().map(begin).collect::<Vec<_>>(), [": ok\n", "id: 1", ": pin", ": pin"]);
}

#[test]
fn the_last_event_id_is_a_number_or_a_mistake() {
    let headers = |value: &str| HeaderMap::from_iter([("last-event-id".parse().unwrap(), value.parse().unwrap())]);
    assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
    assert_eq!(last_event_id(&headers("17")).unwrap(), Some(17));
    assert_eq!(last_event_id(&headers("x")).unwrap_err().status(), 400);
}

#[test]
fn refusals_have_codes() {
    let path = || "cllm".to_owned();
    let of = |error: ActorActionError| {
        let error = refused(&error);
        (error.status().as_u16(), error.code())
    };
    assert_eq!(of(ActorActionError::NotFound(path())), (404, "actor_not_found"));
    assert_eq!(of(ActorActionError::NotPausable(path())), (409, "not_pausable"));
    assert_eq!(of(ActorActionError::NotRestartable(path())), (409, "not_restartable"));
    assert_eq!(of(ActorActionError::NotRunning(path())), (409, "not_running"));
}
