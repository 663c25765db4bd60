//! Kills the scheduler of a running system and shows what an operator can see of it from code: the events as they
//! happen, the tree before and after, and a request that does not notice.
//!
//! ```text
//! cargo run --no-default-features --example observe_restart
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::time::Duration;

use cllm_actors::engine::spec::{EngineSpec, FakeSpec};
use cllm_actors::inspector::tree;
use cllm_actors::system::{ActorAction, ActorFeed};
use cllm_actors::{GenerateRequest, GenerationEvent, System};
use futures_util::StreamExt;

const SCHEDULER: &str = "engine-0/scheduler-0";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let engine = FakeSpec { step_time: Duration::from_millis(2), ..FakeSpec::default() };
    let system = System::builder().engine(EngineSpec::Fake(engine)).start().await?;
    system.ready().await?;

    let mut request = GenerateRequest::text("Once upon a time");
    request.max_tokens = Some(200);
    let mut generation = system.generate(request).await?;
    while !matches!(generation.next().await, Some(GenerationEvent::Delta(_))) {}
    println!("{}", tree::draw(&system.actors()));

    let mut events = system.actor_events(None);
    system.act(SCHEDULER, ActorAction::Kill).await?;
    while let Some(ActorFeed::Event(event)) = events.next().await {
        let cause = event.cause.as_deref().unwrap_or_default();
        println!("#{} {} {} epoch {} {cause}", event.seq, event.kind, event.path, event.epoch);
        if event.kind == "restarted" && event.path.ends_with(SCHEDULER) {
            break;
        }
    }

    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Finished(end) => println!("the request ended with {:?}, {:?}", end.reason, end.usage),
            GenerationEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    println!("\n{}", tree::draw(&system.actors()));
    system.stop().await;
    Ok(())
}
