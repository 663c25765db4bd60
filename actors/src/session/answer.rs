//! The answer as far as it has come: tokens, text, log-probabilities and when they came. Pure.

use std::time::{Duration, Instant};

use crate::backend::VocabularyError;
use crate::engine::protocol::{ModelInfo, OutputToken, TextPart, Token, TokenLogprob};
use crate::error::{Counted, GenerateError};
use crate::priority::PRIORITIES;
use crate::prompt::TemplateError;
use crate::request::{Delta, GenerateRequest, GenerationEvent, MAX_LOGPROBS, MAX_STOPS, Prompt};
use crate::text::TextAssembler;

/// What a session has received.
#[derive(Debug)]
pub struct Answer {
    /// Tokens of the prompt.
    pub prompt_len: u32,
    /// Of these, found in the KV cache by the first start.
    pub cached_tokens: u32,
    /// Every token taken.
    pub emitted: Vec<Token>,
    /// How often it went on after a restart.
    pub resumed: u32,
    /// When the engine took the request for the first time.
    pub started_at: Option<Instant>,
    /// When the first token came.
    pub first_token_at: Option<Instant>,
    /// When the last one came.
    pub last_token_at: Option<Instant>,
    text: TextAssembler,
    stops: Vec<String>,
    prompt_logprobs: PromptLogprobs,
}

#[derive(Debug)]
enum PromptLogprobs {
    Gathering(Vec<TokenLogprob>),
    Delivered,
}

impl Answer {
    /// Nothing received yet.
    pub fn new(request: &GenerateRequest) -> Self {
        Self {
            prompt_len: 0,
            cached_tokens: 0,
            resumed: 0,
            emitted: Vec::new(),
            started_at: None,
            first_token_at: None,
            last_token_at: None,
            text: TextAssembler::new(&request.stop),
            stops: request.stop.clone(),
            prompt_logprobs: match request.prompt_logprobs {
                Some(_) => PromptLogprobs::Gathering(Vec::new()),
                None => PromptLogprobs::Delivered,
            },
        }
    }

    /// Whether an end like this comes after an answer, or after as much of it as the caller wanted.
    pub fn is_given(&self, end: &GenerationEvent) -> bool {
        match end {
            GenerationEvent::Finished(_) => true,
            // It had a place, which is free now: that tells how fast they come free.
            GenerationEvent::Failed(GenerateError::ClientGone | GenerateError::DeadlineExceeded { .. }) => {
                self.first_token_at.is_some()
            }
            _ => false,
        }
    }

    /// The engine took the request, for the first time or again.
    pub fn on_started(&mut self, reused: u32) {
        if self.started_at.is_none() {
            self.started_at = Some(Instant::now());
            self.cached_tokens = reused.min(self.prompt_len);
        }
        // The engine begins again with the prompt's first token.
        if let PromptLogprobs::Gathering(gathered) = &mut self.prompt_logprobs {
            gathered.clear();
        }
    }

    /// Tokens that the engine computed for it: of the prompt, once it began, and emitted ones.
    pub fn served(&self) -> u64 {
        let prompt = self.started_at.map_or(0, |_| self.prompt_len - self.cached_tokens);
        u64::from(prompt) + self.emitted.len() as u64
    }

    /// What the engine had of the request is lost, and it is submitted again.
    pub fn on_resumed(&mut self) {
        if self.started_at.is_some() {
            self.resumed += 1;
        }
    }

    /// Takes the next token in; its text goes into `delta`. Returns the stop text that it completed.
    pub fn take_token(&mut self, token: OutputToken, delta: &mut Delta) -> Option<String> {
        let now = Instant::now();
        self.first_token_at.get_or_insert(now);
        self.last_token_at = Some(now);
        self.emitted.push(token.id);
        delta.tokens.push(token.id);
        delta.logprobs.extend(token.logprobs.map(|logprob| *logprob));
        let number = self.emitted.len() as u32;
        let stopped = self.text.push(number, &token.bytes, &mut delta.text)?;
        self.stops.get(stopped.stop).cloned()
    }

    /// Text that was held back because a stop text or a character might have followed.
    pub fn release_held_back(&mut self, delta: &mut Delta) {
        self.text.finish(&mut delta.text);
    }

    /// Takes logprobs of prompt tokens in; gives them all once they are complete.
    pub fn take_prompt_logprobs(&mut self, more: Vec<TokenLogprob>) -> Option<Vec<TokenLogprob>> {
        let PromptLogprobs::Gathering(gathered) = &mut self.prompt_logprobs else { return None };
        gathered.extend(more);
        if gathered.len() < self.prompt_len as usize {
            return None;
        }
        let complete = std::mem::take(gathered);
        self.prompt_logprobs = PromptLogprobs::Delivered;
        Some(complete)
    }

    /// Alternatives to ask for with the prompt's logprobs; `None`: not wanted, or delivered.
    pub fn missing_prompt_logprobs(&self, request: &GenerateRequest) -> Option<u32> {
        match self.prompt_logprobs {
            PromptLogprobs::Gathering(_) => request.prompt_logprobs,
            PromptLogprobs::Delivered => None,
        }
    }
}

/// Checks everything about a request that needs no tokens.
///
/// # Errors
/// `InvalidRequest`, naming field and range.
pub fn check(request: &GenerateRequest, model: &ModelInfo) -> Result<(), GenerateError> {
    request.sampling.validate(Some(model.n_vocab)).map_err(|error| invalid(error.param, error.message))?;
    if request.stop.len() > MAX_STOPS || request.stop.iter().any(String::is_empty) {
        return Err(invalid("stop", format!("at most {MAX_STOPS} stop texts, none of them empty")));
    }
    if !PRIORITIES.contains(&request.priority) {
        let (best, worst) = (PRIORITIES.start(), PRIORITIES.end());
        return Err(invalid("priority", format!("must be {best} to {worst}")));
    }
    let asked = [("logprobs", request.logprobs), ("prompt_logprobs", request.prompt_logprobs)];
    match asked.iter().find(|(_, count)| count.is_some_and(|count| count > MAX_LOGPROBS)) {
        Some((param, _)) => Err(invalid(param, format!("must be 0 to {MAX_LOGPROBS}"))),
        None => Ok(()),
    }
}

/// Checks a prompt's tokens and returns how many may follow them.
///
/// # Errors
/// `InvalidRequest` or `ContextLengthExceeded`.
pub fn room_for(tokens: &[Token], request: &GenerateRequest, model: &ModelInfo) -> Result<u32, GenerateError> {
    let param = prompt_param(&request.prompt);
    if tokens.is_empty() {
        return Err(invalid(param, "the prompt is empty".to_owned()));
    }
    if let Some(token) = tokens.iter().find(|token| !(0..model.n_vocab as Token).contains(*token)) {
        return Err(invalid(param, format!("token {token} is outside the vocabulary of {} tokens", model.n_vocab)));
    }
    let (prompt_tokens, context_tokens) = (tokens.len() as u32, model.n_ctx_seq);
    let reads_only = request.max_tokens == Some(0);
    if prompt_tokens > context_tokens || (prompt_tokens == context_tokens && !reads_only) {
        let counted = Counted::Exactly;
        return Err(GenerateError::ContextLengthExceeded { prompt_tokens, counted, context_tokens });
    }
    Ok(context_tokens - prompt_tokens)
}

/// Refuses a text that cannot fit, whatever its tokens are: no token takes more than so many of its bytes. Tokenizing it
/// to find out would keep everybody else waiting.
///
/// # Errors
/// `ContextLengthExceeded`.
pub fn check_size(parts: &[TextPart], model: &ModelInfo) -> Result<(), GenerateError> {
    let Some(longest) = model.max_token_bytes.filter(|longest| *longest > 0) else { return Ok(()) };
    let most = u64::from(model.n_ctx_seq) * u64::from(longest);
    if parts.iter().map(|part| part.text.len() as u64).sum::<u64>() <= most {
        return Ok(());
    }
    let mut counts = [true; 256];
    model.lost_bytes.iter().for_each(|byte| counts[usize::from(*byte)] = false);
    let bytes = parts.iter().flat_map(|part| part.text.bytes()).filter(|byte| counts[usize::from(*byte)]).count();
    if bytes as u64 <= most {
        return Ok(());
    }
    Err(GenerateError::ContextLengthExceeded {
        prompt_tokens: u32::try_from((bytes as u64).div_ceil(longest.into())).unwrap_or(u32::MAX),
        counted: Counted::AtLeast,
        context_tokens: model.n_ctx_seq,
    })
}

/// What a caller is told when its text could not be tokenized.
pub fn vocabulary_error(error: &VocabularyError, param: &str, limit: u32) -> GenerateError {
    match error {
        VocabularyError::Refused(message) => invalid(param, message.clone()),
        VocabularyError::Busy => GenerateError::Overloaded { limit, retry_after: Duration::from_secs(1) },
    }
}

/// What a caller is told when the template rejects its messages.
pub fn template_error(error: &TemplateError) -> GenerateError {
    match error {
        TemplateError::Rejected { message } => invalid("messages", message.clone()),
        TemplateError::BadVariables { message } => invalid("chat_template_kwargs", message.clone()),
        TemplateError::TooMuchWork | TemplateError::Unusable { .. } => invalid("messages", error.to_string()),
        TemplateError::Invalid { .. } => GenerateError::Internal(error.to_string()),
    }
}

/// The request field that a prompt comes from.
pub fn prompt_param(prompt: &Prompt) -> &'static str {
    match prompt {
        Prompt::Chat(_) => "messages",
        Prompt::Text(_) | Prompt::Tokens(_) => "prompt",
    }
}

fn invalid(param: &str, message: String) -> GenerateError {
    GenerateError::InvalidRequest { param: param.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::FakeModel;
    use crate::engine::model::Model;
    use crate::engine::spec::FakeSpec;
    use crate::engine::vocabulary_thread::plain_text;

    #[test]
    fn only_a_text_that_cannot_fit_is_refused_by_its_length() {
        let spec = FakeSpec { max_context_length: 10, ..FakeSpec::default() };
        let mut model = FakeModel::load(&spec).expect("loads").info().clone();
        model.max_token_bytes = Some(4);
        assert_eq!(check_size(&plain_text("a".repeat(40)), &model), Ok(()));
        let long = plain_text("a".repeat(41));
        let error = check_size(&long, &model).expect_err("eleven tokens");
        assert_eq!(error.to_string(), "the prompt has at least 11 tokens, the context holds 10");
        assert!(check_size(&[plain_text("a".repeat(40)), plain_text("a")].concat(), &model).is_err());
        model.lost_bytes = vec![b'a'];
        assert_eq!(check_size(&long, &model), Ok(()), "it may have no tokens at all");
        model = ModelInfo { max_token_bytes: None, lost_bytes: Vec::new(), ..model };
        assert_eq!(check_size(&long, &model), Ok(()));
    }
}
