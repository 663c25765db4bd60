//! The warp filter that carries all routes: takes a request apart, finds its route, checks its key, calls the handler.
//!
//! One filter over one table instead of a chain of filters: a chain can't tell 405 from 404 for every path, tries its
//! routes one after another, and compiles for minutes.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use hyper::body::Body;
use hyper::header::{ALLOW, CONTENT_LENGTH, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use crate::http::body::RequestBody;
use crate::http::body::budget::BodyBudget;
use crate::http::context::{Call, HttpSettings};
use crate::http::envelope::{Enclosed, Standing};
use crate::http::error::{ApiError, ErrorShape};
use crate::http::route::{Access, Found, Route, RouteTable};

/// Answers whatever is asked, in our own shape also where warp itself refuses.
pub fn filter(
    routes: RouteTable,
    settings: Arc<HttpSettings>,
) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone + Send + Sync + 'static {
    let dispatcher = Arc::new(Dispatcher {
        routes,
        bodies: BodyBudget::new(settings.body.max_bytes_in_all, settings.body.max_bytes),
        settings,
    });
    warp::method()
        .and(warp::path::full())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Enclosed>())
        .and(warp::body::stream())
        .then(move |method, path: FullPath, query, headers, enclosed, body| {
            let dispatcher = Arc::clone(&dispatcher);
            async move { dispatcher.answer(Asked { method, path, query, headers, enclosed }, body).await }
        })
        .recover(|rejection: Rejection| async move {
            let error = ApiError::internal(format!("a filter refused: {rejection:?}"));
            Ok::<_, Infallible>(error.response(ErrorShape::OpenAi))
        })
}

struct Asked {
    method: Method,
    path: FullPath,
    query: String,
    headers: HeaderMap,
    enclosed: Enclosed,
}

struct Dispatcher {
    routes: RouteTable,
    settings: Arc<HttpSettings>,
    bodies: BodyBudget,
}

impl Dispatcher {
    async fn answer<B: Buf>(
        &self,
        asked: Asked,
        body: impl Stream<Item = Result<B, warp::Error>> + Send + Sync + 'static,
    ) -> Response {
        let request_headers = asked.headers.clone();
        let body = RequestBody::new(body, self.settings.body, self.bodies.clone());
        let mut response = self.route(asked, body).await;
        self.settings.origins.add_headers(&request_headers, response.headers_mut());
        response
    }

    async fn route(&self, asked: Asked, body: RequestBody) -> Response {
        let log = asked.enclosed.log.clone();
        let (shape, result) = match self.routes.find(&asked.method, asked.path.as_str()) {
            Found::Route { route, rest } => (route.shape(), self.call(route, rest, asked, body).await),
            Found::OtherMethods { allow, .. } if asked.method == Method::OPTIONS => {
                (ErrorShape::OpenAi, Ok(self.options(&asked.headers, &allow)))
            }
            Found::OtherMethods { allow, shape } => {
                (shape, Err(ApiError::method_not_allowed(asked.method.as_str(), allow)))
            }
            Found::Nothing => (ErrorShape::OpenAi, Err(ApiError::unknown_path(asked.path.as_str()))),
        };
        result.unwrap_or_else(|error| {
            log.failed(&error);
            error.response(shape)
        })
    }

    async fn call(
        &self,
        route: &Route,
        path_rest: Option<String>,
        asked: Asked,
        body: RequestBody,
    ) -> Result<Response, ApiError> {
        let Asked { method, query, headers, enclosed, .. } = asked;
        let Enclosed { request_id, arrived, log, standing } = enclosed;
        let tenant = match (route.access(), standing) {
            (Access::Probe, _) => None,
            (_, Standing::Crowded) => return Err(ApiError::too_many_connections()),
            (_, Standing::Draining) => return Err(ApiError::shutting_down()),
            (Access::Open, Standing::Welcome) => None,
            (Access::Admin, Standing::Welcome) => Some(self.settings.keys.check_admin(&headers)?),
            (Access::Key, Standing::Welcome) => self.settings.keys.check(&headers)?,
        };
        if let Some(tenant) = &tenant {
            log.set_tenant(tenant);
        }
        let is_head = method == Method::HEAD;
        let call = Call { request_id, tenant, arrived, path_rest, query, headers, log, body };
        let response = route.handle(call).await?;
        Ok(if is_head { without_body(response) } else { response })
    }

    fn options(&self, headers: &HeaderMap, allow: &str) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        if let Ok(allow) = HeaderValue::from_str(allow) {
            response.headers_mut().insert(ALLOW, allow);
        }
        if self.settings.origins.is_preflight(&Method::OPTIONS, headers) {
            self.settings.origins.add_preflight_headers(headers, allow, response.headers_mut());
        }
        response
    }
}

/// The length stays: that is what `HEAD` is asked for.
fn without_body(response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let (mut parts, _) = response.into_parts();
    if let Some(length) = length {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Default::default())
}
