//! What crosses the pipe between the server and its engine process: `postcard` values, each behind its length.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::progress::Activity;
use crate::engine::protocol::{EngineCommand, EngineEvent};
use crate::engine::spec::EngineSpec;

/// Grows whenever a frame changes its meaning.
pub(crate) const PROTOCOL: u32 = 1;

/// Longest frame in bytes; a longer one is a broken pipe, not a message.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// From the server to the engine process. `Start` is the first, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToEngine {
    /// Load this.
    Start(EngineSpec),
    /// Do this.
    Command(EngineCommand),
}

/// From the engine process to the server. `Hello` is the first, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromEngine {
    /// Who speaks.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Version of the program.
        build: String,
    },
    /// Something happened.
    Event(EngineEvent),
    /// A sign of life, several times a second.
    Beat {
        /// Grows while work gets done.
        done: u64,
        /// Whether it has to.
        activity: Activity,
    },
}

/// Writes frames; the buffer is reused.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Frames into `out`.
    pub(crate) fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Writes one frame, in one call where the pipe has room.
    ///
    /// # Errors
    /// The other end is gone, or the frame is too long.
    pub(crate) fn write<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&[0; 4]);
        let mut buffer = postcard::to_extend(value, buffer).map_err(io::Error::other)?;
        let len = buffer.len() - 4;
        if len > MAX_FRAME_BYTES {
            return Err(too_long(len));
        }
        buffer[..4].copy_from_slice(&(len as u32).to_le_bytes());
        let written = self.out.write_all(&buffer).and_then(|()| self.out.flush());
        self.buffer = buffer;
        written
    }
}

/// Reads frames; the buffer is reused.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    input: R,
    buffer: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    /// Frames out of `input`.
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new() }
    }

    /// The next frame; `None` when the other end has closed the pipe between two frames.
    ///
    /// # Errors
    /// The pipe is cut inside a frame, the frame is too long or it is no `T`.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut length = [0; 4];
        if self.input.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut length[1..])?;
        let len = u32::from_le_bytes(length) as usize;
        if len > MAX_FRAME_BYTES {
            return Err(too_long(len));
        }
        self.buffer.resize(len, 0);
        self.input.read_exact(&mut self.buffer)?;
        postcard::from_bytes(&self.buffer).map(Some).map_err(io::Error::other)
    }
}

fn too_long(len: usize) -> io::Error {
    io::Error::other(format!("a frame of {len} bytes is over the limit of {MAX_FRAME_BYTES}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::spec::FakeSpec;

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write(&ToEngine::Start(EngineSpec::Fake(FakeSpec::default()))).expect("fits");
        writer.write(&ToEngine::Command(EngineCommand::Reset { epoch: 7 })).expect("fits");
        let mut reader = FrameReader::new(&*writer.out);
        assert!(matches!(reader.read(), Ok(Some(ToEngine::Start(EngineSpec::Fake(_))))));
        assert!(matches!(reader.read(), Ok(Some(ToEngine::Command(EngineCommand::Reset { epoch: 7 })))));
        assert!(matches!(reader.read::<ToEngine>(), Ok(None)));
    }

    #[test]
    fn a_cut_frame_and_a_senseless_length_are_errors() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write(&ToEngine::Command(EngineCommand::Reset { epoch: 7 })).expect("fits");
        let cut = writer.out.len() - 1;
        assert!(FrameReader::new(&writer.out[..cut]).read::<ToEngine>().is_err());
        assert!(FrameReader::new(&[255, 255, 255, 255, 0][..]).read::<ToEngine>().is_err());
    }
}
