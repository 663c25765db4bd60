//! One info line per request (of a probe a debug line), written when its response is finished or given up.
//!
//! Handlers fill in what they know through a [`RequestLog`]; the envelope owns the [`LogLine`] and writes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cllm_actors::request::{CacheOutcome, Timings, Usage};
use hyper::{Method, StatusCode};

use crate::http::auth::Tenant;
use crate::http::error::ApiError;

/// How a request ended, seen from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer was handed to the connection.
    Completed,
    /// The client went away before that.
    ClientGone,
    /// It was answered with an error, at the start or in mid-stream.
    Error,
}

impl Outcome {
    /// The text of the log line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientGone => "client_gone",
            Self::Error => "error",
        }
    }
}

/// Collects what is known about a request; cheap to clone, usable from the task that streams.
#[derive(Debug, Clone, Default)]
pub struct RequestLog {
    facts: Arc<Mutex<Facts>>,
}

#[derive(Default)]
struct Facts {
    tenant: Option<Tenant>,
    error: Option<ApiError>,
    cost: Option<Cost>,
    cache: Option<CacheOutcome>,
    ignored: Option<String>,
}

/// Tells what a request has cost so far.
type Cost = Box<dyn Fn() -> (Usage, Timings) + Send>;

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("tenant", &self.tenant).field("error", &self.error).finish_non_exhaustive()
    }
}

impl RequestLog {
    /// Whose request it is.
    pub fn set_tenant(&self, tenant: &Tenant) {
        self.facts().tenant = Some(tenant.clone());
    }

    /// It failed. Errors in mid-stream must be told here, since the status is out by then; the first one stays.
    pub fn failed(&self, error: &ApiError) {
        self.facts().error.get_or_insert_with(|| error.clone());
    }

    /// It generates. `cost` is asked once, when the line is written, whatever has ended the request by then.
    pub fn generates(&self, cost: impl Fn() -> (Usage, Timings) + Send + 'static) {
        self.facts().cost = Some(Box::new(cost));
    }

    /// Where the answer comes from. Known before its head goes out, which says so too.
    pub fn cached(&self, outcome: Option<CacheOutcome>) {
        self.facts().cache = outcome;
    }

    /// Names of fields of the body that nobody reads; bounded by the caller.
    pub fn ignored(&self, names: Option<String>) {
        self.facts().ignored = names;
    }

    /// What [`RequestLog::cached`] was told.
    pub fn cache(&self) -> Option<CacheOutcome> {
        self.facts().cache
    }

    /// A panic while the lock was held leaves nothing half-written that a log line could not bear.
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of one request; dropping it writes it.
#[derive(Debug)]
pub struct LogLine {
    request_id: Arc<str>,
    method: Method,
    path: String,
    arrived: Instant,
    status: Option<StatusCode>,
    body_ended: bool,
    log: RequestLog,
}

impl LogLine {
    /// Starts the clock. The path goes without its query, which may hold secrets.
    pub fn new(request_id: Arc<str>, method: Method, path: String) -> Self {
        let log = RequestLog::default();
        Self { request_id, method, path, arrived: Instant::now(), status: None, body_ended: false, log }
    }

    /// The handlers' side.
    pub fn log(&self) -> &RequestLog {
        &self.log
    }

    /// When the request arrived.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The head of the response is known.
    pub fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The whole body was handed to the connection.
    pub fn set_body_ended(&mut self) {
        self.body_ended = true;
    }

    fn outcome(&self, facts: &Facts) -> Outcome {
        let refused = self.status.is_some_and(|status| status.is_client_error() || status.is_server_error());
        match facts.error.as_ref().map(ApiError::code) {
            Some("client_gone") => Outcome::ClientGone,
            Some(_) => Outcome::Error,
            None if !self.body_ended => Outcome::ClientGone,
            None if refused => Outcome::Error,
            None => Outcome::Completed,
        }
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let facts = self.log.facts();
        if let Some(error) = &facts.error
            && let Some(detail) = error.detail()
        {
            tracing::error!(request_id = &*self.request_id, code = error.code(), detail, "request failed inside");
        }
        let (status, outcome) = (self.status.map_or(0, |status| status.as_u16()), self.outcome(&facts).as_str());
        let duration_ms = milliseconds(self.arrived.elapsed());
        if is_probe(&self.path) {
            let (request_id, path) = (&*self.request_id, self.path.as_str());
            tracing::debug!(request_id, path, status, duration_ms, outcome, "request finished");
            return;
        }
        let (usage, timings) = facts.cost.as_ref().map(|cost| cost()).unzip();
        tracing::info!(
            request_id = &*self.request_id,
            method = self.method.as_str(),
            path = self.path,
            status,
            duration_ms,
            outcome,
            tenant = facts.tenant.as_ref().map(Tenant::as_str),
            code = facts.error.as_ref().map(ApiError::code),
            cache = facts.cache.map(CacheOutcome::as_str),
            ignored = facts.ignored.as_deref(),
            prompt_tokens = usage.map(|usage| usage.prompt_tokens),
            cached_tokens = usage.map(|usage| usage.cached_tokens),
            completion_tokens = usage.map(|usage| usage.completion_tokens),
            queue_ms = timings.map(|timings| milliseconds(timings.queue)),
            prefill_ms = timings.map(|timings| milliseconds(timings.prefill)),
            decode_ms = timings.map(|timings| milliseconds(timings.decode)),
            "request finished"
        );
    }
}

/// Asked every few seconds by those who watch the server, and no news.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/health")
}

/// Milliseconds to one decimal: what a log line can bear.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
