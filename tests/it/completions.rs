//! `/v1/completions`, whole and streamed.

use serde_json::{Value, json};

use crate::expected::{after, choice_text, chunks_text, merge, plain, text_body};
use crate::server::Server;

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn a_stream_and_a_whole_answer_give_the_same_text() {
    let server = Server::start(&[]).await;
    let body = text_body("Once upon a time", json!({ "max_tokens": 50 }));
    let whole = server.post(PATH, body.clone()).await.ok();
    assert_eq!(choice_text(&whole, 0), after("Once upon a time", 50));
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    assert_eq!((&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]), (&json!(16), &json!(50)));

    let options = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let chunks = server.stream("/completions", merge(body, options)).await.chunks().await;
    assert_eq!(chunks_text(&chunks, 0), after("Once upon a time", 50));
    let [.., end, usage] = &chunks[..] else { panic!("two last chunks: {chunks:?}") };
    assert_eq!(end["choices"][0]["finish_reason"], "length");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(50)));
}

#[tokio::test]
async fn every_prompt_of_an_array_gets_its_own_choices_in_order() {
    let server = Server::start(&[]).await;
    let prompts = ["the first", "quite another", "a third one"];
    let tokens: Vec<Value> = prompts.iter().map(|prompt| json!(plain(prompt))).collect();
    for array in [json!(prompts), json!(tokens)] {
        let body = json!({ "prompt": array, "temperature": 0, "n": 2, "max_tokens": 20 });
        let answer = server.post(PATH, body.clone()).await.ok();
        let chunks = server.stream(PATH, merge(body, json!({ "stream": true }))).await.chunks().await;
        assert_eq!(answer["choices"].as_array().unwrap().len(), 6);
        for index in 0..6 {
            let expected = after(prompts[index / 2], 20);
            assert_eq!(choice_text(&answer, index), expected, "choice {index}");
            assert_eq!(chunks_text(&chunks, index), expected, "streamed choice {index}");
        }
        let ends = chunks.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null());
        assert_eq!(ends.count(), 6);
        let prompt_tokens: usize = prompts.iter().map(|prompt| prompt.len()).sum();
        assert_eq!(answer["usage"]["prompt_tokens"], prompt_tokens, "a prompt counts once");
        assert_eq!(answer["usage"]["completion_tokens"], 120);
    }
}

#[tokio::test]
async fn a_prompt_of_tokens_is_the_same_as_its_text() {
    let server = Server::start(&[]).await;
    let body = json!({ "prompt": plain("as numbers"), "temperature": 0 });
    let answer = server.post(PATH, body).await.ok();
    assert_eq!(choice_text(&answer, 0), after("as numbers", 16), "16 tokens are the default");
}

#[tokio::test]
async fn echo_puts_the_prompt_before_the_answer() {
    let server = Server::start(&[]).await;
    for prompt in [json!("say after me"), json!(plain("say after me"))] {
        let body = json!({ "prompt": prompt, "temperature": 0, "max_tokens": 10, "echo": true });
        let expected = format!("say after me{}", after("say after me", 10));
        assert_eq!(choice_text(&server.post(PATH, body.clone()).await.ok(), 0), expected);
        let chunks = server.stream(PATH, merge(body, json!({ "stream": true }))).await.chunks().await;
        assert_eq!(chunks_text(&chunks, 0), expected);
    }
}

#[tokio::test]
async fn zero_tokens_read_the_prompt_and_say_nothing() {
    let server = Server::start(&[]).await;
    let body = text_body("only read this", json!({ "max_tokens": 0 }));
    let answer = server.post(PATH, body.clone()).await.ok();
    assert_eq!((choice_text(&answer, 0).as_str(), &answer["usage"]["completion_tokens"]), ("", &json!(0)));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let chunks = server.stream(PATH, merge(body.clone(), json!({ "stream": true }))).await.chunks().await;
    assert_eq!(chunks_text(&chunks, 0), "");

    let scored = server.post(PATH, merge(body, json!({ "echo": true, "logprobs": 1 }))).await.ok();
    assert_eq!(choice_text(&scored, 0), "only read this");
    let logprobs = &scored["choices"][0]["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), "only read this".len());
    let scores = logprobs["token_logprobs"].as_array().unwrap();
    assert!(scores[0].is_null() && scores[1..].iter().all(Value::is_number), "{scores:?}");
}

#[tokio::test]
async fn logprobs_are_parallel_arrays_that_join_to_the_text() {
    let server = Server::start(&[]).await;
    for (echo, prompt_tokens) in [(false, 0), (true, 9)] {
        let fields = json!({ "max_tokens": 8, "logprobs": 2, "echo": echo });
        let body = text_body("nine byte", fields);
        let answer = server.post(PATH, body.clone()).await.ok();
        let logprobs = &answer["choices"][0]["logprobs"];
        let length = prompt_tokens + 8;
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(logprobs[name].as_array().unwrap().len(), length, "{name}");
        }
        let joined: String = strings(&logprobs["tokens"]).concat();
        assert_eq!(joined, choice_text(&answer, 0));
        assert_eq!(logprobs["text_offset"], json!((0..length).collect::<Vec<_>>()));
        assert_eq!(logprobs["top_logprobs"][length - 1].as_object().unwrap().len(), 2);

        let chunks = server.stream(PATH, merge(body, json!({ "stream": true }))).await.chunks().await;
        for name in ["tokens", "text_offset", "token_logprobs"] {
            let parts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"][name].as_array());
            let streamed: Vec<Value> = parts.flatten().cloned().collect();
            assert_eq!(json!(streamed), logprobs[name], "{name} with echo {echo}");
        }
    }
}

#[tokio::test]
async fn a_stop_text_across_chunks_never_shows() {
    let server = Server::start(&["backend.fake.step_time_us=300"]).await;
    let full = after("stop across", 60);
    let stop = &full[30..36];
    let at = full.find(stop).unwrap();
    let body = text_body("stop across", json!({ "max_tokens": 60, "stop": [stop], "stream": true }));
    let chunks = server.stream(PATH, body).await.chunks().await;
    assert_eq!(chunks_text(&chunks, 0), full[..at]);
    assert!(chunks.len() > 10, "text before it came piece by piece");
}

fn strings(array: &Value) -> Vec<String> {
    array.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}
