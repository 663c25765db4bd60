//! The web page's files: open without a key, complete, and closed to everything foreign.

use hyper::Method;

use crate::client::{Answer, Ask};
use crate::server::Server;

/// Every address in quotes that the page or one of its scripts loads.
fn addresses(text: &str) -> Vec<String> {
    let quoted = text.split('"').filter(|part| part.starts_with("/ui/") || part.starts_with("./"));
    quoted.filter(|part| !part.contains(' ')).map(|part| part.replace("./", "/ui/")).collect()
}

fn check_headers(answer: &Answer, path: &str) {
    assert_eq!(answer.status, 200, "{path}");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'self';") && !policy.contains("inline"), "{path}: {policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(answer.header("cache-control"), "no-cache", "{path}");
    let expected = match path.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/html; charset=utf-8",
    };
    assert_eq!(answer.header("content-type"), expected, "{path}");
}

#[tokio::test]
async fn the_page_and_all_it_loads_are_served_without_a_key() {
    let server = Server::start(&["server.api_keys=[key]"]).await;
    let mut open = vec!["/ui".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = open.pop() {
        if seen.contains(&path) {
            continue;
        }
        let answer = server.get(&path).await;
        check_headers(&answer, &path);
        open.extend(addresses(&answer.body));
        seen.push(path);
    }
    assert!(seen.len() >= 8, "{seen:?}");
    assert_eq!(server.get("/ui/nothing.js").await.status, 404);
    assert_eq!(server.get("/ui/../Cargo.toml").await.status, 404);
    assert_eq!(server.ask(Ask::new(Method::POST, "/ui")).await.status, 405);
}

#[tokio::test]
async fn a_browser_that_has_the_page_gets_304() {
    let server = Server::start(&[]).await;
    let first = server.get("/ui/").await;
    let tag = first.header("etag").to_owned();
    for tags in [tag.clone(), format!("W/{tag}, \"other\"")] {
        let again = server.ask(Ask::get("/ui").header("if-none-match", &tags)).await;
        assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{tags}");
        assert_eq!(again.header("etag"), tag);
    }
    let other = server.ask(Ask::get("/ui").header("if-none-match", "\"other\"")).await;
    assert_eq!(other.body, first.body);
}
