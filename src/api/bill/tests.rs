//! Usage and timings of several sequences in one bill.

use cllm_actors::FinishReason;
use serde_json::json;

use super::*;

fn end(prompt: u32, cached: u32, completion: u32, times_ms: [u64; 3]) -> Finished {
    let [queue, prefill, decode] = times_ms.map(Duration::from_millis);
    Finished {
        reason: FinishReason::Length,
        usage: Usage { prompt_tokens: prompt, cached_tokens: cached, completion_tokens: completion },
        timings: Timings { queue, prefill, decode },
        resumed: 0,
    }
}

#[test]
fn a_prompt_counts_once_however_many_choices_it_has() {
    let ends = [end(10, 0, 3, [0; 3]), end(10, 9, 4, [0; 3]), end(20, 8, 5, [0; 3]), end(20, 19, 6, [0; 3])];
    let usage = Bill::new(&ends, 2).usage_object();
    let expected = json!({
        "prompt_tokens": 30, "completion_tokens": 18, "total_tokens": 48,
        "prompt_tokens_details": { "cached_tokens": 8 },
    });
    assert_eq!(json!(usage), expected);
}

#[test]
fn rates_leave_the_first_token_out() {
    let ends = [end(12, 2, 5, [1, 100, 200])];
    let expected = json!({
        "cache_n": 2, "prompt_n": 10, "prompt_ms": 100.0, "prompt_per_token_ms": 10.0, "prompt_per_second": 100.0,
        "predicted_n": 5, "predicted_ms": 200.0, "predicted_per_token_ms": 50.0, "predicted_per_second": 20.0,
        "queue_ms": 1.0,
    });
    assert_eq!(json!(Bill::new(&ends, 1).timings_object()), expected);
}

#[test]
fn of_several_sequences_the_slowest_sets_the_times() {
    let ends = [end(1, 0, 2, [5, 10, 20]), end(1, 0, 2, [1, 30, 10])];
    let slowest = Bill::new(&ends, 2).slowest();
    assert_eq!([slowest.queue, slowest.prefill, slowest.decode].map(|time| time.as_millis()), [5, 30, 20]);
}

#[test]
fn nothing_generated_gives_rates_of_zero() {
    let timings = json!(Bill::new(&[end(1, 1, 0, [0; 3])], 1).timings_object());
    assert_eq!((&timings["predicted_per_second"], &timings["prompt_per_token_ms"]), (&json!(0.0), &json!(0.0)));
}
