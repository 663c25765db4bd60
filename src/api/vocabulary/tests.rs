//! The helper endpoints.

use super::*;

fn read(body: Value) -> Result<Text, ApiError> {
    read_text(&mut Fields::of(serde_json::from_value(body).unwrap()))
}

#[test]
fn llama_cpp_clients_get_no_special_tokens_and_vllm_clients_do() {
    assert_eq!(read(json!({ "content": "a" })).unwrap().special, AddSpecial::Never);
    assert_eq!(read(json!({ "prompt": "a" })).unwrap().special, AddSpecial::Model);
    assert_eq!(read(json!({ "prompt": "a", "add_special_tokens": false })).unwrap().special, AddSpecial::Never);
    assert_eq!(read(json!({ "content": "a", "add_special": true })).unwrap().special, AddSpecial::Model);
}

#[test]
fn special_texts_can_be_read_as_plain_text() {
    let text = read(json!({ "content": "<s>", "parse_special": false })).unwrap();
    assert_eq!(text.part.trust, Trust::User);
    assert_eq!(read(json!({ "content": "<s>" })).unwrap().part.trust, Trust::Template);
}

#[test]
fn a_text_is_needed() {
    assert_eq!(read(json!({})).unwrap_err().param(), Some("content"));
}

#[test]
fn a_text_over_2_mib_is_refused_by_the_name_it_came_under() {
    let most = "a".repeat(MAX_TEXT_BYTES);
    for name in ["content", "prompt"] {
        assert!(read(json!({ name: most })).is_ok());
        assert_eq!(read(json!({ name: format!("{most}a") })).unwrap_err().param(), Some(name));
    }
}

#[test]
fn a_piece_that_is_no_text_is_shown_as_bytes() {
    assert_eq!(piece("é".as_bytes()), json!("é"));
    assert_eq!(piece(b"\xc3"), json!([0xc3]));
}
