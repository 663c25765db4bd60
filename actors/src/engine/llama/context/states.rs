//! The KV of a sequence as bytes: what llama.cpp calls its state.

use llama_cpp_sys_2 as sys;

use crate::engine::protocol::SequenceId;

use super::{Context, len};

/// Room for two states that change places. It is kept from one time to the next: fresh pages cost several times what the
/// copy does.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) one: Vec<u8>,
    pub(super) other: Vec<u8>,
}

impl Moved {
    /// So much of it is kept, bytes each.
    const KEPT: usize = 32 << 20;

    /// Makes the room as long as a state. Where it grows, what was in it is not carried along.
    pub(super) fn fit(room: &mut Vec<u8>, bytes: usize) {
        if room.capacity() < bytes {
            *room = vec![0; bytes];
        } else {
            room.resize(bytes, 0);
        }
    }

    /// Bytes of both states.
    pub(super) fn bytes(&self) -> usize {
        self.one.len() + self.other.len()
    }

    /// Gives back what is too much to keep.
    pub(super) fn trim(&mut self) {
        for room in [&mut self.one, &mut self.other].into_iter().filter(|room| room.capacity() > Self::KEPT) {
            *room = Vec::new();
        }
    }
}

impl Context {
    /// See `Model::save`. `None` for what would not be whole.
    pub(in super::super) fn save(&mut self, sequence: SequenceId) -> Option<Vec<u8>> {
        let id = self.id(sequence)?;
        let mut state = vec![0; self.state_len(id)?];
        self.write_state(id, &mut state).then_some(state)
    }

    /// Bytes of a state; `None`: it cannot be had, or not whole.
    pub(super) fn state_len(&self, id: i32) -> Option<usize> {
        if self.handle().is_none() || len(self.ctx, id) > self.longest_state {
            return None;
        }
        // SAFETY: the context is alive and this thread's, and the id is in range; exceptions are caught inside.
        let bytes = unsafe { sys::llama_state_seq_get_size_ext(self.ctx.as_ptr(), id, 0) };
        (bytes > 0).then_some(bytes)
    }

    /// Fills `state`, which is as long as `state_len` has just said.
    pub(super) fn write_state(&self, id: i32, state: &mut [u8]) -> bool {
        // SAFETY: the context is alive and this thread's, and the id is in range; llama.cpp writes at most the length of
        // `state`, and catches its own exceptions.
        let written =
            unsafe { sys::llama_state_seq_get_data_ext(self.ctx.as_ptr(), state.as_mut_ptr(), state.len(), id, 0) };
        written == state.len()
    }

    /// See `Model::restore`. Bytes that llama.cpp does not understand leave the sequence empty.
    pub(in super::super) fn restore(&mut self, sequence: SequenceId, state: &[u8], tokens: u32) -> bool {
        if sequence >= self.n_seq_max || self.handle().is_none() {
            return false;
        }
        self.wipe(sequence);
        let id = match self.streams.as_mut() {
            Some(streams) => streams.claim(sequence),
            None => self.id(sequence),
        };
        let Some(id) = id else { return false };
        let read = self.read_state(id, state);
        self.keep_if(read && self.holds(id, tokens), sequence)
    }

    /// Fills an empty one.
    pub(super) fn read_state(&mut self, id: i32, state: &[u8]) -> bool {
        // SAFETY: the context is alive and this thread's, and the id is in range; llama.cpp reads at most the length of
        // `state`, checks it, and catches its own exceptions.
        let read = unsafe { sys::llama_state_seq_set_data_ext(self.ctx.as_ptr(), state.as_ptr(), state.len(), id, 0) };
        read == state.len()
    }
}
