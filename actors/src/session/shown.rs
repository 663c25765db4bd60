//! What a session lets others see: its row among the actors, its ledger, and its share of the system's meters.

use std::sync::Arc;
use std::time::Instant;

use ractor::ActorCell;

use super::answer::Answer;
use crate::boards::session as board;
use crate::ledger::Ledger;
use crate::meters::Meters;
use crate::request::{Timings, Usage};
use crate::supervision::SessionRow;
use crate::wiring::Wiring;

/// Kept up to date by the session; the row goes with it.
#[derive(Debug)]
pub(super) struct Shown {
    row: SessionRow,
    ledger: Ledger,
    wiring: Arc<Wiring>,
    submissions: u64,
}

impl Shown {
    pub(super) fn new(row: SessionRow, ledger: Ledger, wiring: Arc<Wiring>, cell: ActorCell) -> Self {
        row.started(cell);
        Self { row, ledger, wiring, submissions: 0 }
    }

    pub(super) fn prompt(&self, tokens: u32) {
        Meters::add(&self.wiring.meters.prompt_tokens, tokens.into());
        self.ledger.prompt(tokens);
        self.set(board::PROMPT_TOKENS, tokens.into());
    }

    pub(super) fn submitted(&mut self) {
        self.set(board::PHASE, board::SUBMITTED);
        self.set(board::RESUMED, self.submissions);
        self.submissions += 1;
    }

    pub(super) fn running(&self, answer: &Answer) {
        if let Some(at) = answer.started_at {
            self.ledger.started(at, answer.cached_tokens);
        }
        self.set(board::PHASE, board::RUNNING);
    }

    /// The answer is another request's.
    pub(super) fn following(&self, answer: &Answer) {
        if let Some(at) = answer.started_at {
            self.ledger.started(at, answer.cached_tokens);
        }
        self.set(board::PHASE, board::FOLLOWING);
    }

    /// A token was given that others had computed: the time between two of them says nothing.
    pub(super) fn gave(&self, answer: &Answer, arrived_at: Instant) {
        let meters = &self.wiring.meters;
        Meters::add(&meters.generated_tokens, 1);
        if let ([_], Some(first)) = (&answer.emitted[..], answer.first_token_at) {
            meters.first_token(first.saturating_duration_since(arrived_at));
        }
        if let Some(last) = answer.last_token_at {
            self.ledger.tokens(answer.emitted.len() as u32, last);
        }
        self.set(board::EMITTED_TOKENS, answer.emitted.len() as u64);
    }

    /// Tokens came: so many, the one before them at `before`.
    pub(super) fn took(&self, tokens: usize, answer: &Answer, before: Option<Instant>, arrived_at: Instant) {
        let Some(now) = answer.last_token_at.filter(|_| tokens > 0) else { return };
        let meters = &self.wiring.meters;
        Meters::add(&meters.generated_tokens, tokens as u64);
        match before {
            Some(before) => meters.token_gap(now.saturating_duration_since(before)),
            None => meters.first_token(now.saturating_duration_since(arrived_at)),
        }
        self.ledger.tokens(answer.emitted.len() as u32, now);
        self.set(board::EMITTED_TOKENS, answer.emitted.len() as u64);
    }

    pub(super) fn over(&self) {
        self.ledger.ended();
        Meters::add(&self.wiring.meters.finished, 1);
        self.set(board::PHASE, board::OVER);
    }

    /// Tokens and times so far.
    pub(super) fn bill(&self) -> (Usage, Timings) {
        (self.ledger.usage(), self.ledger.timings())
    }

    fn set(&self, place: usize, value: u64) {
        if let Some(board) = self.row.board() {
            board.set(place, value);
        }
    }
}
