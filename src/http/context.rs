//! What handlers are given: the state of the server and one call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cllm_actors::request::Deadlines;
use cllm_actors::system::System;
use hyper::HeaderMap;
use serde::de::DeserializeOwned;

use crate::http::auth::{KeyRing, Tenant};
use crate::http::body::{BodyLimits, RequestBody};
use crate::http::cors::AllowedOrigins;
use crate::http::error::ApiError;
use crate::http::request_log::RequestLog;
use crate::http::route::percent_decode;

/// What the handlers of the generation routes work with; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The actors.
    pub system: System,
    /// The HTTP side's settings.
    pub settings: Arc<HttpSettings>,
}

/// The settings of the HTTP side, already checked.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The name of the model in answers and in `/v1/models`: the alias, else the file's stem.
    pub model_id: String,
    /// Every name a request may give, `model_id` among them. `default` and no name at all are always accepted.
    pub model_names: Vec<String>,
    /// Limits of a request body.
    pub body: BodyLimits,
    /// Who may call from a browser.
    pub origins: AllowedOrigins,
    /// Who may call at all.
    pub keys: KeyRing,
    /// Deadlines of a request that names none.
    pub deadlines: Deadlines,
    /// Limits of the connections.
    pub connections: ConnectionLimits,
    /// How long running requests may go on after the first signal to stop.
    pub shutdown_timeout: Duration,
}

/// What a connection may cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections served at once. A few more are accepted for the health probes alone.
    pub max_connections: u32,
    /// Until the head of a request is complete; also how long a connection may idle between two requests.
    pub header_timeout: Duration,
    /// Longest time without write progress before the client counts as gone.
    pub write_timeout: Duration,
}

impl HttpSettings {
    /// Whether a request may ask for the model by this name.
    pub fn serves_model(&self, name: &str) -> bool {
        name == "default" || self.model_names.iter().any(|known| known == name)
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            model_id: "default".to_owned(),
            model_names: Vec::new(),
            body: BodyLimits { max_bytes: 8 << 20, max_bytes_in_all: 64 << 20, deadline: Duration::from_secs(30) },
            origins: AllowedOrigins::None,
            keys: KeyRing::default(),
            deadlines: Deadlines::default(),
            connections: ConnectionLimits::default(),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { max_connections: 2150, header_timeout: Duration::from_secs(30), write_timeout: Duration::from_secs(30) }
    }
}

/// One request whose route is found and whose key is checked.
#[derive(Debug)]
pub struct Call {
    /// The caller's `x-request-id`, or ours.
    pub request_id: Arc<str>,
    /// Whose key it was; `None` when no keys are configured.
    pub tenant: Option<Tenant>,
    /// When the head was read.
    pub arrived: Instant,
    /// The decoded rest of a path whose route ends in `{…}`.
    pub path_rest: Option<String>,
    /// What follows the `?`, undecoded; empty if there is none.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// Where a handler puts what the request's log line shall say.
    pub log: RequestLog,
    /// The body, not yet read.
    pub body: RequestBody,
}

impl Call {
    /// The decoded value of a parameter behind the `?`; the first one counts.
    pub fn query_value(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| percent_decode(value))
    }

    /// Reads the body as a JSON object.
    ///
    /// # Errors
    /// See [`RequestBody::read_json`].
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, ApiError> {
        self.body.read_json(&self.headers).await
    }
}
