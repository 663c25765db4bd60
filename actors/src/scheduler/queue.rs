//! Who waits, and in which order. Pure, and apart from the running set: of what runs it knows only whose it is and how
//! many tokens it was served.
//!
//! Priority classes are strict. Inside a class the tenants share by virtual token counters (Sheng et al., "Fairness in
//! Serving Large Language Models", 2024): the one that was served the fewest tokens goes next. A tenant that comes back
//! is lifted to the least counter of those that are there, so that nobody saves up by idling. Inside a tenant the earliest
//! arrival goes first. Hence among finitely many tenants nobody waits for ever but for a better class: whoever is served
//! falls behind those who are not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::engine::protocol::{RequestId, Token};
use crate::priority;
use crate::request::TenantId;

/// What a request's place in the order follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its class; lower goes first.
    pub priority: i32,
    /// Who shares with whom inside the class.
    pub tenant: TenantId,
    /// When the request arrived, in µs since the system started.
    pub arrived_us: u64,
}

impl Standing {
    /// Its order among those that run.
    pub fn rank(&self) -> u64 {
        priority::rank(self.priority, self.arrived_us)
    }
}

/// What a request was served before it is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Nothing.
    Nothing,
    /// All of its tokens, and they are counted here.
    Here,
    /// So many tokens, of which this queue knows nothing; it was not there yet. 0: it waited in another one.
    Before(u64),
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    classes: BTreeMap<i32, Class>,
    standings: HashMap<RequestId, Standing>,
}

/// A request that is next, or that was taken out.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The request.
    pub request: RequestId,
    /// Its standing.
    pub standing: Standing,
    /// Prompt and the tokens emitted so far.
    pub tokens: Arc<[Token]>,
    /// Tokens that its tenant is charged for when it is taken: all of them, or none if they were counted before.
    pub charge: u64,
}

/// One class, while any request of it waits or runs. Then it is forgotten, debts and all: nobody was there to be owed.
#[derive(Debug, Default)]
struct Class {
    shares: BTreeMap<TenantId, Share>,
    queued: usize,
}

/// A tenant in a class.
#[derive(Debug, Default)]
struct Share {
    /// Tokens served, plus what it was lifted by.
    counter: u64,
    /// By arrival.
    queued: BTreeMap<(u64, RequestId), Waiting>,
    running: usize,
}

#[derive(Debug)]
struct Waiting {
    tokens: Arc<[Token]>,
    charge: u64,
}

impl Share {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.queued.is_empty()
    }

    /// When its first one that is ready goes, among the tenants of the class.
    fn turn(&self, ready: impl Fn(RequestId) -> bool) -> Option<(u64, u64, RequestId)> {
        let first = self.queued.keys().find(|(_, request)| ready(*request));
        first.map(|(arrived_us, request)| (self.counter, *arrived_us, *request))
    }

    /// When each of its requests would go if nobody emitted anything meanwhile, in order.
    fn turns(&self) -> impl Iterator<Item = (u64, u64, RequestId)> {
        let mut counter = self.counter;
        self.queued.iter().map(move |((arrived_us, request), waiting)| {
            let turn = (counter, *arrived_us, *request);
            counter += waiting.charge;
            turn
        })
    }
}

impl Class {
    /// The share of a tenant with a further request, which is lifted if it had none.
    fn join(&mut self, tenant: TenantId, served: Served) -> &mut Share {
        let least = self.least_counter();
        let share = self.shares.entry(tenant).or_default();
        match served {
            // It was there all the time, only this queue was not.
            Served::Before(tokens) => share.counter += tokens,
            Served::Nothing | Served::Here if share.is_active() => {}
            Served::Nothing | Served::Here => share.counter = share.counter.max(least.unwrap_or(0)),
        }
        share
    }

    /// The least counter of the tenants that are there.
    fn least_counter(&self) -> Option<u64> {
        self.shares.values().filter(|share| share.is_active()).map(|share| share.counter).min()
    }

    /// Forgets tenants that are gone and would be lifted anyway.
    fn forget(&mut self) {
        let least = self.least_counter();
        self.shares.retain(|_, share| share.is_active() || least.is_some_and(|least| share.counter > least));
    }
}

impl Queue {
    /// Requests queued.
    pub fn len(&self) -> usize {
        self.standings.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.standings.is_empty()
    }

    /// Requests queued in classes better than this.
    pub fn better_than(&self, priority: i32) -> usize {
        self.classes.range(..priority).map(|(_, class)| class.queued).sum()
    }

    /// Queues a request; replaces an older entry of it.
    pub fn push(&mut self, request: RequestId, standing: Standing, tokens: Arc<[Token]>, served: Served) {
        self.remove(request);
        let charge = match served {
            Served::Nothing | Served::Before(0) => tokens.len() as u64,
            Served::Here | Served::Before(_) => 0,
        };
        let class = self.classes.entry(standing.priority).or_default();
        let share = class.join(standing.tenant, served);
        share.queued.insert((standing.arrived_us, request), Waiting { tokens, charge });
        class.queued += 1;
        self.standings.insert(request, standing);
    }

    /// Takes a request out that is not wanted any more.
    pub fn remove(&mut self, request: RequestId) -> Option<Queued> {
        let standing = self.standings.remove(&request)?;
        let class = self.classes.get_mut(&standing.priority)?;
        let share = class.shares.get_mut(&standing.tenant)?;
        let Waiting { tokens, charge } = share.queued.remove(&(standing.arrived_us, request))?;
        class.queued -= 1;
        self.settle(standing);
        Some(Queued { request, standing, tokens, charge })
    }

    /// The request that goes next, of those that are `ready`.
    pub fn next(&self, ready: impl Fn(RequestId) -> bool) -> Option<Queued> {
        let firsts = |class: &Class| {
            let turns = class.shares.values().filter_map(|share| share.turn(&ready));
            turns.min().map(|(_, _, request)| request)
        };
        let request = self.classes.values().filter(|class| class.queued > 0).find_map(firsts)?;
        let standing = *self.standings.get(&request)?;
        let share = self.classes.get(&standing.priority)?.shares.get(&standing.tenant)?;
        let Waiting { tokens, charge } = share.queued.get(&(standing.arrived_us, request))?;
        Some(Queued { request, standing, tokens: tokens.clone(), charge: *charge })
    }

    /// A queued request's standing.
    pub fn standing(&self, request: RequestId) -> Option<Standing> {
        self.standings.get(&request).copied()
    }

    /// Takes a request out to run it, and charges its tenant. Its end is told by [`Queue::leave`].
    pub fn take(&mut self, request: RequestId) -> Option<Queued> {
        let standing = *self.standings.get(&request)?;
        // Running first, so that the tenant does not count as gone in between.
        self.share(standing)?.running += 1;
        let taken = self.remove(request)?;
        self.charge(standing, taken.charge);
        Some(taken)
    }

    /// A running request was served so many tokens more.
    pub fn charge(&mut self, standing: Standing, tokens: u64) {
        if let Some(share) = self.share(standing) {
            share.counter += tokens;
        }
    }

    /// So many tokens of a running request were charged and cost nothing.
    pub fn refund(&mut self, standing: Standing, tokens: u64) {
        if let Some(share) = self.share(standing) {
            share.counter = share.counter.saturating_sub(tokens);
        }
    }

    /// A request that was taken does not run any more.
    pub fn leave(&mut self, standing: Standing) {
        if let Some(share) = self.share(standing) {
            share.running = share.running.saturating_sub(1);
        }
        self.settle(standing);
    }

    /// How many would be taken before each if nothing were emitted meanwhile.
    pub fn positions(&self) -> HashMap<RequestId, u32> {
        let mut order = Vec::with_capacity(self.len());
        for class in self.classes.values() {
            let first = order.len();
            order.extend(class.shares.values().flat_map(Share::turns));
            order[first..].sort_unstable();
        }
        order.into_iter().zip(0..).map(|((_, _, request), place)| (request, place)).collect()
    }

    fn share(&mut self, standing: Standing) -> Option<&mut Share> {
        self.classes.get_mut(&standing.priority)?.shares.get_mut(&standing.tenant)
    }

    /// A tenant may be gone, and with it the class.
    fn settle(&mut self, standing: Standing) {
        let Some(class) = self.classes.get_mut(&standing.priority) else { return };
        if class.shares.get(&standing.tenant).is_some_and(|share| !share.is_active()) {
            class.forget();
        }
        if class.shares.is_empty() {
            self.classes.remove(&standing.priority);
        }
    }
}

#[cfg(test)]
mod tests;
