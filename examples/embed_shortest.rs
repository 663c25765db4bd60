//! The shortest program that embeds the actors; README.md shows it. It wants a `model.gguf` in the current folder.
#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use cllm_actors::{GenerateError, GenerateRequest, GenerationEvent, System};
use futures_util::StreamExt;

#[tokio::main]
async fn main() -> Result<(), GenerateError> {
    let system = System::builder().model("model.gguf").start().await?; // without `.model`: the fake engine
    system.ready().await?;

    let mut request = GenerateRequest::text("Once upon a time");
    request.max_tokens = Some(64); // else until the model ends or the context is full
    let mut generation = system.generate(request).await?; // a Stream; dropping it cancels the request
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Delta(delta) => print!("{}", delta.text),
            GenerationEvent::Failed(error) => return Err(error),
            _ => {}
        }
    }
    system.stop().await;
    Ok(())
}
