//! Paths, methods and aliases.

use hyper::Method;
use warp::Reply;

use super::{Found, Route, RouteTable, percent_decode};

fn table() -> RouteTable {
    let answer = |_| async { Ok(warp::reply().into_response()) };
    RouteTable::new(vec![
        Route::get("/", answer),
        Route::get("/v1/models", answer),
        Route::get("/v1/models/{id}", answer),
        Route::post("/v1/chat/completions", answer),
        Route::post("/generate", answer),
    ])
}

fn found(method: Method, path: &str) -> String {
    match table().find(&method, path) {
        Found::Route { route, rest } => format!("{route:?} {}", rest.unwrap_or_default()).trim_end().to_owned(),
        Found::OtherMethods { allow, .. } => format!("allow {allow}"),
        Found::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn v1_routes_are_served_without_the_prefix_and_no_others() {
    assert_eq!(found(Method::POST, "/v1/chat/completions"), "POST /v1/chat/completions");
    assert_eq!(found(Method::POST, "/chat/completions"), "POST /v1/chat/completions");
    assert_eq!(found(Method::GET, "/models/a"), "GET /v1/models/{id} a");
    assert_eq!(found(Method::POST, "/v1/generate"), "nothing");
    assert_eq!(found(Method::GET, "/v1"), "nothing");
    assert_eq!(found(Method::GET, "/v1/modelsx"), "nothing");
}

#[test]
fn a_trailing_slash_does_not_matter() {
    assert_eq!(found(Method::GET, "/v1/models/"), "GET /v1/models");
    assert_eq!(found(Method::GET, "/"), "GET /");
    assert_eq!(found(Method::GET, "//"), "GET /");
}

#[test]
fn a_known_path_tells_its_methods() {
    assert_eq!(found(Method::GET, "/chat/completions"), "allow POST, OPTIONS");
    assert_eq!(found(Method::DELETE, "/v1/models"), "allow GET, HEAD, OPTIONS");
    assert_eq!(found(Method::HEAD, "/v1/models"), "GET /v1/models");
}

#[test]
fn a_model_id_may_hold_slashes_and_escapes() {
    assert_eq!(found(Method::GET, "/v1/models/org/name"), "GET /v1/models/{id} org/name");
    assert_eq!(found(Method::GET, "/v1/models/org%2Fna%20me"), "GET /v1/models/{id} org/na me");
}

#[test]
fn broken_escapes_are_left_as_they_are() {
    assert_eq!(percent_decode("%"), "%");
    assert_eq!(percent_decode("%4"), "%4");
    assert_eq!(percent_decode("%zz%41"), "%zzA");
    assert_eq!(percent_decode("%+4"), "%+4");
}
