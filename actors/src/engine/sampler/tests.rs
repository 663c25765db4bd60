//! Tests of the whole sampler, and what the tests of its parts share.

mod chain;

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Sampler, Scratch};
use crate::engine::model::{ControlTokens, Vocabulary};
use crate::engine::protocol::{AddSpecial, TextPart, Token};
use crate::sampling::{DryParams, SamplingParams};

/// A vocabulary of a few words. The longest word is taken first; "</s>" is a control token that ends.
pub(crate) struct Words(Vec<String>);

const END: &str = "</s>";

impl Words {
    pub(crate) fn new(words: &[&str]) -> Self {
        Self(words.iter().map(|&word| word.to_owned()).collect())
    }
}

impl Vocabulary for Words {
    fn n_tokens(&self) -> u32 {
        self.0.len() as u32
    }

    fn tokenize(&self, parts: &[TextPart], _: AddSpecial) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        for part in parts {
            let mut rest = part.text.as_str();
            while !rest.is_empty() {
                let fits = |(_, word): &(usize, &String)| rest.starts_with(word.as_str());
                let longest = self.0.iter().enumerate().filter(fits).max_by_key(|(_, word)| word.len());
                let (id, word) = longest.ok_or("no token for the text")?;
                tokens.push(id as Token);
                rest = &rest[word.len()..];
            }
        }
        Ok(tokens)
    }

    fn piece(&self, token: Token, control: ControlTokens, out: &mut Vec<u8>) {
        let word = &self.0[token as usize];
        if word != END || control == ControlTokens::Show {
            out.extend_from_slice(word.as_bytes());
        }
    }

    fn is_end(&self, token: Token) -> bool {
        self.0[token as usize] == END
    }
}

/// Rows with ties, NaN and negative infinity among common values.
pub(crate) fn row(length: Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        20 => -10.0_f32..10.0,
        5 => (-20_i8..20).prop_map(|half| f32::from(half) / 2.0),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ];
    prop::collection::vec(logit, length)
}

/// Ten words, of which 8 and 9 end.
fn vocabulary() -> Arc<dyn Vocabulary> {
    Arc::new(Words::new(&["a", "b", "c", "d", "e", "f", "g", "h", END, END]))
}

fn sampler(params: &SamplingParams) -> Sampler {
    Sampler::new(params, &[], 0, &vocabulary())
}

fn sample(params: &SamplingParams, row: &[f32]) -> Token {
    sampler(params).sample(row, &mut Scratch::default())
}

fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}

/// Parameters under which every token keeps its probability.
fn neutral() -> SamplingParams {
    SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(7), ..SamplingParams::default() }
}

/// Parameters that use everything at once.
fn everything(seed: u64) -> SamplingParams {
    SamplingParams {
        temperature: 1.3,
        top_k: 9,
        top_p: 0.97,
        min_p: 0.01,
        typical_p: 0.98,
        repeat_penalty: 1.1,
        repeat_last_n: 7,
        frequency_penalty: 0.1,
        presence_penalty: 0.1,
        dry: DryParams {
            multiplier: 0.8,
            penalty_last_n: 11,
            sequence_breakers: vec!["c".into()],
            ..DryParams::default()
        },
        xtc_probability: 0.5,
        xtc_threshold: 0.1,
        seed: Some(seed),
        logit_bias: vec![(3, 0.5), (0, -0.5)].into(),
        ignore_eos: true,
    }
}

/// A stand-in for a model: logits that depend on all tokens so far.
fn logits_after(tokens: &[Token]) -> [f32; 10] {
    let mut state =
        tokens.iter().fold(17_u64, |hash, &token| (hash ^ token as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 * 4.0
    })
}

fn extend(params: &SamplingParams, tokens: &mut Vec<Token>, prompt_len: usize, count: usize) {
    let mut sampler = Sampler::new(params, tokens, prompt_len, &vocabulary());
    let mut scratch = Scratch::new(10);
    for _ in 0..count {
        let token = sampler.sample(&logits_after(tokens), &mut scratch);
        tokens.push(token);
    }
}

proptest! {
    #[test]
    fn a_resumed_sequence_continues_exactly(
        prompt in prop::collection::vec(0..10, 1..30),
        seed in any::<u64>(),
        stop in 0_usize..40,
        all_in_reach in any::<bool>(),
    ) {
        let mut params = everything(seed);
        if all_in_reach {
            (params.repeat_last_n, params.dry.penalty_last_n, params.top_k) = (-1, -1, 0);
        }
        let (mut whole, mut resumed) = (prompt.clone(), prompt.clone());
        extend(&params, &mut whole, prompt.len(), 40);
        extend(&params, &mut resumed, prompt.len(), stop);
        extend(&params, &mut resumed, prompt.len(), 40 - stop);
        prop_assert_eq!(whole, resumed);
    }

    #[test]
    fn any_row_gives_a_token_of_it_and_greedy_the_first_greatest(row in row(1..300), seed in any::<u64>()) {
        let in_row = 0..row.len() as Token;
        let all = SamplingParams { top_k: 0, ..everything(seed) };
        for params in [everything(seed), all, neutral()] {
            let token = sample(&params, &row);
            prop_assert!(in_row.contains(&token), "{}", token);
        }
        let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let is_greatest = |&logit: &f32| logit == greatest && logit > f32::NEG_INFINITY;
        let first = row.iter().position(is_greatest).unwrap_or(0);
        prop_assert_eq!(sample(&greedy(), &row), first as Token);
    }

    #[test]
    fn a_token_without_probability_is_not_drawn(row in row(1..300), seed in any::<u64>(), top_k in 0_u32..400) {
        prop_assume!(row.iter().any(|&logit| logit > f32::NEG_INFINITY));
        for params in [SamplingParams { seed: Some(seed), ..neutral() }, SamplingParams { top_k, ..everything(seed) }] {
            let params = SamplingParams { ignore_eos: false, ..params };
            let logit = row[sample(&params, &row) as usize];
            prop_assert!(logit > f32::NEG_INFINITY, "{}", logit);
        }
    }
}

#[test]
fn greedy_takes_the_lowest_of_equal_tokens() {
    assert_eq!(sample(&greedy(), &[0.0, 3.0, 1.0, 3.0]), 1);
    assert_eq!(sample(&greedy(), &[0.0, -0.0]), 0);
}

#[test]
fn bias_moves_and_bans_tokens() {
    let row = [1.0, 0.5, 0.0, -0.5];
    let biased = |biases: &[(Token, f32)]| sample(&SamplingParams { logit_bias: biases.into(), ..greedy() }, &row);
    assert_eq!(biased(&[(1, 1.0)]), 1);
    assert_eq!(biased(&[(0, f32::NEG_INFINITY)]), 1);
    assert_eq!(biased(&[(0, -100.0), (1, -100.0)]), 2);
    assert_eq!(biased(&[(3, 100.0)]), 3);
    assert_eq!(biased(&[(3, 1.0), (3, 1.0)]), 3);
}

#[test]
fn penalties_see_the_prompt_and_what_was_sampled() {
    let params = SamplingParams { presence_penalty: 1.0, ..greedy() };
    let mut sampler = Sampler::new(&params, &[0], 1, &vocabulary());
    let row = [1.0, 0.9, 0.8, -0.5];
    let mut scratch = Scratch::default();
    assert_eq!([(); 4].map(|()| sampler.sample(&row, &mut scratch)), [1, 2, 0, 0]);
}

#[test]
fn ignored_end_tokens_are_never_drawn() {
    let mut row = [0.0; 10];
    (row[8], row[9]) = (50.0, 60.0);
    assert_eq!(sample(&greedy(), &row), 9);
    let ignoring = |params| SamplingParams { ignore_eos: true, ..params };
    assert_eq!(sample(&ignoring(greedy()), &row), 0);
    for seed in 0..50 {
        assert!(sample(&ignoring(SamplingParams { seed: Some(seed), ..neutral() }), &row) < 8);
    }
}

#[test]
fn ignored_end_tokens_are_not_drawn_even_when_all_else_is_banned() {
    for params in [greedy(), neutral()] {
        let logit_bias = (0..8).map(|token| (token, f32::NEG_INFINITY)).collect();
        let params = SamplingParams { ignore_eos: true, logit_bias, ..params };
        let mut row = [0.0; 10];
        row[5] = 1.0;
        assert_eq!(sample(&params, &row), 5);
        row[..8].fill(f32::NAN);
        assert_eq!(sample(&params, &row), 0);
    }
}

#[test]
fn rows_without_any_probability_give_the_lowest_token() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        for params in [greedy(), neutral(), SamplingParams::default(), everything(1)] {
            assert_eq!(sample(&params, &[value; 10]), 0);
        }
    }
    let only_ends: Arc<dyn Vocabulary> = Arc::new(Words::new(&[END, END]));
    let params = SamplingParams { ignore_eos: true, ..greedy() };
    assert_eq!(Sampler::new(&params, &[], 0, &only_ends).sample(&[1.0, 2.0], &mut Scratch::default()), 0);
}

#[test]
fn an_infinite_logit_wins() {
    for params in [greedy(), neutral(), SamplingParams::default()] {
        assert_eq!(sample(&params, &[f32::MAX.next_down(), 1.0, f32::INFINITY, 2.0]), 2);
    }
}

#[test]
fn tokens_out_of_range_of_the_row_are_passed_over() {
    let params = SamplingParams { presence_penalty: 1.0, logit_bias: vec![(-1, 5.0), (99, 5.0)].into(), ..greedy() };
    let mut sampler = Sampler::new(&params, &[-5, 77], 2, &vocabulary());
    assert_eq!(sampler.sample(&[0.0, 1.0], &mut Scratch::default()), 1);
}

#[test]
fn the_same_seed_draws_the_same_and_another_differs() {
    let draw = |seed| {
        let mut tokens = vec![1];
        extend(&SamplingParams { seed: Some(seed), ..neutral() }, &mut tokens, 1, 30);
        tokens
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
