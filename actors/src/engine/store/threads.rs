//! The two threads that touch KV files beside the engine loop: one writes, one reads, each a file at a time.

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::file::{self, Header};
use crate::engine::protocol::{Epoch, FileId, RequestId, Token};
use crate::request::TenantId;

/// Files that may wait for the writer; each is held in memory until it is written.
const WAITING_WRITES: usize = 1;

/// Files that may wait for the reader: one for each sequence that a context can have.
const WAITING_READS: usize = 256;

/// What has been read waits in memory for the loop, one file at a time.
const READ_AHEAD: usize = 1;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) jobs: Sender<Write>,
    /// One for each job; `None`: not written.
    pub(super) written: Receiver<Option<Written>>,
    pub(super) thread: JoinHandle<()>,
}

/// A file to be written.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) fingerprint: u64,
    pub(super) tenant: TenantId,
    pub(super) tokens: Vec<Token>,
    pub(super) path: PathBuf,
    pub(super) state: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Written {
    pub(super) header: Header,
    pub(super) path: PathBuf,
}

impl Writer {
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = bounded::<Write>(WAITING_WRITES);
        let (done, written) = unbounded();
        let thread = std::thread::Builder::new().name("cllm-kv-write".to_owned()).spawn(move || {
            for Write { fingerprint, tenant, tokens, path, state } in queue {
                // Here, because the state's checksum takes a while.
                let header = Header::new(fingerprint, tenant, tokens, &state);
                let outcome = file::write(&path, &header, &state);
                if let Err(error) = &outcome {
                    tracing::warn!(path = %path.display(), %error, "kv file not written");
                }
                let _ = done.send(outcome.is_ok().then_some(Written { header, path }));
            }
        })?;
        Ok(Self { jobs, written, thread })
    }
}

/// Ends when it is dropped, at the latest after the file that it is at.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) jobs: Sender<Read>,
    pub(super) done: Receiver<ReadFile>,
}

/// A file to be read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) ticket: Ticket,
    pub(super) file: FileId,
    pub(super) path: PathBuf,
}

/// For which request a file is read.
pub(crate) type Ticket = (Epoch, RequestId);

/// A file that was asked for, or why it could not be read.
#[derive(Debug)]
pub(crate) struct ReadFile {
    pub(crate) ticket: Ticket,
    pub(crate) file: FileId,
    pub(super) outcome: io::Result<(Header, Vec<u8>)>,
}

impl Reader {
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = bounded::<Read>(WAITING_READS);
        let (read, done) = bounded(READ_AHEAD);
        std::thread::Builder::new().name("cllm-kv-read".to_owned()).spawn(move || {
            for Read { ticket, file, path } in queue {
                let outcome = file::read(&path);
                if read.send(ReadFile { ticket, file, outcome }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, done })
    }
}
