//! Requests whose prefix is in a large file: the file is read beside the loop, and they are admitted when it is there.
//! What copies from such a request's sequence waits with it. Small files are read at once.

use crossbeam_channel::{Receiver, TryRecvError};

use super::EngineLoop;
use crate::engine::model::Model;
use crate::engine::protocol::{Admit, EndReason, Ended, EngineEvent, FileId, Placement, RequestId, SequenceId};
use crate::engine::store::{ReadFile, Store};

impl<M: Model, E: FnMut(EngineEvent)> EngineLoop<M, E> {
    /// Whether a request already waits for this sequence.
    pub(super) fn is_awaited(&self, sequence: SequenceId) -> bool {
        self.waiting.iter().any(|admit| admit.sequence == sequence)
    }

    /// Starts a request that has passed all checks, now or when the file is read that it waits for.
    pub(super) fn start_or_wait(&mut self, admit: Admit) {
        let waits = match admit.placement {
            Placement::Restore { file, .. } => self.starts_reading(&admit, file),
            Placement::Copy { from, .. } => self.is_awaited(from),
            Placement::Fresh | Placement::InPlace => false,
        };
        if !waits {
            return self.start(admit);
        }
        // Its old tokens serve nobody any more: whoever wants the sequence waits for the new ones.
        self.overwrite(admit.sequence);
        self.waiting.push(admit);
    }

    fn starts_reading(&mut self, admit: &Admit, file: FileId) -> bool {
        let Some(store) = self.store.as_mut() else { return false };
        let large = store.bytes(file, admit.tenant).is_some_and(|bytes| bytes > self.busy_bytes);
        large && store.start_reading(file, (admit.epoch, admit.request))
    }

    /// Admits those whose file has been read. At most one a step: what is copied into cells must not delay the next token.
    pub(super) fn take_read(&mut self) {
        match self.store.as_ref().and_then(Store::reads).map(Receiver::try_recv) {
            Some(Ok(read)) => self.on_read(read),
            Some(Err(TryRecvError::Disconnected)) => self.start_unread(),
            Some(Err(TryRecvError::Empty)) | None => {}
        }
    }

    /// Nobody reads any more: those that wait compute.
    pub(super) fn start_unread(&mut self) {
        for admit in std::mem::take(&mut self.waiting) {
            let placement = match admit.placement {
                Placement::Restore { .. } => Placement::Fresh,
                other => other,
            };
            self.start(Admit { placement, ..admit });
        }
    }

    /// A file has been read, for a request that may be over by now.
    pub(super) fn on_read(&mut self, read: ReadFile) {
        let (epoch, request) = read.ticket;
        // The request may have been cancelled and admitted again meanwhile, to wait for something else.
        let waits_for_it =
            |admit: &Admit| matches!(admit.placement, Placement::Restore { file, .. } if file == read.file);
        let awaited = |admit: &Admit| admit.request == request && admit.epoch == epoch && waits_for_it(admit);
        let Some(at) = self.waiting.iter().position(awaited) else { return };
        let admit = self.waiting.remove(at);
        let reused = self.place_read(&admit, read);
        self.occupy(admit, reused);
        self.start_followers();
    }

    /// Ends a request that waits, if there is such a one.
    pub(super) fn cancel_waiting(&mut self, request: RequestId) {
        let Some(at) = self.waiting.iter().position(|admit| admit.request == request) else { return };
        let Admit { epoch, request, sequence, .. } = self.waiting.remove(at);
        (self.emit)(EngineEvent::Ended(Box::new(Ended {
            epoch,
            request,
            sequence,
            reason: EndReason::Cancelled,
            emitted: 0,
            kv_tokens: 0,
        })));
        self.start_followers();
    }

    /// Starts, in the order in which they came, those that waited for a sequence which nobody fills any more.
    fn start_followers(&mut self) {
        let awaits_nobody = |admit: &Admit, waiting: &[Admit]| match admit.placement {
            Placement::Copy { from, .. } => !waiting.iter().any(|other| other.sequence == from),
            _ => false,
        };
        while let Some(at) = self.waiting.iter().position(|admit| awaits_nobody(admit, &self.waiting)) {
            let admit = self.waiting.remove(at);
            self.start(admit);
        }
    }
}
