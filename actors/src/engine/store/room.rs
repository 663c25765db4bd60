//! Room in the folder: what was used longest ago goes, whatever model it is of.
//!
//! Files of other models, settings and versions count like any other, or each upgrade would leave some that nobody ever
//! removes. They may belong to a server that runs, so each is looked at again before it goes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Store;
use crate::engine::protocol::FileId;

/// A file that serves other engines.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) used_at: SystemTime,
}

/// A file that was used longest ago.
enum Oldest {
    Own(FileId),
    /// By its place.
    Other(usize),
}

impl Store {
    /// Removes the files that were used longest ago until so many more bytes fit. False: they do not, whatever goes; then
    /// nothing does for their sake.
    pub(super) fn make_room(&mut self, bytes: u64) -> bool {
        let promised = self.under_way.iter().map(|file| file.bytes).sum::<u64>().saturating_add(bytes);
        if promised > self.max_bytes {
            return false;
        }
        while self.held().saturating_add(promised) > self.max_bytes {
            match self.oldest() {
                Some(Oldest::Own(id)) => {
                    self.remove(id);
                    self.gone.push(id);
                }
                Some(Oldest::Other(at)) => self.remove_other(at),
                None => break,
            }
        }
        true
    }

    /// Bytes of all files that are there.
    fn held(&self) -> u64 {
        let own = self.files.values().map(|known| known.bytes);
        own.chain(self.others.iter().map(|other| other.bytes)).fold(0, u64::saturating_add)
    }

    fn oldest(&self) -> Option<Oldest> {
        let own = self.files.iter().map(|(id, known)| (known.used_at, Oldest::Own(*id)));
        let others = self.others.iter().enumerate().map(|(at, other)| (other.used_at, Oldest::Other(at)));
        own.chain(others).min_by_key(|(used_at, _)| *used_at).map(|(_, oldest)| oldest)
    }

    /// Unless its own server has removed it meanwhile, or used it: then it is younger than it was.
    fn remove_other(&mut self, at: usize) {
        let other = &mut self.others[at];
        match looked_at(&other.path) {
            Ok((bytes, used_at)) if (bytes, used_at) != (other.bytes, other.used_at) => {
                (other.bytes, other.used_at) = (bytes, used_at);
            }
            Ok(_) => {
                let Other { path, bytes, .. } = self.others.swap_remove(at);
                tracing::debug!(path = %path.display(), bytes, "kv file of another model makes room");
                // Somebody else may have been faster.
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => drop(self.others.swap_remove(at)),
        }
    }
}

/// Length and last use of a file.
pub(super) fn looked_at(path: &Path) -> io::Result<(u64, SystemTime)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.len(), metadata.modified()?))
}
