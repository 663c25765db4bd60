//! llama.cpp's `samplers`: which samplers there are, and in which order. Here the chain is fixed; a list that only orders
//! it anew is ignored, as many clients always send one, and one that would switch off what acts is refused.

use cllm_actors::SamplingParams;
use serde_json::Value;

use crate::api::fields::{Fields, wrong_type};
use crate::http::error::ApiError;

/// A sampler that can be left out of a list.
struct Sampler {
    /// The names llama.cpp knows it by, the first in its messages; hyphens are underscores.
    names: &'static [&'static str],
    /// Its letter, where the list is a text.
    letter: char,
    /// Whether it changes anything with these parameters.
    acts: fn(&SamplingParams) -> bool,
}

const SAMPLERS: &[Sampler] = &[
    Sampler {
        names: &["penalties"],
        letter: 'e',
        acts: |p| p.repeat_penalty != 1.0 || p.frequency_penalty != 0.0 || p.presence_penalty != 0.0,
    },
    Sampler { names: &["dry"], letter: 'd', acts: |p| p.dry.multiplier != 0.0 },
    Sampler { names: &["top_k"], letter: 'k', acts: |p| p.top_k != 0 },
    Sampler { names: &["typ_p", "typical_p", "typical", "typ"], letter: 'y', acts: |p| p.typical_p < 1.0 },
    Sampler { names: &["top_p", "nucleus"], letter: 'p', acts: |p| p.top_p < 1.0 },
    Sampler { names: &["min_p"], letter: 'm', acts: |p| p.min_p > 0.0 },
    Sampler { names: &["xtc"], letter: 'x', acts: |p| p.xtc_probability > 0.0 },
    Sampler { names: &["temperature", "temp"], letter: 't', acts: |p| p.temperature != 1.0 },
];

/// Takes `samplers` out of the request: an array of names or a text of letters.
///
/// # Errors
/// Another type, or a list without a sampler that acts: 400 with the field's name.
pub(super) fn check(fields: &mut Fields, sampling: &SamplingParams) -> Result<(), ApiError> {
    let listed: Vec<String> = match fields.any(&["samplers"]) {
        None => return Ok(()),
        Some((_, Value::String(letters))) => letters.chars().map(String::from).collect(),
        Some((name, Value::Array(names))) => names.iter().map(|item| of_name(name, item)).collect::<Result<_, _>>()?,
        Some((name, other)) => return Err(wrong_type(name, "an array of names or a text of letters", &other)),
    };
    // At temperature 0 the likeliest token is never cut away.
    let is_greedy = sampling.temperature <= 0.0;
    let counts = |sampler: &&Sampler| !is_greedy || ["penalties", "dry", "temperature"].contains(&sampler.names[0]);
    let missing = SAMPLERS.iter().filter(counts).find(|sampler| (sampler.acts)(sampling) && !sampler.is_in(&listed));
    match missing {
        Some(sampler) if !listed.is_empty() => {
            let name = sampler.names[0];
            let message = format!(
                "`samplers` without `{name}` is not supported by this server: give its parameters values that change nothing"
            );
            Err(ApiError::invalid("samplers".to_owned(), "unsupported_parameter", message))
        }
        _ => Ok(()),
    }
}

fn of_name(field: &str, item: &Value) -> Result<String, ApiError> {
    let name = item.as_str().ok_or_else(|| wrong_type(field, "an array of names", item))?;
    Ok(name.to_ascii_lowercase().replace('-', "_"))
}

impl Sampler {
    fn is_in(&self, listed: &[String]) -> bool {
        listed.iter().any(|name| self.names.contains(&name.as_str()) || name.chars().eq([self.letter]))
    }
}
