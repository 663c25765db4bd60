//! Sampling fields of a request, under their OpenAI and llama.cpp names, to [`SamplingParams`].
//!
//! Types are checked here, ranges by [`SamplingParams::validate`], where they are defined.

use std::collections::BTreeMap;
use std::sync::Arc;

use cllm_actors::SamplingParams;
use cllm_actors::engine::protocol::Token;
use serde_json::Value;

use crate::api::fields::{Fields, whole, wrong_type};
use crate::http::error::ApiError;

mod chain;
#[cfg(test)]
mod tests;

/// Takes every sampling field out of the request; what is absent stays as in `defaults`.
///
/// # Errors
/// A wrong type or a value out of range: 400 with the field's name.
pub(crate) fn read(fields: &mut Fields, defaults: SamplingParams) -> Result<SamplingParams, ApiError> {
    let mut sampling = defaults;
    read_truncation(fields, &mut sampling)?;
    read_penalties(fields, &mut sampling)?;
    read_dry(fields, &mut sampling)?;
    if let Some(seed) = seed(fields)? {
        sampling.seed = seed;
    }
    sampling.logit_bias = logit_bias(fields)?;
    set(&mut sampling.ignore_eos, fields.boolean(&["ignore_eos"])?);
    check(&sampling, None)?;
    chain::check(fields, &sampling)?;
    Ok(sampling)
}

/// Checks every range and, once the vocabulary is known, the tokens of `logit_bias`.
///
/// # Errors
/// 400 with the field's name.
pub(crate) fn check(sampling: &SamplingParams, n_vocab: Option<u32>) -> Result<(), ApiError> {
    let checked = sampling.validate(n_vocab);
    checked.map_err(|error| ApiError::invalid(error.param.to_owned(), "invalid_value", error.message))
}

fn read_truncation(fields: &mut Fields, sampling: &mut SamplingParams) -> Result<(), ApiError> {
    set(&mut sampling.temperature, fields.float(&["temperature"])?);
    set(&mut sampling.top_k, count(fields, "top_k")?);
    set(&mut sampling.top_p, fields.float(&["top_p"])?);
    set(&mut sampling.min_p, fields.float(&["min_p"])?);
    set(&mut sampling.typical_p, fields.float(&["typical_p", "typ_p"])?);
    set(&mut sampling.xtc_probability, fields.float(&["xtc_probability"])?);
    set(&mut sampling.xtc_threshold, fields.float(&["xtc_threshold"])?);
    Ok(())
}

fn read_penalties(fields: &mut Fields, sampling: &mut SamplingParams) -> Result<(), ApiError> {
    set(&mut sampling.repeat_penalty, fields.float(&["repeat_penalty", "repetition_penalty"])?);
    set(&mut sampling.repeat_last_n, window(fields, "repeat_last_n")?);
    set(&mut sampling.frequency_penalty, fields.float(&["frequency_penalty"])?);
    set(&mut sampling.presence_penalty, fields.float(&["presence_penalty"])?);
    Ok(())
}

fn read_dry(fields: &mut Fields, sampling: &mut SamplingParams) -> Result<(), ApiError> {
    let dry = &mut sampling.dry;
    set(&mut dry.multiplier, fields.float(&["dry_multiplier"])?);
    set(&mut dry.base, fields.float(&["dry_base"])?);
    set(&mut dry.allowed_length, fields.integer(&["dry_allowed_length"], 0..=MAX_COUNT)?.map(|n| n as u32));
    set(&mut dry.penalty_last_n, window(fields, "dry_penalty_last_n")?);
    if let Some(breakers) = fields.array(&["dry_sequence_breakers"])? {
        dry.sequence_breakers = breakers
            .into_iter()
            .map(|breaker| match breaker {
                Value::String(text) => Ok(text),
                other => Err(wrong_type("dry_sequence_breakers", "an array of strings", &other)),
            })
            .collect::<Result<_, _>>()?;
    }
    Ok(())
}

/// Largest count a field takes: no context holds more tokens.
const MAX_COUNT: i64 = i32::MAX as i64;

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A count of which 0 and (as vLLM writes it) -1 mean "all".
fn count(fields: &mut Fields, name: &'static str) -> Result<Option<u32>, ApiError> {
    let count = fields.integer(&[name], -1..=MAX_COUNT)?;
    Ok(count.map(|count| count.max(0) as u32))
}

/// A number of recent tokens; -1 is all of them.
fn window(fields: &mut Fields, name: &'static str) -> Result<Option<i32>, ApiError> {
    Ok(fields.integer(&[name], -1..=MAX_COUNT)?.map(|window| window as i32))
}

/// A seed: any 64-bit integer, signed or not. -1 asks for a random one, as in llama.cpp.
fn seed(fields: &mut Fields) -> Result<Option<Option<u64>>, ApiError> {
    let Some((name, value)) = fields.any(&["seed"]) else {
        return Ok(None);
    };
    match whole(&value) {
        Some(-1) => Ok(Some(None)),
        Some(seed) if seed >= i128::from(i64::MIN) && seed <= i128::from(u64::MAX) => Ok(Some(Some(seed as u64))),
        _ => Err(wrong_type(name, "a 64-bit integer", &value)),
    }
}

/// Biases by token id: OpenAI's object `{"id": bias}` or llama.cpp's array `[[id, bias or false]]`; `false` bans. Of
/// several for one token the last one counts.
fn logit_bias(fields: &mut Fields) -> Result<Arc<[(Token, f32)]>, ApiError> {
    let biases: BTreeMap<Token, f32> = match fields.any(&["logit_bias"]) {
        None => return Ok(Arc::default()),
        Some((_, Value::Object(biases))) => biases.iter().map(bias_entry).collect::<Result<_, _>>()?,
        Some((_, Value::Array(pairs))) => pairs.iter().map(bias_pair).collect::<Result<_, _>>()?,
        Some((name, other)) => return Err(wrong_type(name, "an object or an array", &other)),
    };
    Ok(biases.into_iter().collect())
}

fn bias_entry((id, bias): (&String, &Value)) -> Result<(Token, f32), ApiError> {
    Ok((id.parse().map_err(|_| bad_bias())?, bias_value(bias)?))
}

fn bias_pair(pair: &Value) -> Result<(Token, f32), ApiError> {
    match pair.as_array().map(Vec::as_slice) {
        Some([id, bias]) => {
            let id = whole(id).and_then(|id| Token::try_from(id).ok()).ok_or_else(bad_bias)?;
            Ok((id, bias_value(bias)?))
        }
        _ => Err(bad_bias()),
    }
}

fn bias_value(bias: &Value) -> Result<f32, ApiError> {
    match bias {
        Value::Bool(false) => Ok(f32::NEG_INFINITY),
        other => other.as_f64().map(finite).ok_or_else(bad_bias),
    }
}

/// What is too large for an `f32` stays finite, so that its range is checked: an infinite bias would be a ban.
fn finite(bias: f64) -> f32 {
    (bias as f32).clamp(f32::MIN, f32::MAX)
}

fn bad_bias() -> ApiError {
    let message = "`logit_bias` must map token ids to numbers from -100 to 100 (or false, which bans the token): \
                   {\"id\": bias} or [[id, bias]]";
    ApiError::invalid("logit_bias".to_owned(), "invalid_value", message)
}
