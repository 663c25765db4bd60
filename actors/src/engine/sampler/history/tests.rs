//! Counts of recent tokens against a plain recount.

use proptest::prelude::*;

use super::{Penalties, Window};
use crate::engine::protocol::Token;
use crate::sampling::SamplingParams;

/// The last `last_n` tokens, written down the obvious way.
fn last(tokens: &[Token], last_n: i32) -> &[Token] {
    let n = usize::try_from(last_n).unwrap_or(tokens.len());
    &tokens[tokens.len().saturating_sub(n)..]
}

fn slow_penalties(params: &SamplingParams, tokens: &[Token], row: &mut [f32]) {
    let window = last(tokens, params.repeat_last_n);
    for (token, logit) in (0..).zip(row) {
        let count = window.iter().filter(|&&seen| seen == token).count() as f32;
        if count > 0.0 {
            *logit = if *logit > 0.0 { *logit / params.repeat_penalty } else { *logit * params.repeat_penalty };
            *logit -= count * params.frequency_penalty + params.presence_penalty;
        }
    }
}

proptest! {
    #[test]
    fn window_holds_the_last_tokens(start in prop::collection::vec(0..9, 0..40), more in prop::collection::vec(0..9, 0..80), last_n in -1..20) {
        let mut window = Window::new(&start, last_n);
        let mut all = start;
        for token in more {
            let before = last(&all, last_n).len();
            all.push(token);
            let leaves = last(&all, last_n).len() == before;
            let expected = if last_n == 0 { Some(token) } else { leaves.then(|| all[all.len() - 1 - before]) };
            if last_n != 0 {
                prop_assert_eq!(window.push(token), expected);
                prop_assert_eq!(window.tokens(), last(&all, last_n));
            }
        }
    }

    #[test]
    fn penalties_agree_with_a_recount(
        start in prop::collection::vec(0..12, 0..40),
        more in prop::collection::vec(0..12, 0..40),
        last_n in -1..30,
        repeat in 0.1_f32..2.0, frequency in -2.0_f32..2.0, presence in -2.0_f32..2.0,
    ) {
        let params = SamplingParams { repeat_last_n: last_n, repeat_penalty: repeat, frequency_penalty: frequency,
            presence_penalty: presence, ..SamplingParams::default() };
        let Some(mut penalties) = Penalties::new(&params, &start) else { return Ok(()) };
        let mut all = start;
        for token in more {
            all.push(token);
            penalties.accept(token);
            let (mut fast, mut slow) = ([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            penalties.apply(&mut fast);
            slow_penalties(&params, &all, &mut slow);
            prop_assert_eq!(fast, slow);
        }
    }
}

#[test]
fn neutral_values_and_an_empty_window_turn_penalties_off() {
    assert!(Penalties::new(&SamplingParams::default(), &[1, 2]).is_none());
    let params = SamplingParams { repeat_penalty: 1.5, repeat_last_n: 0, ..SamplingParams::default() };
    assert!(Penalties::new(&params, &[1, 2]).is_none());
}

#[test]
fn a_window_of_the_greatest_size_takes_no_more_memory_than_its_tokens_need() {
    let params = SamplingParams { presence_penalty: 1.0, repeat_last_n: i32::MAX, ..SamplingParams::default() };
    let penalties = Penalties::new(&params, &[1, 2]).expect("on");
    assert!(penalties.window.tokens.capacity() < 10_000);
}
