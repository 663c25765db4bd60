//! The ceiling: decode speed of the llama.cpp engine alone, with no loop, actors or HTTP around it.
//!
//! `cargo run --release -p cllm-actors --example raw_decode -- MODEL.gguf [THREADS]`: what `cllm bench --scenario throughput`
//! asks for, prompts of 46 tokens whose first 27 are known already and 50 new tokens each, greedy, for 1 and 10 sequences
//! at a time. The second figure is per second of CPU time over all threads, which a busy machine disturbs less.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::fs;
use std::ops::Range;
use std::time::{Duration, Instant};

use cllm_actors::engine::batch::{Batch, Row};
use cllm_actors::engine::llama::{LlamaEngine, load};
use cllm_actors::engine::model::Model;
use cllm_actors::engine::protocol::Token;
use cllm_actors::engine::spec::LlamaSpec;

const PROMPT: u32 = 46;
/// Tokens of each prompt that are in the cache before the time begins.
const KNOWN: u32 = 27;
/// Those that are read in the time.
const READ: u32 = PROMPT - KNOWN;
const NEW: u32 = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: raw_decode MODEL.gguf [THREADS]")?;
    let n_threads = args.next().map_or(Ok(2), |threads| threads.parse())?;
    let mut engine = load(&LlamaSpec { n_threads, running: 10, ..LlamaSpec::new(path) }, |_| true)?;
    println!("{}; {n_threads} threads; {}", engine.info().description, engine.info().system);
    for sequences in [1, 10, 1, 10] {
        measure(&mut engine, sequences)?;
    }
    Ok(())
}

/// Runs the sequences side by side and prints what they achieve.
fn measure(engine: &mut LlamaEngine, sequences: u32) -> Result<(), Box<dyn Error>> {
    for sequence in 0..sequences {
        engine.truncate(sequence, 0);
    }
    engine.decode(&prompts(sequences, 0..KNOWN)?)?;
    let mut batch = prompts(sequences, KNOWN..PROMPT)?;
    let (start, cpu) = (Instant::now(), cpu_time());
    engine.decode(&batch)?;
    let mut next: Vec<_> = (1..=sequences).map(|n| argmax(engine.logits((n * READ) as usize - 1))).collect();
    let prefill = start.elapsed();
    for position in PROMPT..PROMPT + NEW - 1 {
        batch.clear();
        for (sequence, token) in (0..).zip(&next) {
            batch.push(Row { token: *token, position, sequence, output: true });
        }
        engine.decode(&batch)?;
        for (row, token) in next.iter_mut().enumerate() {
            *token = argmax(engine.logits(row));
        }
    }
    let (wall, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    let rate = |time: Duration| f64::from(sequences * NEW) / time.as_secs_f64();
    let prefill_rate = f64::from(sequences * READ) / prefill.as_secs_f64();
    let (wall, cpu) = (rate(wall), rate(cpu));
    println!(
        "{sequences:3} sequences: {wall:7.1} tokens/s, {cpu:7.1} per CPU second; prefill {prefill_rate:7.1} tokens/s"
    );
    Ok(())
}

/// These positions of every sequence's prompt; only the last token of a prompt asks for logits.
fn prompts(sequences: u32, positions: Range<u32>) -> Result<Batch, Box<dyn Error>> {
    let mut batch = Batch::with_capacity(sequences as usize * positions.len());
    for sequence in 0..sequences {
        for position in positions.clone() {
            let token = i32::try_from(1000 + sequence * 100 + position)?;
            batch.push(Row { token, position, sequence, output: position + 1 == PROMPT });
        }
    }
    Ok(batch)
}

fn argmax(logits: &[f32]) -> Token {
    let best = logits.iter().zip(0..).max_by(|a, b| a.0.total_cmp(b.0));
    best.map_or(0, |(_, token)| token)
}

/// CPU time of the process, where Linux tells: fields 14 and 15 of its `stat`, in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}
