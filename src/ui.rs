//! The web page at `/ui`: its files, carried inside the binary, and their headers. What the page shows it asks from
//! the API like any other client; nothing here knows an actor or a request.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use warp::reply::Response;

use crate::http::context::Call;
use crate::http::error::ApiError;
use crate::http::route::Route;

/// Only our own files, and nobody may frame the page: its buttons can stop things.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file of the page.
#[derive(Debug)]
struct PageFile {
    /// Below `/ui/`.
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// The page itself, served at `/ui`.
const INDEX: PageFile = PageFile { name: "index.html", content_type: HTML, bytes: include_bytes!("ui/index.html") };

/// What the page loads.
const FILES: &[PageFile] = &[
    PageFile { name: "style.css", content_type: CSS, bytes: include_bytes!("ui/style.css") },
    PageFile { name: "panels.css", content_type: CSS, bytes: include_bytes!("ui/panels.css") },
    PageFile { name: "icon.svg", content_type: SVG, bytes: include_bytes!("ui/icon.svg") },
    PageFile { name: "app.js", content_type: SCRIPT, bytes: include_bytes!("ui/app.js") },
    PageFile { name: "server.js", content_type: SCRIPT, bytes: include_bytes!("ui/server.js") },
    PageFile { name: "format.js", content_type: SCRIPT, bytes: include_bytes!("ui/format.js") },
    PageFile { name: "banner.js", content_type: SCRIPT, bytes: include_bytes!("ui/banner.js") },
    PageFile { name: "tree.js", content_type: SCRIPT, bytes: include_bytes!("ui/tree.js") },
    PageFile { name: "details.js", content_type: SCRIPT, bytes: include_bytes!("ui/details.js") },
    PageFile { name: "charts.js", content_type: SCRIPT, bytes: include_bytes!("ui/charts.js") },
    PageFile { name: "feed.js", content_type: SCRIPT, bytes: include_bytes!("ui/feed.js") },
    PageFile { name: "chat.js", content_type: SCRIPT, bytes: include_bytes!("ui/chat.js") },
];

/// The page's routes. They are open, since a browser sends no key when it follows a link; the page asks for one when
/// the API wants one.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/ui", |call: Call| async move { Ok(reply(&INDEX, &call.headers)) }).open(),
        Route::get("/ui/{file}", |call: Call| async move { file(&call) }).open(),
    ]
}

fn file(call: &Call) -> Result<Response, ApiError> {
    let name = call.path_rest.as_deref().unwrap_or_default();
    let found = FILES.iter().find(|file| file.name == name);
    found.map(|file| reply(file, &call.headers)).ok_or_else(|| ApiError::unknown_path(&format!("/ui/{name}")))
}

/// The file, or `304` when the browser has it: a new binary is seen at once, an old one costs no transfer.
fn reply(file: &PageFile, asked: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", &blake3::hash(file.bytes).to_hex()[..16]);
    let known = asked.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()).is_some_and(|tags| names(tags, &tag));
    let mut response = Response::new(if known { Default::default() } else { file.bytes.into() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_TYPE, file.content_type),
        (CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("content-security-policy"), CONTENT_SECURITY_POLICY),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

fn names(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}
