//! The caller's end of a generation.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc;

use crate::error::GenerateError;
use crate::ledger::Ledger;
use crate::request::GenerationEvent;

/// A running generation: a stream of events with exactly one `Finished` or `Failed`, the last. Dropping it cancels the
/// request within one step.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<GenerationEvent>,
    ledger: Ledger,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Over,
}

impl Generation {
    pub(super) fn new(events: mpsc::Receiver<GenerationEvent>, ledger: Ledger) -> Self {
        Self { events, ledger, state: State::Open }
    }

    /// Tokens and times so far; a clone may outlive the generation.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Stream for Generation {
    type Item = GenerationEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        if self.state == State::Over {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| {
            // A session that was killed could not say goodbye.
            let event = event.unwrap_or_else(|| {
                GenerationEvent::Failed(GenerateError::Internal("the session ended without an answer".to_owned()))
            });
            if matches!(event, GenerationEvent::Finished(_) | GenerationEvent::Failed(_)) {
                self.state = State::Over;
            }
            Some(event)
        })
    }
}
