//! Probes, answered from the state of the actor tree and never by asking an actor.
//!
//! `/livez`: the process answers, and can still help itself. `/readyz`: requests are served at once and the engine ends its steps; while it restarts
//! requests only wait, but a balancer with another server to choose should choose it. `/health` is `/readyz` behind a key.

use std::time::Duration;

use cllm_actors::system::Status;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch;
use warp::reply::Response;

use crate::http::route::Route;

/// The probes' routes. `stalled` says how long the engine has been silent if that is too long, `is_lost` whether only another
/// process can help.
pub fn routes(
    status: watch::Receiver<Status>,
    stalled: impl Fn() -> Option<Duration> + Clone + Send + Sync + 'static,
    is_lost: impl Fn() -> bool + Send + Sync + 'static,
) -> Vec<Route> {
    let ready = move || {
        let (status, stalled) = (status.clone(), stalled.clone());
        move |_| {
            let (code, body) = readiness(&status.borrow(), stalled());
            async move { Ok(reply(code, &body)) }
        }
    };
    let live = move |_| {
        let (code, status) = if is_lost() { (StatusCode::SERVICE_UNAVAILABLE, "hung") } else { (StatusCode::OK, "ok") };
        async move { Ok(reply(code, &json!({ "status": status }))) }
    };
    vec![Route::get("/livez", live).probe(), Route::get("/readyz", ready()).probe(), Route::get("/health", ready())]
}

fn readiness(status: &Status, stalled: Option<Duration>) -> (StatusCode, Value) {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    if let (Status::Ready, Some(silence)) = (status, stalled) {
        let cause = "requests are under way and the engine has ended no step for too long";
        return (unavailable, json!({ "status": "stalled", "cause": cause, "silent_ms": silence.as_millis() as u64 }));
    }
    match status {
        Status::Ready => (StatusCode::OK, json!({ "status": "ok" })),
        Status::Restarting { cause } => (unavailable, json!({ "status": "restarting", "cause": cause })),
        Status::Loading { progress } => (unavailable, json!({ "status": "loading", "progress": progress })),
        Status::Held { cause, .. } => {
            let seconds = status.retry_after().map(|left| left.as_secs_f64().ceil() as u64);
            (unavailable, json!({ "status": "engine_down", "cause": cause, "retry_after_s": seconds }))
        }
        Status::Failed { cause } => (unavailable, json!({ "status": "failed", "cause": cause })),
        Status::Draining => (unavailable, json!({ "status": "shutting_down" })),
    }
}

fn reply(code: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(body.to_string().into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
