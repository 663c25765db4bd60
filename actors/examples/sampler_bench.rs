//! Prints the time that the sampler takes for a token, by vocabulary and parameters.
//!
//! `cargo run --release --no-default-features -p cllm-actors --example sampler_bench`
#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cllm_actors::SamplingParams;
use cllm_actors::engine::logprobs::token_logprob;
use cllm_actors::engine::model::{ControlTokens, Vocabulary};
use cllm_actors::engine::protocol::{AddSpecial, TextPart, Token};
use cllm_actors::engine::sampler::{Sampler, Scratch};
use cllm_actors::sampling::DryParams;

/// Rows that take turns: more than the caches of a core hold.
const ROWS: usize = 16;
/// Tokens per measurement, and how many measurements the median is taken of.
const TOKENS: usize = 64;
const ROUNDS: usize = 41;

/// Every token is the same letter; the last one ends.
struct Letters(usize);

impl Vocabulary for Letters {
    fn n_tokens(&self) -> u32 {
        self.0 as u32
    }

    fn tokenize(&self, _: &[TextPart], _: AddSpecial) -> Result<Vec<Token>, String> {
        Ok(Vec::new())
    }

    fn piece(&self, _: Token, _: ControlTokens, out: &mut Vec<u8>) {
        out.push(b'a');
    }

    fn is_end(&self, token: Token) -> bool {
        token as usize + 1 == self.0
    }
}

/// Logits as of a model: a bell of standard deviation 2.5 and a few tokens that stand out.
fn rows(n_vocab: usize) -> Vec<Vec<f32>> {
    let mut source = fastrand::Rng::with_seed(1);
    let mut bell = move || (0..12).map(|_| source.f32()).sum::<f32>() - 6.0;
    let mut source = fastrand::Rng::with_seed(2);
    (0..ROWS)
        .map(|_| {
            let mut row: Vec<f32> = (0..n_vocab).map(|_| bell() * 2.5).collect();
            for extra in 0..30 {
                row[source.usize(..n_vocab)] = 18.0 - extra as f32 * 0.3;
            }
            row
        })
        .collect()
}

/// Median time of one call.
fn median(rows: &[Vec<f32>], mut run: impl FnMut(&[f32])) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            rows.iter().cycle().take(TOKENS).for_each(|row| run(row));
            start.elapsed() / TOKENS as u32
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

fn cases() -> Vec<(&'static str, SamplingParams)> {
    let default = SamplingParams { seed: Some(1), ..SamplingParams::default() };
    let all = SamplingParams { top_k: 0, ..default.clone() };
    let dry = DryParams { multiplier: 0.8, ..DryParams::default() };
    let penalties = SamplingParams {
        repeat_penalty: 1.1,
        frequency_penalty: 0.1,
        presence_penalty: 0.1,
        logit_bias: vec![(5, -1.0), (9, 2.0)].into(),
        ignore_eos: true,
        dry,
        ..default.clone()
    };
    vec![
        ("greedy", SamplingParams { temperature: 0.0, ..default.clone() }),
        ("default", default),
        ("penalties, DRY, bias", penalties),
        ("top_k 0", all.clone()),
        ("top_k 0, top_p alone", SamplingParams { min_p: 0.0, ..all.clone() }),
        ("top_k 0, top_p 1, min_p 0", SamplingParams { min_p: 0.0, top_p: 1.0, ..all.clone() }),
        ("top_k 0, temperature 2, typical", SamplingParams { temperature: 2.0, typical_p: 0.9, ..all }),
    ]
}

fn main() {
    for n_vocab in [49_152, 151_936] {
        let (rows, mut scratch) = (rows(n_vocab), Scratch::new(n_vocab));
        let vocabulary: Arc<dyn Vocabulary> = Arc::new(Letters(n_vocab));
        let prompt: Vec<Token> = (0..200).collect();
        let report =
            |name: &str, time: Duration| println!("{n_vocab:>7}  {:>7.1} µs  {name}", time.as_secs_f64() * 1e6);
        for (name, params) in cases() {
            let mut sampler = Sampler::new(&params, &prompt, 200, &vocabulary);
            report(name, median(&rows, |row| _ = black_box(sampler.sample(row, &mut scratch))));
        }
        report(
            "logprobs, top 20",
            median(&rows, |row| _ = black_box(token_logprob(row, 3, 20, &*vocabulary, &mut scratch))),
        );
        let ignoring = SamplingParams { ignore_eos: true, ..SamplingParams::default() };
        report(
            "new sampler that ignores end tokens",
            median(&rows, |_| _ = black_box(Sampler::new(&ignoring, &prompt, 200, &vocabulary))),
        );
    }
}
