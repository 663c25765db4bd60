//! Who computes what right now. Pure.

use std::collections::HashMap;

use super::key::Key;
use crate::engine::protocol::RequestId;

/// Leaders by key; `S` is how a leader is reached.
#[derive(Debug)]
pub(super) struct Flights<S> {
    leaders: HashMap<Key, (RequestId, S)>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined<S> {
    /// It is the first.
    Leads,
    /// Somebody computes this already.
    Follows {
        /// The leader.
        leader: S,
        /// Its request.
        request: RequestId,
    },
}

impl<S> Default for Flights<S> {
    fn default() -> Self {
        Self { leaders: HashMap::new() }
    }
}

impl<S: Clone> Flights<S> {
    /// Lets a request follow the leader of its key, or makes it the leader: if there is none, or the one there is `gone`.
    pub(super) fn join(&mut self, key: Key, request: RequestId, session: S, gone: Option<RequestId>) -> Joined<S> {
        match self.leaders.get(&key) {
            Some((leader, reached)) if Some(*leader) != gone && *leader != request => {
                Joined::Follows { leader: reached.clone(), request: *leader }
            }
            _ => {
                self.leaders.insert(key, (request, session));
                Joined::Leads
            }
        }
    }

    /// A request computes this no longer; nothing happens if it does not lead.
    pub(super) fn land(&mut self, key: &Key, request: RequestId) {
        if self.leaders.get(key).is_some_and(|(leader, _)| *leader == request) {
            self.leaders.remove(key);
        }
    }

    /// Leaders.
    pub(super) fn len(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follows(leader: &'static str, request: RequestId) -> Joined<&'static str> {
        Joined::Follows { leader, request }
    }

    #[test]
    fn the_first_leads_until_it_lands_or_is_said_to_be_gone() {
        let (key, other) = (Key::of_bytes([1; 32]), Key::of_bytes([2; 32]));
        let mut flights = Flights::default();
        assert_eq!(flights.join(key, 1, "a", None), Joined::Leads);
        assert_eq!(flights.join(key, 2, "b", None), follows("a", 1));
        assert_eq!(flights.join(other, 3, "c", None), Joined::Leads);
        // A follower's end is not the leader's.
        flights.land(&key, 2);
        assert_eq!(flights.join(key, 4, "d", Some(9)), follows("a", 1));
        assert_eq!(flights.join(key, 2, "b", Some(1)), Joined::Leads);
        assert_eq!(flights.join(key, 4, "d", Some(1)), follows("b", 2));
        flights.land(&key, 2);
        assert_eq!((flights.join(key, 5, "e", None), flights.len()), (Joined::Leads, 2));
    }
}
