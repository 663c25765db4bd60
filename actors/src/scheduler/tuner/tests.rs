//! Sizes against machines whose costs are known.

use proptest::prelude::*;

use super::*;

const MAX_STEP_US: f64 = 60_000.0;
const FULL: u32 = 512;

const ARGS: TunerArgs = TunerArgs {
    mode: TunerMode::Adaptive,
    step_tokens: 256,
    full_step_tokens: FULL,
    max_step: Duration::from_millis(60),
    longest_full: Some(Duration::from_millis(2500)),
};

/// What a step costs: so much for itself, for a decode row and for a prompt token, µs.
#[derive(Debug, Clone, Copy)]
struct Machine {
    step: f64,
    row: f64,
    token: f64,
}

const MACHINE: Machine = Machine { step: 10_000.0, row: 2500.0, token: 500.0 };

impl Machine {
    fn step_us(&self, rows: u32, tokens: u32) -> f64 {
        self.step + self.row * f64::from(rows) + self.token * f64::from(tokens)
    }

    fn slower(self, times: f64) -> Self {
        Self { step: times * self.step, row: times * self.row, token: times * self.token }
    }

    /// The most prompt tokens that keep a step in time.
    fn ideal(&self, rows: u32) -> f64 {
        let decode = self.step_us(rows, 0);
        let room = MAX_STEP_US.max(2.0 * decode) - decode;
        (room / self.token).clamp(f64::from(MIN_PREFILL_TOKENS), f64::from(FULL))
    }
}

/// A tuner on a machine, with everything it did.
struct Run {
    tuner: Tuner,
    sizes: Vec<u32>,
    times: Vec<f64>,
    changes: usize,
}

impl Run {
    /// A prompt was read, and streams decode.
    fn new(machine: Machine, rows: u32) -> Self {
        let mut run = Self { tuner: Tuner::new(ARGS), sizes: Vec::new(), times: Vec::new(), changes: 0 };
        run.observe(0, FULL, machine.step_us(0, FULL));
        (0..5).for_each(|_| run.observe(rows, 0, machine.step_us(rows, 0)));
        run
    }

    fn observe(&mut self, decode_rows: u32, prefill_tokens: u32, us: f64) {
        let before = self.tuner.sizes();
        let told = self.tuner.observe(MeasuredStep { decode_rows, prefill_tokens, step_us: us as u64 });
        assert_eq!(told, (self.tuner.sizes() != before).then(|| self.tuner.sizes()), "a change is told, and only that");
        self.changes += usize::from(told.is_some());
    }

    /// So many steps with as much prefill as allowed; `factor` is what each step's time is multiplied with.
    fn mixed(&mut self, machine: Machine, rows: u32, steps: usize, mut factor: impl FnMut(usize) -> f64) {
        (self.sizes, self.times, self.changes) = (Vec::new(), Vec::new(), 0);
        for step in 0..steps {
            let tokens = self.tuner.sizes().mixed_prefill_tokens;
            let us = machine.step_us(rows, tokens) * factor(step);
            self.sizes.push(tokens);
            self.times.push(us);
            self.observe(rows, tokens, us);
        }
    }

    fn size(&self) -> f64 {
        f64::from(self.tuner.sizes().mixed_prefill_tokens)
    }
}

#[test]
fn a_tuner_goes_on_where_another_one_was_within_its_bounds() {
    for (before, begun) in
        [((0, 0), (LEAST_FULL, MIN_PREFILL_TOKENS)), ((200, 40), (200, 40)), ((1 << 20, 1 << 20), (FULL, FULL))]
    {
        let sizes = |(step_tokens, mixed_prefill_tokens)| StepSizes { step_tokens, mixed_prefill_tokens };
        assert_eq!(Tuner::new(ARGS).starting_at(sizes(before)).sizes(), sizes(begun));
    }
}

#[test]
fn without_tuning_sizes_are_as_configured_whatever_is_measured() {
    let mut tuner = Tuner::new(TunerArgs { mode: TunerMode::Static, ..ARGS });
    for step_us in [10, 1_000_000] {
        assert_eq!(tuner.observe(MeasuredStep { decode_rows: 4, prefill_tokens: 100, step_us }), None);
    }
    assert_eq!(tuner.sizes(), StepSizes { step_tokens: 256, mixed_prefill_tokens: u32::MAX });
}

#[test]
fn a_step_without_decoding_is_full_whatever_mixed_ones_take() {
    let mut run = Run::new(MACHINE, 8);
    run.mixed(MACHINE.slower(10.0), 8, 50, |_| 1.0);
    assert_eq!(run.tuner.sizes().step_tokens, FULL);
}

#[test]
fn a_step_without_decoding_ends_in_time_on_a_slow_machine_also_the_first_one() {
    // 51, 26, 13 and 6 s for a full step.
    for token in [100_000.0, 50_000.0, 25_000.0, 12_500.0] {
        let machine = Machine { token, ..MACHINE };
        let mut run = Run { tuner: Tuner::new(ARGS), sizes: Vec::new(), times: Vec::new(), changes: 0 };
        for _ in 0..20 {
            let tokens = run.tuner.sizes().step_tokens;
            let us = machine.step_us(0, tokens);
            assert!(us < 2_600_000.0 || tokens == LEAST_FULL, "{tokens} tokens in {us} µs");
            run.observe(0, tokens, us);
        }
        assert!(run.changes <= 2, "{}", run.changes);
        let fastest = Machine { token: 100.0, ..MACHINE };
        (0..WINDOW).for_each(|_| run.observe(0, 64, fastest.step_us(0, 64)));
        assert_eq!(run.tuner.sizes().step_tokens, FULL, "it is fast now");
        run.observe(0, FULL, machine.step_us(0, FULL));
        assert_eq!(run.tuner.sizes().step_tokens, FULL, "an accident");
        run.observe(0, FULL, machine.step_us(0, FULL));
        let us = machine.step_us(0, run.tuner.sizes().step_tokens);
        assert!(us < 2_600_000.0 || run.tuner.sizes().step_tokens == LEAST_FULL, "it is slow again: {us}");
    }
}

#[test]
fn where_full_steps_have_no_bound_they_are_full_from_the_first_one() {
    let mut tuner = Tuner::new(TunerArgs { longest_full: None, ..ARGS });
    assert_eq!(tuner.sizes().step_tokens, FULL);
    tuner.observe(MeasuredStep { decode_rows: 0, prefill_tokens: FULL, step_us: 60_000_000 });
    assert_eq!(tuner.sizes().step_tokens, FULL);
}

#[test]
fn a_machine_that_is_never_without_streams_learns_of_full_steps_too() {
    let mut run = Run { tuner: Tuner::new(ARGS), sizes: Vec::new(), times: Vec::new(), changes: 0 };
    run.mixed(MACHINE, 8, 60, |_| 1.0);
    assert_eq!(run.tuner.sizes().step_tokens, FULL);
}

#[test]
fn a_machine_on_which_nothing_is_fast_enough_gets_the_least_prefill() {
    let slow = Machine { token: 50_000.0, ..MACHINE };
    let mut run = Run::new(slow, 8);
    run.mixed(slow, 8, 100, |_| 1.0);
    assert_eq!(run.sizes, vec![MIN_PREFILL_TOKENS; 100]);
}

#[test]
fn where_decoding_alone_takes_longer_than_the_limit_prompts_get_as_much_time() {
    let slow = Machine { step: 100_000.0, ..MACHINE };
    let mut run = Run::new(slow, 8);
    run.mixed(slow, 8, 100, |_| 1.0);
    let steps = run.times[50..].iter().map(|us| us / slow.step_us(8, 0));
    assert!(steps.clone().all(|times| (1.7..=2.05).contains(&times)), "{:?}", steps.collect::<Vec<_>>());
}

#[test]
fn where_prefill_costs_nothing_steps_become_full() {
    let free = Machine { token: 0.0, ..MACHINE };
    let mut run = Run::new(free, 8);
    run.mixed(free, 8, 100, |_| 1.0);
    assert_eq!(run.size(), f64::from(FULL));
}

#[test]
fn a_slow_step_now_and_then_changes_little() {
    let mut run = Run::new(MACHINE, 8);
    run.mixed(MACHINE, 8, 100, |_| 1.0);
    run.mixed(MACHINE, 8, 500, |step| if step % 11 == 0 { 20.0 } else { 1.0 });
    let least = run.sizes.iter().min().copied().map(f64::from);
    assert!(least >= Some(0.7 * MACHINE.ideal(8)), "{least:?}");
}

#[test]
fn what_it_believes_can_be_seen() {
    let mut run = Run::new(MACHINE, 8);
    run.mixed(MACHINE, 8, 50, |_| 1.0);
    let Estimates { decode_us, prefill_token_ns } = run.tuner.estimates();
    assert_eq!((decode_us, prefill_token_ns), (Some(30_000), Some(500_000)));
}

fn machine() -> impl Strategy<Value = (Machine, u32)> {
    let costs = (1_000.0..60_000.0f64, 100.0..3_000.0f64, 50.0..3_000.0f64);
    (costs, 1u32..9).prop_map(|((step, row, token), rows)| (Machine { step, row, token }, rows))
}

proptest! {
    /// On a steady machine steps come close to the limit, keep under it, and then nothing changes any more.
    #[test]
    fn a_steady_machine_is_used_up_to_the_limit((machine, rows) in machine()) {
        let mut run = Run::new(machine, rows);
        run.mixed(machine, rows, 60, |_| 1.0);
        let ideal = machine.ideal(rows);
        run.mixed(machine, rows, 100, |_| 1.0);
        prop_assert_eq!(run.changes, 0);
        prop_assert!(run.size() >= (0.78 * ideal).floor() && run.size() <= 1.12 * ideal, "{} of {ideal}", run.size());
    }

    /// Noise of a third up and down neither starves the prompts nor keeps the size swinging. Where a step is nearly all
    /// fixed cost, what a token costs hides in the noise, and half of what would be right is near enough.
    #[test]
    fn a_noisy_machine_is_served_evenly((machine, rows) in machine(), seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut run = Run::new(machine, rows);
        run.mixed(machine, rows, 60, |_| 0.67 + 0.66 * random.f64());
        run.mixed(machine, rows, 1000, |_| 0.67 + 0.66 * random.f64());
        let ideal = machine.ideal(rows);
        let mean = run.sizes.iter().map(|size| f64::from(*size)).sum::<f64>() / 1000.0;
        prop_assert!(mean >= 0.5 * ideal && mean <= 1.3 * ideal.max(24.0), "{mean} of {ideal}");
        prop_assert!(run.changes <= 250, "{} changes", run.changes);
    }

    /// Ten times slower from one step to the next: after six steps the size is right again, and after the end of it, too.
    #[test]
    fn a_sudden_slowdown_is_followed_at_once((machine, rows) in machine()) {
        let mut run = Run::new(machine, rows);
        run.mixed(machine, rows, 100, |_| 1.0);
        let slow = machine.slower(10.0);
        run.mixed(slow, rows, 6, |_| 1.0);
        prop_assert!(run.size() <= 1.3 * slow.ideal(rows), "{} of {}", run.size(), slow.ideal(rows));
        run.mixed(machine, rows, 100, |_| 1.0);
        prop_assert!(run.size() >= 0.6 * machine.ideal(rows), "{} of {}", run.size(), machine.ideal(rows));
    }
}
