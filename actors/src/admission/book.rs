//! Who holds how many permits, whether there is one more, and when to come back if not. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::occupancy::Occupancy;
use super::rate::CompletionRate;
use super::{AdmissionLimits, Claim, End, Refusal};
use crate::request::TenantId;

/// Bounds of a computed `Retry-After`.
const RETRY_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The books of a pool.
#[derive(Debug)]
pub(super) struct Book {
    limits: AdmissionLimits,
    /// Requests that run at once, at present.
    places: u32,
    in_use: u32,
    /// By tenant; whoever holds none has no entry.
    held: HashMap<TenantId, u32>,
    /// By class, of those that want a place; one without any has no entry.
    classes: BTreeMap<i32, Class>,
    rate: CompletionRate,
    occupancy: Occupancy,
}

/// The permits of a class.
#[derive(Debug, Default)]
struct Class {
    in_use: u32,
    held: HashMap<TenantId, u32>,
}

impl Book {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        let (held, classes) = (HashMap::new(), BTreeMap::new());
        let (rate, occupancy) = (CompletionRate::default(), Occupancy::default());
        Self { limits, places: limits.running, in_use: 0, held, classes, rate, occupancy }
    }

    pub(super) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// So many run at once from now on, as long as that is no more than ever do.
    pub(super) fn set_places(&mut self, places: u32, now: Instant) {
        let places = places.min(self.limits.running);
        if places != self.places {
            self.places = places;
            self.tell_load(now);
        }
    }

    /// Whether the permits are there.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, claim: Claim, now: Instant) -> Result<(), Refusal> {
        let Claim { tenant, priority, count, .. } = claim;
        let (pool, share) = (self.limits.pool(priority), self.limits.share(tenant));
        if count > pool.min(share) {
            return Err(Refusal::Never { limit: pool.min(share) });
        }
        let held = self.held.get(&tenant).copied().unwrap_or(0);
        if held + count > share {
            return Err(Refusal::OverQuota { limit: share, retry_after: self.tenants_wait(held, count, now) });
        }
        if self.in_use + count > pool {
            return Err(Refusal::Full { limit: pool, retry_after: self.wait(self.in_use, count, now) });
        }
        let longest_wait = self.longest_wait(claim);
        let excess = self.time_until_its_turn(claim, now).saturating_sub(longest_wait);
        if count > 0 && !excess.is_zero() {
            return Err(Refusal::TooLong { longest_wait, retry_after: bounded(excess) });
        }
        Ok(())
    }

    /// How long a claim may wait for its turn: as its patience lasts, and so that there is time for an answer like others'
    /// behind that, a quarter more for the difference between answers. Half of its patience it has in any case: it may
    /// want much less than others do.
    fn longest_wait(&self, claim: Claim) -> Duration {
        if !self.can_tell() {
            return claim.patience;
        }
        let answer = self.time_of_an_answer();
        claim.time_left.saturating_sub(answer + answer / 4).max(claim.patience / 2).min(claim.patience)
    }

    /// Whether enough has been answered to tell how long that takes.
    fn can_tell(&self) -> bool {
        self.rate.has_seen(self.places.max(1))
    }

    /// How long an answer takes once its turn has come, by the last two rounds of them.
    pub(super) fn time_of_an_answer(&self) -> Duration {
        self.occupancy.time_of_an_answer(self.places.saturating_mul(2))
    }

    /// Writes the permits down as taken.
    ///
    /// # Errors
    /// Why not; nothing is taken then.
    pub(super) fn take(&mut self, claim: Claim, now: Instant) -> Result<(), Refusal> {
        self.check(claim, now)?;
        let Claim { tenant, priority, count, .. } = claim;
        if count == 0 {
            return Ok(());
        }
        self.in_use += count;
        *self.held.entry(tenant).or_default() += count;
        self.enter(tenant, priority, count);
        self.tell_load(now);
        Ok(())
    }

    /// A request that holds a permit wants a place of the engine, or none: another one computes its answer.
    pub(super) fn set_wants_place(&mut self, tenant: TenantId, priority: i32, wants: bool, now: Instant) {
        if wants {
            self.enter(tenant, priority, 1);
        } else {
            self.leave(tenant, priority);
        }
        self.tell_load(now);
    }

    fn enter(&mut self, tenant: TenantId, priority: i32, count: u32) {
        let class = self.classes.entry(priority).or_default();
        class.in_use += count;
        *class.held.entry(tenant).or_default() += count;
    }

    fn leave(&mut self, tenant: TenantId, priority: i32) {
        if let Some(class) = self.classes.get_mut(&priority) {
            class.in_use = class.in_use.saturating_sub(1);
            take_one(&mut class.held, tenant);
            if class.in_use == 0 {
                self.classes.remove(&priority);
            }
        }
    }

    fn tell_load(&mut self, now: Instant) {
        let places = self.places.max(1);
        let wanted: u32 = self.classes.values().map(|class| class.in_use).sum();
        self.rate.set_load(f64::from(wanted.min(places)) / f64::from(places), now);
        self.occupancy.set_taken(wanted.min(places), now);
    }

    /// One permit comes back.
    pub(super) fn give_back(&mut self, tenant: TenantId, priority: i32, end: End, now: Instant) {
        self.in_use = self.in_use.saturating_sub(1);
        take_one(&mut self.held, tenant);
        if end != End::Elsewhere {
            self.leave(tenant, priority);
        }
        if end == End::Answered {
            self.rate.note(now);
            self.occupancy.answered(now);
        }
        self.tell_load(now);
    }

    /// How long the last of a claim's requests would be queued behind those that go before it: all of better classes, and of
    /// its own class as many as the tenants' fair shares let pass; nobody of its class gives up a place for it. Zero where
    /// places are free for all of them, and while nobody can tell: before as many requests have been answered as run at once.
    fn time_until_its_turn(&self, claim: Claim, now: Instant) -> Duration {
        let Claim { tenant, priority, count, .. } = claim;
        let running = self.places;
        let better: u32 = self.classes.range(..priority).map(|(_, class)| class.in_use).sum();
        let its_own = self.classes.get(&priority);
        let beside = its_own.map_or(0, |class| {
            let tenants = class.held.len() as u32;
            class.held.get(&tenant).map_or(0, |held| held.saturating_mul(tenants)).min(class.in_use)
        });
        let taken = better.saturating_add(its_own.map_or(0, |class| class.in_use)).saturating_add(count);
        let nth = better.saturating_add(beside).saturating_add(count).saturating_sub(running);
        let nth = nth.max(u32::from(taken > running));
        if nth == 0 || !self.can_tell() {
            return Duration::ZERO;
        }
        // Those that began together end together: by one round alone the rate would swing.
        let by_rate = if nth == 1 { Duration::ZERO } else { self.rate.time_for(nth, running.saturating_mul(2), now) };
        by_rate.max(self.occupancy.time_until_free(nth, self.time_of_an_answer(), now))
    }

    /// Until what waits now has been served, at the rate at which requests are answered.
    fn wait(&self, requests: u32, count: u32, now: Instant) -> Duration {
        let waiting = requests.saturating_sub(self.places).max(count);
        bounded(self.rate.time_for(waiting, self.places, now))
    }

    /// The same for one tenant, which has its part of the rate and of the places.
    fn tenants_wait(&self, held: u32, count: u32, now: Instant) -> Duration {
        let tenants = (self.held.len() as u32).max(1);
        self.wait(held.saturating_mul(tenants), count.saturating_mul(tenants), now)
    }
}

fn bounded(retry_after: Duration) -> Duration {
    let (least, most) = RETRY_AFTER_BOUNDS;
    retry_after.clamp(least, most)
}

fn take_one(held: &mut HashMap<TenantId, u32>, tenant: TenantId) {
    if let Some(count) = held.get_mut(&tenant) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            held.remove(&tenant);
        }
    }
}
