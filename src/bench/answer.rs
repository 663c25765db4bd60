//! What answers say, in the shapes of OpenAI's endpoints and of cLLM's `/generate`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::shot::Seen;

/// One event of a stream. Fields that nobody needs here are skipped.
#[derive(Debug, Default, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Choice {
    delta: Option<Delta>,
    message: Option<Delta>,
    text: Option<String>,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Debug, Default, Deserialize)]
struct Logprobs {
    /// One entry for each token.
    #[serde(default)]
    content: Vec<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

/// What one event of a stream was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text for the reader.
    Text,
    /// Something else: a role, the usage.
    Other,
    /// The choice is complete.
    Finished,
    /// Text, and with it the choice is complete.
    LastText,
    /// The end of the stream.
    Done,
    /// The server says that it failed.
    Error(String),
}

/// Takes in one event of an OpenAI stream.
pub(super) fn event(data: &str, seen: &mut Seen) -> Piece {
    if data == "[DONE]" {
        return Piece::Done;
    }
    let Ok(chunk) = serde_json::from_str::<Chunk>(data) else {
        return Piece::Error("unreadable event".to_owned());
    };
    if let Some(error) = &chunk.error {
        return Piece::Error(format!("error in the stream: {}", error_code(error)));
    }
    take_usage(chunk.usage, seen);
    let (mut text, mut finished) = (false, false);
    for choice in chunk.choices {
        text |= take_choice(&choice, seen);
        finished |= choice.finish_reason.is_some();
    }
    match (text, finished) {
        (true, true) => Piece::LastText,
        (true, false) => Piece::Text,
        (false, true) => Piece::Finished,
        (false, false) => Piece::Other,
    }
}

/// Takes in a whole answer of an OpenAI endpoint or of `/generate`.
///
/// # Errors
/// A reason for a failure, if it is none of these.
pub(super) fn document(body: &[u8], seen: &mut Seen) -> Result<(), String> {
    let unreadable = || "unreadable answer".to_owned();
    let body: Value = serde_json::from_slice(body).map_err(|_| unreadable())?;
    if let Some(data) = body.get("data") {
        seen.text = data["text"].as_str().ok_or_else(unreadable)?.to_owned();
        seen.tokens = data["generated_tokens"].as_u64().unwrap_or_default() as u32;
        seen.claimed_rate = data["tokens_per_second"].as_f64();
        return Ok(());
    }
    let claimed = body["timings"]["predicted_per_second"].as_f64();
    let chunk: Chunk = serde_json::from_value(body).map_err(|_| unreadable())?;
    if chunk.choices.is_empty() {
        return Err(unreadable());
    }
    for choice in &chunk.choices {
        take_choice(choice, seen);
    }
    take_usage(chunk.usage, seen);
    seen.claimed_rate = claimed;
    Ok(())
}

/// What an answer with another status than 200 says, in short.
pub(super) fn refusal(status: u16, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("error") {
        Some(error) => format!("status {status} {}", error_code(error)),
        None => format!("status {status}"),
    }
}

fn error_code(error: &Value) -> String {
    let code = error.get("code").unwrap_or(error);
    code.as_str().map_or_else(|| code.to_string(), str::to_owned)
}

fn take_usage(usage: Option<Usage>, seen: &mut Seen) {
    let Some(usage) = usage else { return };
    seen.prompt_tokens = usage.prompt_tokens.or(seen.prompt_tokens);
    seen.tokens = usage.completion_tokens.unwrap_or(seen.tokens);
}

/// Whether there was any.
fn take_choice(choice: &Choice, seen: &mut Seen) -> bool {
    let inner = choice.delta.as_ref().or(choice.message.as_ref());
    let texts = inner.map(|inner| [&inner.content, &inner.reasoning_content]);
    let tokens = choice.logprobs.as_ref().map_or(0, |logprobs| logprobs.content.len());
    seen.tokens_with_logprobs += tokens as u32;
    let before = seen.text.len();
    for text in texts.into_iter().flatten().chain([&choice.text]).flatten() {
        seen.text.push_str(text);
    }
    seen.text.len() > before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_by_their_log_probabilities() {
        let mut seen = Seen::begin("");
        event(
            r#"{"choices":[{"delta":{"content":"Hi"},"logprobs":{"content":[{"token":"H"},{"token":"i"}]}}]}"#,
            &mut seen,
        );
        event(r#"{"choices":[{"delta":{"content":"!"},"logprobs":{"content":[{"token":"!"}]}}]}"#, &mut seen);
        event(r#"{"choices":[{"delta":{},"logprobs":null}],"usage":{"completion_tokens":4}}"#, &mut seen);
        assert_eq!((seen.tokens_with_logprobs, seen.tokens), (3, 4), "the server's own count is another one");
    }

    #[test]
    fn a_stream_is_read_to_its_usage() {
        let mut seen = Seen::begin("");
        let events = [
            (r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#, Piece::Other),
            (r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}],"usage":null}"#, Piece::Text),
            (r#"{"choices":[{"text":" you"}]}"#, Piece::Text),
            (r#"{"choices":[{"text":"!","finish_reason":"stop"}]}"#, Piece::LastText),
            (r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#, Piece::Finished),
            (r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#, Piece::Other),
            ("[DONE]", Piece::Done),
        ];
        for (data, piece) in events {
            assert_eq!(event(data, &mut seen), piece, "{data}");
        }
        assert_eq!((seen.text.as_str(), seen.tokens, seen.prompt_tokens), ("Hi you!", 4, Some(9)));
        let error = event(r#"{"error":{"message":"no","code":"engine_crashed"}}"#, &mut seen);
        assert_eq!(error, Piece::Error("error in the stream: engine_crashed".to_owned()));
        assert_eq!(event("{", &mut seen), Piece::Error("unreadable event".to_owned()));
    }

    #[test]
    fn whole_answers_of_three_endpoints_are_read() {
        for (body, text, tokens, rate) in [
            (r#"{"choices":[{"message":{"content":"a b"}}],"usage":{"completion_tokens":2}}"#, "a b", 2, None),
            (r#"{"choices":[{"text":"c"}],"timings":{"predicted_per_second":8.0}}"#, "c", 0, Some(8.0)),
            (r#"{"success":true,"data":{"text":"d","generated_tokens":5,"tokens_per_second":9.5}}"#, "d", 5, Some(9.5)),
        ] {
            let mut seen = Seen::begin("");
            assert_eq!(document(body.as_bytes(), &mut seen), Ok(()));
            assert_eq!((seen.text.as_str(), seen.tokens, seen.claimed_rate), (text, tokens, rate));
        }
        assert!(document(b"<html>", &mut Seen::begin("")).is_err());
        assert!(document(br#"{"choices":[]}"#, &mut Seen::begin("")).is_err());
    }

    #[test]
    fn a_refusal_is_told_by_its_code() {
        assert_eq!(refusal(503, br#"{"error":{"code":"model_loading","message":"x"}}"#), "status 503 model_loading");
        assert_eq!(refusal(500, br#"{"success":false,"error":"it broke"}"#), "status 500 it broke");
        assert_eq!(refusal(404, b"nothing"), "status 404");
    }
}
