//! Who may call from a web page.

use hyper::{HeaderMap, Method};

use super::AllowedOrigins;

fn request(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse::<hyper::header::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect()
}

fn answer(origins: &AllowedOrigins, origin: &str) -> HeaderMap {
    let mut response = HeaderMap::new();
    origins.add_headers(&request(&[("origin", origin)]), &mut response);
    response
}

#[test]
fn cors_is_off_without_configured_origins() {
    let off = AllowedOrigins::of_list(&[]);
    assert!(answer(&off, "https://a.example").is_empty());
    let asked = request(&[("origin", "https://a.example"), ("access-control-request-method", "POST")]);
    assert!(!off.is_preflight(&Method::OPTIONS, &asked));
}

#[test]
fn a_listed_origin_is_echoed_and_another_gets_nothing() {
    let listed = AllowedOrigins::of_list(&["https://a.example/".to_owned()]);
    let allowed = answer(&listed, "https://a.example");
    assert_eq!(allowed["access-control-allow-origin"], "https://a.example");
    assert!(allowed["access-control-expose-headers"].to_str().unwrap().contains("x-request-id"));
    let refused = answer(&listed, "https://a.example.evil");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused["vary"], "origin");
}

#[test]
fn a_preflight_allows_whatever_headers_the_client_wants_to_send() {
    let any = AllowedOrigins::of_list(&["*".to_owned()]);
    let asked = request(&[
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,x-stainless-os"),
    ]);
    assert!(any.is_preflight(&Method::OPTIONS, &asked));
    let mut response = HeaderMap::new();
    any.add_preflight_headers(&asked, "POST, OPTIONS", &mut response);
    assert_eq!(response["access-control-allow-headers"], "authorization,x-stainless-os");
    assert_eq!(response["access-control-allow-methods"], "POST, OPTIONS");
}
