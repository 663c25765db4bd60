//! An address that survives restarts.
//!
//! Owns the current [`ActorRef`] of a supervised actor and its epoch. Does not queue: while nobody is published,
//! a message comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message, MessagingErr};
use tokio::sync::watch;

use crate::engine::protocol::Epoch;

/// The one counter that all epochs of a system come from. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct EpochSource(Arc<AtomicU64>);

impl EpochSource {
    /// A larger number than any before; the first is 1.
    pub fn next_epoch(&self) -> Epoch {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A restart-proof address of an actor with message `M`; cheap to clone, reading takes no lock.
pub struct Addr<M>(Arc<Inner<M>>);

struct Inner<M> {
    target: ArcSwapOption<Target<M>>,
    epochs: watch::Sender<Epoch>,
}

struct Target<M> {
    actor: ActorRef<M>,
    epoch: Epoch,
}

/// A message that reached nobody, and the message itself.
#[derive(thiserror::Error)]
#[error("the actor is down")]
pub struct Undeliverable<M> {
    /// `None` only if ractor swallowed it, which it does for remote actors alone.
    pub message: Option<M>,
}

impl<M> std::fmt::Debug for Undeliverable<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Undeliverable")
    }
}

impl<M> Clone for Addr<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> std::fmt::Debug for Addr<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addr").field("epoch", &self.epoch()).finish()
    }
}

impl<M> Default for Addr<M> {
    fn default() -> Self {
        Self(Arc::new(Inner { target: ArcSwapOption::empty(), epochs: watch::Sender::new(0) }))
    }
}

impl<M> Addr<M> {
    /// An address that nobody is published under yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Epoch of the newest incarnation ever published, alive or not; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        *self.0.epochs.borrow()
    }

    /// Follows the epoch of the newest incarnation; starts at 0 and only grows.
    pub fn epochs(&self) -> watch::Receiver<Epoch> {
        self.0.epochs.subscribe()
    }

    /// Makes `actor` the target, unless a newer incarnation was published already.
    pub fn publish(&self, actor: ActorRef<M>, epoch: Epoch) {
        // The watch's own lock orders writers; the target is stored first, so that who sees the epoch reaches it.
        self.0.epochs.send_if_modified(|newest| {
            let newer = epoch > *newest;
            if newer {
                self.0.target.store(Some(Arc::new(Target { actor, epoch })));
                *newest = epoch;
            }
            newer
        });
    }

    /// Leaves the address without a target if incarnation `epoch` is still the one.
    pub fn clear(&self, epoch: Epoch) {
        self.0.epochs.send_if_modified(|newest| {
            if *newest == epoch {
                self.0.target.store(None);
            }
            false
        });
    }
}

impl<M: Message> Addr<M> {
    /// The current incarnation; good for one use, not for keeping.
    pub fn current(&self) -> Option<ActorRef<M>> {
        self.0.target.load().as_ref().map(|target| target.actor.clone())
    }

    /// Sends a message to the current incarnation and returns its epoch.
    ///
    /// A message that was taken is still lost if the actor ends before it handles it; a larger epoch says so.
    ///
    /// # Errors
    /// [`Undeliverable`] with the message, when nobody is there or the actor is on its way out.
    pub fn cast(&self, message: M) -> Result<Epoch, Undeliverable<M>> {
        let target = self.0.target.load();
        let Some(target) = target.as_ref() else { return Err(Undeliverable { message: Some(message) }) };
        match target.actor.cast(message) {
            Ok(()) => Ok(target.epoch),
            Err(MessagingErr::SendErr(message)) => Err(Undeliverable { message: Some(message) }),
            Err(MessagingErr::ChannelClosed | MessagingErr::InvalidActorType) => Err(Undeliverable { message: None }),
        }
    }
}
