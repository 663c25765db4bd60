//! What one HTTP request comes to: the sequences to generate and how the answer is delivered.
//!
//! The fields that all generation endpoints share are read here; each endpoint adds its own.

use std::time::Duration;

use cllm_actors::engine::protocol::Token;
use cllm_actors::request::{Deadlines, MAX_STOPS};
use cllm_actors::{Counted, GenerateError, GenerateRequest, Prompt, SamplingParams};
use serde_json::Value;

use crate::api::fields::{Fields, wrong_type};
use crate::api::priority::{self, Allowance, Chosen};
use crate::api::{refusals, sampling};
use crate::http::error::ApiError;

mod logprobs;
#[cfg(test)]
mod tests;

/// Most sequences of one HTTP request, prompts times choices.
pub(crate) const MAX_SEQUENCES: usize = 128;

/// Most bytes of one stop text.
const MAX_STOP_BYTES: usize = 4096;

/// What an absent field means at an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// How tokens are drawn.
    pub(crate) sampling: SamplingParams,
    /// Most tokens to generate; `None`: until the context is full.
    pub(crate) max_tokens: Option<u32>,
    /// The server's deadlines; a request can only shorten the total.
    pub(crate) deadlines: Deadlines,
    /// What the caller's key says of priorities.
    pub(crate) allowance: Allowance,
}

/// The fields that all generation endpoints share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// The model asked for, by whatever name.
    pub(crate) model: Option<String>,
    /// Choices of each prompt.
    pub(crate) choices: u32,
    /// Whole or in pieces.
    pub(crate) delivery: Delivery,
    /// Its priority and service tier.
    pub(crate) class: Chosen,
    sampling: SamplingParams,
    max_tokens: Option<u32>,
    stop: Vec<String>,
    /// Those of all its sequences, from the arrival on.
    pub(crate) deadlines: Deadlines,
}

/// How an answer is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// One JSON document at the end.
    Whole,
    /// Server-sent events.
    Stream {
        /// Whether a last chunk carries the usage.
        include_usage: bool,
    },
}

/// The sequences of a request and what they are for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Prompt by prompt, choice by choice.
    pub(crate) requests: Vec<GenerateRequest>,
    /// Everything else that the request said.
    pub(crate) shared: Shared,
    /// The names of fields that nobody knows, for the log.
    pub(crate) ignored: Option<String>,
}

impl Shared {
    /// Takes the shared fields out of the request.
    ///
    /// # Errors
    /// A wrong type, a value out of range or something this server cannot do: 400 with the field's name.
    pub(crate) fn read(fields: &mut Fields, defaults: Defaults) -> Result<Self, ApiError> {
        refusals::check(fields)?;
        Ok(Self {
            model: fields.string(&["model"])?,
            choices: fields.integer(&["n"], 1..=MAX_SEQUENCES as i64)?.unwrap_or(1) as u32,
            delivery: delivery(fields)?,
            class: priority::read(fields, defaults.allowance)?,
            max_tokens: max_tokens(fields, defaults.max_tokens)?,
            stop: stop(fields)?,
            deadlines: deadlines(fields, defaults.deadlines)?,
            sampling: sampling::read(fields, defaults.sampling)?,
        })
    }

    /// Most tokens that each sequence may get; `None`: until the context is full.
    pub(crate) fn max_tokens(&self) -> Option<u32> {
        self.max_tokens
    }
}

impl Plan {
    /// Every prompt `choices` times. Choice `j` of a prompt draws with `seed + j`, so that each prompt gets the
    /// choices it would get in a request of its own.
    ///
    /// # Errors
    /// More than [`MAX_SEQUENCES`] sequences.
    pub(crate) fn new(prompts: Vec<Prompt>, shared: Shared, fields: &Fields) -> Result<Self, ApiError> {
        let count = prompts.len() * shared.choices as usize;
        if count > MAX_SEQUENCES {
            let message = format!(
                "{} prompts with `n` = {} are {count} sequences, at most {MAX_SEQUENCES} are allowed",
                prompts.len(),
                shared.choices
            );
            return Err(ApiError::invalid("n".to_owned(), "invalid_value", message));
        }
        let requests = prompts.into_iter().flat_map(|prompt| shared.sequences(prompt)).collect();
        Ok(Self { requests, shared, ignored: fields.ignored() })
    }

    /// Asks for log-probabilities of every generated token.
    pub(crate) fn want_logprobs(&mut self, logprobs: Option<u32>) {
        self.requests.iter_mut().for_each(|request| request.logprobs = logprobs);
    }

    /// Asks for log-probabilities of every prompt token.
    pub(crate) fn want_prompt_logprobs(&mut self, logprobs: Option<u32>) {
        self.requests.iter_mut().for_each(|request| request.prompt_logprobs = logprobs);
    }

    /// Has its sequences say how many wait before them.
    pub(crate) fn want_positions(&mut self) {
        self.requests.iter_mut().for_each(|request| request.reports_position = true);
    }

    /// The prompts, each once.
    pub(crate) fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.requests.iter().step_by(self.shared.choices as usize).map(|request| &request.prompt)
    }

    /// Checks every token id of the request against the size of the vocabulary.
    ///
    /// # Errors
    /// 400 that names the field and the first id out of range.
    pub(crate) fn check_tokens(&self, n_vocab: u32) -> Result<(), ApiError> {
        let prompts = self.prompts().filter_map(|prompt| match prompt {
            Prompt::Tokens(tokens) => Some(&**tokens),
            Prompt::Chat(_) | Prompt::Text(_) => None,
        });
        check_ids("prompt", prompts.flatten().copied(), n_vocab)?;
        sampling::check(&self.shared.sampling, Some(n_vocab))
    }

    /// Refuses a chat with more messages than a context has tokens: each takes one at least, and time to lay out.
    ///
    /// # Errors
    /// [`GenerateError::ContextLengthExceeded`].
    pub(crate) fn check_messages(&self, context_tokens: u32) -> Result<(), GenerateError> {
        let messages = self.prompts().map(|prompt| match prompt {
            Prompt::Chat(chat) => chat.messages.len(),
            Prompt::Text(_) | Prompt::Tokens(_) => 0,
        });
        let prompt_tokens = u32::try_from(messages.max().unwrap_or(0)).unwrap_or(u32::MAX);
        if prompt_tokens <= context_tokens {
            return Ok(());
        }
        Err(GenerateError::ContextLengthExceeded { prompt_tokens, counted: Counted::AtLeast, context_tokens })
    }

    /// Refuses what could come to more log-probabilities than one answer may hold, in a context of this many tokens and with at
    /// most so many generated ones.
    ///
    /// # Errors
    /// 400 that names the field and the bound.
    pub(crate) fn check_logprobs(&self, context_tokens: u32, generated: Option<u32>) -> Result<(), ApiError> {
        logprobs::check(&self.requests, context_tokens, generated.unwrap_or(u32::MAX))
    }
}

impl Shared {
    fn sequences(&self, prompt: Prompt) -> Vec<GenerateRequest> {
        let choice = |number: u32| {
            let mut request = GenerateRequest::new(prompt.clone());
            request.sampling = self.sampling.clone();
            request.sampling.seed = self.sampling.seed.map(|seed| seed.wrapping_add(u64::from(number)));
            request.max_tokens = self.max_tokens;
            request.stop = self.stop.clone();
            request.deadlines = self.deadlines;
            request.priority = self.class.priority;
            request.reports_position = matches!(self.delivery, Delivery::Stream { .. });
            request
        };
        (0..self.choices).map(choice).collect()
    }
}

/// Checks token ids that came from outside.
///
/// # Errors
/// 400 that names `param` and the first id that is not in `0..n_vocab`.
pub(crate) fn check_ids(param: &str, ids: impl IntoIterator<Item = Token>, n_vocab: u32) -> Result<(), ApiError> {
    let outside = |id: &Token| u32::try_from(*id).map_or(true, |id| id >= n_vocab);
    match ids.into_iter().find(outside) {
        None => Ok(()),
        Some(id) => {
            let message = format!("token {id} in `{param}` is not in the vocabulary, ids go from 0 to {}", n_vocab - 1);
            Err(ApiError::invalid(param.to_owned(), "invalid_value", message))
        }
    }
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.boolean(&["stream"])?.unwrap_or(false);
    let mut options = Fields::within("stream_options", fields.object(&["stream_options"])?.unwrap_or_default());
    let include_usage = options.boolean(&["include_usage"])?.unwrap_or(false);
    Ok(if stream { Delivery::Stream { include_usage } } else { Delivery::Whole })
}

/// Under llama.cpp's name, OpenAI's new and its old one, in this order; -1 means "until the context is full".
fn max_tokens(fields: &mut Fields, default: Option<u32>) -> Result<Option<u32>, ApiError> {
    let names = ["n_predict", "max_completion_tokens", "max_tokens"];
    Ok(match fields.integer(&names, -1..=i64::from(u32::MAX))? {
        None => default,
        Some(-1) => None,
        Some(limit) => Some(limit as u32),
    })
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let texts = match fields.any(&["stop"]) {
        None => Vec::new(),
        Some((_, Value::String(text))) => vec![text],
        Some((name, Value::Array(texts))) => texts
            .into_iter()
            .map(|text| match text {
                Value::String(text) => Ok(text),
                other => Err(wrong_type(name, "a string or an array of strings", &other)),
            })
            .collect::<Result<_, _>>()?,
        Some((name, other)) => {
            return Err(wrong_type(name, "a string or an array of strings", &other));
        }
    };
    if texts.len() > MAX_STOPS {
        let message = format!("`stop` takes at most {MAX_STOPS} texts, got {}", texts.len());
        return Err(ApiError::invalid("stop".to_owned(), "invalid_value", message));
    }
    if texts.iter().any(|text| text.len() > MAX_STOP_BYTES) {
        let message = format!("a text in `stop` has at most {MAX_STOP_BYTES} bytes");
        return Err(ApiError::invalid("stop".to_owned(), "invalid_value", message));
    }
    if texts.iter().any(String::is_empty) {
        let message = "`stop` must not contain an empty text: it would end every answer at once";
        return Err(ApiError::invalid("stop".to_owned(), "invalid_value", message));
    }
    Ok(texts)
}

/// Our extension `timeout_ms`: the total deadline, never beyond the server's own. Where none is configured for the queue,
/// it is half of that.
fn deadlines(fields: &mut Fields, server: Deadlines) -> Result<Deadlines, ApiError> {
    /// A day; nobody waits longer.
    const LONGEST_MS: i64 = 86_400_000;
    let timeout = fields.integer(&["timeout_ms"], 1..=LONGEST_MS)?;
    let total = timeout.map_or(server.total, |ms| server.total.min(Duration::from_millis(ms as u64)));
    // Who waits for longer than that has no time left for the answer.
    Ok(Deadlines { total, queue: Some(server.queue.unwrap_or(total / 2)), ..server })
}
