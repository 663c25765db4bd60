//! Sampling fields under their names and aliases.

use serde_json::json;

use super::*;

fn read_from(body: Value) -> Result<SamplingParams, ApiError> {
    let mut fields = Fields::of(serde_json::from_value(body).unwrap());
    let sampling = read(&mut fields, SamplingParams::default())?;
    assert_eq!(fields.ignored(), None, "a sampling field was not read");
    Ok(sampling)
}

#[test]
fn every_field_arrives_in_its_place() {
    let body = json!({
        "temperature": 0.1, "top_k": 2, "top_p": 0.3, "min_p": 0.4, "typical_p": 0.5, "repeat_penalty": 0.6,
        "repeat_last_n": 7, "frequency_penalty": 0.8, "presence_penalty": 0.9, "dry_multiplier": 1.0, "dry_base": 1.1,
        "dry_allowed_length": 12, "dry_penalty_last_n": -1, "dry_sequence_breakers": ["."], "xtc_probability": 0.14,
        "xtc_threshold": 0.15, "seed": 16, "logit_bias": { "17": 18 }, "ignore_eos": true,
    });
    let expected = SamplingParams {
        temperature: 0.1,
        top_k: 2,
        top_p: 0.3,
        min_p: 0.4,
        typical_p: 0.5,
        repeat_penalty: 0.6,
        repeat_last_n: 7,
        frequency_penalty: 0.8,
        presence_penalty: 0.9,
        dry: cllm_actors::sampling::DryParams {
            multiplier: 1.0,
            base: 1.1,
            allowed_length: 12,
            penalty_last_n: -1,
            sequence_breakers: vec![".".to_owned()],
        },
        xtc_probability: 0.14,
        xtc_threshold: 0.15,
        seed: Some(16),
        logit_bias: vec![(17, 18.0)].into(),
        ignore_eos: true,
    };
    assert_eq!(read_from(body).unwrap(), expected);
}

#[test]
fn the_documented_defaults_and_ranges_are_true() {
    let documented = include_str!("../../../docs/sampling.md");
    let default = SamplingParams::default();
    let mut rows =
        default.ranged().map(|(range, default)| format!("\n| `{}` | {default} | {range} |", range.param)).to_vec();
    rows.push(format!("\n| `top_k` | {} |", default.top_k));
    rows.push(format!("\n| `repeat_last_n` | {} |", default.repeat_last_n));
    rows.push(format!("\n| `dry_allowed_length` | {} |", default.dry.allowed_length));
    rows.push(format!("\n| `dry_penalty_last_n` | {} |", default.dry.penalty_last_n));
    rows.push(format!("\n| `logit_bias` | none | -100 to 100, at most {} tokens |", SamplingParams::LOGIT_BIASES));
    for row in rows {
        assert!(documented.contains(&row), "{row}");
    }
}

#[test]
fn absent_fields_keep_the_defaults() {
    assert_eq!(read_from(json!({})).unwrap(), SamplingParams::default());
}

#[test]
fn other_servers_names_work() {
    let sampling = read_from(json!({ "repetition_penalty": 1.2, "top_k": -1 })).unwrap();
    assert_eq!((sampling.repeat_penalty, sampling.top_k), (1.2, 0));
}

#[test]
fn a_seed_is_any_64_bit_integer_and_minus_one_is_random() {
    assert_eq!(read_from(json!({ "seed": -1 })).unwrap().seed, None);
    assert_eq!(read_from(json!({ "seed": u64::MAX })).unwrap().seed, Some(u64::MAX));
    assert_eq!(read_from(json!({ "seed": -2 })).unwrap().seed, Some(u64::MAX - 1));
    assert_eq!(read_from(json!({ "seed": 1.5 })).unwrap_err().param(), Some("seed"));
}

#[test]
fn a_bias_comes_as_object_or_pairs_and_false_bans() {
    let object = read_from(json!({ "logit_bias": { "5": -100, "6": 0.5 } })).unwrap();
    assert_eq!(*object.logit_bias, [(5, -100.0), (6, 0.5)]);
    let pairs = read_from(json!({ "logit_bias": [[5, false], [6, 1]] })).unwrap();
    assert_eq!(*pairs.logit_bias, [(5, f32::NEG_INFINITY), (6, 1.0)]);
}

#[test]
fn of_several_biases_of_one_token_the_last_counts_and_too_many_tokens_are_refused() {
    let biases = |pairs: Vec<Value>| read_from(json!({ "logit_bias": pairs }));
    assert_eq!(*biases(vec![json!([5, 1]); 5000]).unwrap().logit_bias, [(5, 1.0)]);
    assert_eq!(*biases(vec![json!([5, 60]), json!([5, 70])]).unwrap().logit_bias, [(5, 70.0)]);
    assert!(biases((0..1024).map(|id| json!([id, 1])).collect()).is_ok());
    let error = biases((0..1025).map(|id| json!([id, 1])).collect()).unwrap_err();
    assert_eq!((error.status().as_u16(), error.param()), (400, Some("logit_bias")));
    assert_eq!(error.message(), "logit_bias takes at most 1024 tokens, got 1025");
}

#[test]
fn a_bias_that_names_no_token_is_refused() {
    for bias in [
        json!({ "x": 1 }),
        json!({ "5": "1" }),
        json!([["hello", 1]]),
        json!([5]),
        json!({ "5": 101 }),
        json!({ "5": -1e40 }),
    ] {
        let error = read_from(json!({ "logit_bias": bias })).unwrap_err();
        assert_eq!(error.param(), Some("logit_bias"), "{bias}");
    }
}

#[test]
fn a_list_of_samplers_may_order_them_anew_and_switch_off_none_that_acts() {
    let neutral = |fields: Value| {
        let mut body = json!({ "top_k": 0, "top_p": 1, "min_p": 0, "temperature": 1 });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read_from(body)
    };
    // As llama.cpp's own page and other clients send them.
    for all in [json!("edskypmxt"), json!("edkypmxt"), json!([]), json!(["temp", "min-p", "top_p", "typ_p", "top_k"])] {
        assert!(read_from(json!({ "samplers": all })).is_ok(), "{all}");
    }
    assert!(neutral(json!({ "samplers": ["temperature"] })).is_ok());
    assert!(neutral(json!({ "samplers": "kt" })).is_ok());
    assert!(read_from(json!({ "samplers": ["temperature"], "temperature": 0 })).is_ok());
    for (samplers, parameter) in [
        (json!(["temperature"]), json!({ "top_k": 5 })),
        (json!("kpmt"), json!({ "repeat_penalty": 1.2 })),
        (json!(["top_k"]), json!({ "temperature": 0.5 })),
    ] {
        let mut fields = parameter.clone();
        fields["samplers"] = samplers;
        let error = neutral(fields).unwrap_err();
        assert_eq!((error.param(), error.code()), (Some("samplers"), "unsupported_parameter"), "{parameter}");
    }
    assert_eq!(read_from(json!({ "samplers": [1] })).unwrap_err().code(), "invalid_type");
}

#[test]
fn a_value_out_of_range_names_field_and_range() {
    let error = read_from(json!({ "temperature": 2.5 })).unwrap_err();
    assert_eq!((error.status().as_u16(), error.param(), error.code()), (400, Some("temperature"), "invalid_value"));
    assert!(error.message().contains('0') && error.message().contains('2'), "{}", error.message());
}
