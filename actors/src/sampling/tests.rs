//! Ranges: what is refused, and in which words.

use super::{Low, ParamError, Range, SamplingParams};

fn refusal(change: impl FnOnce(&mut SamplingParams), n_vocab: Option<u32>) -> ParamError {
    let mut params = SamplingParams::default();
    change(&mut params);
    params.validate(n_vocab).expect_err("must be refused")
}

type Setter = fn(&mut SamplingParams, f32);

/// Each ranged field: its range, its declaration in the source, and how to set it.
const FIELDS: [(Range, &str, Setter); 12] = [
    (SamplingParams::TEMPERATURE, "pub temperature:", |p, v| p.temperature = v),
    (SamplingParams::TOP_P, "pub top_p:", |p, v| p.top_p = v),
    (SamplingParams::MIN_P, "pub min_p:", |p, v| p.min_p = v),
    (SamplingParams::TYPICAL_P, "pub typical_p:", |p, v| p.typical_p = v),
    (SamplingParams::REPEAT_PENALTY, "pub repeat_penalty:", |p, v| p.repeat_penalty = v),
    (SamplingParams::FREQUENCY_PENALTY, "pub frequency_penalty:", |p, v| p.frequency_penalty = v),
    (SamplingParams::PRESENCE_PENALTY, "pub presence_penalty:", |p, v| p.presence_penalty = v),
    (SamplingParams::XTC_PROBABILITY, "pub xtc_probability:", |p, v| p.xtc_probability = v),
    (SamplingParams::XTC_THRESHOLD, "pub xtc_threshold:", |p, v| p.xtc_threshold = v),
    (SamplingParams::DRY_MULTIPLIER, "pub multiplier:", |p, v| p.dry.multiplier = v),
    (SamplingParams::DRY_BASE, "pub base:", |p, v| p.dry.base = v),
    (SamplingParams::LOGIT_BIAS, "pub logit_bias:", |p, v| p.logit_bias = vec![(3, v)].into()),
];

#[test]
fn defaults_are_valid() {
    assert_eq!(SamplingParams::default().validate(Some(1)), Ok(()));
    assert_eq!(SamplingParams::default().validate(None), Ok(()));
}

#[test]
fn both_ends_of_each_range_are_taken() {
    for (range, _, set) in FIELDS {
        let low = match range.low {
            Low::From(low) => low,
            Low::Over(low) => low.next_up(),
        };
        for value in [low, range.high] {
            let mut params = SamplingParams::default();
            set(&mut params, value);
            assert_eq!(params.validate(Some(10)), Ok(()), "{} {value}", range.param);
        }
    }
}

#[test]
fn each_field_refuses_what_is_outside_or_not_a_number_and_names_itself_and_its_range() {
    for (range, _, set) in FIELDS {
        let below = match range.low {
            Low::From(low) => low.next_down(),
            Low::Over(low) => low,
        };
        for value in [below, range.high.next_up(), f32::NAN, f32::INFINITY] {
            let error = refusal(|p| set(p, value), None);
            assert_eq!(error.param, range.param);
            assert!(error.message.contains(range.param), "{error}");
            assert!(error.message.contains(&range.to_string()), "{error}");
        }
    }
}

#[test]
fn negative_infinity_is_a_bias_only() {
    for (range, _, set) in FIELDS.iter().filter(|(range, ..)| range.param != "logit_bias") {
        assert_eq!(refusal(|p| set(p, f32::NEG_INFINITY), None).param, range.param);
    }
    let banned = SamplingParams { logit_bias: vec![(0, f32::NEG_INFINITY)].into(), ..SamplingParams::default() };
    assert_eq!(banned.validate(Some(1)), Ok(()));
}

#[test]
fn the_documentation_of_each_field_states_its_range() {
    let lines: Vec<&str> = include_str!("../sampling.rs").lines().collect();
    for (range, declaration, _) in FIELDS {
        let at = lines.iter().position(|line| line.trim_start().starts_with(declaration)).expect(declaration);
        let docs: Vec<&str> = lines[..at].iter().rev().copied().take_while(|l| l.contains("///")).collect();
        let docs = docs.join(" ").to_lowercase();
        assert!(docs.contains(&range.to_string()), "{declaration} is {range}, documented as {docs}");
    }
}

#[test]
fn windows_below_minus_one_are_refused() {
    let error = refusal(|p| p.repeat_last_n = -2, None);
    assert_eq!((error.param, error.message.as_str()), ("repeat_last_n", "repeat_last_n must be -1 or more, not -2"));
    assert_eq!(refusal(|p| p.dry.penalty_last_n = i32::MIN, None).param, "dry_penalty_last_n");
}

#[test]
fn biased_tokens_must_be_in_the_vocabulary() {
    let error = refusal(|p| p.logit_bias = vec![(9, 1.0), (10, 1.0)].into(), Some(10));
    assert_eq!(
        (error.param, error.message.as_str()),
        ("logit_bias", "logit_bias names token 10, but tokens are 0 to 9")
    );
    assert_eq!(refusal(|p| p.logit_bias = vec![(-1, 1.0)].into(), None).param, "logit_bias");
    let unknown = SamplingParams { logit_bias: vec![(10, 1.0)].into(), ..SamplingParams::default() };
    assert_eq!(unknown.validate(None), Ok(()));
}

#[test]
fn breakers_are_bounded_in_number_and_length() {
    for breakers in [vec![String::new()], vec!["x".repeat(41)], vec!["x".to_owned(); 65]] {
        assert_eq!(refusal(|p| p.dry.sequence_breakers = breakers, None).param, "dry_sequence_breakers");
    }
}
