//! Chat templates that come with the model and are of no use.

use super::*;
use crate::prompt::ChatPrompt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_with_a_broken_template_is_served_without_conversations() {
    let spec = FakeSpec { chat_template: Some("{% if %}".to_owned()), ..FakeSpec::default() };
    let system = start("broken-template", spec.clone()).await;
    let chat = ChatPrompt {
        messages: vec![serde_json::json!({ "role": "user", "content": "Hello" })],
        tools: Vec::new(),
        add_generation_prompt: true,
        variables: serde_json::Map::new(),
    };
    let refused = system.render(chat.clone()).await.expect_err("there is no template");
    let generation = system.generate(GenerateRequest::new(Prompt::Chat(chat.into()))).await.expect("admitted");
    let (_, outcome) = collect(generation).await;
    for error in [refused, outcome.expect_err("there is no template")] {
        let GenerateError::InvalidRequest { param, message } = error else { panic!("{error}") };
        assert_eq!(param, "messages");
        assert!(message.contains("chat template cannot be used") && message.contains("/v1/completions"), "{message}");
    }
    let prompt = prompt(1);
    let (tokens, _) = collect(system.generate(request(&prompt, 5)).await.expect("admitted")).await;
    assert_eq!(tokens, fake::continuation(&spec, &prompt, 5));
    system.stop().await;
}
