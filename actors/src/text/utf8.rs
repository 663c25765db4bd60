//! Bytes to whole characters. A character may span several tokens.

/// Collects bytes and gives out the longest valid text.
#[derive(Debug, Clone, Default)]
pub struct Utf8Assembler {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Assembler {
    /// Appends the whole characters to `out`. An incomplete one at the end waits for its remaining bytes. Bytes that
    /// can be no part of a character become U+FFFD, one for each longest beginning of a character, as in `String::from_utf8_lossy`.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.pending.is_empty() {
            let rest = decode(bytes, out);
            self.pending.extend_from_slice(rest);
            return;
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        let rest = decode(&joined, out).len();
        joined.drain(..joined.len() - rest);
        self.pending = joined;
    }

    /// The end. An incomplete character is dropped, not replaced: a text that was cut inside a character stays free of U+FFFD,
    /// which is what clients want who asked for a number of tokens.
    pub fn finish(&mut self) {
        self.pending.clear();
    }

    /// Whether the beginning of a character waits.
    pub fn is_holding(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// Returns the incomplete rest.
fn decode<'a>(mut bytes: &'a [u8], out: &mut String) -> &'a [u8] {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => {
                out.push_str(text);
                return &[];
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        out.push_str(&String::from_utf8_lossy(valid));
        match error.error_len() {
            None => return rest,
            Some(invalid) => {
                out.push(char::REPLACEMENT_CHARACTER);
                bytes = &rest[invalid..];
            }
        }
    }
}
