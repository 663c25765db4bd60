//! Which texts tokenizers can take: those that break often enough.
//!
//! Many pre-tokenizers are regular expressions that recurse once for each character of a match, and what a match may
//! hold differs from model to model: letters, letters with their accents, anything but spaces. So the bound is the
//! distance between white space, whatever the characters are.

/// Longest stretch without white space, and of white space, in bytes. Measured to fit the vocabulary thread's stack.
pub(crate) const MAX_RUN_BYTES: usize = 100_000;

/// Refuses texts, taken as one, that have too long a stretch with no white space or of nothing else.
///
/// # Errors
/// A message for the client.
pub(crate) fn check_runs<'text>(texts: impl IntoIterator<Item = &'text str>) -> Result<(), String> {
    let mut run = 0;
    let mut in_space = false;
    for character in texts.into_iter().flat_map(str::chars) {
        if character.is_whitespace() != in_space {
            in_space = !in_space;
            run = 0;
        }
        run += character.len_utf8();
        if run > MAX_RUN_BYTES {
            let what = if in_space { "of white space" } else { "without white space" };
            return Err(format!("the text has a run of over {MAX_RUN_BYTES} bytes {what}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_over_100_kb_is_refused_whatever_it_is_of() {
        let same = ["a", "語", "1", "-"];
        let mixed = ["a\u{301}", "a1", "a-", "\u{200b}\u{301}"];
        for unit in same.into_iter().chain(mixed) {
            let fits = unit.repeat(MAX_RUN_BYTES / unit.len());
            assert_eq!(check_runs([&*fits]), Ok(()), "{unit}");
            let message = check_runs([&*format!("{fits}{unit}")]).expect_err(unit);
            assert!(message.contains("without white space"), "{message}");
        }
        for unit in [" ", "\n\t", "\u{3000}"] {
            let message = check_runs([&*unit.repeat(MAX_RUN_BYTES + 1)]).expect_err(unit);
            assert!(message.contains("of white space"), "{message}");
        }
    }

    #[test]
    fn a_run_goes_on_from_part_to_part_and_ends_at_white_space() {
        let half = "a".repeat(MAX_RUN_BYTES / 2 + 1);
        assert!(check_runs([&*half, &*half]).is_err());
        assert_eq!(check_runs([&*half, " ", &*half]), Ok(()));
        assert_eq!(check_runs([&*"word ".repeat(MAX_RUN_BYTES)]), Ok(()));
    }
}
