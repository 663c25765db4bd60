//! What crosses the pipe between the server and its engine process: `postcard` values, each behind its length.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::engine::progress::{PerThread, Sign};
use crate::engine::protocol::{EngineCommand, EngineEvent};
use crate::engine::spec::EngineSpec;

/// Grows whenever a frame changes its meaning.
pub(crate) const PROTOCOL: u32 = 5;

/// Longest frame in bytes. A longer one is not written; one that comes is a broken pipe, not a message.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;

/// From the server to the engine process. `Start` is the first, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToEngine {
    /// Load this.
    Start {
        /// The engine.
        spec: Box<EngineSpec>,
        /// Time between two signs of life.
        beat: Duration,
    },
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
    /// A sign of life, several times a second: how far each thread is.
    Beat(PerThread<Sign>),
}

/// Why a frame was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Nothing of it was written, and further frames can be.
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLong(usize),
    /// The other end is gone.
    #[error(transparent)]
    Pipe(#[from] io::Error),
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Pipe(error) => error,
            error @ WriteError::TooLong(_) => Self::other(error),
        }
    }
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
    /// See [`WriteError`].
    pub(crate) fn write<T: Serialize>(&mut self, value: &T) -> Result<(), WriteError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&[0; 4]);
        let mut buffer = postcard::to_extend(value, buffer).map_err(io::Error::other)?;
        let len = buffer.len() - 4;
        if len > MAX_FRAME_BYTES {
            return Err(WriteError::TooLong(len));
        }
        buffer[..4].copy_from_slice(&(len as u32).to_le_bytes());
        let written = self.out.write_all(&buffer).and_then(|()| self.out.flush());
        self.buffer = buffer;
        Ok(written?)
    }
}

/// Reads frames; the buffer is reused.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    input: R,
    buffer: Vec<u8>,
}

impl<R> FrameReader<R> {
    /// Frames out of `input`.
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new() }
    }
}

impl<R: Read> FrameReader<R> {
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
        self.buffer.resize(checked(length)?, 0);
        self.input.read_exact(&mut self.buffer)?;
        postcard::from_bytes(&self.buffer).map(Some).map_err(io::Error::other)
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// As [`FrameReader::read`], without a thread that waits.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut length = [0; 4];
        if self.input.read(&mut length[..1]).await? == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut length[1..]).await?;
        self.buffer.resize(checked(length)?, 0);
        self.input.read_exact(&mut self.buffer).await?;
        postcard::from_bytes(&self.buffer).map(Some).map_err(io::Error::other)
    }
}

fn checked(length: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_le_bytes(length) as usize;
    if len > MAX_FRAME_BYTES { Err(WriteError::TooLong(len).into()) } else { Ok(len) }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::engine::protocol::{AddSpecial, Epoch};
    use crate::engine::spec::FakeSpec;
    use crate::engine::vocabulary_thread::{MAX_QUESTION_BYTES, plain_text, text_bytes, token_bytes};

    fn start() -> ToEngine {
        ToEngine::Start { spec: Box::new(EngineSpec::Fake(FakeSpec::default())), beat: Duration::from_millis(250) }
    }

    fn reset(epoch: Epoch) -> EngineCommand {
        EngineCommand::Reset { epoch, cut_off_first: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn frames_come_out_of_a_slow_pipe_as_they_went_in() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write(&ToEngine::Command(reset(7))).expect("fits");
        writer.write(&ToEngine::Command(reset(8))).expect("fits");
        let bytes = std::mem::take(&mut writer.out);
        let (mut pipe, output) = tokio::io::duplex(1);
        tokio::spawn(async move { pipe.write_all(&bytes[..bytes.len() - 1]).await });
        let mut reader = FrameReader::new(output);
        assert!(matches!(reader.next().await, Ok(Some(ToEngine::Command(command))) if command == reset(7)));
        assert!(reader.next::<ToEngine>().await.is_err(), "cut inside a frame");
        assert!(matches!(FrameReader::new(tokio::io::empty()).next::<ToEngine>().await, Ok(None)));
        assert!(FrameReader::new(&[255, 255, 255, 255, 0][..]).next::<ToEngine>().await.is_err());
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write(&start()).expect("fits");
        writer.write(&ToEngine::Command(reset(7))).expect("fits");
        let mut reader = FrameReader::new(&*writer.out);
        let first = reader.read();
        assert!(matches!(first, Ok(Some(ToEngine::Start { spec, .. })) if matches!(*spec, EngineSpec::Fake(_))));
        assert!(matches!(reader.read(), Ok(Some(ToEngine::Command(command))) if command == reset(7)));
        assert!(matches!(reader.read::<ToEngine>(), Ok(None)));
    }

    #[test]
    fn a_frame_that_is_too_long_leaves_the_pipe_as_it_was() {
        let mut writer = FrameWriter::new(Vec::new());
        let parts = plain_text("a".repeat(MAX_FRAME_BYTES));
        let long = ToEngine::Command(EngineCommand::Tokenize { id: 1, parts, special: AddSpecial::Never });
        assert!(matches!(writer.write(&long), Err(WriteError::TooLong(_))));
        writer.write(&ToEngine::Command(reset(7))).expect("fits");
        let mut reader = FrameReader::new(&*writer.out);
        assert!(matches!(reader.read(), Ok(Some(ToEngine::Command(command))) if command == reset(7)));
    }

    #[test]
    fn the_longest_question_fits() {
        let fits = |command| FrameWriter::new(io::sink()).write(&ToEngine::Command(command)).is_ok();
        let tokens = vec![i32::MIN; MAX_QUESTION_BYTES / 5];
        assert!(token_bytes(&tokens) <= MAX_QUESTION_BYTES && fits(EngineCommand::Detokenize { id: u64::MAX, tokens }));
        let part = plain_text("a").remove(0);
        let parts = vec![part.clone(); MAX_QUESTION_BYTES / text_bytes(&[part])];
        let special = AddSpecial::Model;
        assert!(
            text_bytes(&parts) <= MAX_QUESTION_BYTES && fits(EngineCommand::Tokenize { id: u64::MAX, parts, special })
        );
    }

    #[test]
    fn a_cut_frame_and_a_senseless_length_are_errors() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write(&ToEngine::Command(reset(7))).expect("fits");
        let cut = writer.out.len() - 1;
        assert!(FrameReader::new(&writer.out[..cut]).read::<ToEngine>().is_err());
        assert!(FrameReader::new(&[255, 255, 255, 255, 0][..]).read::<ToEngine>().is_err());
    }
}
