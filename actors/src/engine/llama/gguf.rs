//! A look at a GGUF file before llama.cpp sees it: is it one, is all of it there, what shape does its KV have.
//!
//! llama.cpp maps the file: a tensor beyond its end would be a SIGBUS in the middle of a decode.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It cannot be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is a directory or a device.
    #[error("not a regular file")]
    NotAFile,
    /// It begins with other bytes.
    #[error("not a GGUF file")]
    NotGguf,
    /// Its version is none that llama.cpp reads.
    #[error("GGUF version {0} is not supported")]
    Version(u32),
    /// It ends too early.
    #[error("truncated: {what} needs {needed} bytes, the file has {len}")]
    Truncated {
        /// What is cut.
        what: String,
        /// Bytes up to its end.
        needed: u64,
        /// Bytes of the file.
        len: u64,
    },
    /// Its header makes no sense.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// The parts of a header that are of use here.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// `general.architecture`; empty if absent.
    pub(super) architecture: String,
    /// Whether it has a table of learned positions, which ends where its training did.
    pub(super) learned_positions: bool,
    /// Whole numbers and short arrays of them, by key.
    numbers: HashMap<String, Vec<u64>>,
}

impl Header {
    /// A number, or an array of them, of the architecture: `block_count` reads `llama.block_count`.
    pub(super) fn of_architecture(&self, key: &str) -> &[u64] {
        self.numbers(&format!("{}.{key}", self.architecture))
    }

    /// The largest number under a key of the architecture.
    pub(super) fn largest(&self, key: &str) -> Option<u64> {
        self.of_architecture(key).iter().copied().max()
    }

    fn numbers(&self, key: &str) -> &[u64] {
        self.numbers.get(key).map_or(&[], Vec::as_slice)
    }

    /// A header with these numbers of its architecture.
    #[cfg(test)]
    pub(super) fn with_numbers(architecture: &str, numbers: &[(&str, &[u64])]) -> Self {
        let named = |(key, values): &(&str, &[u64])| (format!("{architecture}.{key}"), values.to_vec());
        let numbers = numbers.iter().map(named).collect();
        Self { architecture: architecture.to_owned(), learned_positions: false, numbers }
    }

    /// A header of a model in so many files.
    #[cfg(test)]
    pub(super) fn with_split_count(count: u64) -> Self {
        Self { numbers: HashMap::from([("split.count".to_owned(), vec![count])]), ..Self::default() }
    }

    /// Files that the model is split into; 1 if it is not.
    pub(super) fn split_count(&self) -> u64 {
        self.numbers("split.count").first().copied().unwrap_or(1).max(1)
    }
}

/// Elements and bytes of one block of a tensor type; `None` for a type that does not exist.
pub(super) type TensorType = fn(u32) -> Option<(u64, u64)>;

/// Reads the header and checks that every tensor lies within the file.
///
/// # Errors
/// Whatever is wrong with the file.
pub(super) fn inspect(path: &Path, tensor_type: TensorType) -> Result<Header, GgufError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(GgufError::NotAFile);
    }
    read(BufReader::new(file), metadata.len(), tensor_type)
}

/// The second and further files of a model in `count` parts, by llama.cpp's naming: `model-00001-of-00003.gguf`.
pub(super) fn further_parts(first: &Path, count: u64) -> Vec<PathBuf> {
    let name = first.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(stem) = name.strip_suffix(&format!("-00001-of-{count:05}.gguf")) else { return Vec::new() };
    (2..=count).map(|part| first.with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf"))).collect()
}

fn read(source: impl Read + Seek, len: u64, tensor_type: TensorType) -> Result<Header, GgufError> {
    let mut reader = Reader { source, at: 0, len };
    if len < 4 || reader.array::<4>("the magic number")? != *b"GGUF" {
        return Err(GgufError::NotGguf);
    }
    let version = reader.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(GgufError::Version(version));
    }
    let n_tensors = reader.u64("the header")?;
    let n_pairs = reader.u64("the header")?;
    let mut header = Header::default();
    for _ in 0..n_pairs {
        reader.pair(&mut header)?;
    }
    let tensors = (0..n_tensors).map(|_| reader.tensor(tensor_type)).collect::<Result<Vec<_>, _>>()?;
    check_extents(&tensors, data_start(&header, reader.at)?, len)?;
    header.learned_positions = tensors.iter().any(|tensor| tensor.name == LEARNED_POSITIONS);
    Ok(header)
}

fn data_start(header: &Header, end_of_header: u64) -> Result<u64, GgufError> {
    let alignment = header.numbers("general.alignment").first().copied().unwrap_or(32);
    if !alignment.is_power_of_two() {
        return Err(GgufError::Damaged(format!("alignment of {alignment}")));
    }
    end_of_header.checked_next_multiple_of(alignment).ok_or_else(|| GgufError::Damaged("alignment".to_owned()))
}

fn check_extents(tensors: &[Tensor], start: u64, len: u64) -> Result<(), GgufError> {
    for tensor in tensors {
        let end = start.checked_add(tensor.offset).and_then(|at| at.checked_add(tensor.size));
        let needed = end.ok_or_else(|| GgufError::Damaged(format!("offset of tensor `{}`", tensor.name)))?;
        if needed > len {
            return Err(GgufError::Truncated { what: format!("tensor `{}`", tensor.name), needed, len });
        }
    }
    Ok(())
}

struct Tensor {
    name: String,
    offset: u64,
    size: u64,
}

/// Types of metadata values, as the format numbers them.
mod kind {
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

/// llama.cpp's name of the table of learned positions (GPT-2, StarCoder, MPT).
const LEARNED_POSITIONS: &str = "position_embd.weight";

/// Longest array of numbers that is kept: one entry per layer.
const MAX_KEPT: u64 = 4096;

/// Longest name that is read; llama.cpp's own limits are lower.
const MAX_NAME: u64 = 1 << 16;

struct Reader<R> {
    source: R,
    at: u64,
    len: u64,
}

impl<R: Read + Seek> Reader<R> {
    fn take(&mut self, bytes: u64, what: &str) -> Result<(), GgufError> {
        let needed = self.at.saturating_add(bytes);
        if needed > self.len {
            return Err(GgufError::Truncated { what: what.to_owned(), needed, len: self.len });
        }
        self.at = needed;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.take(N as u64, what)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<(), GgufError> {
        self.take(bytes, what)?;
        let bytes = i64::try_from(bytes).map_err(|_| GgufError::Damaged(what.to_owned()))?;
        self.source.seek_relative(bytes)?;
        Ok(())
    }

    fn text(&mut self, what: &str) -> Result<String, GgufError> {
        let len = self.u64(what)?;
        if len > MAX_NAME {
            return Err(GgufError::Damaged(format!("{what} of {len} bytes")));
        }
        self.take(len, what)?;
        let mut bytes = Vec::new();
        self.source.by_ref().take(len).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip_text(&mut self, what: &str) -> Result<(), GgufError> {
        let len = self.u64(what)?;
        self.skip(len, what)
    }

    fn pair(&mut self, header: &mut Header) -> Result<(), GgufError> {
        let key = self.text("a metadata key")?;
        match self.u32(&key)? {
            kind::STRING if key == "general.architecture" => header.architecture = self.text(&key)?,
            kind::STRING => self.skip_text(&key)?,
            kind::ARRAY => {
                let numbers = self.numbers(&key)?;
                header.numbers.insert(key, numbers);
            }
            scalar => {
                let number = self.number(scalar, &key)?;
                header.numbers.insert(key, number.into_iter().collect());
            }
        }
        Ok(())
    }

    /// The values of an array of whole numbers; nothing of any other or longer one.
    fn numbers(&mut self, key: &str) -> Result<Vec<u64>, GgufError> {
        let of = self.u32(key)?;
        let count = self.u64(key)?;
        let mut kept = Vec::new();
        match of {
            kind::STRING => (0..count).try_for_each(|_| self.skip_text(key))?,
            kind::ARRAY => return Err(GgufError::Damaged(format!("`{key}` is an array of arrays"))),
            scalar if count <= MAX_KEPT => {
                for _ in 0..count {
                    kept.extend(self.number(scalar, key)?);
                }
            }
            scalar => {
                let bytes = count.checked_mul(width(scalar, key)?);
                self.skip(bytes.ok_or_else(|| GgufError::Damaged(key.to_owned()))?, key)?;
            }
        }
        Ok(kept)
    }

    /// A scalar if it is a whole number that is not negative.
    fn number(&mut self, kind: u32, key: &str) -> Result<Option<u64>, GgufError> {
        Ok(match kind {
            0 => Some(u64::from(self.array::<1>(key)?[0])),
            2 => Some(u64::from(u16::from_le_bytes(self.array(key)?))),
            4 => Some(u64::from(self.u32(key)?)),
            5 => u64::try_from(i32::from_le_bytes(self.array(key)?)).ok(),
            10 => Some(self.u64(key)?),
            11 => u64::try_from(i64::from_le_bytes(self.array(key)?)).ok(),
            other => {
                let width = width(other, key)?;
                self.skip(width, key)?;
                None
            }
        })
    }

    fn tensor(&mut self, tensor_type: TensorType) -> Result<Tensor, GgufError> {
        let name = self.text("a tensor's name")?;
        let n_dims = self.u32(&name)?;
        if n_dims > 4 {
            return Err(GgufError::Damaged(format!("tensor `{name}` has {n_dims} dimensions")));
        }
        let mut elements = Some(1_u64);
        for _ in 0..n_dims {
            let dim = self.u64(&name)?;
            elements = elements.and_then(|elements| elements.checked_mul(dim));
        }
        let kind = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let (block, bytes) = tensor_type(kind)
            .ok_or_else(|| GgufError::Damaged(format!("tensor `{name}` has the unknown type {kind}")))?;
        let size = elements.and_then(|elements| (elements / block).checked_mul(bytes));
        let size = size.ok_or_else(|| GgufError::Damaged(format!("size of tensor `{name}`")))?;
        Ok(Tensor { name, offset, size })
    }
}

fn width(kind: u32, key: &str) -> Result<u64, GgufError> {
    match kind {
        0 | 1 | kind::BOOL => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        other => Err(GgufError::Damaged(format!("`{key}` has the unknown type {other}"))),
    }
}

#[cfg(test)]
mod tests;
