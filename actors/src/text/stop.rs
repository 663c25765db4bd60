//! Finds stop texts in a stream of text.

/// Looks for several stop texts at once and lets through what can be no part of one.
///
/// The stop text that is complete first ends the text, which is cut where that stop text begins; of several that are
/// complete at the same character, the longest. So the result does not depend on how the text is cut into tokens, and no token is waited for
/// after a stop text is there. Time is linear in the text, times the number of stop texts.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// The longest beginning of a stop text that the text so far ends with. Not shown yet.
    held: String,
    found: Option<usize>,
}

impl StopMatcher {
    /// A matcher for these texts; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().enumerate().filter(|(_, text)| !text.is_empty());
        Self { stops: stops.map(|(index, text)| Stop::new(index, text)).collect(), held: String::new(), found: None }
    }

    /// Takes more text and appends to `out` what is certainly before any stop text. Nothing is taken after one was found.
    ///
    /// Returns the place of the stop text in the list that was given, at this and every later call.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.found.is_some() {
            return self.found;
        }
        for (at, byte) in text.bytes().enumerate() {
            if let Some((index, len)) = self.step(byte) {
                self.held.push_str(&text[..=at]);
                out.push_str(&self.held[..self.held.len() - len]);
                self.held.clear();
                self.found = Some(index);
                return self.found;
            }
        }
        self.release(text, out);
        None
    }

    /// The end of the text: appends to `out` what was held back, since no stop text can follow.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
    }

    /// Whether the beginning of a stop text is held back.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// One more byte. The longest stop text that it completes: place and length.
    fn step(&mut self, byte: u8) -> Option<(usize, usize)> {
        let complete = self.stops.iter_mut().filter_map(|stop| stop.step(byte));
        // The first of equal ones.
        complete.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// Shows everything but the longest beginning of a stop text. That begins where a character begins, as every stop text does.
    fn release(&mut self, text: &str, out: &mut String) {
        let keep = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        if self.held.is_empty() {
            let (shown, held) = text.split_at(text.len() - keep);
            out.push_str(shown);
            self.held.push_str(held);
        } else {
            self.held.push_str(text);
            let shown = self.held.len() - keep;
            out.push_str(&self.held[..shown]);
            self.held.drain(..shown);
        }
    }
}

/// A stop text with the state of its search (Knuth, Morris, Pratt).
#[derive(Debug, Clone)]
struct Stop {
    /// Its place in the request.
    index: usize,
    bytes: Box<[u8]>,
    /// At `n`: length of the longest proper beginning of `bytes[..=n]` that is also its end.
    fallback: Box<[usize]>,
    /// How many of its bytes the text ends with; less than all.
    matched: usize,
}

impl Stop {
    fn new(index: usize, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut fallback = vec![0; bytes.len()];
        let mut matched = 0;
        for at in 1..bytes.len() {
            matched = advance(bytes, &fallback, matched, bytes[at]);
            fallback[at] = matched;
        }
        Self { index, bytes: bytes.into(), fallback: fallback.into(), matched: 0 }
    }

    fn step(&mut self, byte: u8) -> Option<(usize, usize)> {
        self.matched = advance(&self.bytes, &self.fallback, self.matched, byte);
        (self.matched == self.bytes.len()).then_some((self.index, self.bytes.len()))
    }
}

/// The number of matched bytes after one more. `matched` is less than `bytes.len()`.
fn advance(bytes: &[u8], fallback: &[usize], mut matched: usize, byte: u8) -> usize {
    while matched > 0 && bytes[matched] != byte {
        matched = fallback[matched - 1];
    }
    if bytes[matched] == byte { matched + 1 } else { 0 }
}
