//! Runs the engine in a process of its own, kills it in the middle of an answer, and prints that the answer goes on.
//!
//! ```text
//! cargo run --example embed_isolated                      # the fake engine: gibberish, but no model is needed
//! cargo run --release --example embed_isolated model.gguf
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::process::{Command, ExitCode};
use std::time::Duration;

use cllm_actors::engine::host::{HostKind, ProcessOptions};
use cllm_actors::engine::run_if_child;
use cllm_actors::engine::spec::{EngineSpec, FakeSpec};
use cllm_actors::{GenerateError, GenerateRequest, GenerationEvent, System};
use futures_util::StreamExt;

const TOKENS: u32 = 200;

/// In a `main` with `#[tokio::main]` this would come too late: the engine process needs no runtime.
fn main() -> anyhow::Result<ExitCode> {
    // The engine is this program, started once more.
    if let Some(code) = run_if_child() {
        return Ok(code);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(answer())?;
    Ok(ExitCode::SUCCESS)
}

async fn answer() -> Result<(), GenerateError> {
    let builder = System::builder().host(HostKind::Process(ProcessOptions::default()));
    let system = match std::env::args().nth(1) {
        Some(path) => builder.model(path),
        None => {
            builder.engine(EngineSpec::Fake(FakeSpec { step_time: Duration::from_millis(5), ..FakeSpec::default() }))
        }
    };
    let system = system.start().await?;
    system.ready().await?;

    let mut request = GenerateRequest::text("Once upon a time");
    request.sampling.ignore_eos = true;
    request.max_tokens = Some(TOKENS);
    let mut generation = system.generate(request).await?;
    let mut tokens = 0;
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Delta(delta) => {
                if tokens == 0 {
                    kill_engine(&system);
                }
                tokens += delta.tokens.len();
            }
            GenerationEvent::Finished(end) => println!("{tokens} tokens, resumed {}", end.resumed),
            GenerationEvent::Failed(error) => return Err(error),
            _ => {}
        }
    }
    system.stop().await;
    Ok(())
}

/// As an abort inside llama.cpp, or the kernel's OOM killer, would end it.
fn kill_engine(system: &System) {
    let shown = system.actor("engine-0/backend-0");
    let pid = shown.and_then(|backend| backend.state.as_ref()?.get("pid")?.as_u64());
    let Some(pid) = pid else { return println!("the engine's process is not known") };
    match Command::new("kill").args(["-9", &pid.to_string()]).status() {
        Ok(status) if status.success() => println!("killed the engine, process {pid}"),
        _ => println!("cannot kill process {pid}"),
    }
}
