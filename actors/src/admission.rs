//! The only bound on queued work: permits that move with the request and come back when it ends.
//!
//! Classes and tenants are quotas on one pool (`admission/book.rs`). A refusal costs a lock and a look into a table.

mod book;
mod occupancy;
mod rate;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::book::Book;
use crate::request::{Deadlines, GenerateRequest, TenantId};

/// The pool of permits; cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    limits: AdmissionLimits,
    book: Arc<Mutex<Book>>,
}

/// How many permits there are, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Most permits taken while an ordinary request gets one. Those of a class better than 0 may go beyond it by a tenth,
    /// at least by 1; those of a worse one stay below it by as much, as long as that leaves them 1.
    pub max_queue: u32,
    /// Most permits of one tenant; `None`: no bound but the pool. Does not hold for [`TenantId::NOBODY`].
    pub per_tenant: Option<u32>,
    /// Requests that run at once: so many of the permits are not for waiting.
    pub running: u32,
}

/// What permits are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub tenant: TenantId,
    /// For which class.
    pub priority: i32,
    /// How many; all or none.
    pub count: u32,
    /// Longest wait in the queue, from now on: where more is to be expected there are no permits.
    pub patience: Duration,
    /// Until the whole answer is due, from now on.
    pub time_left: Duration,
}

/// Why there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// More than this are never given: no waiting helps.
    Never {
        /// Most that one claim can get.
        limit: u32,
    },
    /// The pool is empty.
    Full {
        /// Its size for this class.
        limit: u32,
        /// When another try makes sense, 1 to 60 s.
        retry_after: Duration,
    },
    /// Those that go first would take longer than the claim can wait.
    TooLong {
        /// How long it can, by its patience and by the time that is left for its answer.
        longest_wait: Duration,
        /// When another try makes sense, 1 to 60 s.
        retry_after: Duration,
    },
    /// The tenant has its share.
    OverQuota {
        /// The share.
        limit: u32,
        /// When another try makes sense, 1 to 60 s.
        retry_after: Duration,
    },
}

/// The right to have one sequence in the system; returned on drop.
#[derive(Debug)]
pub struct Permit {
    tenant: TenantId,
    priority: i32,
    limit: u32,
    end: End,
    wants_place: bool,
    book: Arc<Mutex<Book>>,
}

/// What became of the request that had a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its caller got an answer: so fast is the system.
    Answered,
    /// It came to nothing, as by a deadline: that says nothing of how fast others are answered.
    Lost,
    /// Its answer came from elsewhere: it took no place, so its end frees none.
    Elsewhere,
}

impl AdmissionLimits {
    /// Permits for requests of this class, all tenants together.
    pub fn pool(&self, priority: i32) -> u32 {
        let step = (self.max_queue / 10).max(1);
        match priority.signum() {
            -1 => self.max_queue.saturating_add(step),
            0 => self.max_queue,
            _ => self.max_queue.saturating_sub(step).max(1),
        }
    }

    /// Most permits of a tenant.
    fn share(&self, tenant: TenantId) -> u32 {
        self.per_tenant.filter(|_| tenant != TenantId::NOBODY).unwrap_or(u32::MAX)
    }
}

impl Claim {
    /// One permit for this request.
    pub fn of(request: &GenerateRequest) -> Self {
        Self::unhurried(request.tenant, request.priority, 1).due(&request.deadlines, request.arrived_at)
    }

    /// Of whoever waits as long as it takes.
    pub fn unhurried(tenant: TenantId, priority: i32, count: u32) -> Self {
        Self { tenant, priority, count, patience: Duration::MAX, time_left: Duration::MAX }
    }

    /// The same with deadlines that count from then on.
    #[must_use]
    pub fn due(self, deadlines: &Deadlines, arrived_at: Instant) -> Self {
        let elapsed = arrived_at.elapsed();
        let patience = deadlines.patience().saturating_sub(elapsed);
        Self { patience, time_left: deadlines.total.saturating_sub(elapsed), ..self }
    }
}

impl Permit {
    /// Permits of ordinary requests in all.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The request was answered: its end tells those that wait how fast that goes.
    pub fn answered(&mut self) {
        self.end = End::Answered;
    }

    /// Whether the request wants a place of the engine: one whose answer comes from elsewhere goes before nobody.
    pub fn set_wants_place(&mut self, wants: bool) {
        if self.wants_place != wants {
            self.wants_place = wants;
            open(&self.book).set_wants_place(self.tenant, self.priority, wants, Instant::now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let end = if self.wants_place { self.end } else { End::Elsewhere };
        open(&self.book).give_back(self.tenant, self.priority, end, Instant::now());
    }
}

impl Admission {
    /// A pool with all permits in it.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self { limits, book: Arc::new(Mutex::new(Book::new(limits))) }
    }

    /// So many of the places are open: fewer than [`AdmissionLimits::running`] where those in them miss their deadlines.
    pub fn set_places(&self, places: u32) {
        open(&self.book).set_places(places, Instant::now());
    }

    /// Takes the permits of a claim, or none at all.
    ///
    /// # Errors
    /// Why not, and when to come back.
    pub fn try_acquire(&self, claim: Claim) -> Result<Vec<Permit>, Refusal> {
        open(&self.book).take(claim, Instant::now())?;
        let Claim { tenant, priority, .. } = claim;
        let (limit, end, wants_place) = (self.limit(), End::Lost, true);
        let permit = |_| Permit { tenant, priority, limit, end, wants_place, book: self.book.clone() };
        Ok((0..claim.count).map(permit).collect())
    }

    /// Whether [`Admission::try_acquire`] would find the permits now; takes none.
    ///
    /// # Errors
    /// Why not, and when to come back.
    pub fn check(&self, claim: Claim) -> Result<(), Refusal> {
        open(&self.book).check(claim, Instant::now())
    }

    /// Permits of ordinary requests in all.
    pub fn limit(&self) -> u32 {
        self.limits.max_queue
    }

    /// Permits that are taken.
    pub fn in_use(&self) -> u32 {
        open(&self.book).in_use()
    }
}

/// Nothing in the book can be left half-written.
fn open(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
