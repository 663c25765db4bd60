//! The seed's formulas, on its own figures.

use std::time::{Duration, Instant};

use super::*;

/// Requests that began and ended at these seconds and claim this rate.
fn wave(times: &[(f64, f64)], rate: f64, tokens: u32) -> Wave {
    let began = Instant::now();
    let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
    let seen = times.iter().enumerate().map(|(index, (sent, ended))| Seen {
        asked: SEED_PROMPTS[index % 5].to_owned(),
        sent: at(*sent),
        ended: at(*ended),
        ending: Ending::Complete,
        tokens,
        claimed_rate: Some(rate),
        ..Seen::begin("")
    });
    let wall = times.iter().map(|(_, ended)| Duration::from_secs_f64(*ended)).max().unwrap_or_default();
    Wave { seen: seen.collect(), wall, client_cpu: None }
}

fn row(figures: &[f64], name: &str) -> f64 {
    figures[ROWS.iter().position(|(row, ..)| *row == name).expect("it is a row")]
}

#[test]
fn ten_requests_of_1_248_s_give_the_seeds_first_column() {
    let times: Vec<(f64, f64)> =
        (0..10).map(|index| (f64::from(index) * 1.248, f64::from(index + 1) * 1.248)).collect();
    // A rate just above 50 / 1.248: the seed rounds down.
    let figures = figures(&wave(&times, 40.0642, 50));
    assert_eq!(row(&figures, "tokens processed (old formula)"), 928.0);
    for (name, expected) in [
        ("whole test, s", 12.48),
        ("mean answer time, s", 1.248),
        ("throughput, tokens/s (old formula)", 40.06),
        ("tokens of an answer (old formula)", 50.0),
        ("success rate, %", 100.0),
        (HONEST_ROW, 40.06),
    ] {
        assert!((row(&figures, name) - expected).abs() < 0.01, "{name}: {figures:?}");
    }
}

#[test]
fn waiting_before_the_servers_clock_inflates_the_old_formula_and_not_the_count() {
    // 4.90 s for the client, of which the server's clock saw enough for 50 tokens at 12.65 per second.
    let figures = figures(&wave(&[(0.0, 4.9); 5], 12.65, 50));
    assert_eq!(row(&figures, "tokens of an answer (old formula)"), 61.0);
    assert_eq!(row(&figures, "completion tokens (counted)"), 250.0);
}

#[test]
fn a_failed_request_is_in_no_mean_but_in_the_count() {
    let mut wave = wave(&[(0.0, 1.0), (0.0, 9.0)], 10.0, 10);
    wave.seen[1].ending = Ending::Failed("status 500".to_owned());
    let figures = figures(&wave);
    assert_eq!((row(&figures, "failed"), row(&figures, "success rate, %")), (1.0, 50.0));
    assert_eq!(row(&figures, "longest answer time, s"), 1.0);
}

#[test]
fn without_a_claimed_rate_characters_or_words_are_counted() {
    let text = |text: &str| estimate(&Seen { text: text.to_owned(), ..Seen::begin("") });
    assert_eq!((text("two words"), text("你好吗")), (2.0, 3.0));
}
