//! Parameters that are refused rather than ignored.

use serde_json::json;

use super::*;

fn check_body(body: Value) -> Result<(), ApiError> {
    check(&mut Fields::of(serde_json::from_value(body).unwrap()))
}

#[test]
fn what_would_change_the_answer_is_refused_and_not_ignored() {
    for (field, value) in [
        ("tools", json!([{ "type": "function" }])),
        ("tool_choice", json!("required")),
        ("tool_choice", json!({ "type": "function", "function": { "name": "f" } })),
        ("response_format", json!({ "type": "json_object" })),
        ("response_format", json!({ "type": "json_schema", "json_schema": {} })),
        ("grammar", json!("root ::= \"x\"")),
        ("json_schema", json!({})),
        ("suffix", json!("end")),
        ("best_of", json!(2)),
    ] {
        let error = check_body(json!({ field: value })).unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (400, "unsupported_parameter"), "{field}");
        assert_eq!(error.param(), Some(field));
    }
}

#[test]
fn what_asks_for_nothing_is_accepted() {
    check_body(json!({
        "tools": [], "tool_choice": "auto", "response_format": { "type": "text" }, "grammar": "", "json_schema": null,
        "suffix": "", "best_of": 1, "functions": [],
    }))
    .unwrap();
    check_body(json!({ "tool_choice": "none" })).unwrap();
}

#[test]
fn an_unknown_response_format_names_the_known_ones() {
    let error = check_body(json!({ "response_format": { "type": "xml" } })).unwrap_err();
    assert_eq!((error.code(), error.param()), ("invalid_value", Some("response_format.type")));
}
