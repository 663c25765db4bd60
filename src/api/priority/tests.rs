//! Which priority a body comes to.

use serde_json::{Value, json};

use super::*;

const ANYBODY: Allowance = Allowance { default: 0, best: -1000 };

fn key(priority: i32) -> Allowance {
    Allowance { default: priority, best: priority }
}

fn chosen(body: Value, allowed: Allowance) -> Result<Chosen, ApiError> {
    read(&mut Fields::of(serde_json::from_value(body).unwrap()), allowed)
}

#[track_caller]
fn assert_chosen(body: Value, allowed: Allowance, priority: i32, tier: Option<&'static str>) {
    assert_eq!(chosen(body.clone(), allowed).unwrap(), Chosen { priority, tier }, "{body}");
}

#[test]
fn without_keys_anybody_may_have_any_priority() {
    assert_chosen(json!({}), ANYBODY, 0, None);
    assert_chosen(json!({ "priority": -1000 }), ANYBODY, -1000, None);
    for (asked, priority, tier) in
        [("auto", 0, "default"), ("default", 0, "default"), ("priority", -100, "priority"), ("flex", 100, "flex")]
    {
        assert_chosen(json!({ "service_tier": asked }), ANYBODY, priority, Some(tier));
    }
    assert_chosen(json!({ "service_tier": "flex", "priority": -500 }), ANYBODY, -500, Some("priority"));
}

#[test]
fn a_key_gives_its_requests_their_priority_and_lets_them_ask_for_worse_only() {
    assert_chosen(json!({}), key(-50), -50, None);
    assert_chosen(json!({ "priority": -50 }), key(-50), -50, None);
    assert_chosen(json!({ "priority": 7 }), key(-50), 7, None);
    let error = chosen(json!({ "priority": -51 }), key(-50)).unwrap_err();
    assert_eq!((error.param(), error.code()), (Some("priority"), "priority_not_allowed"));
    assert!(error.message().contains("-51") && error.message().contains("-50"), "{}", error.message());
}

#[test]
fn a_tier_beyond_the_key_is_lowered_to_it_and_the_answer_says_so() {
    assert_chosen(json!({ "service_tier": "priority" }), key(0), 0, Some("default"));
    assert_chosen(json!({ "service_tier": "priority" }), key(-50), -50, Some("default"));
    assert_chosen(json!({ "service_tier": "priority" }), key(-200), -200, Some("priority"));
    assert_chosen(json!({ "service_tier": "auto" }), key(-200), -200, Some("priority"));
    assert_chosen(json!({ "service_tier": "flex" }), key(-200), 100, Some("flex"));
    assert_chosen(json!({ "service_tier": "flex" }), key(300), 300, Some("flex"));
}

#[test]
fn what_is_no_priority_is_named() {
    for (body, param, code) in [
        (json!({ "priority": 1001 }), "priority", "invalid_value"),
        (json!({ "priority": -1001 }), "priority", "invalid_value"),
        (json!({ "priority": "high" }), "priority", "invalid_type"),
        (json!({ "service_tier": "gold" }), "service_tier", "invalid_value"),
        (json!({ "service_tier": 1 }), "service_tier", "invalid_type"),
    ] {
        let error = chosen(body.clone(), ANYBODY).unwrap_err();
        assert_eq!((error.param(), error.code()), (Some(param), code), "{body}");
    }
}
