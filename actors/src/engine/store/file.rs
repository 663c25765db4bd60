//! One KV file: what is in it, byte for byte, and how it is written and read.
//!
//! Little-endian: magic and version, the checksum of the rest of the header, fingerprint, tenant, number of tokens,
//! length and checksum of the state, the tokens; then the state. Written beside its place and renamed, so that no reader
//! ever sees half of one.

use std::fs::{DirBuilder, File, FileTimes};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::time::SystemTime;

use crate::engine::protocol::Token;
use crate::request::TenantId;

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"cLLM-KV\x01";

/// Magic and the header's checksum.
const FRONT_BYTES: usize = 16;

/// The header's fields of constant length: fingerprint, tenant, number of tokens, length and checksum of the state.
const FIELD_BYTES: usize = 32;

/// More tokens than any context has.
const MAX_TOKENS: usize = 1 << 24;

/// What a file says about its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of model, context parameters and build.
    pub(crate) fingerprint: u64,
    /// Whose it is.
    pub(crate) tenant: TenantId,
    /// The tokens that the state stands for.
    pub(crate) tokens: Vec<Token>,
    state_bytes: u64,
    state_hash: u64,
}

impl Header {
    pub(crate) fn new(fingerprint: u64, tenant: TenantId, tokens: Vec<Token>, state: &[u8]) -> Self {
        Self { fingerprint, tenant, tokens, state_bytes: state.len() as u64, state_hash: hash(state) }
    }

    /// Length of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        bytes(self.tokens.len(), self.state_bytes)
    }

    fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(FIELD_BYTES + 4 * self.tokens.len());
        rest.extend(self.fingerprint.to_le_bytes());
        rest.extend(self.tenant.0.to_le_bytes());
        rest.extend((self.tokens.len() as u32).to_le_bytes());
        rest.extend(self.state_bytes.to_le_bytes());
        rest.extend(self.state_hash.to_le_bytes());
        self.tokens.iter().for_each(|token| rest.extend(token.to_le_bytes()));
        [&MAGIC[..], &hash(&rest).to_le_bytes()[..], &rest[..]].concat()
    }

    fn decode(reader: &mut impl Read, file_bytes: u64) -> io::Result<Self> {
        let mut front = [0; FRONT_BYTES];
        reader.read_exact(&mut front)?;
        let mut rest = vec![0; FIELD_BYTES];
        reader.read_exact(&mut rest)?;
        if front[..8] != MAGIC {
            return Err(invalid("it is no kv file of this version"));
        }
        let n_tokens = u32_at(&rest, 12) as usize;
        if n_tokens > MAX_TOKENS || file_bytes < (FRONT_BYTES + FIELD_BYTES + 4 * n_tokens) as u64 {
            return Err(invalid("its header is damaged"));
        }
        rest.resize(FIELD_BYTES + 4 * n_tokens, 0);
        reader.read_exact(&mut rest[FIELD_BYTES..])?;
        if hash(&rest) != u64_at(&front, 8) {
            return Err(invalid("its header is damaged"));
        }
        let header = Self {
            fingerprint: u64_at(&rest, 0),
            tenant: TenantId(u32_at(&rest, 8)),
            tokens: rest[FIELD_BYTES..].chunks_exact(4).map(|token| u32_at(token, 0).cast_signed()).collect(),
            state_bytes: u64_at(&rest, 16),
            state_hash: u64_at(&rest, 24),
        };
        if header.file_bytes() == file_bytes { Ok(header) } else { Err(invalid("it is cut short or too long")) }
    }
}

/// Length of a file with so many tokens and a state of so many bytes.
pub(crate) fn bytes(n_tokens: usize, state_bytes: u64) -> u64 {
    (FRONT_BYTES + FIELD_BYTES + 4 * n_tokens) as u64 + state_bytes
}

/// The name of a file: the same for the same tokens of the same tenant and model.
pub(crate) fn name(fingerprint: u64, tenant: TenantId, tokens: &[Token]) -> String {
    let mut key = Vec::with_capacity(12 + 4 * tokens.len());
    key.extend(fingerprint.to_le_bytes());
    key.extend(tenant.0.to_le_bytes());
    tokens.iter().for_each(|token| key.extend(token.to_le_bytes()));
    format!("{:016x}.kv", hash(&key))
}

/// What a name in the folder says, if it is of our own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// `<16 hexadecimal digits>.kv`: a whole file.
    File,
    /// `<16 hexadecimal digits>.<process id>.tmp`: one that is being written, or was when its writer died.
    Begun,
}

impl Name {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let mut parts = path.file_name()?.to_str()?.split('.');
        let is_ours = |key: &str| key.len() == 16 && key.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let key = parts.next().filter(|key| is_ours(key));
        match (key, parts.next(), parts.next(), parts.next()) {
            (Some(_), Some("kv"), None, None) => Some(Self::File),
            (Some(_), Some(process), Some("tmp"), None) if process.parse::<u32>().is_ok() => Some(Self::Begun),
            _ => None,
        }
    }
}

/// Makes the folder for its owner only, if it is not there. One that is there is somebody's and stays as it is.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => warn_of_others(folder),
        made => made,
    }
}

fn warn_of_others(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder)?.permissions()) & 0o077 != 0 {
        tracing::warn!(path = %folder.display(), "the folder of kv files is open to other users; the files are not");
    }
    Ok(())
}

/// Whether a file was read and is not what was written; else it may be whole, and the moment was bad.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Writes a file, for its owner only.
pub(crate) fn write(path: &Path, header: &Header, state: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = write_to(&beside, header, state).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn write_to(path: &Path, header: &Header, state: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&header.encode())?;
    file.write_all(state)?;
    // Before the rename: after a power cut there is the whole file or none.
    file.sync_data()
}

/// Reads what a file says of itself; its state is not looked at.
pub(crate) fn read_header(path: &Path) -> io::Result<Header> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Header::decode(&mut BufReader::new(file), bytes)
}

/// Reads a whole file; every byte of it is what was written.
pub(crate) fn read(path: &Path) -> io::Result<(Header, Vec<u8>)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let header = Header::decode(&mut reader, bytes)?;
    // As long as the file is, which is what memory it takes at most.
    let mut state = vec![0; header.state_bytes as usize];
    reader.read_exact(&mut state)?;
    if hash(&state) == header.state_hash { Ok((header, state)) } else { Err(invalid("its state is damaged")) }
}

/// Marks a file as used. If that fails it only goes earlier.
pub(crate) fn touch(path: &Path, now: SystemTime) {
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_times(FileTimes::new().set_modified(now));
    }
}

/// A checksum against damage, not against forgery: eight bytes at a time through SplitMix64's finalizer (Steele et al.,
/// 2014).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = mix(bytes.len() as u64);
    for word in words {
        sum = mix(sum ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(sum ^ u64::from_le_bytes(last))
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The four bytes at `at`, which must be there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The eight bytes at `at`, which must be there.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests;
