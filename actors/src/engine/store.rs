//! KV files: prefixes that outlive the engine. Owns the folder, what it knows of the files in it, and the threads that
//! write and read them. What is worth a file decides the engine loop; what has to go for it, [`room`].
//!
//! A file that is missing, damaged or foreign is a miss and never an error: whoever wanted it computes. The folder may
//! hold other things, which are left alone: only names of our own form are looked at.

pub(crate) mod file;
mod room;
mod threads;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crossbeam_channel::Receiver;

use self::file::{Header, Name, hash};
use self::room::Other;
use self::threads::{Read, Reader, Write, Writer, Written};
use crate::engine::engine_loop::slot::common_prefix;
use crate::engine::protocol::{FileId, StoredPrefix, Token};
use crate::engine::spec::KvStoreSpec;
use crate::request::TenantId;

pub(crate) use self::threads::{ReadFile, Ticket};

/// A file that was begun so long ago is finished by nobody.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The folder and its files.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    max_bytes: u64,
    fingerprint: u64,
    files: BTreeMap<FileId, Known>,
    /// Files of other models, settings and versions.
    others: Vec<Other>,
    next_id: FileId,
    writer: Option<Writer>,
    reader: Option<Reader>,
    /// What the writer has not told of, in the order in which it will.
    under_way: VecDeque<UnderWay>,
    /// Files that had to make room, and nobody was told of it.
    gone: Vec<FileId>,
}

/// A file that is being written.
#[derive(Debug)]
struct UnderWay {
    tenant: TenantId,
    tokens: Vec<Token>,
    bytes: u64,
}

/// A file that may serve a request.
#[derive(Debug)]
struct Known {
    prefix: StoredPrefix,
    path: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

/// What has changed in the folder.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// New files.
    pub(crate) stored: Vec<StoredPrefix>,
    /// Files that are gone.
    pub(crate) gone: Vec<FileId>,
}

impl Store {
    /// Opens the folder, made if need be, for files with this fingerprint of model, parameters and build. `None`, with a
    /// warning, if it cannot be used.
    pub(crate) fn open(spec: &KvStoreSpec, fingerprint: &str) -> Option<Self> {
        let mut store = Self {
            folder: spec.path.clone(),
            max_bytes: spec.max_bytes,
            fingerprint: hash(fingerprint.as_bytes()),
            files: BTreeMap::new(),
            others: Vec::new(),
            next_id: 0,
            writer: None,
            reader: None,
            under_way: VecDeque::new(),
            gone: Vec::new(),
        };
        let opened = file::make_folder(&spec.path).and_then(|()| store.scan()).and_then(|()| store.start_threads());
        match opened {
            Ok(()) => {
                store.make_room(0);
                // Nobody knows them yet.
                store.gone.clear();
                Some(store)
            }
            Err(error) => {
                tracing::warn!(path = %spec.path.display(), %error, "no kv files: the folder cannot be used");
                None
            }
        }
    }

    fn start_threads(&mut self) -> io::Result<()> {
        self.writer = Some(Writer::start()?);
        self.reader = Some(Reader::start()?);
        Ok(())
    }

    /// The files that may serve requests, those used last first.
    pub(crate) fn prefixes(&self) -> Vec<StoredPrefix> {
        let mut files: Vec<_> = self.files.values().collect();
        files.sort_by_key(|known| std::cmp::Reverse(known.used_at));
        files.into_iter().map(|known| known.prefix.clone()).collect()
    }

    /// How many of these tokens are in a file, or will be.
    pub(crate) fn known_of(&self, tenant: TenantId, tokens: &[Token]) -> usize {
        let written = self.files.values().map(|known| (known.prefix.tenant, &known.prefix.tokens));
        let under_way = self.under_way.iter().map(|file| (file.tenant, &file.tokens));
        let own = written.chain(under_way).filter(|(theirs, _)| *theirs == tenant);
        own.map(|(_, held)| common_prefix(held, tokens)).max().unwrap_or(0)
    }

    /// Most bytes of the folder.
    pub(crate) const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Whether the writer would take a prefix now.
    pub(crate) fn has_room(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| !writer.jobs.is_full())
    }

    /// Hands a prefix to the writer. False: it is busy, or the folder has no room for it, and nothing is stored.
    pub(crate) fn store(&mut self, tenant: TenantId, tokens: Vec<Token>, state: Vec<u8>) -> bool {
        self.has_room() && self.hand_over(tenant, tokens, state)
    }

    /// Whether the writer is at work.
    pub(crate) fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// As [`Store::store`], but waits for the writer.
    pub(crate) fn store_at_last(&mut self, tenant: TenantId, tokens: Vec<Token>, state: Vec<u8>) {
        self.hand_over(tenant, tokens, state);
    }

    /// Makes room first, so that the folder never holds more than it may.
    fn hand_over(&mut self, tenant: TenantId, tokens: Vec<Token>, state: Vec<u8>) -> bool {
        let bytes = file::bytes(tokens.len(), state.len() as u64);
        if !self.make_room(bytes) {
            return false;
        }
        let path = self.folder.join(file::name(self.fingerprint, tenant, &tokens));
        let job = Write { fingerprint: self.fingerprint, tenant, tokens: tokens.clone(), path, state };
        // Fails only if the writer has died, and then nothing is stored.
        let taken = self.writer.as_ref().is_some_and(|writer| writer.jobs.send(job).is_ok());
        if taken {
            self.under_way.push_back(UnderWay { tenant, tokens, bytes });
        }
        taken
    }

    /// Length of a file of this tenant in bytes, if there is one.
    pub(crate) fn bytes(&self, id: FileId, tenant: TenantId) -> Option<u64> {
        self.files.get(&id).filter(|known| known.prefix.tenant == tenant).map(|known| known.bytes)
    }

    /// Tokens and state of a file of this tenant. `None`, and the file is forgotten, if it cannot be had.
    pub(crate) fn read(&mut self, id: FileId, tenant: TenantId) -> Option<(Vec<Token>, Vec<u8>)> {
        let known = self.files.get(&id).filter(|known| known.prefix.tenant == tenant)?;
        let outcome = file::read(&known.path);
        self.accept(id, tenant, outcome)
    }

    /// Has a file read beside the loop. False: it cannot be. From now on it is the last to make room.
    pub(crate) fn start_reading(&mut self, id: FileId, ticket: Ticket) -> bool {
        let (Some(known), Some(reader)) = (self.files.get_mut(&id), self.reader.as_ref()) else { return false };
        known.used_at = SystemTime::now();
        reader.jobs.try_send(Read { ticket, file: id, path: known.path.clone() }).is_ok()
    }

    /// What has been read, one for each [`Store::start_reading`].
    pub(crate) fn reads(&self) -> Option<&Receiver<ReadFile>> {
        self.reader.as_ref().map(|reader| &reader.done)
    }

    /// As [`Store::read`], of a file that has been read beside the loop.
    pub(crate) fn take(&mut self, read: ReadFile, tenant: TenantId) -> Option<(Vec<Token>, Vec<u8>)> {
        self.accept(read.file, tenant, read.outcome)
    }

    fn accept(
        &mut self,
        id: FileId,
        tenant: TenantId,
        outcome: io::Result<(Header, Vec<u8>)>,
    ) -> Option<(Vec<Token>, Vec<u8>)> {
        let known = self.files.get_mut(&id).filter(|known| known.prefix.tenant == tenant)?;
        let cause = match outcome {
            Ok((header, state)) if header.fingerprint == self.fingerprint && header.tenant == tenant => {
                known.used_at = SystemTime::now();
                file::touch(&known.path, known.used_at);
                return Some((header.tokens, state));
            }
            Ok(_) => "it is of another model".to_owned(),
            Err(error) => {
                if file::is_damage(&error) {
                    tracing::warn!(path = %known.path.display(), %error, "kv file is of no use, and removed");
                    self.remove(id);
                    return None;
                }
                error.to_string()
            }
        };
        tracing::warn!(path = %known.path.display(), %cause, "kv file is of no use");
        // It may be somebody else's, or readable again tomorrow.
        self.files.remove(&id);
        None
    }

    /// Removes a file.
    pub(crate) fn remove(&mut self, id: FileId) {
        if let Some(known) = self.files.remove(&id) {
            // Somebody else may have been faster.
            let _ = std::fs::remove_file(&known.path);
        }
    }

    /// Takes over what the writer has written, and tells what had to go for it.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        while let Some(written) = self.writer.as_ref().and_then(|writer| writer.written.try_recv().ok()) {
            self.under_way.pop_front();
            if let Some(Written { header, path }) = written {
                let bytes = header.file_bytes();
                changes.stored.push(self.know(header, path, bytes, SystemTime::now()));
            }
        }
        changes.gone = std::mem::take(&mut self.gone);
        changes
    }

    /// Waits until everything is written.
    pub(crate) fn finish(mut self) {
        if let Some(Writer { jobs, thread, .. }) = self.writer.take() {
            drop(jobs);
            let _ = thread.join();
        }
    }

    /// Looks at every file of ours: what is damaged goes, other models' files only count.
    fn scan(&mut self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            match Name::of(&path) {
                Some(Name::File) => self.scan_file(path),
                Some(Name::Begun) => remove_abandoned(&path),
                None => {}
            }
        }
        Ok(())
    }

    fn scan_file(&mut self, path: PathBuf) {
        match (file::read_header(&path), room::looked_at(&path)) {
            (Ok(header), Ok((bytes, modified))) if header.fingerprint == self.fingerprint => {
                self.know(header, path, bytes, modified);
            }
            (Ok(_), Ok((bytes, used_at))) => self.others.push(Other { path, bytes, used_at }),
            (Ok(_), Err(_)) => {}
            (Err(error), _) if file::is_damage(&error) => {
                tracing::warn!(path = %path.display(), %error, "damaged kv file removed");
                let _ = std::fs::remove_file(&path);
            }
            (Err(error), _) => tracing::warn!(path = %path.display(), %error, "kv file cannot be read"),
        }
    }

    fn know(&mut self, header: Header, path: PathBuf, bytes: u64, used_at: SystemTime) -> StoredPrefix {
        let id = self.next_id;
        self.next_id += 1;
        let prefix = StoredPrefix { file: id, tenant: header.tenant, tokens: header.tokens };
        // Written anew: the older entry is the same file.
        self.files.retain(|_, known| known.path != path);
        self.files.insert(id, Known { prefix: prefix.clone(), path, bytes, used_at });
        prefix
    }
}

/// A file that an engine was writing when it died; one that is just written may be another engine's.
fn remove_abandoned(path: &std::path::Path) {
    let age = std::fs::metadata(path).and_then(|metadata| metadata.modified()).map(|modified| modified.elapsed());
    if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
