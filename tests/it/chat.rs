//! `/v1/chat/completions`, whole and streamed.

use cllm_actors::engine::fake;
use cllm_actors::engine::spec::FakeSpec;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::Ask;
use crate::expected::{chat, chat_body, choice_text, chunks_text, merge, reply, text};
use crate::server::Server;

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_stream_and_a_whole_answer_give_the_same_text() {
    let server = Server::start(&[]).await;
    let body = chat_body("tell me a story", json!({ "max_tokens": 40 }));
    let whole = server.post(PATH, body.clone()).await.ok();
    let expected = reply("tell me a story", 40);
    assert_eq!(choice_text(&whole, 0), expected);
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["role"], "assistant");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["prompt_tokens"], chat("tell me a story").len());
    assert_eq!(whole["usage"]["completion_tokens"], 40);
    assert_eq!(whole["usage"]["total_tokens"], chat("tell me a story").len() + 40);

    let mut stream = server.stream(PATH, merge(body, json!({ "stream": true }))).await;
    assert_eq!(stream.headers["content-type"], "text/event-stream; charset=utf-8");
    let chunks = stream.chunks().await;
    assert_eq!(chunks_text(&chunks, 0), expected);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!(last["timings"]["predicted_n"], 40);
    assert!(others.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    for chunk in &chunks {
        assert_eq!((&chunk["id"], &chunk["object"]), (&chunks[0]["id"], &json!("chat.completion.chunk")));
        assert_eq!(chunk.get("usage"), None, "nobody asked for it");
    }
}

#[tokio::test]
async fn include_usage_adds_one_chunk_without_choices() {
    let server = Server::start(&[]).await;
    let options = json!({ "max_tokens": 7, "stream": true, "stream_options": { "include_usage": true } });
    let chunks = server.stream(PATH, chat_body("hi", options)).await.chunks().await;
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 7);
    assert_eq!(last["usage"]["prompt_tokens"], chat("hi").len());
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    assert_eq!(others.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn an_end_token_ends_the_answer_with_stop_unless_it_is_ignored() {
    let server = Server::start(&["backend.fake.end_every=30"]).await;
    let spec = FakeSpec { end_every: Some(30), ..FakeSpec::default() };
    let tokens = fake::continuation(&spec, &chat("when do you end"), 1000);
    assert_eq!(tokens.last(), Some(&fake::EOS));
    let body = chat_body("when do you end", json!({ "max_tokens": 1000 }));
    let answer = server.post(PATH, body.clone()).await.ok();
    assert_eq!(choice_text(&answer, 0), text(&spec, &chat("when do you end"), 1000));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], tokens.len());

    let answer = server.post(PATH, merge(body, json!({ "ignore_eos": true }))).await.ok();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 1000);
}

#[tokio::test]
async fn choice_j_is_what_seed_plus_j_gives_alone() {
    let server = Server::start(&[]).await;
    // The fake engine leaves no doubt about the next token; ten digits made as likely as it do.
    let digits: Vec<_> = (b'0'..=b'9').map(|digit| json!([digit, 60])).collect();
    let fields = json!({ "temperature": 1, "top_p": 1, "logit_bias": digits, "max_tokens": 24, "seed": 41 });
    let body = chat_body("dice", fields);
    let alone = (0..3).map(|choice| server.post(PATH, merge(body.clone(), json!({ "seed": 41 + choice }))));
    let alone: Vec<_> = join_all(alone).await.iter().map(|answer| choice_text(&answer.ok(), 0)).collect();
    assert!(alone[0] != alone[1] && alone[1] != alone[2], "{alone:?}");

    let together = server.post(PATH, merge(body.clone(), json!({ "n": 3 }))).await.ok();
    let together: Vec<_> = (0..3).map(|index| choice_text(&together, index)).collect();
    assert_eq!(together, alone);
    let chunks = server.stream(PATH, merge(body, json!({ "n": 3, "stream": true }))).await.chunks().await;
    let streamed: Vec<_> = (0..3).map(|index| chunks_text(&chunks, index)).collect();
    assert_eq!(streamed, alone);
}

#[tokio::test]
async fn a_stop_text_is_cut_off_and_its_tokens_are_counted() {
    let server = Server::start(&[]).await;
    let full = reply("stop somewhere", 60);
    let stop = &full[20..23];
    let at = full.find(stop).unwrap();
    for stops in [json!(stop), json!(["NEVER SAID", stop])] {
        let body = chat_body("stop somewhere", json!({ "max_tokens": 60, "stop": stops }));
        let answer = server.post(PATH, body.clone()).await.ok();
        assert_eq!(choice_text(&answer, 0), full[..at]);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(answer["usage"]["completion_tokens"], at + stop.len());
        let chunks = server.stream(PATH, merge(body, json!({ "stream": true }))).await.chunks().await;
        assert_eq!(chunks_text(&chunks, 0), full[..at]);
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn logprobs_come_one_for_each_token_whole_and_streamed() {
    let server = Server::start(&[]).await;
    let fields = json!({ "max_tokens": 12, "logprobs": true, "top_logprobs": 3 });
    let body = chat_body("how sure are you", fields);
    let answer = server.post(PATH, body.clone()).await.ok();
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(tokens.len(), 12);
    let joined: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(joined, reply("how sure are you", 12));
    for token in &tokens {
        assert!(token["logprob"].as_f64().unwrap().abs() < 1e-3, "the fake engine is sure: {token}");
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(token["top_logprobs"][0]["token"], token["token"]);
        assert_eq!(token["bytes"], json!(token["token"].as_str().unwrap().as_bytes()));
    }
    let chunks = server.stream(PATH, merge(body, json!({ "stream": true }))).await.chunks().await;
    let streamed = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(streamed.flatten().cloned().collect::<Vec<_>>(), tokens);
}

#[tokio::test]
async fn content_parts_are_the_same_as_their_text_and_the_alias_is_the_same_endpoint() {
    let server = Server::start(&[]).await;
    let parts = json!([{ "type": "text", "text": "one " }, { "type": "text", "text": "two" }]);
    let body =
        json!({ "messages": [{ "role": "user", "content": parts }], "temperature": 0, "max_completion_tokens": 9 });
    let answer = server.post("/chat/completions", body).await.ok();
    assert_eq!(choice_text(&answer, 0), reply("one two", 9));
}

#[tokio::test]
async fn a_model_goes_by_its_names_and_by_none() {
    let server = Server::start(&["model.alias=parrot"]).await;
    assert!(server.ready_line.contains("(model parrot)"), "{}", server.ready_line);
    for name in [json!(null), json!(""), json!("default"), json!("parrot")] {
        let answer = server.post(PATH, chat_body("hi", json!({ "model": name, "max_tokens": 3 }))).await.ok();
        assert_eq!(answer["model"], "parrot");
        assert_eq!(choice_text(&answer, 0), reply("hi", 3));
    }
    let unknown = server.post(PATH, chat_body("hi", json!({ "model": "gpt-4" }))).await;
    let error = &unknown.json()["error"];
    assert_eq!(
        (unknown.status.as_u16(), &error["code"], &error["param"]),
        (404, &json!("model_not_found"), &json!("model"))
    );
    let misshapen = server.post(PATH, json!({ "model": "gpt-4", "messages": 1 })).await;
    assert_eq!(misshapen.status, 400, "the body's shape is checked first");

    let list = server.get("/v1/models").await.ok();
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("parrot")));
    assert_eq!(server.get("/models/default").await.ok()["id"], "parrot");
    assert_eq!(server.get("/v1/models/gpt-4").await.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn a_repeated_prompt_is_cached_but_for_its_last_token() {
    let server = Server::start(&[]).await;
    let body = chat_body("the same question again and again", json!({ "max_tokens": 5 }));
    // Without the response cache; this is about the KV cache.
    let ask = || server.ask(Ask::post(PATH, &body).header("cache-control", "no-store"));
    let first = ask().await.ok();
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let second = ask().await.ok();
    let prompt_tokens = second["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], prompt_tokens - 1);
    assert_eq!(choice_text(&second, 0), choice_text(&first, 0));
    let timings = &second["timings"];
    assert_eq!(
        (&timings["cache_n"], &timings["prompt_n"], &timings["predicted_n"]),
        (&json!(prompt_tokens - 1), &json!(1), &json!(5))
    );
    for time in ["prompt_ms", "predicted_ms", "queue_ms", "predicted_per_second"] {
        assert!(timings[time].as_f64().is_some_and(|ms| ms >= 0.0), "{timings}");
    }
}

#[tokio::test]
async fn without_a_limit_an_answer_ends_where_the_context_or_the_server_says() {
    let server = Server::start(&["backend.fake.max_context_length=100"]).await;
    let answer = server.post(PATH, chat_body("go on", json!({}))).await.ok();
    assert_eq!(answer["usage"]["total_tokens"], 100);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let server = Server::start(&["scheduler.max_iterations=6"]).await;
    let answer: Value = server.post(PATH, chat_body("go on", json!({ "max_tokens": 50 }))).await.ok();
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    assert_eq!(choice_text(&answer, 0), reply("go on", 6));
}
