//! Templates as the families write them, rendered as `transformers` renders them, and user text that stays text.

use std::time::{Duration, SystemTime};

use insta::assert_snapshot;
use serde_json::json;

use super::*;
use crate::engine::protocol::Trust;

const SMOLLM2: &str = include_str!("templates/smollm2.jinja");
const HEADER: &str = include_str!("templates/header.jinja");
const ALTERNATING: &str = include_str!("templates/alternating.jinja");
const INSTRUCT: &str = include_str!("templates/instruct.jinja");
const REASONING: &str = include_str!("templates/reasoning.jinja");

fn chat(messages: Value) -> ChatPrompt {
    let messages = normalize_messages(serde_json::from_value(messages).unwrap()).unwrap();
    ChatPrompt { messages, tools: Vec::new(), add_generation_prompt: true, variables: Map::new() }
}

fn user(text: &str) -> ChatPrompt {
    chat(json!([{"role": "user", "content": text}]))
}

fn weather_tool() -> Vec<Value> {
    vec![json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "Tells the weather; \"today\" <or> tomorrow in Köln",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1.5}}, "required": ["city"]},
    }})]
}

fn tool_conversation() -> ChatPrompt {
    let mut chat = chat(json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Köln?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Köln\", \"days\": 2}"}}
        ]},
        {"role": "tool", "tool_call_id": "call00001", "content": "{\"rain\": true}"},
    ]));
    chat.tools = weather_tool();
    chat
}

fn compile(source: &str) -> ChatTemplate {
    let controls = [
        "<|im_start|>",
        "<|im_end|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
        "<think>",
        "</think>",
        "<s>",
        "</s>",
    ];
    ChatTemplate::compile(Some(source), Some("<s>"), Some("</s>"), controls.map(str::to_owned).to_vec()).unwrap()
}

fn text(template: &ChatTemplate, chat: &ChatPrompt) -> String {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_794_000);
    template.render_at(&template.full, chat, now).unwrap().into_iter().map(|part| part.text).collect()
}

/// With a sign for the end, since snapshots drop newlines there.
fn exact(template: &ChatTemplate, chat: &ChatPrompt) -> String {
    text(template, chat) + "∎"
}

fn rejection(source: &str, chat: &ChatPrompt) -> String {
    match compile(source).render(chat) {
        Err(error) if !matches!(error, TemplateError::Invalid { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn smollm2_gets_its_default_system_turn() {
    assert_eq!(
        text(&compile(SMOLLM2), &user("What is 2+2?")),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn smollm2_conversation() {
    let chat = chat(json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "<hi> & \"bye\""}]},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "  again\n"},
    ]));
    assert_snapshot!(exact(&compile(SMOLLM2), &chat));
}

#[test]
fn header_template_with_tools_and_date() {
    assert_snapshot!(exact(&compile(HEADER), &tool_conversation()));
}

#[test]
fn header_template_takes_the_date_from_the_client() {
    let mut chat = user("hi");
    chat.variables.insert("date_string".to_owned(), "1 Jan 2000".into());
    let text = text(&compile(HEADER), &chat);
    assert!(text.contains("Today Date: 1 Jan 2000\n"), "{text}");
}

#[test]
fn alternating_template() {
    let chat = chat(json!([
        {"role": "user", "content": " hi "}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "bye"},
    ]));
    assert_snapshot!(exact(&compile(ALTERNATING), &chat));
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let system = chat(json!([{"role": "system", "content": "x"}]));
    assert_eq!(rejection(ALTERNATING, &system), "System role not supported");
    let twice = chat(json!([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]));
    assert_eq!(rejection(ALTERNATING, &twice), "Conversation roles must alternate user/assistant/user/assistant/...");
}

#[test]
fn instruct_template_with_tools() {
    assert_snapshot!(exact(&compile(INSTRUCT), &tool_conversation()));
}

#[test]
fn reasoning_template_with_tools() {
    assert_snapshot!(exact(&compile(REASONING), &tool_conversation()));
}

#[test]
fn earlier_reasoning_is_cut_out_of_the_history() {
    let mut chat = chat(json!([
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\nadd them\n</think>\n\n4"},
        {"role": "user", "content": "and 3+3?"},
    ]));
    chat.variables.insert("enable_thinking".to_owned(), false.into());
    assert_eq!(
        text(&compile(REASONING), &chat),
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nand 3+3?<|im_end|>\n\
         <|im_start|>assistant\n<think>\n\n</think>\n\n"
    );
}

#[test]
fn broken_tool_arguments_in_the_history_stay_text() {
    let chat = chat(json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": "{\"a\": "}}
        ]},
    ]));
    let text = text(&compile(REASONING), &chat);
    assert!(text.contains("\"arguments\": {\"a\": }"), "{text}");
}

#[test]
fn a_model_without_a_template_reads_a_transcript() {
    let template = ChatTemplate::compile(None, None, None, Vec::new()).unwrap();
    let chat = chat(json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]));
    assert_eq!(text(&template, &chat), "System: Be brief.\n\nUser: hi\n\nAssistant:");
}

#[test]
fn templates_for_content_parts_get_parts() {
    let source = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}[{{ part.text }}]\
                  {% endif %}{% endfor %}{% endfor %}";
    assert_eq!(text(&compile(source), &user("hi")), "[hi]");
}

#[test]
fn null_content_is_empty_for_templates_that_add_it() {
    let chat = chat(json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
    ]));
    assert!(text(&compile(SMOLLM2), &chat).contains("<|im_start|>assistant\n<|im_end|>"));
    let printing = "{% for m in messages %}{{ m.content }};{% endfor %}";
    assert_eq!(text(&compile(printing), &chat), "x;;");
    let asking = "{% for m in messages %}{% if m.content is none %}-{% else %}{{ m.content }}{% endif %}{% endfor %}";
    assert_eq!(text(&compile(asking), &chat), "x-");
}

#[test]
fn a_prompt_may_begin_with_the_beginning_token_the_tokenizer_adds_no_second() {
    // `AddSpecial::Model` looks at the first part for this; nothing is stripped here.
    let parts = compile(ALTERNATING).render(&user("hi")).unwrap();
    assert_eq!(parts[0].trust, Trust::Template);
    assert!(parts[0].text.starts_with("<s><start_of_turn>user\nhi"), "{parts:?}");
}

#[test]
fn python_idioms_work_as_in_jinja2() {
    let cases = [
        ("{{ messages[-1:][0].content[:2] }}{{ messages[::-1] | length }}", "ab1"),
        ("{{ true }} {{ none }} {{ [1, 'a'] }} {{ 1.0 }}", "True None [1, 'a'] 1.0"),
        ("{{ ' a '.strip() ~ 'x,y'.split(',')[-1] ~ 'abc'.removeprefix('a') ~ 'a-b-c'.rsplit('-', 1)[0] }}", "aybca-b"),
        ("{{ missing }}|{{ missing is defined }}|{{ none.x is defined }}", "|False|False"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}{{ {'a': 1}.get('b', 2) }}", "a=12"),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = i %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        ("{% macro f(x, y='d') -%} {{ x }}{{ y }} {%- endmacro %}{{ f(1) }}{{ f(1, y=2) }}", "1d12"),
        ("  {% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
        ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
        ("{{ 'ab' * 2 }}{{ '%s!' | format('x') }}{{ 'a' in 'cat' }}{{ 7 // 2 }}{{ 2 ** 3 }}", "ababx!True38"),
        ("{{ 'AbC'.lower().title() }}{{ 'x\ny'.splitlines() | join('+') }}{{ 'k=v'.partition('=')[2] }}", "Abcx+yv"),
        ("{{ messages | map(attribute='role') | unique | list | tojson }}", "[\"user\"]"),
        (
            "{% set x = messages[0] %}{{ x['role'] ~ x.get('name', '') }}{{ strftime_now('%Y-%m-%d') }}",
            "user2027-01-01",
        ),
        (
            "{{ documents is none }}{{ tools is none }}{{ add_generation_prompt }}{{ bos_token + eos_token }}",
            "TrueTrueTrue<s></s>",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(text(&compile(source), &user("abc")), expected, "{source}");
    }
}

#[test]
fn json_is_written_as_python_writes_it() {
    let cases = [
        ("{{ {'b': 1, 'a': [true, none]} | tojson }}", "{\"b\": 1, \"a\": [true, null]}"),
        ("{{ {'b': 1, 'a': {}} | tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": {}\n}"),
        ("{{ {'b': 1, 'a': []} | tojson(sort_keys=true, separators=(',', ':')) }}", "{\"a\":[],\"b\":1}"),
        ("{{ 'é😀<&>' | tojson }}", "\"é😀<&>\""),
        ("{{ 'é😀' | tojson(ensure_ascii=true) }}", "\"\\u00e9\\ud83d\\ude00\""),
        ("{{ 'a\n\t\"' | tojson }}", "\"a\\n\\t\\\"\""),
        (
            "{{ [1.0, 0.1, 1e16, 1.5e-05, 0.0001, 123456789012345678] | tojson }}",
            "[1.0, 0.1, 1e+16, 1.5e-05, 0.0001, 123456789012345678]",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(text(&compile(source), &user("abc")), expected, "{source}");
    }
}

#[test]
fn dates_are_written_as_c_writes_them() {
    let source = "{{ strftime_now('%A %a %-d %d %e %B %b %m %Y %y %H:%M:%S %I %p %j %F %T %% %Q') }}";
    assert_eq!(
        text(&compile(source), &user("x")),
        "Friday Fri 1 01  1 January Jan 01 2027 27 09:00:00 09 AM 001 2027-01-01 09:00:00 % %Q"
    );
    let leap = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_800);
    assert_eq!(clock::format(leap, "%F %A"), "2024-02-29 Thursday");
}

#[test]
fn a_template_that_does_not_parse_is_the_operators_matter() {
    let error = ChatTemplate::compile(Some("{% if %}"), None, None, Vec::new()).unwrap_err();
    assert!(matches!(error, TemplateError::Invalid { .. }), "{error}");
}

#[test]
fn a_failing_expression_is_the_clients_matter_and_says_where() {
    let message = rejection("a\n{{ messages[0].content.nothing.more }}", &user("x"));
    assert!(message.starts_with("the chat template failed on these messages: ") && message.contains(":2"), "{message}");
}

#[test]
fn endless_work_is_stopped() {
    let bomb = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(rejection(bomb, &user("x")), "the conversation is too much work for the chat template");
    let doubling = "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}";
    assert_eq!(rejection(doubling, &user("x")), "the conversation is too much work for the chat template");
    let recursion = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
    assert!(rejection(recursion, &user("x")).contains("recursion"));
}

#[test]
fn deep_nesting_is_refused() {
    let mut deep = Value::Null;
    for _ in 0..5_000 {
        deep = Value::Array(vec![deep]);
    }
    let mut chat = user("x");
    chat.variables.insert("deep".to_owned(), deep);
    assert_eq!(rejection(SMOLLM2, &chat), "the variable `deep` is nested deeper than 200 levels");
}

#[test]
fn a_failure_that_the_variables_bring_is_theirs() {
    let source = "{% if mode %}{{ mode.no.such.thing }}{% endif %}{{ messages[0].content }}";
    let mut chat = user("x");
    assert!(compile(source).render(&chat).is_ok());
    chat.variables.insert("mode".to_owned(), json!("strict"));
    let error = compile(source).render(&chat).unwrap_err();
    assert!(matches!(error, TemplateError::BadVariables { .. }), "{error:?}");
    let error = compile("{{ messages[0].no.such.thing }}").render(&chat).unwrap_err();
    assert!(matches!(error, TemplateError::Rejected { .. }), "{error:?}");
}

#[test]
fn what_may_take_long_is_not_rendered_briefly() {
    let common = user(&"word ".repeat(1000));
    assert_eq!(compile(SMOLLM2).render_briefly(&common), Some(compile(SMOLLM2).render(&common)));
    let (long_text, long_work) = (
        user(&"word ".repeat(20_000)),
        "{% for a in range(300) %}{% for b in range(300) %}{% endfor %}{% endfor %}done",
    );
    assert_eq!(compile(SMOLLM2).render_briefly(&long_text), None);
    assert_eq!(compile(long_work).render_briefly(&user("x")), None);
    assert_eq!(text(&compile(long_work), &user("x")), "done");
}

#[test]
fn variables_cannot_replace_the_servers_own() {
    let mut chat = user("x");
    chat.variables.insert("messages".to_owned(), json!([]));
    assert_eq!(rejection(SMOLLM2, &chat), "`messages` cannot be set as a variable of the chat template");
}
