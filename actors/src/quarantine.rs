//! Who may have killed an engine: charges against requests, so that one poison request cannot kill it for ever.
//!
//! A request that was computed when the engine died, and has gained no token since it was charged last, is charged. At
//! two charges it runs alone; an engine that dies while it is alone is its doing, and it is refused. The books outlive
//! every actor but the request's own session, which closes its account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::engine::protocol::RequestId;

/// So many charges and a request runs alone.
const SUSPECT: u32 = 2;

/// Charges by request; only requests that were charged have an entry.
#[derive(Debug, Default)]
pub struct Quarantine {
    accounts: Mutex<HashMap<RequestId, Account>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    Charged(u32),
    Guilty,
}

/// What a request's account means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs as any other.
    Trusted,
    /// It runs alone.
    Suspect,
    /// It runs never again.
    Guilty,
}

impl Quarantine {
    /// The engine died over these requests, which have gained nothing since they were charged last.
    pub fn charge(&self, requests: &[RequestId]) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        for request in requests {
            let charges = match accounts.get(request) {
                Some(Account::Charged(charges)) => *charges,
                Some(Account::Guilty) => continue,
                None => 0,
            };
            let alone = requests.len() == 1 && charges >= SUSPECT;
            accounts.insert(*request, if alone { Account::Guilty } else { Account::Charged(charges + 1) });
        }
    }

    /// The request got a token: whatever it was charged with, it lives.
    pub fn clear(&self, request: RequestId) {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
    }

    /// What becomes of the request.
    pub fn verdict(&self, request: RequestId) -> Verdict {
        match self.accounts.lock().unwrap_or_else(PoisonError::into_inner).get(&request) {
            Some(Account::Guilty) => Verdict::Guilty,
            Some(Account::Charged(charges)) if *charges >= SUSPECT => Verdict::Suspect,
            Some(Account::Charged(_)) | None => Verdict::Trusted,
        }
    }
}

/// What the engine is working on.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// The batch's requests that have gained nothing while they were in it.
    pub(crate) in_step: Vec<RequestId>,
    /// The last text.
    pub(crate) tokenizing: Option<u64>,
}

impl Suspects {
    /// A request that has got a token is no suspect any more.
    pub(crate) fn gained(&mut self, request: RequestId, quarantine: &Quarantine) {
        if let Some(at) = self.in_step.iter().position(|suspect| *suspect == request) {
            self.in_step.swap_remove(at);
            quarantine.clear(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_poison_is_found_and_the_others_are_not_blamed() {
        let quarantine = Quarantine::default();
        quarantine.charge(&[1, 2, 3]);
        quarantine.clear(2);
        quarantine.charge(&[1, 2, 3]);
        let verdicts = [1, 2, 3].map(|request| quarantine.verdict(request));
        assert_eq!(verdicts, [Verdict::Suspect, Verdict::Trusted, Verdict::Suspect]);
        quarantine.clear(3);
        quarantine.charge(&[1]);
        assert_eq!(quarantine.verdict(1), Verdict::Guilty);
        assert_eq!(quarantine.verdict(3), Verdict::Trusted);
    }

    #[test]
    fn a_first_death_alone_is_no_proof() {
        let quarantine = Quarantine::default();
        quarantine.charge(&[1]);
        assert_eq!(quarantine.verdict(1), Verdict::Trusted);
    }
}
