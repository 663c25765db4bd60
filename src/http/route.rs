//! The table of routes: one list from which lookup, aliases, 405 and `Allow` follow.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::Method;
use warp::reply::Response;

use crate::http::context::Call;
use crate::http::error::{ApiError, ErrorShape};

/// Routes below it are also served without it.
const PREFIX: &str = "/v1";

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Response, ApiError>> + Send + Sync>;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, also when the server is full or stops: probes.
    Probe,
    /// Everybody, with or without a key: what a browser loads before it can send one.
    Open,
    /// Whoever has a key, when keys are configured.
    Key,
    /// Whoever has an admin's key.
    Admin,
}

/// One method of one path.
#[derive(Clone)]
pub struct Route {
    method: Method,
    path: &'static str,
    access: Access,
    shape: ErrorShape,
    handler: Handler,
}

impl Route {
    /// A `GET` route; it answers `HEAD` too.
    ///
    /// `path` has no trailing slash; a last segment `{…}` takes the whole rest, slashes included.
    pub fn get<F, R>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        Self::new(Method::GET, path, handler)
    }

    /// A `POST` route; the path as for [`Route::get`].
    pub fn post<F, R>(path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        Self::new(Method::POST, path, handler)
    }

    /// Opens the route to everybody at any time.
    pub fn probe(mut self) -> Self {
        self.access = Access::Probe;
        self
    }

    /// Opens the route to callers without a key, while the server takes requests.
    pub fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    /// Closes the route to everybody but admins.
    pub fn admin(mut self) -> Self {
        self.access = Access::Admin;
        self
    }

    /// Writes this route's errors in another shape.
    pub fn errors(mut self, shape: ErrorShape) -> Self {
        self.shape = shape;
        self
    }

    fn new<F, R>(method: Method, path: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        Self { method, path, access: Access::Key, shape: ErrorShape::OpenAi, handler }
    }

    /// Who may call.
    pub fn access(&self) -> Access {
        self.access
    }

    /// How errors are written.
    pub fn shape(&self) -> ErrorShape {
        self.shape
    }

    /// Answers a call.
    pub fn handle(&self, call: Call) -> BoxFuture<'static, Result<Response, ApiError>> {
        (self.handler)(call)
    }

    /// `Some` if the path is this route's; inside it the undecoded rest, if the route takes one.
    fn matches<'p>(&self, path: &'p str) -> Option<Option<&'p str>> {
        let alias = self.path.strip_prefix(PREFIX).filter(|alias| alias.starts_with('/'));
        matches(self.path, path).or_else(|| matches(alias?, path))
    }

    fn answers(&self, method: &Method) -> bool {
        self.method == method || (self.method == Method::GET && method == Method::HEAD)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.method, self.path)
    }
}

fn matches<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    match pattern.split_once('{') {
        Some((start, _)) => path.strip_prefix(start).filter(|rest| !rest.is_empty()).map(Some),
        None => (pattern == path).then_some(None),
    }
}

/// What the table says about a request.
#[derive(Debug)]
pub enum Found<'t> {
    /// This route answers it.
    Route {
        /// The route.
        route: &'t Route,
        /// The decoded rest of the path, if the route takes one.
        rest: Option<String>,
    },
    /// The path is known, the method is not one of its own.
    OtherMethods {
        /// The value of `Allow`.
        allow: String,
        /// How the path's errors are written.
        shape: ErrorShape,
    },
    /// No route has this path.
    Nothing,
}

/// All routes of a server.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
}

impl RouteTable {
    /// Takes the routes; of two that match, the first wins.
    pub fn new(routes: Vec<Route>) -> Self {
        Self { routes }
    }

    /// Looks a request up. `path` is as sent; slashes at its end do not matter.
    pub fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let mut same_path = self.routes.iter().filter_map(|route| Some((route, route.matches(path)?)));
        let Some((first, _)) = same_path.clone().next() else { return Found::Nothing };
        match same_path.find(|(route, _)| route.answers(method)) {
            Some((route, rest)) => Found::Route { route, rest: rest.map(percent_decode) },
            None => Found::OtherMethods { allow: self.allow(path), shape: first.shape },
        }
    }

    fn allow(&self, path: &str) -> String {
        let mut allow: Vec<&str> = Vec::new();
        // Two routes may match one path.
        let mut add = |method| {
            if !allow.contains(&method) {
                allow.push(method);
            }
        };
        for route in self.routes.iter().filter(|route| route.matches(path).is_some()) {
            add(route.method.as_str());
            if route.method == Method::GET {
                add("HEAD");
            }
        }
        add("OPTIONS");
        allow.join(", ")
    }
}

/// Bytes that do not decode to UTF-8 are replaced: they name nothing we have.
pub(super) fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = if byte == b'%' { hex_byte(tail) } else { None };
        decoded.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

#[cfg(test)]
mod tests;
