//! Reading a request body: counted while it comes, under a deadline, JSON only, errors that name the field.
//!
//! `Content-Length` is believed when it announces too much, never when it announces little.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt};
use hyper::HeaderMap;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use crate::http::error::ApiError;

use budget::{BodyBudget, BodyShare};

pub mod budget;
mod weight;

/// How long the rest of a body that is refused is thrown away, so that the client gets to read why
/// before the connection closes under its writes.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// What a request body may cost.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Most bytes, counted as they come.
    pub max_bytes: u64,
    /// Most bytes of all bodies in memory together; a single one of `max_bytes` always has room.
    pub max_bytes_in_all: u64,
    /// Until the last byte is there, from the moment a handler starts to read.
    pub deadline: Duration,
}

/// A body not yet read.
pub struct RequestBody {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>,
    limits: BodyLimits,
    budget: BodyBudget,
    share: BodyShare,
}

impl RequestBody {
    /// Takes the stream of `warp::body::stream`.
    pub fn new<B: Buf>(
        stream: impl Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
        limits: BodyLimits,
        budget: BodyBudget,
    ) -> Self {
        let chunks = stream.map_ok(|mut chunk| chunk.copy_to_bytes(chunk.remaining()));
        Self { chunks: Box::pin(chunks), limits, budget, share: BodyShare::default() }
    }

    /// Reads a JSON object. An absent content type is taken for JSON, as every OpenAI-compatible server does.
    ///
    /// Its share of the memory for bodies is kept until [`RequestBody::done`] or the drop.
    ///
    /// # Errors
    /// 415 for another content type or an encoded body, 413, 408, 503 when other bodies have the memory, and 400 with the
    /// path of the field at fault.
    pub async fn read_json<T: DeserializeOwned>(&mut self, headers: &HeaderMap) -> Result<T, ApiError> {
        check_content_type(headers)?;
        self.check_announced_length(headers).await?;
        parse_json(&self.read().await?)
    }

    /// Gives the memory for bodies back: everything that is needed of this one is in another form now.
    pub fn done(&mut self) {
        self.share.release();
    }

    /// Throws the body away before its request is refused for a reason that is not in it.
    pub async fn discard(&mut self, headers: &HeaderMap) {
        // Whoever waits for `100 Continue` would be told to send it by the first read.
        if !headers.contains_key(EXPECT) {
            self.discard_rest().await;
        }
    }

    /// A client that waits for `100 Continue` has sent nothing that would have to be thrown away.
    async fn check_announced_length(&mut self, headers: &HeaderMap) -> Result<(), ApiError> {
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match announced {
            Some(length) if length > self.limits.max_bytes && headers.contains_key(EXPECT) => Err(self.too_large()),
            Some(length) if length > self.limits.max_bytes => Err(self.refuse(self.too_large()).await),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<Bytes, ApiError> {
        let limit = self.limits.deadline;
        match tokio::time::timeout(limit, self.collect()).await {
            Ok(body) => body,
            Err(_) => Err(ApiError::body_timeout(limit)),
        }
    }

    async fn collect(&mut self) -> Result<Bytes, ApiError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunks.next().await {
            let chunk = chunk.map_err(|_| broken_body())?;
            let length = (body.len() + chunk.len()) as u64;
            if length > self.limits.max_bytes {
                return Err(self.refuse(self.too_large()).await);
            }
            if self.budget.cover(&mut self.share, length).await.is_err() {
                drop(body);
                return Err(self.refuse(ApiError::too_many_bodies()).await);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn too_large(&self) -> ApiError {
        ApiError::payload_too_large(self.limits.max_bytes)
    }

    async fn refuse(&mut self, error: ApiError) -> ApiError {
        self.share.release();
        self.discard_rest().await;
        error
    }

    /// Discards at most as much again as is allowed.
    async fn discard_rest(&mut self) {
        let mut budget = self.limits.max_bytes;
        let discard = async {
            while let Some(Ok(chunk)) = self.chunks.next().await {
                match budget.checked_sub(chunk.len() as u64) {
                    Some(rest) => budget = rest,
                    None => break,
                }
            }
        };
        // Whether the client finished in time does not matter: the answer is the same.
        let _ = tokio::time::timeout(DISCARD_TIME, discard).await;
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RequestBody").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn broken_body() -> ApiError {
    ApiError::invalid(None, "incomplete_body", "the request body ended before its announced end")
}

/// Refuses anything that is declared and is not plain JSON.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
        return Err(ApiError::unsupported_media_type(&format!("content-encoding {encoding}")));
    }
    let Some(declared) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let declared = String::from_utf8_lossy(declared.as_bytes());
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence.is_empty() || essence == "application/json" || is_json_suffix(&essence);
    if is_json { Ok(()) } else { Err(ApiError::unsupported_media_type(&essence)) }
}

fn is_json_suffix(essence: &str) -> bool {
    essence.starts_with("application/") && essence.ends_with("+json")
}

/// Parses a whole body.
///
/// # Errors
/// 400: `invalid_json` with line and column; `invalid_value` for more values than memory is meant for; `missing_required_parameter`, `invalid_type` or `invalid_value`
/// with the path of the field.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take `[..]` for a struct, field by field.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(not_an_object(body));
    }
    weight::check(body)?;
    let mut parser = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let path = error.path().to_string();
        explain(&error.into_inner(), &path)
    })?;
    parser.end().map_err(|error| explain(&error, "."))?;
    Ok(value)
}

fn not_an_object(body: &[u8]) -> ApiError {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => ApiError::invalid(None, "invalid_type", "the request body must be a JSON object"),
        Err(error) => explain(&error, "."),
    }
}

fn explain(error: &serde_json::Error, path: &str) -> ApiError {
    let text = error.to_string();
    match error.classify() {
        Category::Data => explain_data(text.split(" at line ").next().unwrap_or(&text), path),
        Category::Eof if error.line() <= 1 && error.column() == 0 => {
            ApiError::invalid(None, "invalid_json", "the request body is empty; a JSON object is expected")
        }
        Category::Syntax | Category::Eof | Category::Io => {
            ApiError::invalid(None, "invalid_json", format!("the request body is not valid JSON: {text}"))
        }
    }
}

/// serde reports a missing field at the object that should have it: the field's own path is more use.
fn explain_data(text: &str, path: &str) -> ApiError {
    let parent = if path == "." { "" } else { path };
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let separator = if parent.is_empty() { "" } else { "." };
        let param = format!("{parent}{separator}{field}");
        let message = format!("`{param}` is missing");
        return ApiError::invalid(param, "missing_required_parameter", message);
    }
    let code = if text.starts_with("invalid type") { "invalid_type" } else { "invalid_value" };
    match parent {
        "" => ApiError::invalid(None, code, text),
        param => ApiError::invalid(param.to_owned(), code, format!("`{param}`: {text}")),
    }
}

#[cfg(test)]
mod tests;
