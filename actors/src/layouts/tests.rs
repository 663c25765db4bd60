//! Long chats wait for their turn, bounded by permits, and hold up nobody.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Map, json};
use tokio::time::timeout;

use super::*;
use crate::engine::spec::{EngineSpec, FakeSpec};
use crate::request::{Finished, GenerateRequest, GenerationEvent};
use crate::system::{Generation, System};

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A text that is not laid out at once.
const LONG: usize = 100_000;

async fn start(test: &str) -> System {
    let spec = FakeSpec { n_ctx: 4 * LONG as u32, max_context_length: 2 * LONG as u32, ..FakeSpec::default() };
    let system = System::builder().instance(test).engine(EngineSpec::Fake(spec)).start().await.expect("starts");
    timeout(PATIENCE, system.ready()).await.expect("in time").expect("loads");
    system
}

fn chat(length: usize) -> ChatPrompt {
    let content = "x ".repeat(length / 2);
    let messages = vec![json!({ "role": "user", "content": content })];
    ChatPrompt { messages, tools: Vec::new(), add_generation_prompt: true, variables: Map::new() }
}

async fn begin(system: &System, length: usize) -> Generation {
    let mut request = GenerateRequest::chat(chat(length));
    request.max_tokens = Some(2);
    system.generate(request).await.expect("admitted")
}

async fn finish(mut generation: Generation) -> Finished {
    loop {
        match timeout(PATIENCE, generation.next()).await.expect("in time").expect("an end comes first") {
            GenerationEvent::Finished(finished) => return finished,
            GenerationEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let polled = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

#[tokio::test]
async fn a_long_chat_that_waits_holds_up_no_short_one() {
    let system = start("long-chat").await;
    let places = system.wiring().layouts.occupy().await;
    let long = begin(&system, LONG).await;
    assert_eq!(finish(begin(&system, 100).await).await.usage.completion_tokens, 2);
    assert_eq!(long.ledger().usage().prompt_tokens, 0, "it has no place yet");
    // A restart elsewhere neither ends its wait nor lays it out twice.
    system.wiring().scheduler.current().expect("it runs").kill();
    let next = system.wiring().scheduler.epochs().borrow().to_owned();
    eventually("a new scheduler", || *system.wiring().scheduler.epochs().borrow() > next).await;
    drop(places);
    let finished = finish(long).await;
    assert!(finished.usage.prompt_tokens > LONG as u32, "{finished:?}");
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test]
async fn a_long_chat_whose_client_leaves_gives_up_its_wait() {
    let system = start("long-chat-left").await;
    let _places = system.wiring().layouts.occupy().await;
    let long = begin(&system, LONG).await;
    assert_eq!(system.in_flight(), 1);
    drop(long);
    eventually("its permit is back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test]
async fn the_runtime_goes_on_while_a_chat_is_laid_out() {
    let system = start("long-layout").await;
    let mut turns = 0;
    let others = async {
        loop {
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    let parts = tokio::select! {
        biased;
        parts = system.render(chat(LONG)) => parts.expect("a plain chat"),
        () = others => unreachable!("it does not end"),
    };
    assert!(parts[0].text.len() > LONG);
    assert!(turns > 0, "nothing else ran on this only thread");
    assert_eq!(system.in_flight(), 0);
    system.stop().await;
}
