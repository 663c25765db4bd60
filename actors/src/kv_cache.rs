//! The kv-cache actor: knows which token prefix lies in which sequence of the engine.
//!
//! Supervised by `engine-0`, after the backend and before the scheduler. The scheduler asks it for sequences and
//! returns them, the backend sends it the engine's inventory when a scheduler has started. It gives no commands to the
//! engine; what is to be evicted it tells the scheduler. When it dies its index is refilled from the inventory that the
//! scheduler, which restarts after it, asks for. Nothing needs doing when it stops.

pub mod index;
mod radix;
mod retention;

use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef};

use self::index::{Budget, PrefixIndex, Wanted};
use self::retention::CHEAP_ENTRIES;
use crate::boards::kv_cache as board;
use crate::engine::protocol::{Epoch, FileId, Held, RequestId, SequenceId, StoredPrefix};
use crate::scheduler::{SchedulerMsg, SchedulerRef};
use crate::supervision::mailbox;
use crate::wiring::Wiring;

/// Reference to a kv-cache.
pub type KvCacheRef = ActorRef<KvCacheMsg>;

/// What the kv-cache is told.
#[derive(Debug)]
pub enum KvCacheMsg {
    /// From the backend: what the engine holds after a reset. Answered by `SchedulerMsg::CacheReady`.
    Inventory {
        /// Epoch of the scheduler that reset the engine.
        epoch: Epoch,
        /// Sequences with KV.
        sequences: Vec<Held>,
        /// KV files.
        files: Vec<StoredPrefix>,
        /// That scheduler; gets all answers from now on.
        scheduler: SchedulerRef,
    },
    /// From the backend: KV files have come or gone.
    Files {
        /// Epoch of the engine's state.
        epoch: Epoch,
        /// New ones.
        stored: Vec<StoredPrefix>,
        /// Those that are no more.
        gone: Vec<FileId>,
    },
    /// From the scheduler: a sequence for a request. Answered by `SchedulerMsg::Reserved`.
    Reserve {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The request.
        request: RequestId,
        /// What for.
        wanted: Wanted,
    },
    /// From the scheduler: how far a running request is. Said before a `Reserve` that may profit from it.
    Computed {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The sequence it runs on.
        sequence: SequenceId,
        /// How many of its first tokens have KV.
        tokens: u32,
    },
    /// From the scheduler: a request ended and left this in its sequence.
    Release {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The sequence and the tokens with KV.
        held: Held,
    },
    /// From the scheduler: a reservation was not used.
    Abandon {
        /// Epoch of the sender.
        epoch: Epoch,
        /// The sequence.
        sequence: SequenceId,
    },
    /// From the scheduler: the engine lacks cells. Answered by `SchedulerMsg::RoomMade`.
    MakeRoom {
        /// Epoch of the sender.
        epoch: Epoch,
        /// Cells to free.
        cells: u32,
    },
}

crate::impl_message!(KvCacheMsg);

/// What a kv-cache starts with.
#[derive(Debug, Clone)]
pub struct KvCacheArgs {
    /// The others.
    pub wiring: Arc<Wiring>,
    /// Bounds of what is retained.
    pub budget: RetainBudget,
}

/// Bounds of retained prefixes, before the model's sizes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainBudget {
    /// Most retained sequences.
    pub entries: u32,
    /// Most memory of their KV in bytes, what several hold counted once in one pool of cells, for each in a split context;
    /// `None`: half of the context's cells.
    pub bytes: Option<u64>,
}

/// State of a kv-cache.
#[derive(Debug)]
pub struct KvCacheState {
    wiring: Arc<Wiring>,
    scheduler: Option<SchedulerRef>,
    index: PrefixIndex,
    epoch: Epoch,
}

/// The actor.
#[derive(Debug, Default)]
pub struct KvCache;

#[ractor::actor(message = KvCacheMsg, state = KvCacheState, arguments = KvCacheArgs)]
impl KvCache {
    async fn pre_start(&self, _myself: KvCacheRef, args: KvCacheArgs) -> Result<KvCacheState, ActorProcessingErr> {
        let model = args.wiring.loaded().ok_or("the kv-cache starts after the backend has loaded a model")?;
        let half = u64::from(model.info.n_ctx) / 2;
        let tokens = args.budget.bytes.map_or(half, |bytes| bytes / model.info.kv_bytes_per_token.max(1));
        let entries = args.budget.entries as usize;
        // An engine that moves them out of its cells can keep all: they slow nobody.
        let cheap = if model.info.parked_limit == u32::MAX { CHEAP_ENTRIES } else { entries };
        let shared_once = model.info.streams.is_none();
        // What the engine is to hold as bytes is longer than its tokens alone, by a little.
        let tokens = if shared_once { tokens } else { tokens - tokens / 50 };
        let budget = Budget { entries, tokens: tokens as usize, shared_once, cheap };
        let shown = &args.wiring.boards.kv_cache;
        shown.set(board::CELLS, model.info.n_ctx.into());
        shown.set(board::BUDGET_ENTRIES, args.budget.entries.into());
        shown.set(board::BUDGET_BYTES, tokens.saturating_mul(model.info.kv_bytes_per_token));
        let index = PrefixIndex::new(model.info.n_seq_max, budget, model.info.memory);
        Ok(KvCacheState { wiring: args.wiring, scheduler: None, index, epoch: 0 })
    }

    async fn handle(
        &self,
        _myself: KvCacheRef,
        message: KvCacheMsg,
        state: &mut KvCacheState,
    ) -> Result<(), ActorProcessingErr> {
        let _handling = mailbox::handling();
        match message {
            KvCacheMsg::Inventory { epoch, sequences, files, scheduler } => {
                state.on_inventory(epoch, sequences, files, scheduler);
            }
            message if message.epoch() != state.epoch => {}
            KvCacheMsg::Files { stored, gone, .. } => state.index.files_changed(stored, &gone),
            KvCacheMsg::Reserve { request, wanted, .. } => state.on_reserve(request, wanted),
            KvCacheMsg::Computed { sequence, tokens, .. } => state.index.computed(sequence, tokens),
            KvCacheMsg::Release { held, .. } => state.on_release(held),
            KvCacheMsg::Abandon { sequence, .. } => state.index.abandon(sequence),
            KvCacheMsg::MakeRoom { cells, .. } => state.on_make_room(cells),
        }
        state.show();
        Ok(())
    }
}

impl KvCacheMsg {
    fn epoch(&self) -> Epoch {
        match self {
            Self::Inventory { epoch, .. }
            | Self::Files { epoch, .. }
            | Self::Reserve { epoch, .. }
            | Self::Computed { epoch, .. }
            | Self::Release { epoch, .. }
            | Self::Abandon { epoch, .. }
            | Self::MakeRoom { epoch, .. } => *epoch,
        }
    }
}

impl KvCacheState {
    fn on_inventory(&mut self, epoch: Epoch, sequences: Vec<Held>, files: Vec<StoredPrefix>, scheduler: SchedulerRef) {
        if epoch < self.epoch {
            return;
        }
        self.epoch = epoch;
        self.scheduler = Some(scheduler);
        self.index.refill(sequences, files);
        self.tell(SchedulerMsg::CacheReady { epoch });
    }

    fn on_reserve(&mut self, request: RequestId, wanted: Wanted) {
        let reservation = self.index.reserve(wanted);
        self.tell(SchedulerMsg::Reserved { epoch: self.epoch, request, reservation });
    }

    fn on_release(&mut self, held: Held) {
        let evict = self.index.release(held);
        if !evict.is_empty() {
            self.tell(SchedulerMsg::OverBudget { epoch: self.epoch, evict });
        }
    }

    fn on_make_room(&mut self, cells: u32) {
        let evict = self.index.make_room(cells as usize);
        self.tell(SchedulerMsg::RoomMade { epoch: self.epoch, evict });
    }

    fn show(&self) {
        let (entries, tokens) = self.index.retained();
        let shown = &self.wiring.boards.kv_cache;
        shown.set(board::ENTRIES, entries as u64);
        shown.set(board::RETAINED_TOKENS, tokens as u64);
    }

    /// A scheduler that is gone is being restarted and begins with an inventory.
    fn tell(&self, message: SchedulerMsg) {
        if let Some(scheduler) = &self.scheduler {
            let _ = scheduler.cast(message);
        }
    }
}
