//! Who computes what right now. Pure.

use std::collections::HashMap;

use super::key::Key;
use crate::engine::protocol::RequestId;

/// Leaders by key; `S` is how a leader is reached.
#[derive(Debug)]
pub(super) struct Flights<S> {
    leaders: HashMap<Key, Leader<S>>,
}

#[derive(Debug)]
struct Leader<S> {
    request: RequestId,
    priority: i32,
    session: S,
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
    /// Lets a request follow the leader of its key, or makes it the leader: if there is none, if the one there is `gone`,
    /// or if it has a worse priority (lower is better): nobody waits for somebody who may wait longer. Who follows
    /// that one already goes on doing so.
    pub(super) fn join(
        &mut self,
        key: Key,
        (request, priority): (RequestId, i32),
        session: S,
        gone: Option<RequestId>,
    ) -> Joined<S> {
        let leader = self
            .leaders
            .get(&key)
            .filter(|leader| Some(leader.request) != gone && leader.request != request && leader.priority <= priority);
        if let Some(leader) = leader {
            return Joined::Follows { leader: leader.session.clone(), request: leader.request };
        }
        self.leaders.insert(key, Leader { request, priority, session });
        Joined::Leads
    }

    /// A request computes this no longer; nothing happens if it does not lead.
    pub(super) fn land(&mut self, key: &Key, request: RequestId) {
        if self.leaders.get(key).is_some_and(|leader| leader.request == request) {
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
        assert_eq!(flights.join(key, (1, 0), "a", None), Joined::Leads);
        assert_eq!(flights.join(key, (2, 0), "b", None), follows("a", 1));
        assert_eq!(flights.join(other, (3, 0), "c", None), Joined::Leads);
        // A follower's end is not the leader's.
        flights.land(&key, 2);
        assert_eq!(flights.join(key, (4, 0), "d", Some(9)), follows("a", 1));
        assert_eq!(flights.join(key, (2, 0), "b", Some(1)), Joined::Leads);
        assert_eq!(flights.join(key, (4, 0), "d", Some(1)), follows("b", 2));
        flights.land(&key, 2);
        assert_eq!((flights.join(key, (5, 0), "e", None), flights.len()), (Joined::Leads, 2));
    }

    #[test]
    fn nobody_follows_a_leader_of_a_worse_class() {
        let key = Key::of_bytes([1; 32]);
        let mut flights = Flights::default();
        assert_eq!(flights.join(key, (1, 100), "a", None), Joined::Leads);
        assert_eq!(flights.join(key, (2, 0), "b", None), Joined::Leads);
        assert_eq!(flights.join(key, (3, 0), "c", None), follows("b", 2));
        assert_eq!(flights.join(key, (4, 100), "d", None), follows("b", 2));
        flights.land(&key, 1);
        assert_eq!(flights.join(key, (5, 0), "e", None), follows("b", 2));
    }
}
