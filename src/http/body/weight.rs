//! How much memory a body may take once it is parsed.

use cllm_actors::prompt::weight::{self, CONTAINER};

use crate::http::error::ApiError;

/// Most values of a body. An array of a million token ids, more than any context holds, and all else in a request has
/// room; at 72 bytes for each value, a body takes some 150 MB at most while its arrays grow.
const MOST: usize = 1_100_000;

/// Refuses a body with too many values.
///
/// # Errors
/// 400, without a field.
pub(super) fn check(body: &[u8]) -> Result<(), ApiError> {
    // No byte counts for more than a bracket does.
    if body.len() * CONTAINER <= MOST || weight::of_text(body) <= MOST {
        return Ok(());
    }
    let message = format!(
        "the request body has more than {MOST} JSON values, where an array or an object counts for {CONTAINER} of them"
    );
    Err(ApiError::invalid(None, "invalid_value", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> bool {
        check(body.as_bytes()).is_err_and(|error| error.status() == 400 && error.message().contains("1100000"))
    }

    #[test]
    fn a_flat_array_of_a_million_numbers_passes_and_nested_ones_do_not() {
        let many = |item: &str, count: usize| format!("{{\"prompt\":[{}0]}}", format!("{item},").repeat(count));
        assert!(!refused(&many("0", 1 << 20)));
        assert!(refused(&many("0", 1_100_000)));
        assert!(refused(&many("[0]", 125_000)) && refused(&many("{}", 125_000)));
        assert!(!refused(&many("[0]", 10_000)));
    }

    #[test]
    fn what_stands_in_a_string_is_no_value() {
        assert!(!refused(&format!("{{\"prompt\":\"{}\"}}", "[,{".repeat(1_000_000))));
        assert!(!refused(&format!("{{\"prompt\":\"{}", "\\".repeat(1_000_001))), "not ours to find wrong");
    }
}
