//! `/actors`: what the actors do, what happens to them, and commands to one of them. No actor is asked for any of it.

use std::str::FromStr;

use bytes::Bytes;
use cllm_actors::inspector::tree;
use cllm_actors::system::{ActorAction, ActorActionError, ActorFeed, ActorFeedStream, Status};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde_json::json;
use warp::Reply;
use warp::reply::Response;

use crate::api::Api;
use crate::api::stream::PING_AFTER;
use crate::http::context::Call;
use crate::http::error::ApiError;
use crate::http::sse;

#[cfg(test)]
mod tests;

/// `GET /actors`, with `?format=text` as a drawing.
pub(super) async fn list(api: Api, call: Call) -> Result<Response, ApiError> {
    let snapshot = api.app.system.actors();
    match call.query_value("format").as_deref() {
        None | Some("json") => Ok(warp::reply::json(&snapshot).into_response()),
        Some("text") => {
            let mut response = Response::new(tree::draw(&snapshot).into());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            Ok(response)
        }
        Some(_) => Err(ApiError::invalid("format".to_owned(), "invalid_value", "`format` is `json` or `text`")),
    }
}

/// `GET /actors/{path}`; a path of `events` is [`events`], which has a route of its own.
pub(super) async fn one(api: Api, call: Call) -> Result<Response, ApiError> {
    let path = call.path_rest.unwrap_or_default();
    let actor = api.app.system.actor(&path).ok_or_else(|| ApiError::unknown_actor(&path))?;
    Ok(warp::reply::json(&actor).into_response())
}

/// `GET /actors/events`.
pub(super) async fn events(api: Api, call: Call) -> Result<Response, ApiError> {
    let seen = last_event_id(&call.headers)?;
    let mut status = api.app.system.status();
    let feed = api.app.system.actor_events(seen);
    // A reader that stays on would keep a server that stops waiting for it. An error: the system is gone.
    let draining = async move { drop(status.wait_for(|status| *status == Status::Draining).await) };
    Ok(sse::response(frames(feed).take_until(draining)))
}

/// `POST /actors/{path}/{action}`.
pub(super) async fn act(api: Api, call: Call) -> Result<Response, ApiError> {
    let rest = call.path_rest.unwrap_or_default();
    let (path, action) = rest.rsplit_once('/').ok_or_else(|| ApiError::unknown_path(&format!("/actors/{rest}")))?;
    let order: Order = action.parse().map_err(|()| ApiError::unknown_path(&format!("/actors/{rest}")))?;
    let (path, epoch) = api.app.system.act(path, order.0).await.map_err(|error| refused(&error))?;
    let (request_id, tenant) = (&*call.request_id, call.tenant.as_ref().map(|tenant| tenant.as_str()));
    tracing::warn!(request_id, path, action, tenant, "command to an actor");
    Ok(warp::reply::json(&json!({ "path": path, "action": action, "epoch": epoch })).into_response())
}

struct Order(ActorAction);

impl FromStr for Order {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Ok(Self(match word {
            "restart" => ActorAction::Restart,
            "kill" => ActorAction::Kill,
            "pause" => ActorAction::Pause,
            "resume" => ActorAction::Resume,
            _ => return Err(()),
        }))
    }
}

fn refused(error: &ActorActionError) -> ApiError {
    let message = error.to_string();
    match error {
        ActorActionError::NotFound(path) => ApiError::unknown_actor(path),
        ActorActionError::NotPausable(_) => ApiError::conflict("not_pausable", message),
        ActorActionError::NotRestartable(_) => ApiError::conflict("not_restartable", message),
        ActorActionError::NotRunning(_) => ApiError::conflict("not_running", message),
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    let message = "the header `Last-Event-ID` is the number of an event";
    id.map(Some).ok_or_else(|| ApiError::invalid(None, "invalid_value", message))
}

/// The feed as server-sent events, with a comment at the start and whenever nothing happens for a while.
fn frames(feed: ActorFeedStream) -> impl Stream<Item = Bytes> + Send {
    let hello = stream::once(async { Bytes::from_static(b": ok\n\n") });
    hello.chain(stream::unfold(feed, |mut feed| async move {
        let frame = match tokio::time::timeout(PING_AFTER, feed.next()).await {
            Ok(next) => frame(&next?),
            Err(_) => Bytes::from_static(b": ping\n\n"),
        };
        Some((frame, feed))
    }))
}

fn frame(item: &ActorFeed) -> Bytes {
    match item {
        ActorFeed::Event(event) => write(event.seq, event.kind, event.as_ref()),
        ActorFeed::Snapshot(snapshot) => write(snapshot.seq, "snapshot", snapshot.as_ref()),
    }
}

fn write(id: u64, kind: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("our own shapes have string keys");
    format!("id: {id}\nevent: {kind}\ndata: {data}\n\n").into()
}
