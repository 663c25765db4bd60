//! Questions to the vocabulary under way: how many there may be, how large, and who gets the answers.
//!
//! The vocabulary thread answers one after the other. Whoever asks for a generation has a permit and must not be turned
//! away because others tokenize for its own sake, so callers may take half of the room and sessions all of it.

use std::collections::HashMap;

use ractor::RpcReplyPort;

use super::{TokensTo, VocabularyError, lives};
use crate::engine::host::thread::VOCABULARY_CAPACITY;
use crate::engine::vocabulary_thread::MAX_QUESTION_BYTES;

/// Text and tokens that may wait for the vocabulary thread, in bytes.
const BYTES: usize = MAX_QUESTION_BYTES;

/// Of these, what callers may take.
const CALLERS_BYTES: usize = BYTES / 2;

/// Questions of callers that may be open.
const CALLERS_QUESTIONS: usize = 1024;

/// A session's question of so many bytes has room whatever else waits: permits bound how many there are.
const SMALL_BYTES: usize = 256 << 10;

/// A vocabulary command under way.
#[derive(Debug)]
pub(super) enum Question {
    Tokens(TokensTo),
    Text(RpcReplyPort<Result<Vec<u8>, VocabularyError>>),
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A session, which holds a permit.
    Session,
    /// Somebody who wants to know.
    Caller,
}

/// The open ones.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: HashMap<u64, (Question, usize)>,
    load: Load,
    next: u64,
}

/// What is open. Pure.
#[derive(Debug, Default)]
struct Load {
    all: Share,
    callers: Share,
}

#[derive(Debug, Default)]
struct Share {
    questions: usize,
    bytes: usize,
}

impl Question {
    pub(super) fn asker(&self) -> Asker {
        match self {
            Self::Tokens(TokensTo::Session { .. }) => Asker::Session,
            Self::Tokens(TokensTo::Caller(_)) | Self::Text(_) => Asker::Caller,
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Tokens(TokensTo::Caller(port)) => port.is_closed(),
            Self::Tokens(TokensTo::Session { session, .. }) => !lives(session),
            Self::Text(port) => port.is_closed(),
        }
    }

    pub(super) fn refuse(self, error: VocabularyError) {
        match self {
            Self::Tokens(reply_to) => reply_to.send(Err(error)),
            Self::Text(port) => drop(port.send(Err(error))),
        }
    }
}

impl Questions {
    /// Whether one more may be asked.
    ///
    /// # Errors
    /// `Busy`: later, perhaps. `Refused`: never.
    pub(super) fn check(&self, asker: Asker, bytes: usize) -> Result<(), VocabularyError> {
        self.load.check(asker, bytes)
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn opened(&mut self, id: u64, question: Question, bytes: usize) {
        self.load.add(question.asker(), bytes);
        self.open.insert(id, (question, bytes));
    }

    /// Closes a question; gives it back for the answer.
    pub(super) fn take(&mut self, id: u64) -> Option<Question> {
        let (question, bytes) = self.open.remove(&id)?;
        self.load.remove(question.asker(), bytes);
        Some(question)
    }

    /// Who gets the tokens, if they are asked for.
    pub(super) fn tokens_to(&self, id: u64) -> Option<&TokensTo> {
        match self.open.get(&id) {
            Some((Question::Tokens(to), _)) => Some(to),
            Some((Question::Text(_), _)) | None => None,
        }
    }
}

impl Load {
    fn check(&self, asker: Asker, bytes: usize) -> Result<(), VocabularyError> {
        let most = if asker == Asker::Caller { CALLERS_BYTES } else { BYTES };
        if bytes > most {
            return Err(VocabularyError::Refused(format!("{bytes} bytes are asked about, at most {most} can be")));
        }
        let full = |share: &Share, questions, most| share.questions >= questions || share.bytes + bytes > most;
        let no_room = match asker {
            Asker::Session if bytes <= SMALL_BYTES => self.all.questions >= VOCABULARY_CAPACITY,
            Asker::Session => full(&self.all, VOCABULARY_CAPACITY, BYTES),
            Asker::Caller => {
                full(&self.all, VOCABULARY_CAPACITY, BYTES) || full(&self.callers, CALLERS_QUESTIONS, CALLERS_BYTES)
            }
        };
        if no_room { Err(VocabularyError::Busy) } else { Ok(()) }
    }

    fn add(&mut self, asker: Asker, bytes: usize) {
        for share in self.shares(asker) {
            share.questions += 1;
            share.bytes += bytes;
        }
    }

    fn remove(&mut self, asker: Asker, bytes: usize) {
        for share in self.shares(asker) {
            share.questions -= 1;
            share.bytes -= bytes;
        }
    }

    fn shares(&mut self, asker: Asker) -> impl Iterator<Item = &mut Share> {
        let callers = (asker == Asker::Caller).then_some(&mut self.callers);
        std::iter::once(&mut self.all).chain(callers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(asker: Asker, count: usize, bytes: usize) -> Load {
        let mut load = Load::default();
        for _ in 0..count {
            assert_eq!(load.check(asker, bytes), Ok(()));
            load.add(asker, bytes);
        }
        load
    }

    #[test]
    fn callers_leave_half_of_the_room_to_sessions() {
        let mut load = filled(Asker::Caller, 2, CALLERS_BYTES / 2);
        assert_eq!(load.check(Asker::Caller, 2), Err(VocabularyError::Busy));
        assert_eq!(load.check(Asker::Session, BYTES - CALLERS_BYTES), Ok(()));
        assert_eq!(load.check(Asker::Session, BYTES), Err(VocabularyError::Busy), "not while the others wait");
        load.remove(Asker::Caller, CALLERS_BYTES / 2);
        assert_eq!(load.check(Asker::Caller, 2), Ok(()));
    }

    #[test]
    fn many_small_questions_of_callers_leave_room_too() {
        let load = filled(Asker::Caller, CALLERS_QUESTIONS, 1);
        assert_eq!(load.check(Asker::Caller, 1), Err(VocabularyError::Busy));
        assert_eq!(load.check(Asker::Session, 1), Ok(()));
    }

    #[test]
    fn what_can_never_be_carried_is_refused_for_good() {
        let load = Load::default();
        assert_eq!(load.check(Asker::Session, BYTES), Ok(()));
        for (asker, bytes) in [(Asker::Session, BYTES + 1), (Asker::Caller, CALLERS_BYTES + 1)] {
            assert!(matches!(load.check(asker, bytes), Err(VocabularyError::Refused(_))), "{asker:?}");
        }
    }
}
