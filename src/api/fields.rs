//! Reading a JSON object field by field: absent and `null` are the same, aliases are one field, a wrong type is the
//! client's error with the field's name, and what nobody asked for is ignored and can be listed.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};
use strsim::damerau_levenshtein;

use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// Names of one field: its own first, then its aliases. The first one present wins.
pub(crate) type Names<'a> = &'a [&'static str];

/// Most ignored fields that are named.
const MOST_NAMED: usize = 8;

/// Longest name of an ignored field that is shown whole, in characters.
const LONGEST_NAME: usize = 40;

/// A request body whose fields are taken out one after the other.
#[derive(Debug)]
pub(crate) struct Fields {
    fields: Map<String, Value>,
    /// Every name that was asked for.
    asked: Vec<&'static str>,
    /// Path of the object in the body, with a final dot; empty for the body itself.
    path: String,
}

impl Fields {
    /// The fields of a body.
    pub(crate) fn of(body: Map<String, Value>) -> Self {
        Self { fields: body, asked: Vec::new(), path: String::new() }
    }

    /// An object inside the body, at `path`.
    pub(crate) fn within(path: &str, fields: Map<String, Value>) -> Self {
        Self { fields, asked: Vec::new(), path: format!("{path}.") }
    }

    /// Takes a field of any type out, with the name it was given under.
    pub(crate) fn any(&mut self, names: Names<'_>) -> Option<(&'static str, Value)> {
        self.asked.extend_from_slice(names);
        let mut found = None;
        for &name in names {
            let value = self.fields.shift_remove(name).filter(|value| !value.is_null());
            found = found.or(value.map(|value| (name, value)));
        }
        found
    }

    /// Takes a boolean.
    pub(crate) fn boolean(&mut self, names: Names<'_>) -> Result<Option<bool>, ApiError> {
        self.typed(names, "a boolean", |value| value.as_bool())
    }

    /// Takes a string.
    pub(crate) fn string(&mut self, names: Names<'_>) -> Result<Option<String>, ApiError> {
        self.typed(names, "a string", |value| match value {
            Value::String(text) => Some(std::mem::take(text)),
            _ => None,
        })
    }

    /// Takes an array.
    pub(crate) fn array(&mut self, names: Names<'_>) -> Result<Option<Vec<Value>>, ApiError> {
        self.typed(names, "an array", |value| match value {
            Value::Array(items) => Some(std::mem::take(items)),
            _ => None,
        })
    }

    /// Takes an object.
    pub(crate) fn object(&mut self, names: Names<'_>) -> Result<Option<Map<String, Value>>, ApiError> {
        self.typed(names, "an object", |value| match value {
            Value::Object(fields) => Some(std::mem::take(fields)),
            _ => None,
        })
    }

    /// Takes a number that fits an `f32`; which values make sense is for the caller to say.
    pub(crate) fn float(&mut self, names: Names<'_>) -> Result<Option<f32>, ApiError> {
        self.typed(names, "a finite number", |value| {
            let number = value.as_f64()? as f32;
            number.is_finite().then_some(number)
        })
    }

    /// Takes a whole number within `range`; `5.0` is one.
    pub(crate) fn integer(&mut self, names: Names<'_>, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some((name, value)) = self.any(names) else {
            return Ok(None);
        };
        let name = format!("{}{name}", self.path);
        let Some(number) = whole(&value) else {
            return Err(wrong_type(&name, "an integer", &value));
        };
        match i64::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(out_of_range(&name, &range, number)),
        }
    }

    /// The names of the fields that nobody has taken, each with the name that was most likely meant; `None` without any.
    /// At most [`MOST_NAMED`], and none longer than [`LONGEST_NAME`].
    pub(crate) fn ignored(&self) -> Option<String> {
        let mut named: Vec<String> = self.fields.keys().take(MOST_NAMED).map(|name| self.show_ignored(name)).collect();
        if self.fields.len() > MOST_NAMED {
            named.push(format!("and {} more", self.fields.len() - MOST_NAMED));
        }
        (!named.is_empty()).then(|| named.join(", "))
    }

    fn show_ignored(&self, name: &str) -> String {
        if name.chars().nth(LONGEST_NAME).is_some() {
            return format!("{}…", name.chars().take(LONGEST_NAME).collect::<String>());
        }
        let near = |known: &&str| damerau_levenshtein(name, known);
        let nearest = self.asked.iter().copied().min_by_key(near);
        match nearest.filter(|known| damerau_levenshtein(name, known) <= name.len() / 4) {
            Some(known) => format!("{name} ({known}?)"),
            None => name.to_owned(),
        }
    }

    fn typed<T>(
        &mut self,
        names: Names<'_>,
        expected: &str,
        read: impl FnOnce(&mut Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some((name, mut value)) = self.any(names) else {
            return Ok(None);
        };
        match read(&mut value) {
            Some(read) => Ok(Some(read)),
            None => Err(wrong_type(&format!("{}{name}", self.path), expected, &value)),
        }
    }
}

/// The whole number that a JSON value is, however it is written.
pub(crate) fn whole(value: &Value) -> Option<i128> {
    /// Up to here every whole `f64` is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_number()?;
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    integer.or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i128)
    })
}

/// The error of a field that must be there and is not.
pub(crate) fn missing(name: &str) -> ApiError {
    ApiError::invalid(name.to_owned(), "missing_required_parameter", format!("`{name}` is missing"))
}

/// The error of a field with a value of the wrong type.
pub(crate) fn wrong_type(name: &str, expected: &str, got: &Value) -> ApiError {
    ApiError::invalid(name.to_owned(), "invalid_type", format!("`{name}` must be {expected}, got {}", kind(got)))
}

fn out_of_range(name: &str, range: &RangeInclusive<i64>, got: i128) -> ApiError {
    let message = format!("`{name}` must be an integer from {} to {}, got {got}", range.start(), range.end());
    ApiError::invalid(name.to_owned(), "invalid_value", message)
}

/// What a value is, as a client would call it; short values are shown.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
