//! Runs a model inside a program of your own, without a server, and prints the answer as it comes.
//!
//! ```text
//! cargo run --example embed_in_process                      # the fake engine: gibberish, but no model is needed
//! cargo run --release --example embed_in_process model.gguf
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::io::{self, Write};

use cllm_actors::prompt::ChatPrompt;
use cllm_actors::{GenerateError, GenerateRequest, GenerationEvent, System};
use futures_util::StreamExt;
use serde_json::{Map, json};

#[tokio::main]
async fn main() -> Result<(), GenerateError> {
    let mut builder = System::builder();
    if let Some(path) = std::env::args().nth(1) {
        builder = builder.model(path);
    }
    let system = builder.start().await?;
    system.ready().await?;

    let mut generation = system.generate(question()).await?;
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Delta(delta) => show(&delta.text),
            GenerationEvent::Finished(end) => println!("\n[{:?}, {:?}]", end.reason, end.usage),
            GenerationEvent::Failed(error) => return Err(error),
            // Its place in the queue, the length of its prompt.
            GenerationEvent::Queued { .. } | GenerationEvent::Started { .. } | GenerationEvent::Prompt(_) => {}
        }
    }
    system.stop().await;
    Ok(())
}

fn question() -> GenerateRequest {
    let mut request = GenerateRequest::chat(ChatPrompt {
        messages: vec![
            json!({ "role": "user", "content": "What is the capital of France? Answer in one short sentence." }),
        ],
        tools: Vec::new(),
        add_generation_prompt: true,
        variables: Map::new(),
    });
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(64);
    request
}

/// A terminal holds a line back until it is complete, unless told otherwise.
fn show(text: &str) {
    print!("{text}");
    // A terminal that is gone has nothing to show.
    let _ = io::stdout().flush();
}
