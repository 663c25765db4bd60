//! Fields of a body: types, ranges and the words of a refusal.

use serde_json::json;

use super::*;

fn fields(body: Value) -> Fields {
    Fields::of(serde_json::from_value(body).unwrap())
}

fn message(error: ApiError) -> String {
    error.message().to_owned()
}

#[test]
fn null_is_the_same_as_absent() {
    let mut fields = fields(json!({ "a": null }));
    assert_eq!(fields.boolean(&["a"]).unwrap(), None);
    assert_eq!(fields.ignored(), None);
}

#[test]
fn the_own_name_wins_over_an_alias_and_both_are_known() {
    let mut fields = fields(json!({ "alias": 1.5, "own": 0.5 }));
    assert_eq!(fields.float(&["own", "alias"]).unwrap(), Some(0.5));
    assert_eq!(fields.ignored(), None);
}

#[test]
fn a_null_name_leaves_the_alias_in_force() {
    let mut fields = fields(json!({ "own": null, "alias": 2 }));
    assert_eq!(fields.float(&["own", "alias"]).unwrap(), Some(2.0));
}

#[test]
fn a_whole_float_is_an_integer() {
    assert_eq!(fields(json!({ "n": 3.0 })).integer(&["n"], 1..=5).unwrap(), Some(3));
    let error = fields(json!({ "n": 3.5 })).integer(&["n"], 1..=5).unwrap_err();
    assert_eq!(message(error), "`n` must be an integer, got 3.5");
}

#[test]
fn a_range_is_named_in_the_error() {
    let error = fields(json!({ "n": 9 })).integer(&["n"], 1..=5).unwrap_err();
    assert_eq!(message(error), "`n` must be an integer from 1 to 5, got 9");
    let error = fields(json!({ "n": u64::MAX })).integer(&["n"], 1..=5).unwrap_err();
    assert_eq!(message(error), format!("`n` must be an integer from 1 to 5, got {}", u64::MAX));
}

#[test]
fn a_wrong_type_names_the_field_as_the_client_wrote_it() {
    let error = fields(json!({ "alias": "x" })).float(&["own", "alias"]).unwrap_err();
    assert_eq!(error.param(), Some("alias"));
    assert_eq!(message(error), "`alias` must be a finite number, got a string");
}

#[test]
fn a_number_beyond_f32_is_refused() {
    assert!(fields(json!({ "x": 1e300 })).float(&["x"]).is_err());
}

#[test]
fn a_field_inside_an_object_is_named_by_its_path() {
    let inner = fields(json!({ "options": { "flag": 1 } })).object(&["options"]).unwrap().unwrap();
    let error = Fields::within("options", inner).boolean(&["flag"]).unwrap_err();
    assert_eq!(error.param(), Some("options.flag"));
}

#[test]
fn a_missing_field_is_named() {
    assert_eq!(missing("prompt").param(), Some("prompt"));
}

#[test]
fn an_ignored_field_is_named_with_the_one_that_was_meant() {
    let mut fields = fields(json!({ "temprature": 0, "max_token": 5, "user": "x", "seed": 1 }));
    fields.float(&["temperature"]).unwrap();
    fields.any(&["max_completion_tokens", "max_tokens"]);
    fields.any(&["seed"]);
    assert_eq!(fields.ignored().as_deref(), Some("temprature (temperature?), max_token (max_tokens?), user"));
}

#[test]
fn names_of_ignored_fields_are_bounded_in_number_and_length() {
    let many: Map<String, Value> = (0..100).map(|n| (format!("{n}{}", "ä".repeat(1000)), Value::Null)).collect();
    let ignored = Fields::of(many).ignored().unwrap();
    assert!(ignored.ends_with("…, and 92 more"), "{ignored}");
    assert!(ignored.chars().count() < 400, "{ignored}");
}
