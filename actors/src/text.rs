//! Streaming text: token bytes in, whole characters out, cut at the first stop text. Pure; one assembler per sequence.

mod stop;
mod utf8;

pub use stop::StopMatcher;
pub use utf8::Utf8Assembler;

/// The stop text that ended a sequence's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Which of the stop texts, by its place in the request.
    pub stop: usize,
    /// The token that completed it, as numbered in [`TextAssembler::push`]. Usage counts up to and including this one.
    pub token: u32,
}

/// Turns the tokens of one sequence into the text that its client gets.
#[derive(Debug, Clone)]
pub struct TextAssembler {
    utf8: Utf8Assembler,
    stops: StopMatcher,
    decoded: String,
    stopped: Option<Stopped>,
}

impl TextAssembler {
    /// An assembler for these stop texts; empty ones are ignored.
    pub fn new(stops: &[String]) -> Self {
        Self { utf8: Utf8Assembler::default(), stops: StopMatcher::new(stops), decoded: String::new(), stopped: None }
    }

    /// Takes the bytes of token number `token` and appends to `out` what may be shown now. Held back is what could
    /// still become a character or a stop text. After a stop text nothing is taken any more.
    ///
    /// Returns the stop text once it is complete, and again at every later call.
    pub fn push(&mut self, token: u32, bytes: &[u8], out: &mut String) -> Option<Stopped> {
        if self.stopped.is_none() {
            self.decoded.clear();
            self.utf8.push(bytes, &mut self.decoded);
            self.stopped = self.stops.push(&self.decoded, out).map(|stop| Stopped { stop, token });
        }
        self.stopped
    }

    /// The end without a stop text (end token, length, cancelled): appends to `out` what was held back for the stop texts.
    /// A character that is incomplete is dropped. After a stop text this appends nothing.
    pub fn finish(&mut self, out: &mut String) {
        self.utf8.finish();
        self.stops.finish(out);
    }

    /// Whether text is held back: shown later, or never.
    pub fn is_holding(&self) -> bool {
        self.utf8.is_holding() || self.stops.is_holding()
    }
}

#[cfg(test)]
mod tests;
