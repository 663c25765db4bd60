//! How much JSON takes in memory once it is parsed, told from its bytes or its values: `[[0],[0],…]` becomes a hundred
//! times its text.

use serde_json::Value;

/// What an array or an object counts for: even with one value in it, it takes as much as so many numbers.
pub const CONTAINER: usize = 8;

/// Commas and colons, and opening brackets and braces outside of strings, which count [`CONTAINER`] each: the weight that a
/// JSON text will have.
#[must_use]
pub fn of_text(text: &[u8]) -> usize {
    let mut bytes = text.iter();
    let mut weight = 0;
    while let Some(byte) = bytes.next() {
        match byte {
            // A name takes about as much as a value.
            b',' | b':' => weight += 1,
            b'[' | b'{' => weight += CONTAINER,
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    weight
}

/// The same of what has been parsed.
#[must_use]
pub fn of_value(value: &Value) -> usize {
    match value {
        Value::Array(values) => CONTAINER + values.iter().map(|value| 1 + of_value(value)).sum::<usize>(),
        Value::Object(fields) => CONTAINER + of_fields(fields.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The same of some fields of an object, by their values: a name counts, and so does what stands between.
#[must_use]
pub fn of_fields<'a>(values: impl IntoIterator<Item = &'a Value>) -> usize {
    values.into_iter().map(|value| 2 + of_value(value)).sum()
}

/// Goes behind the quote that ends a string.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_in_a_string_is_no_value() {
        assert_eq!(of_text(br#"{"a":"[,{\"[,","b\\":[1,2]}"#), 2 * CONTAINER + 4);
        assert_eq!(of_value(&json!({ "a": "[,{", "b": [1, 2] })), 2 * CONTAINER + 6);
    }

    #[test]
    fn a_value_takes_no_more_than_bounds_of_weight_were_made_for() {
        assert!(size_of::<Value>() <= 72);
    }
}
