//! What clients send, and what they are told when it is wrong.

use serde_json::json;

use super::*;

fn one(message: Value) -> Value {
    normalize_messages(vec![message]).unwrap().remove(0)
}

fn error(messages: Value) -> (String, String) {
    let error = normalize_messages(serde_json::from_value(messages).unwrap()).unwrap_err();
    (error.param, error.message)
}

#[test]
fn text_parts_become_one_string() {
    let message =
        one(json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}));
    assert_eq!(message, json!({"role": "user", "content": "ab"}));
}

#[test]
fn developer_is_system() {
    assert_eq!(one(json!({"role": "developer", "content": "x"}))["role"], "system");
}

#[test]
fn null_fields_count_as_absent() {
    let message = one(json!({"role": "assistant", "content": "x", "tool_calls": null, "refusal": null, "name": null}));
    assert_eq!(message, json!({"role": "assistant", "content": "x"}));
}

#[test]
fn an_assistant_that_calls_tools_needs_no_content() {
    let call = json!({"id": "1", "function": {"name": "f", "arguments": "{\"a\": [1]}"}});
    let message = one(json!({"role": "assistant", "tool_calls": [call]}));
    assert!(message["content"].is_null());
    assert_eq!(
        message["tool_calls"][0],
        json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1]}}})
    );
}

#[test]
fn arguments_that_are_no_object_stay_as_they_are() {
    for (sent, seen) in [
        (json!("{\"a\":"), json!("{\"a\":")),
        (json!("[1]"), json!("[1]")),
        (json!(" "), json!({})),
        (json!({"a": 1}), json!({"a": 1})),
    ] {
        let call = json!({"function": {"name": "f", "arguments": sent}});
        let message = one(json!({"role": "assistant", "content": "", "tool_calls": [call]}));
        assert_eq!(message["tool_calls"][0]["function"]["arguments"], seen);
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let unsupported = json!([
        {"role": "user", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "x"}}]},
    ]);
    assert_eq!(
        error(unsupported),
        ("messages[1].content[1].type".into(), "is unsupported: this model takes text only".into())
    );
    for (messages, param) in [
        (json!([]), "messages"),
        (json!(["x"]), "messages[0]"),
        (json!([{"content": "x"}]), "messages[0].role"),
        (json!([{"role": "user"}]), "messages[0].content"),
        (json!([{"role": "user", "content": 1}]), "messages[0].content"),
        (json!([{"role": "assistant", "content": null}]), "messages[0].content"),
        (json!([{"role": "assistant", "content": null, "tool_calls": []}]), "messages[0].content"),
        (json!([{"role": "user", "content": ["x"]}]), "messages[0].content[0]"),
        (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
        (json!([{"role": "user", "content": [{"type": "poem"}]}]), "messages[0].content[0].type"),
        (json!([{"role": "assistant", "content": "", "tool_calls": {}}]), "messages[0].tool_calls"),
        (json!([{"role": "assistant", "content": "", "tool_calls": [{}]}]), "messages[0].tool_calls[0].function"),
        (
            json!([{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}]),
            "messages[0].tool_calls[0].function.name",
        ),
    ] {
        assert_eq!(error(messages.clone()).0, param, "{messages}");
    }
}

#[test]
fn an_unknown_role_is_told_the_known_ones() {
    let (param, message) = error(json!([{"role": "wizard", "content": "x"}]));
    assert_eq!(
        format!("`{param}` {message}"),
        "`messages[0].role` must be `system`, `developer`, `user`, `assistant` or `tool`"
    );
}

#[test]
fn what_is_parsed_from_arguments_is_bounded_before_it_is_parsed() {
    let call = |arguments: String| {
        let calls = json!([{ "function": { "name": "f", "arguments": arguments } }]);
        json!({ "role": "assistant", "content": null, "tool_calls": calls })
    };
    let of = |items: usize| call(format!("{{\"a\":[{}0]}}", "[0],".repeat(items)));
    assert!(normalize_messages(vec![of(7_000)]).is_ok());
    let (param, message) = error(json!([of(8_000)]));
    assert_eq!(param, "messages[0].tool_calls[0].function.arguments");
    assert!(message.contains("65536"), "{message}");
    assert_eq!(error(json!([of(4_000), of(4_000)])).0, "messages[1].tool_calls[0].function.arguments");
}

#[test]
fn what_templates_may_want_of_a_message_is_bounded_and_its_text_is_not() {
    let with = |count: usize| json!({ "role": "user", "content": "x", "more": vec![0; count] });
    assert!(normalize_messages(vec![with(60_000)]).is_ok());
    assert_eq!(error(json!([with(30_000), with(40_000)])).0, "messages[1]");
    let parts = vec![json!({ "type": "text", "text": "a" }); 10_000];
    assert_eq!(one(json!({ "role": "user", "content": parts }))["content"], "a".repeat(10_000));
}
