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
        ("function_call", json!({ "name": "f" })),
        ("web_search_options", json!({})),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({ "voice": "ash" })),
        ("stop_token_ids", json!([2])),
        ("min_tokens", json!(5)),
        ("bad_words", json!(["damn"])),
        ("allowed_token_ids", json!([1, 2])),
        ("include_stop_str_in_output", json!(true)),
        ("continue_final_message", json!(true)),
        ("truncate_prompt_tokens", json!(-1)),
        ("chat_template", json!("{{ messages }}")),
        ("prompt_logprobs", json!(0)),
        ("use_beam_search", json!(true)),
        ("mirostat", json!(2)),
        ("dynatemp_range", json!(0.5)),
        ("top_n_sigma", json!(1.5)),
        ("n_probs", json!(3)),
        ("cache_prompt", json!(false)),
        ("lora", json!([{ "id": 0, "scale": 0.5 }])),
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
    check_body(json!({ "tool_choice": "none", "function_call": "auto", "modalities": ["text"] })).unwrap();
    // What clients send that send every option they know.
    check_body(json!({
        "stop_token_ids": [], "min_tokens": 0, "bad_words": [], "allowed_token_ids": null, "use_beam_search": false,
        "include_stop_str_in_output": false, "continue_final_message": false, "truncate_prompt_tokens": null,
        "chat_template": "", "prompt_logprobs": null, "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1,
        "dynatemp_range": 0.0, "dynatemp_exponent": 1, "top_n_sigma": -1, "n_probs": 0, "lora": [],
        "cache_prompt": true,
    }))
    .unwrap();
}

#[test]
fn an_unknown_response_format_names_the_known_ones() {
    let error = check_body(json!({ "response_format": { "type": "xml" } })).unwrap_err();
    assert_eq!((error.code(), error.param()), ("invalid_value", Some("response_format.type")));
}
