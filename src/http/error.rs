//! Every error a client can see, and its status, body and headers. The only file that maps errors to HTTP.
//!
//! The client's message and the log's detail are kept apart: what is only of use to an operator never leaves
//! the process.

use std::time::Duration;

use cllm_actors::GenerateError;
use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value, json};
use warp::reply::Response;

/// Tells the official clients whether to try again, whatever the status says.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The same wait as in `Retry-After`, to the millisecond; the official clients look here first.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// How long a client is asked to wait for a model that is loading: nothing better is known.
const LOADING_RETRY: Duration = Duration::from_secs(2);

/// How long a client is asked to wait for the successor of a server that is going away.
const SHUTDOWN_RETRY: Duration = Duration::from_secs(5);

/// The JSON an error is written in; a property of the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorShape {
    /// `{"error":{"message","type","param","code"}}`, as OpenAI has it.
    #[default]
    OpenAi,
    /// `{"success":false,"error":message}`, for the routes taken over from cLLM.
    Cllm,
}

/// An error as the client is told it; cheap to move.
#[derive(Debug, Clone)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    message: String,
    param: Option<String>,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
    context: Option<ContextNumbers>,
    allow: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct ContextNumbers {
    prompt_tokens: u32,
    context_tokens: u32,
}

impl ApiError {
    /// 400 about the field at this path; `None` when no single field is at fault.
    pub fn invalid(param: impl Into<Option<String>>, code: &'static str, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        error.0.param = param.into();
        error
    }

    /// 404 for a path no route has.
    pub fn unknown_path(path: &str) -> Self {
        let message = format!("there is nothing at {path}");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "not_found", message)
    }

    /// 404 for a model this server does not serve.
    pub fn unknown_model(name: &str) -> Self {
        let message = format!("the model `{name}` does not exist here; GET /v1/models lists what does");
        let mut error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message);
        error.0.param = Some("model".to_owned());
        error
    }

    /// 404 for an actor that is not there.
    pub fn unknown_actor(path: &str) -> Self {
        let message = format!("there is no actor `{path}`; GET /actors lists what there is");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "actor_not_found", message)
    }

    /// 409 for a command that makes no sense for its object.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "invalid_request_error", code, message)
    }

    /// 403 for an admin's route on a server that has no admin keys.
    pub fn admin_disabled() -> Self {
        let message = "what admins may do is off: this server has no `server.admin_keys`";
        Self::new(StatusCode::FORBIDDEN, "permission_error", "admin_disabled", message)
    }

    /// 403 for a key that opens the server but is no admin's.
    pub fn admin_required() -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", "admin_required", "this needs an admin's key")
    }

    /// 401; the message does not say what a valid key looks like.
    pub fn unauthorized() -> Self {
        let message = "a valid API key is needed: `Authorization: Bearer <key>` or `x-api-key: <key>`";
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    }

    /// 405; `allow` is the value of the `Allow` header.
    pub fn method_not_allowed(method: &str, allow: String) -> Self {
        let message = format!("{method} is not allowed here; allowed: {allow}");
        let mut error =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "method_not_allowed", message);
        error.0.allow = Some(allow);
        error
    }

    /// 408 for a request body that came too slowly.
    pub fn body_timeout(limit: Duration) -> Self {
        let message = format!("the request body was not complete after {} s", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", "body_timeout", message)
    }

    /// 413 for a request body over the limit.
    pub fn payload_too_large(limit_bytes: u64) -> Self {
        let message = format!("the request body is larger than {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", message)
    }

    /// 415 for a body that is not plain JSON.
    pub fn unsupported_media_type(found: &str) -> Self {
        let message = format!("the request body must be application/json, not {found}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", message)
    }

    /// 503 for a connection over the limit of connections.
    pub fn too_many_connections() -> Self {
        let message = "the server is at its limit of connections";
        let mut error = Self::unavailable("too_many_connections", message);
        error.0.retry_after = Some(Duration::from_secs(1));
        error
    }

    /// 503 for a body for which there is no memory: other requests' bodies have it.
    pub fn too_many_bodies() -> Self {
        let mut error = Self::unavailable("too_many_bodies", "the server is reading too many large requests at once");
        error.0.retry_after = Some(Duration::from_secs(1));
        error
    }

    /// 503 while the server stops.
    pub fn shutting_down() -> Self {
        let mut error = Self::unavailable("shutting_down", "the server is shutting down");
        error.0.retry_after = Some(SHUTDOWN_RETRY);
        error
    }

    /// 500; `detail` goes to the log and nowhere else.
    pub fn internal(detail: impl Into<String>) -> Self {
        let message = "internal error; the server's log has the cause under this request's id";
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal_error", message);
        error.0.detail = Some(detail.into());
        error
    }

    fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", code, message)
    }

    fn new(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            kind,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            should_retry: None,
            context: None,
            allow: None,
            detail: None,
        }))
    }

    /// Names the field at fault, unless one is named already.
    pub fn or_param(mut self, param: &str) -> Self {
        self.0.param.get_or_insert_with(|| param.to_owned());
        self
    }

    /// Says which key of the configuration sets how much the context holds, and what the model was trained with where
    /// that is more.
    pub fn with_room(mut self, trained_tokens: Option<u32>) -> Self {
        self.0.message += " (`model.max_context_length` of the server";
        if let Some(tokens) = trained_tokens {
            self.0.message += &format!("; the model was trained with {tokens}");
        }
        self.0.message.push(')');
        self
    }

    fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets `x-should-retry: false`: the same request would end the same way.
    fn not_worth_a_retry(mut self) -> Self {
        self.0.should_retry = Some(false);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The machine-readable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The client's message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The path of the field at fault.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// What only the log may say.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The JSON body; also the payload of an error in the middle of a stream (`data: <this>`).
    pub fn body(&self, shape: ErrorShape) -> Value {
        match shape {
            ErrorShape::OpenAi => json!({ "error": self.object() }),
            ErrorShape::Cllm => json!({ "success": false, "error": self.0.message }),
        }
    }

    /// [`ApiError::body`] as one line of text, for an SSE `data:` field.
    pub fn sse_payload(&self, shape: ErrorShape) -> String {
        self.body(shape).to_string()
    }

    /// The whole response.
    pub fn response(&self, shape: ErrorShape) -> Response {
        let mut response = Response::new(self.body(shape).to_string().into());
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait.as_millis().max(1) as u64));
        }
        if let Some(retry) = self.0.should_retry {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
        if let Some(allow) = self.0.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    fn object(&self) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("message".to_owned(), self.0.message.as_str().into());
        object.insert("type".to_owned(), self.0.kind.into());
        object.insert("param".to_owned(), self.0.param.as_deref().into());
        object.insert("code".to_owned(), self.0.code.into());
        if let Some(numbers) = self.0.context {
            object.insert("n_prompt_tokens".to_owned(), numbers.prompt_tokens.into());
            object.insert("n_ctx".to_owned(), numbers.context_tokens.into());
        }
        object
    }
}

/// `Retry-After` counts whole seconds; 0 would invite a busy loop.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).clamp(1, u128::from(u32::MAX)) as u64
}

impl From<GenerateError> for ApiError {
    fn from(error: GenerateError) -> Self {
        let message = error.to_string();
        match error {
            GenerateError::InvalidRequest { param, message } => Self::invalid(param, "invalid_value", message),
            GenerateError::ContextLengthExceeded { prompt_tokens, context_tokens, .. } => {
                let mut error = Self::invalid(None, "context_length_exceeded", message);
                error.0.context = Some(ContextNumbers { prompt_tokens, context_tokens });
                error
            }
            GenerateError::Overloaded { retry_after, .. }
            | GenerateError::QueueTooLong { retry_after, .. }
            | GenerateError::OverQuota { retry_after, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded", message)
                    .with_retry_after(retry_after)
            }
            GenerateError::ModelLoading => Self::unavailable("model_loading", message).with_retry_after(LOADING_RETRY),
            GenerateError::EngineDown { retry_after, .. } => {
                Self::unavailable("engine_down", message).with_retry_after(retry_after)
            }
            GenerateError::EngineCrashed => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "engine_crashed", message)
                    .not_worth_a_retry()
            }
            GenerateError::DeadlineExceeded { .. } => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", "deadline_exceeded", message)
                    .not_worth_a_retry()
            }
            GenerateError::ShuttingDown => Self::shutting_down(),
            GenerateError::ClientGone => Self::new(client_closed_request(), "client_gone", "client_gone", message),
            GenerateError::Internal(detail) => Self::internal(detail),
        }
    }
}

/// nginx's 499: never sent, it only marks the log line.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is in the range of statuses")
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.0.code, self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl warp::reject::Reject for ApiError {}

#[cfg(test)]
mod tests;
