//! Cross-origin rules: off by default, pure decisions. warp's own filter is not used since it needs a fixed list of
//! request headers, and the official browser clients send a dozen of their own that change with each version.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
};
use hyper::{HeaderMap, Method};

/// Response headers that a page's script may read.
const EXPOSED: &str = "x-request-id, openai-processing-ms, retry-after, retry-after-ms, x-should-retry, x-cache";

/// How long a browser may remember a preflight.
const MAX_AGE_SECONDS: &str = "600";

/// From which web pages a browser may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// None: no header is ever sent.
    None,
    /// Any (`*`).
    Any,
    /// These, compared as sent by the browser, e.g. `https://chat.example:8443`.
    These(Vec<String>),
}

impl AllowedOrigins {
    /// From the configured list; `*` anywhere in it means any.
    pub fn of_list(origins: &[String]) -> Self {
        match origins {
            [] => Self::None,
            list if list.iter().any(|origin| origin == "*") => Self::Any,
            list => Self::These(list.iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect()),
        }
    }

    /// Whether this is the question a browser asks before the real request.
    pub fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        *self != Self::None
            && method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Adds what every response to a cross-origin request needs. An origin that is not allowed gets nothing: the
    /// browser then keeps the answer from the page.
    pub fn add_headers(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if let Self::These(_) = self {
            response.append(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = request.get(ORIGIN).and_then(|origin| self.allow(origin)) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }

    /// Adds the answer to a preflight; `allow` are the methods of the path.
    pub fn add_preflight_headers(&self, request: &HeaderMap, allow: &str, response: &mut HeaderMap) {
        if request.get(ORIGIN).and_then(|origin| self.allow(origin)).is_none() {
            return;
        }
        if let Ok(methods) = HeaderValue::from_str(allow) {
            response.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        if let Some(asked) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            response.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
    }

    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::These(list) => list.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
