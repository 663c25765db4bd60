//! The last tokens of a sequence, and the penalties that count them.

#[cfg(test)]
mod tests;

use crate::engine::protocol::Token;
use crate::sampling::SamplingParams;

/// Windows up to this many tokens get all their memory at once, greater ones as they fill.
const PREALLOCATED: usize = 4096;

/// The last tokens, side by side in memory.
#[derive(Debug)]
pub(super) struct Window {
    /// Up to twice `size` tokens; the last `size` count.
    tokens: Vec<Token>,
    size: usize,
}

impl Window {
    /// A window of the last `last_n` tokens, of all if negative.
    pub(super) fn new(tokens: &[Token], last_n: i32) -> Self {
        let size = usize::try_from(last_n).unwrap_or(usize::MAX);
        let recent = &tokens[tokens.len().saturating_sub(size)..];
        let room = size.min(PREALLOCATED.max(recent.len())).saturating_mul(2);
        let mut kept = Vec::with_capacity(room);
        kept.extend_from_slice(recent);
        Self { tokens: kept, size }
    }

    /// Appends a token and returns the one that leaves for it. Moves the tokens once every `size` calls.
    pub(super) fn push(&mut self, token: Token) -> Option<Token> {
        let leaving = (self.tokens.len() >= self.size).then(|| self.tokens[self.tokens.len() - self.size]);
        if self.tokens.len() >= self.size.saturating_mul(2) {
            let from = self.tokens.len() - self.size;
            self.tokens.copy_within(from.., 0);
            self.tokens.truncate(self.size);
        }
        self.tokens.push(token);
        leaving
    }

    /// The tokens, oldest first.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens[self.tokens.len().saturating_sub(self.size)..]
    }
}

/// Repeat, frequency and presence penalty. Semantics as in llama.cpp.
#[derive(Debug)]
pub(super) struct Penalties {
    window: Window,
    /// How often each token of the window occurs, by token.
    counts: Vec<(Token, u32)>,
    repeat: f32,
    frequency: f32,
    presence: f32,
}

impl Penalties {
    /// `None` if the parameters turn them off.
    pub(super) fn new(params: &SamplingParams, tokens: &[Token]) -> Option<Self> {
        let neutral = params.repeat_penalty == 1.0 && params.frequency_penalty == 0.0 && params.presence_penalty == 0.0;
        if neutral || params.repeat_last_n == 0 {
            return None;
        }
        let window = Window::new(tokens, params.repeat_last_n);
        let counts = count(window.tokens(), window.size);
        Some(Self {
            window,
            counts,
            repeat: params.repeat_penalty,
            frequency: params.frequency_penalty,
            presence: params.presence_penalty,
        })
    }

    /// Takes note of an emitted token.
    pub(super) fn accept(&mut self, token: Token) {
        if let Some(old) = self.window.push(token) {
            self.decrement(old);
        }
        match self.place(token) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (token, 1)),
        }
    }

    fn decrement(&mut self, token: Token) {
        let at = self.place(token).expect("every token of the window is counted");
        self.counts[at].1 -= 1;
        if self.counts[at].1 == 0 {
            self.counts.remove(at);
        }
    }

    fn place(&self, token: Token) -> Result<usize, usize> {
        self.counts.binary_search_by_key(&token, |&(counted, _)| counted)
    }

    /// Changes the logits of the counted tokens.
    pub(super) fn apply(&self, row: &mut [f32]) {
        for &(token, count) in &self.counts {
            let Some(logit) = row.get_mut(token as usize) else {
                continue;
            };
            // Dividing a negative logit would make the token likelier.
            *logit = if *logit <= 0.0 { *logit * self.repeat } else { *logit / self.repeat };
            *logit -= count as f32 * self.frequency + self.presence;
        }
    }
}

/// How often each token occurs, by token; with room for one more than fit in a window of `size`.
fn count(tokens: &[Token], size: usize) -> Vec<(Token, u32)> {
    let mut sorted = tokens.to_vec();
    sorted.sort_unstable();
    let mut counts = Vec::with_capacity(size.min(PREALLOCATED.max(tokens.len())) + 1);
    counts.extend(sorted.chunk_by(Token::eq).map(|run| (run[0], run.len() as u32)));
    counts
}
