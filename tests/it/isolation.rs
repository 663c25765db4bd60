//! Requests at the same time do not feel each other.

use futures_util::future::join_all;
use serde_json::json;

use crate::client::Event;
use crate::expected::{after, chat_body, choice_text, chunks_text, reply, text_body};
use crate::server::Server;

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn sixteen_prompts_at_once_get_the_text_of_each_alone() {
    // No kept answers: everything is to be computed.
    let settings = ["backend.fake.step_time_us=1000", "cache.enabled=false"];
    let server = Server::start(&settings).await;
    let prompts: Vec<String> =
        (0..16).map(|number| format!("{number} and {}", "something ".repeat(number * 3))).collect();
    let body = |prompt: &str, stream: bool| text_body(prompt, json!({ "max_tokens": 64, "stream": stream }));
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(choice_text(&server.post(PATH, body(prompt, false)).await.ok(), 0));
    }
    let expected: Vec<_> = prompts.iter().map(|prompt| after(prompt, 64)).collect();
    assert_eq!(alone, expected);

    // Once beside the prefixes that the first round left behind, once on a server that knows nothing.
    for server in [server, Server::start(&settings).await] {
        let whole = join_all(prompts.iter().map(|prompt| server.post(PATH, body(prompt, false)))).await;
        assert_eq!(whole.iter().map(|answer| choice_text(&answer.ok(), 0)).collect::<Vec<_>>(), expected);
        let streamed = join_all(prompts.iter().map(async |prompt| {
            let chunks = server.stream(PATH, body(prompt, true)).await.chunks().await;
            chunks_text(&chunks, 0)
        }));
        assert_eq!(streamed.await, expected);
    }
}

#[tokio::test]
async fn more_requests_than_places_and_cells_all_get_their_own_text() {
    // Three places, a KV cache that holds two of these requests: some are preempted and go on later.
    let settings = ["scheduler.max_batch_size=3", "backend.fake.n_ctx=700", "backend.fake.max_context_length=350"];
    let server = Server::start(&settings).await;
    join_all((0..12).map(async |number: usize| {
        let content = format!("{number} {}", "long prompt ".repeat(number));
        let answer = server.post("/v1/chat/completions", chat_body(&content, json!({ "max_tokens": 120 }))).await;
        assert_eq!(choice_text(&answer.ok(), 0), reply(&content, 120), "{number}");
    }))
    .await;
}

#[tokio::test]
async fn a_reader_that_pauses_delays_nobody_and_misses_nothing() {
    let server = Server::start(&[]).await;
    let prompts: Vec<String> = (0..8).map(|number| format!("slow {number}")).collect();
    let body = json!({ "prompt": prompts, "temperature": 0, "max_tokens": 4000, "stream": true });
    let mut slow = server.stream(PATH, body).await;
    let first = slow.event().await;
    assert!(matches!(first, Some(Event::Data(_))), "{first:?}");

    // More than the sockets hold; nothing is read of it until all of these are through.
    join_all((0..16).map(async |number: usize| {
        let prompt = format!("fast {number}");
        let answer = server.post(PATH, text_body(&prompt, json!({ "max_tokens": 100 }))).await.ok();
        assert_eq!(choice_text(&answer, 0), after(&prompt, 100));
    }))
    .await;

    let Some(Event::Data(first)) = first else { unreachable!("checked above") };
    let mut chunks = vec![serde_json::from_str(&first).unwrap()];
    chunks.extend(slow.chunks().await);
    for (index, prompt) in prompts.iter().enumerate() {
        assert_eq!(chunks_text(&chunks, index), after(prompt, 4000), "{prompt}");
    }
}
