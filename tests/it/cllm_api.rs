//! The endpoints taken over from the C++ cLLM, and the helpers around tokens and templates.

use serde_json::{Value, json};

use crate::expected::{after, merge, plain};
use crate::server::Server;

#[tokio::test]
async fn generate_answers_with_text_and_rates() {
    let server = Server::start(&[]).await;
    let answer = server.post("/generate", json!({ "prompt": "Hello", "max_tokens": 20, "temperature": 0 })).await.ok();
    assert_eq!(answer["success"], true);
    let data = &answer["data"];
    assert_eq!((&data["text"], &data["generated_tokens"]), (&json!(after("Hello", 20)), &json!(20)));
    assert_eq!(data["max_tokens"], 20);
    assert_eq!(data["id"].as_str().map(str::len), Some(32));
    assert!(data["response_time"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert!(data["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
    assert_eq!((&data["usage"]["completion_tokens"], &data["timings"]["predicted_n"]), (&json!(20), &json!(20)));
    let by_default = server.post("/generate", json!({ "prompt": "Hello", "repeat_penalty": 1 })).await.ok();
    assert_eq!(by_default["data"]["generated_tokens"], 100);
}

#[tokio::test]
async fn generate_stream_sends_tokens_and_then_done() {
    let server = Server::start(&[]).await;
    let body = json!({ "prompt": "Hello", "max_tokens": 20, "temperature": 0, "repeat_penalty": 1 });
    for (path, body) in [("/generate_stream", body.clone()), ("/generate", merge(body, json!({ "stream": true })))] {
        let mut stream = server.stream(path, body).await;
        assert_eq!(stream.headers["content-type"], "text/event-stream; charset=utf-8");
        let frames = stream.data().await;
        let frames: Vec<Value> = frames.iter().map(|frame| serde_json::from_str(frame).expect("JSON")).collect();
        let (last, others) = frames.split_last().expect("frames");
        let text: String = others.iter().map(|frame| frame["token"].as_str().expect("a text")).collect();
        assert_eq!(text, after("Hello", 20));
        assert!(others.iter().all(|frame| frame["done"] == false && frame["id"] == frames[0]["id"]));
        assert_eq!((&last["done"], &last["generated_tokens"], &last["token"]), (&json!(true), &json!(20), &json!("")));
        assert_eq!((&last["usage"]["completion_tokens"], &last["timings"]["predicted_n"]), (&json!(20), &json!(20)));
        assert!(others.iter().all(|frame| frame.get("usage").is_none() && frame.get("resumed").is_none()));
    }
}

#[tokio::test]
async fn encode_counts_tokens() {
    let server = Server::start(&[]).await;
    let answer = server.post("/encode", json!({ "text": "héllo <|im_end|>" })).await.ok();
    let expected = plain("héllo <|im_end|>");
    assert_eq!(answer["data"], json!({ "length": expected.len(), "tokens": expected }));
    for body in [json!({}), json!({ "text": "" }), json!({ "text": 1 }), json!({ "text": "word ".repeat(420_000) })] {
        let refused = server.post("/encode", body.clone()).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["success"]), (400, &json!(false)), "{body:.99}");
    }
}

#[tokio::test]
async fn errors_have_the_old_shape_and_true_statuses() {
    let server = Server::start(&[]).await;
    for path in ["/generate", "/generate_stream"] {
        for (body, status, says) in [
            (json!({}), 400, "prompt"),
            (json!({ "prompt": "" }), 400, "prompt"),
            (json!({ "prompt": ["a"] }), 400, "prompt"),
            (json!({ "prompt": "a", "n": 2 }), 400, "`n` must be 1"),
            (json!({ "prompt": "a", "model": "gpt-4" }), 404, "gpt-4"),
        ] {
            let answer = server.post(path, body.clone()).await;
            let error = answer.json();
            assert_eq!((answer.status.as_u16(), &error["success"]), (status, &json!(false)), "{path} {body}");
            assert!(error["error"].as_str().is_some_and(|message| message.contains(says)), "{path} {body}: {error}");
        }
    }
}

#[tokio::test]
async fn the_index_and_the_model_say_what_is_served() {
    let server = Server::start(&["backend.fake.max_context_length=321"]).await;
    let index = server.get("/").await.ok();
    assert_eq!((&index["success"], &index["data"]["name"]), (&json!(true), &json!("cLLM Server")));
    assert_eq!(index["data"]["version"], env!("CARGO_PKG_VERSION"));
    let model = server.get("/model/info").await.ok();
    assert_eq!(model["success"], true);
    assert_eq!((&model["data"]["model_name"], &model["data"]["vocab_size"]), (&json!("fake"), &json!(260)));
    assert_eq!(model["data"]["max_sequence_length"], 321);
    let card = server.get("/v1/models/fake").await.ok();
    assert_eq!((&card["id"], &card["max_model_len"], &card["object"]), (&json!("fake"), &json!(321), &json!("model")));
}

#[tokio::test]
async fn tokens_come_back_as_the_text_they_were_made_of() {
    let server = Server::start(&[]).await;
    for text in ["plain", "ünïcödé 你好 🙂", "", "<|im_start|>user"] {
        let answer = server.post("/tokenize", json!({ "content": text, "parse_special": false })).await.ok();
        assert_eq!((&answer["tokens"], &answer["count"]), (&json!(plain(text)), &json!(text.len())));
        let back = server.post("/detokenize", json!({ "tokens": answer["tokens"] })).await.ok();
        assert_eq!(back["content"], text);
        let vllm = server.post("/tokenize", json!({ "prompt": text, "parse_special": false })).await.ok();
        assert_eq!(vllm["tokens"], answer["tokens"]);
        assert_eq!(vllm["max_model_len"], 4096);
    }
    let special = server.post("/tokenize", json!({ "content": "<|im_end|>" })).await.ok();
    assert_eq!(special["count"], 1, "an operator's text may name control tokens");
    let pieces = server.post("/tokenize", json!({ "content": "aé", "with_pieces": true })).await.ok();
    let expected = json!([{ "id": 97, "piece": "a" }, { "id": 195, "piece": [195] }, { "id": 169, "piece": [169] }]);
    assert_eq!(pieces["tokens"], expected);
}

#[tokio::test]
async fn the_template_lays_a_conversation_out() {
    let server = Server::start(&[]).await;
    let messages = json!([
        { "role": "developer", "content": "be brief" },
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": "yes?" },
    ]);
    let expected = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes?<|im_end|>\n";
    let closed = json!({ "messages": messages, "add_generation_prompt": false });
    assert_eq!(server.post("/apply-template", closed).await.ok()["prompt"], expected);
    let open = server.post("/apply-template", json!({ "messages": messages })).await.ok();
    assert_eq!(open["prompt"], format!("{expected}<|im_start|>assistant\n"));
    assert!(server.get("/tokenizer_info").await.ok()["chat_template"].as_str().is_some());
}

#[tokio::test]
async fn a_user_cannot_write_control_tokens() {
    let server = Server::start(&[]).await;
    let body = |content: &str| json!({ "messages": [{ "role": "user", "content": content }], "max_tokens": 1 });
    let tokens = async |content: &str| {
        let answer = server.post("/v1/chat/completions", body(content)).await.ok();
        answer["usage"]["prompt_tokens"].as_u64().expect("a count")
    };
    let (plain, forged) = (tokens("").await, tokens("<|im_end|>").await);
    assert_eq!(forged - plain, "<|im_end|>".len() as u64, "its text is text");
}
