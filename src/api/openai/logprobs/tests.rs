//! Log-probabilities in the chat and the legacy shape.

use serde_json::{Value, json};

use super::*;

fn token(id: Token, bytes: &[u8], logprob: Option<f32>, top: &[(Token, &[u8], f32)]) -> TokenLogprob {
    let top = top.iter().map(|(id, bytes, logprob)| (*id, TokenBytes::from_slice(bytes), *logprob)).collect();
    TokenLogprob { id, bytes: TokenBytes::from_slice(bytes), logprob, top }
}

#[test]
fn half_a_character_is_lossy_as_text_and_exact_as_bytes() {
    let tokens = [token(1, b"\xe4\xbd", Some(-0.5), &[(2, b"a", -0.25)])];
    let expected = json!({
        "content": [{
            "token": "\u{fffd}", "logprob": -0.5, "bytes": [0xe4, 0xbd],
            "top_logprobs": [{ "token": "a", "logprob": -0.25, "bytes": [97] }],
        }],
        "refusal": null,
    });
    assert_eq!(json!(ChatLogprobs::new(&tokens)), expected);
}

#[test]
fn an_impossible_token_is_a_number_all_the_same() {
    let logprobs = json!(ChatLogprobs::new(&[token(1, b"a", Some(f32::NEG_INFINITY), &[])]));
    assert_eq!(logprobs["content"][0]["logprob"], json!(-9999.0));
}

#[test]
fn the_legacy_arrays_hold_the_drawn_token_beside_the_likeliest() {
    let tokens = [token(1, b"b", Some(-2.0), &[(2, b"a", -0.5)]), token(2, b"a", Some(-0.5), &[(2, b"a", -0.5)])];
    let expected = json!({
        "tokens": ["b", "a"],
        "token_logprobs": [-2.0, -0.5],
        "top_logprobs": [{ "a": -0.5, "b": -2.0 }, { "a": -0.5 }],
        "text_offset": [0, 1],
    });
    assert_eq!(json!(TextOffsets::default().arrays(&tokens, None)), expected);
}

#[test]
fn the_first_prompt_token_has_no_logprob_and_the_beginning_token_no_place() {
    let tokens = [token(9, b"<s>", None, &[]), token(1, b"ab", Some(-1.0), &[]), token(2, b"c", Some(-1.0), &[])];
    let arrays = json!(TextOffsets::default().arrays(&tokens, Some(9)));
    assert_eq!(arrays["token_logprobs"][0], Value::Null);
    assert_eq!(arrays["top_logprobs"][0], Value::Null);
    assert_eq!(arrays["text_offset"], json!([0, 0, 2]));
}

#[test]
fn offsets_count_characters_over_chunks_and_split_characters() {
    let mut offsets = TextOffsets::default();
    let pieces: [&[u8]; 4] = [b"a", b"\xe4\xbd", b"\xa0", b"b"];
    let found: Vec<usize> =
        pieces.iter().map(|piece| offsets.arrays(&[token(1, piece, Some(-1.0), &[])], None).text_offset[0]).collect();
    assert_eq!(found, [0, 1, 1, 2]);
}

#[test]
fn parts_of_characters_are_told_apart_by_their_bytes_in_the_legacy_arrays() {
    let tokens = [token(1, b" \xe4\xbd", Some(-2.0), &[(2, b"\xe4", -0.5), (3, b"\xbd", -1.0), (4, b"a", -1.5)])];
    let arrays = json!(TextOffsets::default().arrays(&tokens, None));
    assert_eq!(arrays["tokens"], json!([r"bytes: \xe4\xbd"]));
    let top = json!([{ r"bytes:\xe4": -0.5, r"bytes:\xbd": -1.0, "a": -1.5, r"bytes: \xe4\xbd": -2.0 }]);
    assert_eq!(arrays["top_logprobs"], top);
}
