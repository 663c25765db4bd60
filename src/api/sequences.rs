//! The generations of one request as one stream of events, and the whole outcome of each.

use std::pin::Pin;
use std::task::{Context, Poll};

use cllm_actors::engine::protocol::TokenLogprob;
use cllm_actors::request::{CacheOutcome, Finished};
use cllm_actors::{GenerateError, GenerationEvent};
use futures_util::stream::SelectAll;
use futures_util::{Stream, StreamExt};

#[cfg(test)]
mod tests;

/// The running generations of one request. Dropping it cancels them all.
///
/// Yields each event with the number of its sequence. Every sequence ends with exactly one `Finished` or `Failed`:
/// a generation that ends without one (its session vanished) counts as failed.
#[derive(Debug)]
pub(crate) struct Sequences<E> {
    running: SelectAll<Sequence<E>>,
    total: usize,
}

/// What one sequence came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// The answer.
    pub(crate) text: String,
    /// One per generated token, if asked for.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// One per prompt token, if asked for.
    pub(crate) prompt_logprobs: Vec<TokenLogprob>,
    /// How it ended.
    pub(crate) finished: Finished,
    /// Where it comes from; `None`: the response cache has nothing to do with it.
    pub(crate) cache: Option<CacheOutcome>,
}

impl<E: Stream<Item = GenerationEvent> + Unpin> Sequences<E> {
    /// Follows these generations.
    pub(crate) fn new(generations: Vec<E>) -> Self {
        let total = generations.len();
        let running =
            generations.into_iter().enumerate().map(|(index, events)| Sequence { index, events: Some(events) });
        Self { running: running.collect(), total }
    }

    /// How many there were in the beginning.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Waits for the end of all.
    ///
    /// # Errors
    /// The first failure; the other generations are cancelled.
    pub(crate) async fn collect(mut self) -> Result<Vec<Outcome>, GenerateError> {
        let mut drafts: Vec<Draft> = (0..self.total).map(|_| Draft::default()).collect();
        while let Some((index, event)) = self.next().await {
            drafts[index].add(event)?;
        }
        drafts.into_iter().map(Draft::outcome).collect()
    }
}

impl<E: Stream<Item = GenerationEvent> + Unpin> Stream for Sequences<E> {
    type Item = (usize, GenerationEvent);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.running.poll_next_unpin(context)
    }
}

/// One generation; `None` once it is over.
#[derive(Debug)]
struct Sequence<E> {
    index: usize,
    events: Option<E>,
}

impl<E: Stream<Item = GenerationEvent> + Unpin> Stream for Sequence<E> {
    type Item = (usize, GenerationEvent);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        events.poll_next_unpin(context).map(|event| {
            let event = event.unwrap_or_else(|| GenerationEvent::Failed(vanished()));
            if matches!(event, GenerationEvent::Finished(_) | GenerationEvent::Failed(_)) {
                self.events = None;
            }
            Some((self.index, event))
        })
    }
}

fn vanished() -> GenerateError {
    GenerateError::Internal("the session ended without a word".to_owned())
}

/// An outcome in the making.
#[derive(Default)]
struct Draft {
    text: String,
    logprobs: Vec<TokenLogprob>,
    prompt_logprobs: Vec<TokenLogprob>,
    finished: Option<Finished>,
    cache: Option<CacheOutcome>,
}

impl Draft {
    fn add(&mut self, event: GenerationEvent) -> Result<(), GenerateError> {
        match event {
            GenerationEvent::Queued { .. } => {}
            GenerationEvent::Started { cache, .. } => self.cache = cache,
            GenerationEvent::Prompt(logprobs) => self.prompt_logprobs.extend(logprobs),
            GenerationEvent::Delta(delta) => {
                self.text.push_str(&delta.text);
                self.logprobs.extend(delta.logprobs);
            }
            GenerationEvent::Finished(finished) => self.finished = Some(finished),
            GenerationEvent::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn outcome(self) -> Result<Outcome, GenerateError> {
        let Self { text, logprobs, prompt_logprobs, finished, cache } = self;
        let finished = finished.ok_or_else(vanished)?;
        Ok(Outcome { text, logprobs, prompt_logprobs, finished, cache })
    }
}
