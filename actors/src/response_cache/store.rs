//! Answers by key, bounded in number, bytes and age; the least recently used goes first. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use super::key::Key;

#[cfg(test)]
mod tests;

/// Bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Most answers; 0: none is kept.
    pub entries: usize,
    /// Most bytes, the tables that find them included; `None`: no bound.
    pub bytes: Option<usize>,
    /// Share of the two above down to which room is made, 0 to 1.
    pub threshold: f64,
    /// Age at which an answer is forgotten; `None`: never.
    pub ttl: Option<Duration>,
}

/// Kept values. Looking up, inserting and forgetting one takes constant time.
#[derive(Debug)]
pub struct Store<V> {
    limits: Limits,
    places: HashMap<Key, u32>,
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    ends: [Links; 2],
    /// Of the values; the tables come on top.
    value_bytes: usize,
}

#[derive(Debug)]
struct Node<V> {
    key: Key,
    /// `None`: the place is free.
    value: Option<V>,
    bytes: usize,
    kept_at: Duration,
    links: [Links; 2],
}

/// Neighbours in an order, or both ends of it.
#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

/// The two orders that all values are in, the first to go first.
#[derive(Debug, Clone, Copy)]
enum Order {
    Use = 0,
    Age = 1,
}

/// No place.
const NONE: u32 = u32::MAX;

const UNLINKED: Links = Links { before: NONE, after: NONE };

impl<V> Store<V> {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            ends: [UNLINKED; 2],
            value_bytes: 0,
        }
    }

    /// The value under this key, unless it is too old; from now on the most recently used.
    pub fn get(&mut self, key: &Key, now: Duration) -> Option<&V> {
        let place = *self.places.get(key)?;
        if self.is_expired(place, now) {
            self.remove(place);
            return None;
        }
        self.unlink(Order::Use, place);
        self.link_last(Order::Use, place);
        self.nodes[place as usize].value.as_ref()
    }

    /// Keeps a value that takes `bytes` on the heap, in place of one under the same key. What has to go for it is
    /// forgotten; returns how many. A value that is larger than the whole store is not kept.
    pub fn insert(&mut self, key: Key, value: V, bytes: usize, now: Duration) -> usize {
        if let Some(place) = self.places.get(&key) {
            self.remove(*place);
        }
        let too_large = self.limits.bytes.is_some_and(|most| bytes > most);
        if self.limits.entries == 0 || too_large {
            return 0;
        }
        let place = self.place(Node { key, value: Some(value), bytes, kept_at: now, links: [UNLINKED; 2] });
        self.places.insert(key, place);
        self.link_last(Order::Use, place);
        self.link_last(Order::Age, place);
        self.value_bytes += bytes;
        if self.is_over(1.0) { self.make_room(1) } else { 0 }
    }

    /// Forgets what is too old, and makes room if the store is filled over its threshold. Returns how many had to go
    /// for lack of room.
    pub fn sweep(&mut self, now: Duration) -> usize {
        loop {
            let oldest = self.ends[Order::Age as usize].after;
            if oldest == NONE || !self.is_expired(oldest, now) {
                break;
            }
            self.remove(oldest);
        }
        self.make_room(0)
    }

    /// Values kept.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes that values and tables take on the heap.
    pub fn bytes(&self) -> usize {
        // hashbrown: one byte of control beside each bucket, one bucket in eight stays free.
        let capacity = self.places.capacity();
        let buckets = match capacity {
            0 => 0,
            1..8 => capacity + 1,
            _ => capacity / 7 * 8,
        };
        self.value_bytes
            + buckets * (size_of::<(Key, u32)>() + 1)
            + self.nodes.capacity() * size_of::<Node<V>>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// Forgets the least recently used down to the threshold, but keeps so many in any case.
    fn make_room(&mut self, keep: usize) -> usize {
        let mut evicted = 0;
        while self.len() > keep && self.is_over(self.limits.threshold) {
            self.remove(self.ends[Order::Use as usize].after);
            evicted += 1;
        }
        evicted
    }

    fn is_over(&self, share: f64) -> bool {
        let over = |used: usize, most: usize| used as f64 > most as f64 * share;
        over(self.len(), self.limits.entries) || self.limits.bytes.is_some_and(|most| over(self.bytes(), most))
    }

    fn is_expired(&self, place: u32, now: Duration) -> bool {
        let age = now.saturating_sub(self.nodes[place as usize].kept_at);
        self.limits.ttl.is_some_and(|ttl| age >= ttl)
    }

    fn place(&mut self, node: Node<V>) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.nodes[place as usize] = node;
                place
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        }
    }

    fn remove(&mut self, place: u32) {
        self.unlink(Order::Use, place);
        self.unlink(Order::Age, place);
        let node = &mut self.nodes[place as usize];
        node.value = None;
        self.value_bytes -= node.bytes;
        self.places.remove(&node.key);
        self.free.push(place);
    }

    fn link_last(&mut self, order: Order, place: u32) {
        let last = self.ends[order as usize].before;
        self.nodes[place as usize].links[order as usize] = Links { before: last, after: NONE };
        self.neighbour(order, last).after = place;
        self.ends[order as usize].before = place;
    }

    fn unlink(&mut self, order: Order, place: u32) {
        let Links { before, after } = self.nodes[place as usize].links[order as usize];
        self.neighbour(order, before).after = after;
        self.neighbour(order, after).before = before;
    }

    /// The links of a place; at no place the ends, which close the ring.
    fn neighbour(&mut self, order: Order, place: u32) -> &mut Links {
        match self.nodes.get_mut(place as usize) {
            Some(node) => &mut node.links[order as usize],
            None => &mut self.ends[order as usize],
        }
    }
}
