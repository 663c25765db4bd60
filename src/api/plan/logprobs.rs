//! How many log-probabilities one HTTP request may come to, checked before anything is computed.

use cllm_actors::{GenerateRequest, Prompt};

use crate::http::error::ApiError;

/// Most log-probabilities of one HTTP request, the alternatives among them. Each takes about 40 bytes until the answer is
/// written and 60 in it, so this is some 400 MB. A sequence that fills a context of 128k tokens with 20 alternatives of
/// each token comes to 2.8 million.
const MOST: u64 = 4_000_000;

/// Refuses what could come to more than [`MOST`].
///
/// # Errors
/// 400 that names the field and the bound.
pub(super) fn check(requests: &[GenerateRequest], context_tokens: u32, generated: u32) -> Result<(), ApiError> {
    let bounds = (u64::from(context_tokens), u64::from(generated));
    let each = |request| most_tokens(request, bounds) * per_token(request);
    let in_all: u64 = requests.iter().map(each).sum();
    if in_all <= MOST {
        return Ok(());
    }
    let param = match &requests[0] {
        GenerateRequest { prompt: Prompt::Chat(_), logprobs: Some(1..), .. } => "top_logprobs",
        _ => "logprobs",
    };
    let message = format!(
        "{} sequences could come to {in_all} log-probabilities, alternatives included, at most {MOST} are allowed: lower \
         `{param}`, `max_tokens` or the number of sequences",
        requests.len()
    );
    Err(ApiError::invalid(param.to_owned(), "invalid_value", message))
}

/// The token's own and those of its alternatives.
fn per_token(request: &GenerateRequest) -> u64 {
    let top = request.logprobs.max(request.prompt_logprobs);
    top.map_or(0, |top| u64::from(top) + 1)
}

/// Most tokens of the sequence that have log-probabilities.
fn most_tokens(request: &GenerateRequest, (context_tokens, generated): (u64, u64)) -> u64 {
    let generated = request.max_tokens.map_or(context_tokens, u64::from).min(generated);
    let prompt = match &request.prompt {
        _ if request.prompt_logprobs.is_none() => 0,
        Prompt::Chat(_) => context_tokens,
        // It is not tokenized yet, and has a token for each byte at most, and a beginning.
        Prompt::Text(text) => text.len() as u64 + 1,
        Prompt::Tokens(tokens) => tokens.len() as u64,
    };
    (prompt + generated).min(context_tokens)
}
