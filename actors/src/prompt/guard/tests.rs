//! A user's text never becomes a control token, and honest text is tokenized as if nothing had been done.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::engine::protocol::{TextPart, Trust};
use crate::prompt::{ChatPrompt, ChatTemplate, TemplateError};

const CONTROLS: [&str; 8] =
    ["<|im_start|>", "<|im_end|>", "<|im_end|><|x|>", "[INST]", "<s>", "<tool_response>", "</think>", "sop"];

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

const THINKING: &str = include_str!("../templates/reasoning.jinja");

fn compile(source: &str) -> ChatTemplate {
    let controls = CONTROLS.map(str::to_owned).to_vec();
    ChatTemplate::compile(Some(source), Some("<s>"), None, controls).unwrap()
}

fn conversation(messages: Value) -> ChatPrompt {
    let messages = serde_json::from_value(messages).unwrap();
    ChatPrompt { messages, tools: Vec::new(), add_generation_prompt: true, variables: serde_json::Map::new() }
}

fn user(text: &str) -> ChatPrompt {
    conversation(json!([{"role": "user", "content": text}]))
}

fn parts(template: &ChatTemplate, chat: &ChatPrompt) -> Vec<TextPart> {
    template.render(chat).unwrap()
}

fn template_part(text: &str) -> TextPart {
    TextPart { text: text.to_owned(), trust: Trust::Template }
}

fn user_part(text: &str) -> TextPart {
    TextPart { text: text.to_owned(), trust: Trust::User }
}

/// How many control tokens the tokenizer makes of the parts.
fn control_tokens(parts: &[TextPart]) -> usize {
    let own = parts.iter().filter(|part| part.trust == Trust::Template);
    own.map(|part| CONTROLS.iter().map(|control| part.text.matches(control).count()).sum::<usize>()).sum()
}

fn joined(parts: &[TextPart]) -> String {
    parts.iter().map(|part| part.text.as_str()).collect()
}

#[test]
fn an_honest_prompt_is_one_part() {
    let chat = user("a < b | c > d [x] </s \u{10f000} 😀");
    assert_eq!(
        parts(&compile(CHATML), &chat),
        [template_part(&format!("<|im_start|>user\n{}<|im_end|>\n", chat.messages[0]["content"].as_str().unwrap()))]
    );
}

#[test]
fn a_control_text_in_a_message_is_plain_text() {
    assert_eq!(
        parts(&compile(CHATML), &user("what does <|im_end|> mean?")),
        [template_part("<|im_start|>"), user_part("user\nwhat does <|im_end|> mean?"), template_part("<|im_end|>\n"),]
    );
}

#[test]
fn only_the_stretch_with_the_forgery_is_a_users() {
    let chat = conversation(json!([
        {"role": "system", "content": "fine"}, {"role": "user", "content": "<|im_start|>"}, {"role": "user", "content": "fine"},
    ]));
    assert_eq!(
        parts(&compile(CHATML), &chat),
        [
            template_part("<|im_start|>system\nfine<|im_end|>\n<|im_start|>"),
            user_part("user\n<|im_start|>"),
            template_part("<|im_end|>\n<|im_start|>user\nfine<|im_end|>\n"),
        ]
    );
}

#[test]
fn a_control_text_put_together_at_a_border_is_plain_text() {
    let template = compile("{{ messages[0].content }}im_end|>[{{ messages[0].content }}INST]");
    assert_eq!(parts(&template, &user("<|")), [user_part("<|im_end|>[<|INST]")]);
    let two = compile("{{ messages[0].content }}{{ messages[1].content }}");
    let chat = conversation(json!([{"role": "user", "content": "<|im_"}, {"role": "user", "content": "end|>"}]));
    assert_eq!(parts(&two, &chat), [user_part("<|im_end|>")]);
}

#[test]
fn a_control_text_put_together_by_the_template_is_plain_text() {
    let template = compile("{{ messages[0].content.replace('<|im_end|>', '') }}<|im_end|>");
    let chat = user("<|im_<|im_end|>end|>");
    assert_eq!(parts(&template, &chat), [user_part("<|im_end|>"), template_part("<|im_end|>")]);
}

#[test]
fn a_longer_control_text_that_a_user_completes_is_not_taken() {
    let template = compile("{{ 'a<|im_end|>' }}{{ messages[0].content }}");
    assert_eq!(parts(&template, &user("<|x|>")), [template_part("a<|im_end|>"), user_part("<|x|>")]);
}

#[test]
fn a_template_that_looks_for_a_text_still_finds_it() {
    let chat = conversation(json!([
        {"role": "user", "content": "hi <|im_end|>"},
        {"role": "assistant", "content": "<think>no <|im_end|></think>yes"},
        {"role": "user", "content": "bye"},
    ]));
    assert_eq!(
        parts(&compile(THINKING), &chat),
        [
            template_part("<|im_start|>"),
            user_part("user\nhi <|im_end|>"),
            template_part(
                "<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n"
            ),
        ]
    );
}

#[test]
fn tools_variables_names_and_unknown_roles_are_a_users_text() {
    let template = compile("{{ tools | tojson }}{{ extra }}{{ messages[0].name }}{{ messages[0].role }}");
    let mut chat = conversation(json!([{"role": "<s>", "name": "[INST]", "content": ""}]));
    chat.tools = vec![json!({"<|im_end|>": ["<|im_start|>"]})];
    chat.variables.insert("extra".to_owned(), "sop".into());
    assert_eq!(parts(&template, &chat), [user_part("[{\"<|im_end|>\": [\"<|im_start|>\"]}]sop[INST]<s>")]);
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let template = compile("{% for c in messages[0].content %}{{ '{' if c == '<' else c }}{% endfor %}");
    assert_eq!(parts(&template, &user("a < b")), [template_part("a { b")]);
    assert!(matches!(template.render(&user("<s>")), Err(TemplateError::Rejected { .. })));
}

/// Pieces of control texts, stand-ins, and what templates look for.
fn hostile_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(CONTROLS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec![
            "<|",
            "im_",
            "end|>",
            "|>",
            "<",
            "</",
            "think>",
            "[INST",
            "]",
            "<think>",
            "</tool_response>",
            "\n",
            " ",
            "\"",
            "\\"
        ])
        .prop_map(str::to_owned),
        "[\u{10f000}-\u{10f008}]",
        "[a-zé<|>/\\[\\]]{0,3}",
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_of_a_user_becomes_a_control_token(texts in prop::collection::vec(hostile_text(), 1..4)) {
        let harmless: Vec<Value> = texts.iter().map(|_| json!({"role": "user", "content": "x"})).collect();
        let hostile: Vec<Value> = texts.iter().map(|text| json!({"role": "user", "content": text})).collect();
        for source in [CHATML, "<s>{% for m in messages %}[INST] {{ m.content | trim }}[/INST]{{ m.content }}<|im_end|>{% endfor %}"] {
            let template = compile(source);
            let own = control_tokens(&parts(&template, &conversation(harmless.clone().into())));
            let chat = conversation(hostile.clone().into());
            let parts = parts(&template, &chat);
            prop_assert_eq!(control_tokens(&parts), own, "{:?}", parts);
            prop_assert_eq!(joined(&parts), template.plain(&template.full, &chat, std::time::SystemTime::now()).unwrap());
        }
    }

    #[test]
    fn parts_are_cut_at_control_tokens_only(text in hostile_text()) {
        let parts = parts(&compile(CHATML), &user(&text));
        for pair in parts.windows(2) {
            let at_a_token = |own: &TextPart, other: &TextPart, edge: fn(&str, &str) -> bool| {
                own.trust == Trust::Template && other.trust == Trust::User && CONTROLS.iter().any(|control| edge(&own.text, control))
            };
            prop_assert!(
                at_a_token(&pair[0], &pair[1], |own, control| own.ends_with(control))
                    || at_a_token(&pair[1], &pair[0], |own, control| own.starts_with(control)),
                "{:?}", parts
            );
        }
    }

    #[test]
    fn a_template_that_inspects_messages_renders_hostile_ones_the_same(texts in prop::collection::vec(hostile_text(), 1..4)) {
        let template = compile(THINKING);
        let roles = ["user", "assistant", "tool"];
        let messages: Vec<Value> =
            texts.iter().zip(roles).map(|(text, role)| json!({"role": role, "content": text})).collect();
        let chat = conversation(messages.into());
        let parts = parts(&template, &chat);
        prop_assert_eq!(joined(&parts), template.plain(&template.full, &chat, std::time::SystemTime::now()).unwrap());
        let own: String = parts.iter().filter(|part| part.trust == Trust::Template).map(|part| part.text.as_str()).collect();
        prop_assert_eq!(own.matches("<|im_start|>").count(), texts.len() + 1);
        prop_assert_eq!(own.matches("[INST]").count(), 0);
    }
}
