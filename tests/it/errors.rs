//! Bad requests: each has its status, type, field and code, at every endpoint it can be sent to, and none of them
//! disturbs an answer under way.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::expected::{after, chunk_text, merge, text_body};
use crate::server::Server;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const GENERATE: [&str; 2] = ["/generate", "/generate_stream"];

/// A valid request for an endpoint.
fn valid(path: &str) -> Value {
    match path {
        CHAT => json!({ "messages": [{ "role": "user", "content": "hi" }] }),
        _ => json!({ "prompt": "hi" }),
    }
}

#[track_caller]
fn assert_error(answer: &Answer, status: u16, param: Option<&str>, code: &str, sent: &str) {
    let error = &answer.json()["error"];
    let kind = "invalid_request_error";
    let expected = (status, json!(kind), json!(param), json!(code));
    let got = (answer.status.as_u16(), error["type"].clone(), error["param"].clone(), error["code"].clone());
    assert_eq!(got, expected, "{sent}: {}", answer.body);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{sent}: {}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
}

/// Fields that are wrong at every generation endpoint: value, field at fault, code.
fn wrong_fields() -> Vec<(Value, &'static str, &'static str)> {
    let outside = |name: &'static str, values: &[f64]| {
        values.iter().map(|value| (json!({ name: value }), name, "invalid_value")).collect::<Vec<_>>()
    };
    let mut wrong = Vec::new();
    for (name, values) in [
        ("temperature", [-0.1, 2.1]),
        ("top_p", [0.0, 1.1]),
        ("min_p", [-0.1, 1.1]),
        ("typical_p", [0.0, 1.1]),
        ("repeat_penalty", [0.0, 2.1]),
        ("frequency_penalty", [-2.1, 2.1]),
        ("presence_penalty", [-2.1, 2.1]),
        ("xtc_probability", [-0.1, 1.1]),
        ("xtc_threshold", [-0.1, 1.1]),
        ("dry_multiplier", [-0.1, 100.5]),
        ("dry_base", [0.9, 10.1]),
        ("top_k", [-2.0, 3e9]),
        ("repeat_last_n", [-2.0, 3e9]),
        ("dry_allowed_length", [-1.0, 3e9]),
        ("dry_penalty_last_n", [-2.0, 3e9]),
        ("max_tokens", [-2.0, 5e9]),
        ("max_completion_tokens", [-2.0, 5e9]),
        ("n", [0.0, 129.0]),
        ("timeout_ms", [0.0, 1e9]),
        ("priority", [-1001.0, 1001.0]),
    ] {
        wrong.extend(outside(name, &values));
    }
    for name in ["temperature", "top_p", "top_k", "max_tokens", "seed", "stream", "n", "stop", "ignore_eos"] {
        wrong.push((json!({ name: { "an": "object" } }), name, "invalid_type"));
        wrong.push((json!({ name: [[]] }), name, "invalid_type"));
    }
    wrong.extend([
        (json!({ "temperature": "hot" }), "temperature", "invalid_type"),
        (json!({ "max_tokens": 1.5 }), "max_tokens", "invalid_type"),
        (json!({ "seed": 0.5 }), "seed", "invalid_type"),
        (json!({ "model": 7 }), "model", "invalid_type"),
        (json!({ "priority": "high" }), "priority", "invalid_type"),
        (json!({ "service_tier": 1 }), "service_tier", "invalid_type"),
        (json!({ "service_tier": "gold" }), "service_tier", "invalid_value"),
        (json!({ "stop": [1] }), "stop", "invalid_type"),
        (json!({ "stop": "" }), "stop", "invalid_value"),
        (json!({ "stop": vec!["x"; 17] }), "stop", "invalid_value"),
        (json!({ "stream_options": { "include_usage": 1 } }), "stream_options.include_usage", "invalid_type"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias", "invalid_value"),
        (json!({ "logit_bias": { "one": 1 } }), "logit_bias", "invalid_value"),
        (json!({ "logit_bias": { "260": 1 } }), "logit_bias", "invalid_value"),
        (json!({ "logit_bias": { "5": -1e40 } }), "logit_bias", "invalid_value"),
        (json!({ "logit_bias": 1 }), "logit_bias", "invalid_type"),
        (json!({ "dry_sequence_breakers": [""] }), "dry_sequence_breakers", "invalid_value"),
        (json!({ "dry_sequence_breakers": [1] }), "dry_sequence_breakers", "invalid_type"),
        (json!({ "tools": [{ "type": "function" }] }), "tools", "unsupported_parameter"),
        (json!({ "min_tokens": 3 }), "min_tokens", "unsupported_parameter"),
        (json!({ "samplers": ["temperature"] }), "samplers", "unsupported_parameter"),
        (json!({ "response_format": { "type": "json_object" } }), "response_format", "unsupported_parameter"),
    ]);
    wrong
}

/// Wrong in the fields of one endpoint.
fn wrong_bodies() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let messages = |messages: Value| json!({ "messages": messages });
    vec![
        (TEXT, json!({}), "prompt", "missing_required_parameter"),
        (TEXT, json!({ "prompt": null }), "prompt", "missing_required_parameter"),
        (TEXT, json!({ "prompt": "" }), "prompt", "invalid_value"),
        (TEXT, json!({ "prompt": [] }), "prompt", "invalid_value"),
        (TEXT, json!({ "prompt": [""] }), "prompt", "invalid_value"),
        (TEXT, json!({ "prompt": [[]] }), "prompt", "invalid_value"),
        (TEXT, json!({ "prompt": 7 }), "prompt", "invalid_type"),
        (TEXT, json!({ "prompt": ["a", 1] }), "prompt", "invalid_type"),
        (TEXT, json!({ "prompt": [1, "a"] }), "prompt", "invalid_type"),
        (TEXT, json!({ "prompt": [97, 260] }), "prompt", "invalid_value"),
        (TEXT, json!({ "prompt": [-1] }), "prompt", "invalid_value"),
        (TEXT, json!({ "prompt": vec!["a"; 129] }), "n", "invalid_value"),
        (TEXT, json!({ "prompt": ["a", "b"], "n": 65 }), "n", "invalid_value"),
        (TEXT, json!({ "prompt": "a", "logprobs": 21 }), "logprobs", "invalid_value"),
        (TEXT, json!({ "prompt": "a", "logprobs": true }), "logprobs", "invalid_type"),
        (TEXT, json!({ "prompt": "a", "echo": 1 }), "echo", "invalid_type"),
        (TEXT, json!({ "prompt": "a", "suffix": "b" }), "suffix", "unsupported_parameter"),
        (TEXT, json!({ "prompt": "a", "best_of": 3 }), "best_of", "unsupported_parameter"),
        (TEXT, json!({ "prompt": "word ".repeat(20_000) }), "prompt", "context_length_exceeded"),
        (TEXT, json!({ "prompt": vec![97; 5000], "echo": true }), "prompt", "context_length_exceeded"),
        (CHAT, json!({}), "messages", "missing_required_parameter"),
        (
            CHAT,
            messages(json!([{ "role": "user", "content": "word ".repeat(20_000) }])),
            "messages",
            "context_length_exceeded",
        ),
        (CHAT, messages(json!([])), "messages", "invalid_value"),
        (CHAT, messages(json!("hi")), "messages", "invalid_type"),
        (CHAT, messages(json!(["hi"])), "messages[0]", "invalid_value"),
        (CHAT, messages(json!([{ "content": "hi" }])), "messages[0].role", "invalid_value"),
        (CHAT, messages(json!([{ "role": "wizard", "content": "hi" }])), "messages[0].role", "invalid_value"),
        (CHAT, messages(json!([{ "role": "user" }])), "messages[0].content", "invalid_value"),
        (CHAT, messages(json!([{ "role": "user", "content": 7 }])), "messages[0].content", "invalid_value"),
        (
            CHAT,
            messages(json!([{ "role": "user", "content": [{ "type": "image_url" }] }])),
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (CHAT, merge(valid(CHAT), json!({ "logprobs": 3 })), "logprobs", "invalid_type"),
        (CHAT, merge(valid(CHAT), json!({ "logprobs": true, "top_logprobs": 21 })), "top_logprobs", "invalid_value"),
        (CHAT, merge(valid(CHAT), json!({ "top_logprobs": 2 })), "top_logprobs", "invalid_value"),
        (
            CHAT,
            merge(valid(CHAT), json!({ "chat_template_kwargs": { "messages": [] } })),
            "chat_template_kwargs",
            "invalid_value",
        ),
        ("/tokenize", json!({}), "content", "missing_required_parameter"),
        ("/tokenize", json!({ "content": 7 }), "content", "invalid_type"),
        ("/tokenize", json!({ "prompt": "word ".repeat(420_000) }), "prompt", "invalid_value"),
        ("/tokenize", json!({ "content": "a\u{301}".repeat(40_000) }), "content", "invalid_value"),
        ("/detokenize", json!({}), "tokens", "missing_required_parameter"),
        ("/detokenize", json!({ "tokens": [260] }), "tokens", "invalid_value"),
        ("/detokenize", json!({ "tokens": ["a"] }), "tokens", "invalid_type"),
        ("/apply-template", json!({ "messages": [] }), "messages", "invalid_value"),
    ]
}

#[tokio::test]
async fn a_wrong_field_is_named_and_disturbs_no_running_stream() {
    let server = Server::start(&["backend.fake.step_time_us=4000"]).await;
    let mut stream = server.stream(TEXT, text_body("undisturbed", json!({ "max_tokens": 4000, "stream": true }))).await;
    let mut text = chunk_text(&stream.chunk().await.unwrap(), 0);

    for (fields, param, code) in wrong_fields() {
        for path in [CHAT, TEXT] {
            let answer = server.post(path, merge(valid(path), fields.clone())).await;
            assert_error(&answer, 400, Some(param), code, &format!("{path} {fields}"));
        }
        for path in GENERATE {
            let answer = server.post(path, merge(valid(path), fields.clone())).await;
            assert_cllm_error(&answer, 400, param, &format!("{path} {fields}"));
        }
    }
    for (path, body, param, code) in wrong_bodies() {
        assert_error(&server.post(path, body.clone()).await, 400, Some(param), code, &format!("{path} {body}"));
    }

    let expected = after("undisturbed", 4000);
    let until = (text.len() + 400).min(4000);
    while text.len() < until {
        text.push_str(&chunk_text(&stream.chunk().await.expect("it runs"), 0));
        assert!(expected.starts_with(&text), "{text}");
    }
}

#[track_caller]
fn assert_cllm_error(answer: &Answer, status: u16, names: &str, sent: &str) {
    let body = answer.json();
    assert_eq!((answer.status.as_u16(), &body["success"]), (status, &json!(false)), "{sent}: {body}");
    assert!(body["error"].as_str().is_some_and(|error| error.contains(names)), "{sent}: {body}");
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_with_line_and_column() {
    let server = Server::start(&[]).await;
    for path in [CHAT, TEXT, "/tokenize"] {
        for (body, code, says) in [
            ("{\"prompt\":\n  \"a\",,}", "invalid_json", "line 2 column 7"),
            ("{\"prompt\": \"a", "invalid_json", "line 1"),
            ("{} {}", "invalid_json", "line 1 column 4"),
            ("nonsense", "invalid_json", "line 1"),
            ("", "invalid_json", "empty"),
            ("[1]", "invalid_type", "JSON object"),
            ("\"text\"", "invalid_type", "JSON object"),
        ] {
            let answer = server.ask(Ask::post_bytes(path, body)).await;
            assert_error(&answer, 400, None, code, body);
            assert!(answer.body.contains(says), "{body}: {}", answer.body);
        }
        let not_utf8 = server.ask(Ask::post_bytes(path, &b"{\"prompt\": \"\xff\"}"[..])).await;
        assert_error(&not_utf8, 400, None, "invalid_json", "not UTF-8");
    }
}

#[tokio::test]
async fn a_prompt_longer_than_the_context_is_refused_with_both_numbers() {
    let server = Server::start(&["backend.fake.max_context_length=64"]).await;
    for stream in [false, true] {
        let long = json!({ "prompt": "a".repeat(100), "stream": stream });
        let answer = server.post(TEXT, long).await;
        assert_error(&answer, 400, Some("prompt"), "context_length_exceeded", "100 tokens");
        let error = &answer.json()["error"];
        assert_eq!((&error["n_prompt_tokens"], &error["n_ctx"]), (&json!(100), &json!(64)));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("100") && message.contains("64"), "{message}");

        let chat = json!({ "messages": [{ "role": "user", "content": "a".repeat(64) }], "stream": stream });
        let answer = server.post(CHAT, chat).await;
        assert_error(&answer, 400, Some("messages"), "context_length_exceeded", "64 tokens and the template's");
    }
    let answer = server.post("/generate", json!({ "prompt": "a".repeat(100) })).await;
    assert_cllm_error(&answer, 400, "100 tokens", "/generate");
    let fits = server.post(TEXT, json!({ "prompt": "a".repeat(63), "max_tokens": 10 })).await.ok();
    assert_eq!(fits["usage"]["completion_tokens"], 1, "one token fits");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_so_or_not() {
    let server = Server::start(&["server.max_body_mb=1"]).await;
    let body = format!("{{\"prompt\": \"{}\"}}", "a".repeat(1_500_000));
    let announced = server.ask(Ask::post_bytes(TEXT, body.clone())).await;
    assert_error(&announced, 413, None, "request_too_large", "announced");
    let chunks = body.as_bytes().chunks(60_000).map(Bytes::copy_from_slice).collect();
    let counted = server.ask(Ask::post_chunked(TEXT, chunks)).await;
    assert_error(&counted, 413, None, "request_too_large", "counted");

    let small = vec![Bytes::from_static(b"{\"prompt\": \"h"), Bytes::from_static(b"i\", \"temperature\": 0}")];
    let answer = server.ask(Ask::post_chunked(TEXT, small)).await.ok();
    assert_eq!(answer["choices"][0]["text"], after("hi", 16));
}

#[tokio::test]
async fn wrong_methods_paths_and_content_types_have_their_own_statuses() {
    let server = Server::start(&[]).await;
    for (method, path, allow) in [
        (Method::GET, CHAT, "POST, OPTIONS"),
        (Method::DELETE, "/completions", "POST, OPTIONS"),
        (Method::POST, "/v1/models", "GET, HEAD, OPTIONS"),
        (Method::PUT, "/livez", "GET, HEAD, OPTIONS"),
    ] {
        let answer = server.ask(Ask::new(method.clone(), path)).await;
        assert_error(&answer, 405, None, "method_not_allowed", &format!("{method} {path}"));
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
    let answer = server.ask(Ask::new(Method::GET, "/generate")).await;
    assert_cllm_error(&answer, 405, "POST", "GET /generate");

    for path in ["/nothing", "/v1", "/v1/chat", "/v1/generate/x"] {
        assert_error(&server.get(path).await, 404, None, "not_found", path);
    }
    for (name, value) in [("content-type", "text/plain"), ("content-encoding", "gzip")] {
        for path in [CHAT, TEXT] {
            let answer = server.ask(Ask::post(path, &valid(path)).header(name, value)).await;
            assert_error(&answer, 415, None, "unsupported_media_type", value);
        }
    }
}
