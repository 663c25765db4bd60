//! One request to be sent, and what its client saw of the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// A request to be sent to any of the servers.
#[derive(Debug, Clone)]
pub(super) struct Shot {
    /// Which endpoint, and what is asked.
    pub(super) ask: Ask,
    /// Tokens of the answer; end tokens are switched off with `ignore_eos`.
    pub(super) max_tokens: u32,
    pub(super) temperature: f32,
    pub(super) delivery: Delivery,
    pub(super) caching: Caching,
    /// Ask for log-probabilities, one for each token: they show which tokens came.
    pub(super) logprobs: bool,
    /// Leave when so many pieces of text have come.
    pub(super) leave_after: Option<usize>,
    /// Give a permit when so many pieces of text have come.
    pub(super) announce: Option<(usize, Arc<Semaphore>)>,
}

#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// `/v1/chat/completions`.
    Chat { system: Option<String>, user: String },
    /// `/v1/completions`.
    Text(String),
    /// cLLM's own `/generate`.
    Generate(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Stream,
    Whole,
}

/// Whether a finished answer may be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caching {
    Allowed,
    /// `Cache-Control: no-store`.
    Refused,
}

impl Shot {
    /// A streamed greedy chat that no cache answers.
    pub(super) fn chat(user: String, max_tokens: u32) -> Self {
        Self {
            ask: Ask::Chat { system: None, user },
            max_tokens,
            temperature: 0.0,
            delivery: Delivery::Stream,
            caching: Caching::Refused,
            logprobs: false,
            leave_after: None,
            announce: None,
        }
    }

    /// The prompt; of a chat, the user's message.
    pub(super) fn prompt(&self) -> &str {
        match &self.ask {
            Ask::Chat { user: prompt, .. } | Ask::Text(prompt) | Ask::Generate(prompt) => prompt,
        }
    }

    /// The path below the server's base URL.
    pub(super) fn path(&self) -> &'static str {
        match self.ask {
            Ask::Chat { .. } => "/v1/chat/completions",
            Ask::Text(_) => "/v1/completions",
            Ask::Generate(_) => "/generate",
        }
    }

    /// The body for a server that serves `model`.
    pub(super) fn body(&self, model: Option<&str>) -> Value {
        let mut body = json!({
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "ignore_eos": true,
        });
        if let (Some(model), Ask::Chat { .. } | Ask::Text(_)) = (model, &self.ask) {
            body["model"] = model.into();
        }
        match &self.ask {
            Ask::Chat { system, user } => {
                let system = system.iter().map(|text| json!({ "role": "system", "content": text }));
                let user = json!({ "role": "user", "content": user });
                body["messages"] = system.chain([user]).collect();
            }
            Ask::Text(prompt) | Ask::Generate(prompt) => body["prompt"] = prompt.as_str().into(),
        }
        if self.logprobs {
            body["logprobs"] = true.into();
        }
        if self.delivery == Delivery::Stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({ "include_usage": true });
        }
        body
    }
}

/// What the client of one request saw.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The prompt; of a chat, the user's message.
    pub(super) asked: String,
    pub(super) sent: Instant,
    /// When each piece of text came; one piece may carry several tokens.
    pub(super) arrivals: Vec<Instant>,
    pub(super) ended: Instant,
    pub(super) ending: Ending,
    pub(super) resent: Resent,
    /// Completion tokens by the server's count; without one, pieces.
    pub(super) tokens: u32,
    /// Tokens that came with their log-probability, where they were asked for.
    pub(super) tokens_with_logprobs: u32,
    pub(super) prompt_tokens: Option<u32>,
    /// Tokens per second, where the answer itself claims a rate.
    pub(super) claimed_rate: Option<f64>,
    pub(super) text: String,
}

/// Whether a request was sent a second time, because the server closed a kept connection under the first. Its time
/// counts from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resent {
    No,
    Yes,
}

/// How a request ended for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a whole answer.
    Complete,
    /// We left, on purpose.
    Left,
    /// For this reason; requests that failed alike have the same text.
    Failed(String),
}

impl Seen {
    /// Sent now.
    pub(super) fn begin(asked: &str) -> Self {
        let now = Instant::now();
        Self {
            asked: asked.to_owned(),
            sent: now,
            arrivals: Vec::new(),
            ended: now,
            ending: Ending::Failed("no answer".to_owned()),
            resent: Resent::No,
            tokens: 0,
            tokens_with_logprobs: 0,
            prompt_tokens: None,
            claimed_rate: None,
            text: String::new(),
        }
    }

    /// Takes note of a piece of text.
    pub(super) fn arrive(&mut self, now: Instant, shot: &Shot) {
        self.arrivals.push(now);
        if let Some((pieces, running)) = &shot.announce
            && self.arrivals.len() == *pieces
        {
            running.add_permits(1);
        }
    }

    /// Ends it now.
    pub(super) fn end(&mut self, ending: Ending) {
        self.ended = Instant::now();
        self.ending = ending;
    }

    pub(super) fn failed(&self) -> bool {
        matches!(self.ending, Ending::Failed(_))
    }

    /// From sending to the first text.
    pub(super) fn first_token(&self) -> Option<Duration> {
        self.arrivals.first().map(|first| *first - self.sent)
    }

    /// From sending to the end.
    pub(super) fn total(&self) -> Duration {
        self.ended - self.sent
    }

    /// Times between two pieces of text, those that ended within the window.
    pub(super) fn gaps(&self, from: Instant, to: Instant) -> impl Iterator<Item = Duration> {
        let pairs = self.arrivals.windows(2).filter(move |pair| pair[1] >= from && pair[1] <= to);
        pairs.map(|pair| pair[1] - pair[0])
    }

    /// Of a stream that goes on after this moment: the time since the piece of text before it.
    pub(super) fn gap_open_at(&self, at: Instant) -> Option<Duration> {
        let next = self.arrivals.partition_point(|arrival| *arrival <= at);
        self.arrivals.get(next)?;
        Some(at - *self.arrivals.get(next.checked_sub(1)?)?)
    }

    /// All times between two pieces of text.
    pub(super) fn all_gaps(&self) -> impl Iterator<Item = Duration> {
        self.gaps(self.sent, self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_open_only_in_a_stream_that_goes_on() {
        let mut seen = Seen::begin("");
        let at = |ms: u64| seen.sent + Duration::from_millis(ms);
        let (cut, arrivals) = (at(50), [10, 20, 90].map(at).to_vec());
        let (last, early, ended) = (at(90), at(5), at(200));
        seen.arrivals = arrivals;
        seen.ended = ended;
        assert_eq!(seen.gap_open_at(cut), Some(Duration::from_millis(30)));
        assert_eq!(seen.gap_open_at(last), None, "no text comes after its last, whenever the answer ends");
        assert_eq!(seen.gap_open_at(early), None, "nothing had come");
    }
}
