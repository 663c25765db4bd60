//! Counts what waits in each actor's mailbox, by every sender, without the actor's help; and how long its handlers take,
//! if they begin with [`handling`].
//!
//! [`impl_message!`](crate::impl_message) implements `ractor::Message` for a type so that each message is wrapped
//! while it is in a mailbox. A guard's `Drop` notices messages that are lost in a dead mailbox.
//!
//! Entries live in a table by actor id. Our supervisors remove them when a child exits; for actors that nobody of
//! ours supervises a sweep over the table does, whenever it has doubled, so the table is never larger than twice the
//! number of living actors and a constant.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use ractor::message::{BoxedDowncastErr, BoxedMessage};
use ractor::registry::where_is_pid;
use ractor::{ActorId, Message};

use super::board::process_time;
use super::disturbance::Next;
use super::histogram::Histogram;

const SHARDS: usize = 16;
/// Entries that are not worth a sweep.
const SWEEP_FLOOR: usize = 256;
/// Messages whose time of arrival is remembered, per mailbox.
const ARRIVALS: u64 = 32;

type Entries = HashMap<ActorId, Arc<MailboxStats>, BuildHasherDefault<PidHasher>>;
type Shard = RwLock<Entries>;

static TABLE: LazyLock<Table> = LazyLock::new(Table::default);

/// What went through one mailbox. Read with [`MailboxStats::snapshot`].
#[derive(Debug, Default)]
pub struct MailboxStats {
    sent: AtomicU64,
    max_depth: AtomicU64,
    handled: AtomicU64,
    lost: AtomicU64,
    waited_ns: AtomicU64,
    longest_wait_ns: AtomicU64,
    /// When the newest messages came, in ns of [`process_time`], by their number.
    arrivals: [AtomicU64; ARRIVALS as usize],
    /// When the message handled last had come.
    last_arrival: AtomicU64,
    /// Time that handled messages spent waiting.
    pub waits: Histogram,
    /// Time that handlers took which say so by [`handling`].
    pub handling: Histogram,
    /// Nothing, unless the chaos actor is at work.
    pub(super) next: Next,
}

/// [`MailboxStats`] at one moment; fields are read one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailboxSnapshot {
    /// Messages in the mailbox.
    pub depth: u64,
    /// Most messages that were ever in it at once.
    pub max_depth: u64,
    /// Messages taken out to be handled.
    pub handled: u64,
    /// Messages dropped unhandled, because the actor ended.
    pub lost: u64,
    /// Time that handled messages spent waiting, summed.
    pub waited: Duration,
    /// The longest of these waits.
    pub longest_wait: Duration,
}

impl MailboxStats {
    /// The counters now.
    pub fn snapshot(&self) -> MailboxSnapshot {
        MailboxSnapshot {
            depth: self.depth(self.sent.load(Ordering::Relaxed)),
            max_depth: self.max_depth.load(Ordering::Relaxed),
            handled: self.handled.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)),
            longest_wait: Duration::from_nanos(self.longest_wait_ns.load(Ordering::Relaxed)),
        }
    }

    fn depth(&self, sent: u64) -> u64 {
        // A message that came and went between the two reads.
        sent.saturating_sub(self.gone())
    }

    /// How long the oldest message has been waiting. With more than 32 in the mailbox: at most so long.
    pub fn oldest_wait(&self) -> Duration {
        let (sent, gone) = (self.sent.load(Ordering::Relaxed), self.gone());
        let since = match sent.saturating_sub(gone) {
            0 => return Duration::ZERO,
            depth if depth <= ARRIVALS => &self.arrivals[(gone % ARRIVALS) as usize],
            _ => &self.last_arrival,
        };
        process_time().saturating_sub(Duration::from_nanos(since.load(Ordering::Relaxed)))
    }

    fn gone(&self) -> u64 {
        self.handled.load(Ordering::Relaxed) + self.lost.load(Ordering::Relaxed)
    }

    fn enter(&self, now: Duration) {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        self.arrivals[(number % ARRIVALS) as usize].store(now.as_nanos() as u64, Ordering::Relaxed);
        let depth = self.depth(number + 1);
        if depth > self.max_depth.load(Ordering::Relaxed) {
            self.max_depth.fetch_max(depth, Ordering::Relaxed);
        }
    }

    /// Only the actor itself handles messages, so plain loads and stores do: half the cost of a message is atomics.
    fn leave(&self, since: Duration, now: Duration) {
        let waited = now.saturating_sub(since);
        self.waits.record_alone(waited);
        self.last_arrival.store(since.as_nanos() as u64, Ordering::Relaxed);
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        let add = |counter: &AtomicU64, n| counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        add(&self.handled, 1);
        add(&self.waited_ns, waited);
        if waited > self.longest_wait_ns.load(Ordering::Relaxed) {
            self.longest_wait_ns.store(waited, Ordering::Relaxed);
        }
    }
}

/// Counters of an actor's mailbox; `None` if no message was ever sent to it or it is gone.
pub fn mailbox_stats(actor: ActorId) -> Option<Arc<MailboxStats>> {
    TABLE.get(actor)
}

/// The same for an actor that is alive, before its first message too.
pub(super) fn stats_of(actor: ActorId) -> Arc<MailboxStats> {
    TABLE.get_or_insert(actor)
}

/// All actors with counters, the dead ones swept out first.
pub fn all_mailboxes() -> Vec<(ActorId, Arc<MailboxStats>)> {
    TABLE.sweep();
    let entries = |shard: &Shard| read(shard).iter().map(|(id, stats)| (*id, stats.clone())).collect::<Vec<_>>();
    TABLE.shards.iter().flat_map(entries).collect()
}

/// Removes a dead actor's entry. Supervisors call it; it is never needed for correctness, only for promptness.
pub fn forget(actor: ActorId) {
    if write(TABLE.shard(actor)).remove(&actor).is_some() {
        TABLE.len.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) fn table_len() -> usize {
    TABLE.len.load(Ordering::Relaxed)
}

/// Implements `ractor::Message` for a message type of local actors, with mailbox accounting.
///
/// ```
/// enum Greeting { Hello }
/// cllm_actors::impl_message!(Greeting);
/// ```
#[macro_export]
macro_rules! impl_message {
    ($($message:ty),+ $(,)?) => {$(
        impl ::ractor::Message for $message {
            fn box_message(
                self,
                actor: &::ractor::ActorId,
            ) -> ::core::result::Result<::ractor::message::BoxedMessage, ::ractor::message::BoxedDowncastErr> {
                $crate::supervision::mailbox::enclose(self, actor)
            }

            fn from_boxed(
                boxed: ::ractor::message::BoxedMessage,
            ) -> ::core::result::Result<Self, ::ractor::message::BoxedDowncastErr> {
                $crate::supervision::mailbox::open(boxed)
            }
        }
    )+};
}

/// Wraps a message on its way into a mailbox. For [`impl_message!`](crate::impl_message).
///
/// # Errors
/// The actor is remote.
#[doc(hidden)]
pub fn enclose<M: Send + 'static>(message: M, actor: &ActorId) -> Result<BoxedMessage, BoxedDowncastErr> {
    Envelope { waiting: Waiting::enter(TABLE.get_or_insert(*actor)), message }.box_message(actor)
}

/// Unwraps a message that is about to be handled. For [`impl_message!`](crate::impl_message).
///
/// # Errors
/// The message is of another type.
#[doc(hidden)]
pub fn open<M: Send + 'static>(boxed: BoxedMessage) -> Result<M, BoxedDowncastErr> {
    let Envelope { waiting, message } = Envelope::<M>::from_boxed(boxed)?;
    waiting.open();
    Ok(message)
}

thread_local! {
    /// The message that was opened last on this thread, until its handler takes it.
    static OPENED: Cell<Option<(Arc<MailboxStats>, Duration)>> = const { Cell::new(None) };
}

/// Measures the handler that calls it in its first line, until the result is dropped. ractor opens a message and enters
/// its handler without a pause in between, so the message opened last on this thread is the handler's own.
#[must_use = "the time is that until it is dropped"]
pub fn handling() -> Option<Handling> {
    let handling = OPENED.take().map(|(stats, since)| Handling { stats, since })?;
    handling.stats.next.happen();
    Some(handling)
}

/// A handler at work.
#[derive(Debug)]
pub struct Handling {
    stats: Arc<MailboxStats>,
    since: Duration,
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.stats.handling.record_alone(process_time().saturating_sub(self.since));
    }
}

struct Envelope<M> {
    waiting: Waiting,
    message: M,
}

impl<M: Send + 'static> Message for Envelope<M> {}

/// One message in a mailbox.
struct Waiting {
    /// `None` once it is opened.
    stats: Option<Arc<MailboxStats>>,
    since: Duration,
}

impl Waiting {
    fn enter(stats: Arc<MailboxStats>) -> Self {
        let since = process_time();
        stats.enter(since);
        Self { stats: Some(stats), since }
    }

    fn open(mut self) {
        if let Some(stats) = self.stats.take() {
            let now = process_time();
            stats.leave(self.since, now);
            OPENED.set(Some((stats, now)));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(stats) = &self.stats {
            stats.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Table {
    shards: [Shard; SHARDS],
    len: AtomicUsize,
    /// Length at which the next sweep is due, less [`SWEEP_FLOOR`].
    sweep_at: AtomicUsize,
}

impl Table {
    fn shard(&self, actor: ActorId) -> &Shard {
        &self.shards[actor.pid() as usize % SHARDS]
    }

    fn get(&self, actor: ActorId) -> Option<Arc<MailboxStats>> {
        read(self.shard(actor)).get(&actor).cloned()
    }

    fn get_or_insert(&self, actor: ActorId) -> Arc<MailboxStats> {
        self.get(actor).unwrap_or_else(|| self.insert(actor))
    }

    fn insert(&self, actor: ActorId) -> Arc<MailboxStats> {
        let stats = {
            let mut shard = write(self.shard(actor));
            shard
                .entry(actor)
                .or_insert_with(|| {
                    self.len.fetch_add(1, Ordering::Relaxed);
                    Arc::default()
                })
                .clone()
        };
        // A sender may come here after the actor's supervisor has called `forget`; nobody would call it again.
        if where_is_pid(actor).is_none() {
            forget(actor);
        }
        if self.len.load(Ordering::Relaxed) > self.sweep_at.load(Ordering::Relaxed) + SWEEP_FLOOR {
            self.sweep();
        }
        stats
    }

    fn sweep(&self) {
        // Set first, so that other threads do not sweep as well.
        self.sweep_at.store(self.len.load(Ordering::Relaxed), Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = write(shard);
            let before = shard.len();
            shard.retain(|actor, _| where_is_pid(*actor).is_some());
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
        self.sweep_at.store(2 * self.len.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Actor ids are small numbers that ractor counts up, nobody's choice: the default hasher's defence is wasted on them.
#[derive(Default)]
struct PidHasher(u64);

impl Hasher for PidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    // The derived `Hash` of an enum writes its discriminant by this.
    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn write_u64(&mut self, n: u64) {
        // Fibonacci hashing (Knuth): spreads consecutive numbers over the high bits, which the map uses too.
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn read(shard: &Shard) -> std::sync::RwLockReadGuard<'_, Entries> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &Shard) -> std::sync::RwLockWriteGuard<'_, Entries> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
