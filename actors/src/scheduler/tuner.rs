//! How much prefill a step carries beside running streams. Pure: measured steps go in, sizes come out.
//!
//! While nobody decodes a step is as large as computes well, for the fewest steps, and on a CPU no longer than `longest_full`:
//! a request that comes waits for it, a cancel waits for it, and readiness goes by steps that end. What a step costs by
//! itself is not told apart there, so that a machine that reads its weights from a disk for each step gets small ones; static
//! sizes suit it better. While somebody decodes, every prompt
//! token in a step makes the gap between two tokens of every running stream longer: then a step carries as many as keep
//! its predicted time under `max_step`, or under twice what decoding takes by itself where that is longer: prompts that
//! are read too slowly keep places from decoding, and the whole from being fast.
//!
//! The prediction is linear: what the decode rows take by themselves, plus a cost for each prompt token. Both are medians
//! of a few recent steps, so that single slow ones (a busy neighbour, a page fault) count for nothing; what is three
//! times as slow or fast as predicted twice in a row is believed at once. The engine carries at least 4 prompt tokens
//! whatever is said here, and up to four times as many where several prompts are read for each running stream.
//!
//! How many sequences run at once is not tuned: fewer of them would be less throughput. Deadlines bound it, see
//! [`places`](super::places).

use std::time::Duration;

use crate::engine::protocol::{MIN_PREFILL_TOKENS, ModelInfo};

/// Recent steps that an estimate is the median of.
const WINDOW: usize = 9;

/// So many steps pass between two enlargements, so that the second one is decided by what the first one brought.
const STEPS_TO_GROW: u32 = 4;

/// An enlargement is worth it from this factor on; below it and above [`SHRINK`] everything stays as it is.
const GROW: f64 = 1.25;

/// The same for a reduction, which does not wait.
const SHRINK: f64 = 0.9;

/// A prompt token costs at least this share of what a token of its step costs on average.
const LEAST_SHARE: f64 = 0.1;

/// Decoding may take at least this share of the limit.
const DECODE_SHARE: f64 = 0.5;

/// So far from the prediction twice in a row, everything has become slower or faster.
const LEAP: f64 = 3.0;

/// A prompt token in a small step costs up to so much more than in one that is all prefill.
const SMALL_STEP: f64 = 2.0;

/// The least that is computed at once while nobody decodes, and the size of the first step of all, from which it is learned
/// what a token takes. Fewer do not make the best of reading the weights.
const LEAST_FULL: u32 = 64;

/// Whether sizes follow from measured steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunerMode {
    /// They are fixed.
    Static,
    /// They do.
    Adaptive,
}

/// What a tuner starts with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TunerArgs {
    /// Whether it tunes.
    pub mode: TunerMode,
    /// Most tokens in a step while nothing is tuned, decode and prefill together.
    pub step_tokens: u32,
    /// Most tokens in a step that nobody decodes in while sizes are tuned.
    pub full_step_tokens: u32,
    /// The time under which a step is kept that somebody decodes in.
    pub max_step: Duration,
    /// The time under which one is kept that nobody decodes in, if that can be done with 64 tokens; `None`: no bound.
    pub longest_full: Option<Duration>,
}

impl TunerArgs {
    /// For this model: a GPU computes a whole step in no time, and its steps have no bound.
    #[must_use]
    pub fn on(self, model: &ModelInfo) -> Self {
        Self { longest_full: self.longest_full.filter(|_| !model.on_gpu), ..self }
    }
}

/// A step that was computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MeasuredStep {
    /// Sequences that got a token.
    pub decode_rows: u32,
    /// Prompt tokens.
    pub prefill_tokens: u32,
    /// Its time, µs.
    pub step_us: u64,
}

/// What a step may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSizes {
    /// Most tokens, decode and prefill together.
    pub step_tokens: u32,
    /// Most prompt tokens beside at least one decoding sequence.
    pub mixed_prefill_tokens: u32,
}

/// What a tuner believes, for people to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimates {
    /// Time of a step with the last one's decode rows and nothing else, µs.
    pub decode_us: Option<u64>,
    /// Time that a prompt token adds to a step, ns.
    pub prefill_token_ns: Option<u64>,
}

/// Measures and sizes.
#[derive(Debug)]
pub struct Tuner {
    args: TunerArgs,
    /// Steps without prefill: rows, and µs.
    decode: Window<(u32, f64)>,
    /// µs that a prompt token added to a step with decode rows.
    prefill: Window<f64>,
    /// µs of a prompt token in a step without decode rows.
    full: Window<f64>,
    full_tokens: u32,
    mixed_prefill_tokens: u32,
    decode_rows: u32,
    steps_since_change: u32,
    /// How many times as long as predicted the last mixed step took.
    surprise: f64,
}

impl Tuner {
    /// Nothing measured yet: the smallest steps.
    pub fn new(args: TunerArgs) -> Self {
        Self {
            args,
            decode: Window::default(),
            prefill: Window::default(),
            full: Window::default(),
            full_tokens: if args.longest_full.is_some() { least_full(args) } else { args.full_step_tokens },
            mixed_prefill_tokens: MIN_PREFILL_TOKENS,
            decode_rows: 0,
            steps_since_change: STEPS_TO_GROW,
            surprise: 1.0,
        }
    }

    /// Begins with the sizes that another tuner of the same engine has come to. Measured is nothing yet.
    #[must_use]
    pub fn starting_at(self, sizes: StepSizes) -> Self {
        let most = self.args.full_step_tokens;
        Self {
            mixed_prefill_tokens: sizes.mixed_prefill_tokens.clamp(MIN_PREFILL_TOKENS, most.max(MIN_PREFILL_TOKENS)),
            full_tokens: sizes.step_tokens.clamp(self.full_tokens, most),
            ..self
        }
    }

    /// What the next step may carry.
    pub fn sizes(&self) -> StepSizes {
        match self.args.mode {
            TunerMode::Static => StepSizes { step_tokens: self.args.step_tokens, mixed_prefill_tokens: u32::MAX },
            TunerMode::Adaptive => {
                StepSizes { step_tokens: self.full_tokens, mixed_prefill_tokens: self.mixed_prefill_tokens }
            }
        }
    }

    /// What is known of the costs.
    pub fn estimates(&self) -> Estimates {
        let rows = self.decode_rows;
        Estimates {
            decode_us: (rows > 0).then(|| self.decode_us(rows)).flatten().map(|us| us as u64),
            prefill_token_ns: self.prefill_token_us().map(|us| (us * 1000.0) as u64),
        }
    }

    /// Learns from a step. Returns the sizes if they have changed.
    pub fn observe(&mut self, step: MeasuredStep) -> Option<StepSizes> {
        let before = self.sizes();
        let us = step.step_us as f64;
        match (step.decode_rows, step.prefill_tokens) {
            (0, 0) => return None,
            (0, tokens) => self.learn_from_full(tokens, us),
            (rows, 0) => self.decode.push((rows, us)),
            (rows, tokens) => self.learn_from_mixed(rows, tokens, us),
        }
        if step.decode_rows > 0 {
            self.decode_rows = step.decode_rows;
        }
        if self.decode_rows > 0 {
            self.decide();
        }
        let sizes = self.sizes();
        (sizes != before).then_some(sizes)
    }

    /// A step that nobody decoded in. A small one says little of a large one.
    fn learn_from_full(&mut self, tokens: u32, us: f64) {
        let token_us = us / f64::from(tokens);
        if self.prefill.is_empty() {
            self.prefill.push(SMALL_STEP * token_us);
        }
        if tokens < least_full(self.args) {
            return;
        }
        // Slow twice in a row is believed at once, everything else when it is usual.
        let twice = self.full.last().map_or(0.0, |last| token_us.min(*last));
        self.full.push(token_us);
        let target = self.affordable(self.full.median(|us| *us).unwrap_or(token_us).max(twice));
        let ratio = f64::from(target) / f64::from(self.full_tokens.max(1));
        if ratio <= SHRINK || ratio >= GROW || target == self.args.full_step_tokens {
            self.full_tokens = target;
        }
    }

    /// As many prompt tokens as may be read at once while nobody decodes.
    fn affordable(&self, token_us: f64) -> u32 {
        let Some(longest) = self.args.longest_full else { return self.args.full_step_tokens };
        let tokens = longest.as_micros() as f64 / token_us.max(f64::MIN_POSITIVE);
        (tokens as u32).clamp(least_full(self.args), self.args.full_step_tokens)
    }

    fn learn_from_mixed(&mut self, rows: u32, tokens: u32, us: f64) {
        self.steps_since_change += 1;
        self.expect(rows, tokens, us);
        let mean = us / f64::from(rows + tokens);
        let decode_us = self.decode_us(rows);
        // Decoding cannot take longer than the whole step: what is known of it is out of date, or was never known.
        let at_most = if decode_us.is_some() { us } else { mean * f64::from(rows) };
        if decode_us.is_none_or(|decode_us| decode_us > at_most) {
            self.decode.push((rows, at_most));
        }
        let added = us - decode_us.unwrap_or(at_most);
        self.prefill.push((added / f64::from(tokens)).max(LEAST_SHARE * mean));
        // No token costs less beside others than alone.
        let affordable = self.prefill_token_us().map_or(0, |us| self.affordable(us));
        self.full_tokens = self.full_tokens.max(affordable);
    }

    /// Compares a step with what was predicted for it. One surprise is an accident, the second in a row is not.
    fn expect(&mut self, rows: u32, tokens: u32, us: f64) {
        let Some((decode_us, token_us)) = self.decode_us(rows).zip(self.prefill_token_us()) else { return };
        let surprise = us / (decode_us + token_us * f64::from(tokens)).max(1.0);
        let (less, more) = (surprise.min(self.surprise), surprise.max(self.surprise));
        self.surprise = surprise;
        let factor = if less > LEAP {
            less
        } else if more < 1.0 / LEAP {
            more
        } else {
            return;
        };
        self.decode.each(|(_, us)| *us *= factor);
        self.prefill.each(|us| *us *= factor);
        self.surprise = 1.0;
    }

    /// Changes the size of mixed steps if it is worth it.
    fn decide(&mut self) {
        let Some(token_us) = self.prefill_token_us() else { return };
        let decode_us = self.decode_us(self.decode_rows).unwrap_or(0.0);
        let room = (self.args.max_step.as_micros() as f64).max(decode_us / DECODE_SHARE) - decode_us;
        let (least, most) = (f64::from(MIN_PREFILL_TOKENS), f64::from(self.args.full_step_tokens));
        let target = (room / token_us.max(f64::MIN_POSITIVE)).clamp(least, most.max(least));
        let current = f64::from(self.mixed_prefill_tokens);
        let next = if target <= SHRINK * current {
            target
        } else if target >= GROW * current && self.steps_since_change >= STEPS_TO_GROW {
            target.min(2.0 * current)
        } else {
            return;
        };
        self.mixed_prefill_tokens = next as u32;
        self.steps_since_change = 0;
    }

    /// Fewer rows than measured take as long as those, more of them longer in proportion.
    fn decode_us(&self, rows: u32) -> Option<f64> {
        self.decode.median(|(measured, us)| us * (f64::from(rows) / f64::from(*measured)).max(1.0))
    }

    fn prefill_token_us(&self) -> Option<f64> {
        self.prefill.median(|us| *us)
    }
}

fn least_full(args: TunerArgs) -> u32 {
    LEAST_FULL.min(args.full_step_tokens)
}

/// The last few values.
#[derive(Debug)]
struct Window<T> {
    values: [Option<T>; WINDOW],
    next: usize,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { values: [const { None }; WINDOW], next: 0 }
    }
}

impl<T> Window<T> {
    fn push(&mut self, value: T) {
        self.values[self.next] = Some(value);
        self.next = (self.next + 1) % WINDOW;
    }

    fn last(&self) -> Option<&T> {
        self.values[(self.next + WINDOW - 1) % WINDOW].as_ref()
    }

    fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    fn each(&mut self, change: impl FnMut(&mut T)) {
        self.values.iter_mut().flatten().for_each(change);
    }

    /// The median of what the values mean; of two, the greater.
    fn median(&self, of: impl Fn(&T) -> f64) -> Option<f64> {
        let mut sorted = [0.0; WINDOW];
        let mut count = 0;
        for value in self.values.iter().flatten() {
            sorted[count] = of(value);
            count += 1;
        }
        sorted[..count].sort_unstable_by(f64::total_cmp);
        (count > 0).then(|| sorted[count / 2])
    }
}

#[cfg(test)]
mod tests;
