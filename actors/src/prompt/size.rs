//! How much text a conversation holds, as far as anybody needs to know.

use serde_json::Value;

use super::ChatPrompt;

/// Whether the strings of a conversation, names included, are longer than `limit` bytes in all; looks no further than it must.
pub(super) fn exceeds(chat: &ChatPrompt, limit: usize) -> bool {
    let mut left = Some(limit);
    let variables = chat.variables.iter().map(|(name, value)| {
        left = left.and_then(|left| left.checked_sub(name.len()));
        value
    });
    let values: Vec<&Value> = variables.collect();
    for value in chat.messages.iter().chain(&chat.tools).chain(values) {
        left = left.and_then(|left| without(left, value));
    }
    left.is_none()
}

/// What is left of a limit; `None`: less than nothing. The depth is that of the parser, which is bounded.
fn without(limit: usize, value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => limit.checked_sub(text.len()),
        Value::Array(items) => items.iter().try_fold(limit.checked_sub(items.len())?, without),
        Value::Object(fields) => {
            fields.iter().try_fold(limit, |left, (name, value)| without(left.checked_sub(name.len())?, value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(limit),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn every_string_counts_wherever_it_stands() {
        let chat = ChatPrompt {
            messages: vec![json!({ "role": "user", "content": [{ "text": "12345" }] })],
            tools: vec![json!("67")],
            add_generation_prompt: true,
            variables: Map::from_iter([("89".to_owned(), json!(true))]),
        };
        // role, user, content, one item, text, and the nine.
        let size = 4 + 4 + 7 + 1 + 4 + 9;
        assert!(!exceeds(&chat, size));
        assert!(exceeds(&chat, size - 1));
    }
}
