//! Bodies: size, type, syntax.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper::HeaderMap;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::Deserialize;

use super::{BodyBudget, BodyLimits, RequestBody, parse_json};
use crate::http::error::ApiError;

#[derive(Debug, Deserialize, PartialEq)]
struct Wanted {
    messages: Vec<Message>,
    #[serde(default)]
    n: Option<u32>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Message {
    content: String,
}

fn refusal(body: &str) -> (&'static str, Option<String>, String) {
    let error = parse_json::<Wanted>(body.as_bytes()).unwrap_err();
    assert_eq!(error.status(), 400);
    (error.code(), error.param().map(str::to_owned), error.message().to_owned())
}

#[test]
fn bad_json_names_line_and_column() {
    let (code, param, message) = refusal("{\"messages\": [\n  oops]}");
    assert_eq!((code, param), ("invalid_json", None));
    assert!(message.ends_with("at line 2 column 3"), "{message}");
}

#[test]
fn a_wrong_type_names_the_path_of_the_field() {
    let (code, param, message) = refusal(r#"{"messages": [{"content": "a"}, {"content": 3}]}"#);
    assert_eq!((code, param.as_deref()), ("invalid_type", Some("messages[1].content")));
    assert_eq!(message, "`messages[1].content`: invalid type: integer `3`, expected a string");
}

#[test]
fn a_number_out_of_the_type_is_an_invalid_value() {
    assert_eq!(refusal(r#"{"messages": [], "n": -1}"#).0, "invalid_value");
}

#[test]
fn a_missing_field_is_named_with_its_own_path() {
    assert_eq!(refusal("{}").1.as_deref(), Some("messages"));
    let (code, param, _) = refusal(r#"{"messages": [{}]}"#);
    assert_eq!((code, param.as_deref()), ("missing_required_parameter", Some("messages[0].content")));
}

#[test]
fn an_empty_body_is_said_to_be_empty() {
    assert!(refusal("").2.contains("is empty"));
}

#[test]
fn only_an_object_will_do_and_nothing_after_it() {
    assert_eq!(refusal(r#"[[{"content": "a"}], 1]"#).0, "invalid_type");
    assert_eq!(refusal("3").0, "invalid_type");
    assert_eq!(refusal(r#"{"messages": []} x"#).0, "invalid_json");
    assert_eq!(refusal(&"[".repeat(100_000)).0, "invalid_json");
}

fn limits(max_bytes: u64) -> BodyLimits {
    BodyLimits { max_bytes, max_bytes_in_all: 0, deadline: Duration::from_secs(60) }
}

fn body(chunks: &[&'static str], max_bytes: u64) -> RequestBody {
    let chunks: Vec<_> =
        chunks.iter().map(|chunk| Ok::<_, warp::Error>(Bytes::from_static(chunk.as_bytes()))).collect();
    RequestBody::new(stream::iter(chunks), limits(max_bytes), BodyBudget::new(0, max_bytes))
}

fn headers(content_type: Option<&'static str>) -> HeaderMap {
    content_type.into_iter().map(|value| (CONTENT_TYPE, value.parse().unwrap())).collect()
}

async fn read(chunks: &[&'static str], max_bytes: u64, headers: &HeaderMap) -> Result<Wanted, ApiError> {
    body(chunks, max_bytes).read_json(headers).await
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_413() {
    let chunks = ["{\"messages\"", ": []}"];
    assert!(read(&chunks, 16, &headers(None)).await.is_ok());
    assert!(read(&["{\"messages\": []}"], 16, &headers(None)).await.is_ok());
    assert_eq!(read(&chunks, 15, &headers(None)).await.unwrap_err().status(), 413);
}

#[tokio::test]
async fn bytes_are_counted_whatever_the_length_header_says() {
    let mut lying = headers(None);
    lying.insert(CONTENT_LENGTH, "2".parse().unwrap());
    assert_eq!(read(&["{\"messages\"", ": []}"], 10, &lying).await.unwrap_err().status(), 413);
    lying.insert(CONTENT_LENGTH, "11".parse().unwrap());
    assert_eq!(read(&["{}"], 10, &lying).await.unwrap_err().code(), "request_too_large");
}

#[tokio::test]
async fn json_in_all_its_spellings_is_read_and_the_rest_is_415() {
    let body = ["{\"messages\": []}"];
    for accepted in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        assert!(read(&body, 99, &headers(Some(accepted))).await.is_ok(), "{accepted}");
    }
    for refused in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let error = read(&body, 99, &headers(Some(refused))).await.unwrap_err();
        assert_eq!(error.status(), 415, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_408_at_the_deadline() {
    let budget = BodyBudget::new(0, 99);
    let mut body = RequestBody::new(stream::pending::<Result<Bytes, warp::Error>>(), limits(99), budget);
    let error = body.read_json::<Wanted>(&HeaderMap::new()).await.unwrap_err();
    assert_eq!((error.status().as_u16(), error.code()), (408, "body_timeout"));
}

/// A JSON object of this many KiB in pieces of one.
fn large(kib: usize) -> impl futures_util::Stream<Item = Result<Bytes, warp::Error>> {
    let text = format!("{{\"messages\": []{}}}", " ".repeat(kib * 1024 - 16));
    let pieces: Vec<_> = text.as_bytes().chunks(1024).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces.into_iter().map(Ok))
}

#[tokio::test(start_paused = true)]
async fn bodies_together_have_so_much_memory_and_no_more() {
    let budget = BodyBudget::new(120 * 1024, 80 * 1024);
    let read = async |body: &mut RequestBody| body.read_json::<Wanted>(&HeaderMap::new()).await;
    let new = |kib| RequestBody::new(large(kib), limits(96 * 1024), budget.clone());
    // 16 KiB of each are free.
    let mut first = new(96);
    read(&mut first).await.unwrap();

    let error = read(&mut new(96)).await.unwrap_err();
    assert_eq!((error.status().as_u16(), error.code()), (503, "too_many_bodies"));
    assert!(error.response(Default::default()).headers().contains_key("retry-after"));
    read(&mut new(56)).await.expect("what was refused holds nothing");

    read(&mut new(16)).await.expect("a small one has room at any time");
    let mut waiting = new(96);
    let (waited, ()) = tokio::join!(read(&mut waiting), async {
        tokio::task::yield_now().await;
        first.done();
    });
    waited.expect("the first is done with its body");
}
