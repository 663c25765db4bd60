//! What a template expects where the ecosystem does not agree: found out by rendering small conversations once.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{ChatPrompt, TemplateError};

/// A text that no template writes by itself.
const PROBE: &str = "cllm-probe";

/// How a template takes the content of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dialect {
    text: TextForm,
    null: NullForm,
}

/// The form of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum TextForm {
    /// A string, as nearly all templates expect.
    #[default]
    String,
    /// A list of one part, `[{"type": "text", "text": ...}]`; templates of vision models that know nothing else.
    Parts,
}

/// The form of the missing content of a message that only calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum NullForm {
    /// As it is.
    #[default]
    Null,
    /// The empty string, for templates that add content to text or print it unseen.
    EmptyString,
}

impl Dialect {
    /// Tries the forms with a template.
    pub(super) fn probe(render: impl Fn(&ChatPrompt) -> Result<String, TemplateError>) -> Self {
        let user = |content: Value| json!({"role": "user", "content": content});
        // A template that knows no parts may print the list with its quotes.
        let shows = |content: Value| {
            let prompt = render(&conversation(vec![user(content)]));
            prompt.is_ok_and(|prompt| prompt.contains(PROBE) && !prompt.contains(&format!("'{PROBE}'")))
        };
        let text = match (shows(json!(PROBE)), shows(json!([{"type": "text", "text": PROBE}]))) {
            (false, true) => TextForm::Parts,
            _ => TextForm::String,
        };
        let null = match render(&conversation(vec![user(json!("hi")), tool_call()])) {
            Ok(prompt) if !prompt.contains("None") => NullForm::Null,
            _ => NullForm::EmptyString,
        };
        Self { text, null }
    }

    /// The content of a message in the template's form.
    pub(super) fn content<'a>(&self, content: &'a Value) -> Cow<'a, Value> {
        match (content, self.text, self.null) {
            (Value::Null, _, NullForm::EmptyString) => Cow::Owned(Value::String(String::new())),
            (Value::String(text), TextForm::Parts, _) => Cow::Owned(json!([{"type": "text", "text": text}])),
            _ => Cow::Borrowed(content),
        }
    }
}

fn conversation(messages: Vec<Value>) -> ChatPrompt {
    ChatPrompt { messages, tools: Vec::new(), add_generation_prompt: true, variables: Map::new() }
}

/// Some templates want nine characters in an id.
fn tool_call() -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "callprobe", "type": "function", "function": {"name": "probe", "arguments": {}}}
    ]})
}
