//! Brings messages as clients send them into the one form that templates understand.

use serde_json::{Map, Value};

use super::weight;

/// The roles of messages after normalisation.
pub const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// Most that all messages of a chat may carry beside roles and texts, as [`weight`] counts it: a value in memory is many times
/// its text, and all of it is kept until the prompt is laid out.
pub const MAX_EXTRA_WEIGHT: usize = 65_536;

/// A mistake in the messages of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{param}` {message}")]
pub struct MessageError {
    /// The field, such as `messages[3].content[1].type`.
    pub param: String,
    /// What is wrong with it; continues a sentence that begins with the field.
    pub message: String,
}

/// Checks messages and brings them into the form that templates expect: roles are those of [`ROLES`] (`developer` becomes
/// `system`); content is one string (text parts put together), or null beside tool calls; the arguments of tool calls are objects
/// where their JSON is one, and stay the strings they are where it is not; other fields that are null are dropped.
///
/// # Errors
/// The first mistake, with the field's place.
pub fn normalize_messages(messages: Vec<Value>) -> Result<Vec<Value>, MessageError> {
    if messages.is_empty() {
        return Err(wrong("messages", "must not be empty"));
    }
    let mut room = Room { left: MAX_EXTRA_WEIGHT };
    let messages = messages.into_iter().enumerate();
    messages.map(|(index, message)| normalize(message, &format!("messages[{index}]"), &mut room)).collect()
}

/// What there may still be beside roles and texts.
struct Room {
    left: usize,
}

impl Room {
    fn take(&mut self, weight: usize, path: &str) -> Result<(), MessageError> {
        let message = || {
            format!(
                "makes more than {MAX_EXTRA_WEIGHT} JSON values of all that is not a text in these messages, where an array or \
                 an object counts for {} of them",
                weight::CONTAINER
            )
        };
        self.left = self.left.checked_sub(weight).ok_or_else(|| wrong(path, &message()))?;
        Ok(())
    }
}

fn normalize(message: Value, path: &str, room: &mut Room) -> Result<Value, MessageError> {
    let Value::Object(mut message) = message else {
        return Err(wrong(path, "must be an object"));
    };
    let extras = message.iter().filter(|(name, _)| !matches!(name.as_str(), "role" | "content"));
    room.take(weight::of_fields(extras.map(|(_, value)| value)), path)?;
    message.retain(|name, value| name == "content" || !value.is_null());
    let role = role(&message, path)?;
    message.insert("role".to_owned(), role.into());
    if let Some(calls) = message.remove("tool_calls") {
        let calls = tool_calls(calls, &format!("{path}.tool_calls"), room)?;
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), calls.into());
        }
    }
    let may_be_null = role == "assistant" && message.contains_key("tool_calls");
    let content = match message.remove("content").unwrap_or_default() {
        Value::Null if may_be_null => Value::Null,
        Value::Null => {
            return Err(wrong(format!("{path}.content"), "must be a string or an array of text parts"));
        }
        content => text(content, &format!("{path}.content"))?.into(),
    };
    message.insert("content".to_owned(), content);
    Ok(Value::Object(message))
}

fn role(message: &Map<String, Value>, path: &str) -> Result<&'static str, MessageError> {
    let role = message.get("role").and_then(Value::as_str).unwrap_or("");
    let role = if role == "developer" { "system" } else { role };
    let known = ROLES.into_iter().find(|known| *known == role);
    known.ok_or_else(|| wrong(format!("{path}.role"), "must be `system`, `developer`, `user`, `assistant` or `tool`"))
}

fn text(content: Value, path: &str) -> Result<String, MessageError> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let texts =
                parts.into_iter().enumerate().map(|(index, part)| text_of_part(part, &format!("{path}[{index}]")));
            texts.collect()
        }
        _ => Err(wrong(path, "must be a string or an array of text parts")),
    }
}

fn text_of_part(part: Value, path: &str) -> Result<String, MessageError> {
    let Value::Object(mut part) = part else {
        return Err(wrong(path, "must be an object"));
    };
    let field = match part.get("type").and_then(Value::as_str) {
        Some("text") => "text",
        Some("refusal") => "refusal",
        Some("image_url" | "image" | "input_audio" | "audio_url" | "video_url" | "file") => {
            return Err(wrong(format!("{path}.type"), "is unsupported: this model takes text only"));
        }
        _ => return Err(wrong(format!("{path}.type"), "must be `text`")),
    };
    match part.remove(field) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong(format!("{path}.{field}"), "must be a string")),
    }
}

fn tool_calls(calls: Value, path: &str, room: &mut Room) -> Result<Vec<Value>, MessageError> {
    let Value::Array(calls) = calls else {
        return Err(wrong(path, "must be an array"));
    };
    calls.into_iter().enumerate().map(|(index, call)| tool_call(call, &format!("{path}[{index}]"), room)).collect()
}

fn tool_call(call: Value, path: &str, room: &mut Room) -> Result<Value, MessageError> {
    let Value::Object(mut call) = call else {
        return Err(wrong(path, "must be an object"));
    };
    let Some(Value::Object(function)) = call.get_mut("function") else {
        return Err(wrong(format!("{path}.function"), "must be an object"));
    };
    if !function.get("name").is_some_and(Value::is_string) {
        return Err(wrong(format!("{path}.function.name"), "must be a string"));
    }
    let arguments = function.remove("arguments").unwrap_or_default();
    if let Value::String(text) = &arguments {
        // Before it is parsed.
        room.take(weight::of_text(text.as_bytes()), &format!("{path}.function.arguments"))?;
    }
    function.insert("arguments".to_owned(), self::arguments(arguments));
    call.entry("type").or_insert_with(|| "function".into());
    Ok(Value::Object(call))
}

/// Models write arguments, so that they are often not JSON: a history that holds such a call must still work.
fn arguments(arguments: Value) -> Value {
    match arguments {
        Value::Null => Map::new().into(),
        Value::String(text) if text.trim().is_empty() => Map::new().into(),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => object,
            _ => Value::String(text),
        },
        other => other,
    }
}

fn wrong(param: impl Into<String>, message: &str) -> MessageError {
    MessageError { param: param.into(), message: message.to_owned() }
}

#[cfg(test)]
mod tests;
