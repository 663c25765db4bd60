//! What a caller asks for and what it gets back: the vocabulary of the public handle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::engine::protocol::{Token, TokenLogprob};
use crate::error::GenerateError;
use crate::prompt::ChatPrompt;
use crate::sampling::SamplingParams;

/// One sequence to generate. `n` choices or several prompts are several requests.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Appears in every log line and nowhere else; need not be unique.
    pub trace_id: Arc<str>,
    /// On whose behalf it is asked.
    pub tenant: TenantId,
    /// Its class, one of [`PRIORITIES`](crate::priority::PRIORITIES): lower runs first. Default 0.
    pub priority: i32,
    /// What to continue.
    pub prompt: Prompt,
    /// How to draw tokens.
    pub sampling: SamplingParams,
    /// Most tokens to generate. `None`: until the context of one request is full. 0: none, the prompt is only read.
    pub max_tokens: Option<u32>,
    /// Texts that end the generation; not part of the output. At most [`MAX_STOPS`], none empty.
    pub stop: Vec<String>,
    /// Log-probabilities of each token and this many alternatives, 0 to [`MAX_LOGPROBS`].
    pub logprobs: Option<u32>,
    /// The same for the prompt's tokens.
    pub prompt_logprobs: Option<u32>,
    /// When it arrived: the deadlines count from here, and earlier arrivals go first.
    pub arrived_at: Instant,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// What the response cache may do for it.
    pub cache: CacheMode,
    /// Whether its place in the queue is of any use to the caller: `Queued` events while it waits. Default true.
    pub reports_position: bool,
}

/// Most stop texts of one request.
pub const MAX_STOPS: usize = 16;

/// Most alternatives in log-probabilities.
pub const MAX_LOGPROBS: u32 = 20;

impl GenerateRequest {
    /// A request for this prompt that arrives now, everything else at its default.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            trace_id: Arc::from("-"),
            tenant: TenantId::NOBODY,
            priority: 0,
            prompt,
            sampling: SamplingParams::default(),
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            arrived_at: Instant::now(),
            deadlines: Deadlines::default(),
            cache: CacheMode::default(),
            reports_position: true,
        }
    }

    /// A request that continues a conversation.
    pub fn chat(chat: ChatPrompt) -> Self {
        Self::new(Prompt::Chat(Arc::new(chat)))
    }

    /// A request that continues a text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::new(Prompt::Text(text.into()))
    }
}

/// On whose behalf a request is made: tenants share the engine fairly and see nothing of each other.
///
/// The same number always means the same tenant, also after a restart of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TenantId(pub u32);

impl TenantId {
    /// Nobody in particular: where all callers are one.
    pub const NOBODY: Self = Self(0);
}

/// What a request continues; cheap to clone, so that many choices share one prompt.
#[derive(Debug, Clone)]
pub enum Prompt {
    /// Messages, laid out by the model's chat template.
    Chat(Arc<ChatPrompt>),
    /// Plain text; the model's beginning token is added if the model wants it. Special tokens' texts are plain text.
    Text(Arc<str>),
    /// Tokens as they are.
    Tokens(Arc<[Token]>),
}

/// Limits in time, counted from the request's arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the engine takes the request. Default: none beyond `total`.
    pub queue: Option<Duration>,
    /// Until the first token. Default: none beyond `total`.
    pub first_token: Option<Duration>,
    /// Until the end. Default: 600 s.
    pub total: Duration,
}

impl Deadlines {
    /// Longest wait in the queue that may be expected of a request that is let in: half of the least of the
    /// deadlines, each of which ends the wait, because what is expected errs: places are often freed by many at once.
    pub fn patience(&self) -> Duration {
        [self.queue, self.first_token].into_iter().flatten().fold(self.total, Duration::min) / 2
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { queue: None, first_token: None, total: Duration::from_secs(600) }
    }
}

/// What the response cache may do for a request. It acts only where the answer is determined: at temperature 0, or with a
/// seed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// The answer may be an earlier one, or that of an equal request in flight, and is kept for later ones.
    #[default]
    Use,
    /// The answer is computed for this request, and kept.
    Refresh,
    /// The answer is computed for this request, and not kept.
    Bypass,
}

/// Where an answer comes from, in the order of what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheOutcome {
    /// It was kept.
    Hit,
    /// It is computed for an equal request that came first.
    Coalesced,
    /// It is computed for this request.
    Miss,
}

impl CacheOutcome {
    /// `hit`, `coalesced` or `miss`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Coalesced => "coalesced",
            Self::Miss => "miss",
        }
    }
}

/// What a generation reports, in this order: `Queued`* `Started` `Prompt`? `Delta`* then `Finished` or `Failed`.
#[derive(Debug, Clone)]
pub enum GenerationEvent {
    /// It waits for a place.
    Queued {
        /// Requests before it.
        position: u32,
    },
    /// The prompt is tokenized.
    Started {
        /// Its length.
        prompt_tokens: u32,
        /// Where the answer comes from; `None`: the response cache has nothing to do with it.
        cache: Option<CacheOutcome>,
    },
    /// The prompt's tokens with their log-probabilities; only when asked for.
    Prompt(Vec<TokenLogprob>),
    /// New text.
    Delta(Delta),
    /// The end.
    Finished(Finished),
    /// The end, without success. Text sent before it stays valid.
    Failed(GenerateError),
}

/// A piece of the answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Whole characters; may be empty when tokens brought no whole one yet.
    pub text: String,
    /// The tokens consumed since the last delta. Their text may reach beyond or stay behind `text`.
    pub tokens: Vec<Token>,
    /// One per token but the end token, which is no part of the text; only when asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// How a generation ended, with its bill.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// How often it went on where it was after something inside was restarted.
    pub resumed: u32,
}

/// Why a generation ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model drew an end token.
    EndToken,
    /// This stop text appeared.
    StopText(String),
    /// `max_tokens` or the context of one request was reached.
    Length,
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, not computed for this request: found in the KV cache, or all of them if the whole answer was another's.
    pub cached_tokens: u32,
    /// Generated tokens, up to and including the one that ended the text.
    pub completion_tokens: u32,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From arrival until the engine took the request.
    pub queue: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

impl Delta {
    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }

    /// Adds a later piece.
    pub fn append(&mut self, later: Self) {
        self.text.push_str(&later.text);
        self.tokens.extend(later.tokens);
        self.logprobs.extend(later.logprobs);
    }
}
