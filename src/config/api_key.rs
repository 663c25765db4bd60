//! API keys, of which only the hash is kept.

use std::fmt;

use super::field::{Field, Refusal};
use super::yaml::{Node, Value};

/// What a hash begins with in a file.
const PREFIX: &str = "blake3:";

/// The BLAKE3 hash of an API key. Equality takes the time it takes: compare [`ApiKey::hash`] in constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Hashes a key as a client shows it.
    pub fn of(plain: &str) -> Self {
        Self(*blake3::hash(plain.as_bytes()).as_bytes())
    }

    /// The hash.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = blake3::Hash::from_bytes(self.0).to_hex();
        write!(formatter, "ApiKey({PREFIX}{}…)", &hex[..8])
    }
}

impl Field for ApiKey {
    const IS_SECRET: bool = true;

    fn expected() -> String {
        "a text".to_owned()
    }

    fn read(node: &Node) -> Result<Self, Refusal<'_>> {
        let Value::Text(text) = &node.value else {
            return Err(Refusal::Unexpected(node));
        };
        if text.is_empty() {
            return Err(Refusal::Because(node, "a key must not be empty".to_owned()));
        }
        let Some(hex) = text.strip_prefix(PREFIX) else {
            return Ok(Self::of(text));
        };
        let hash = blake3::Hash::from_hex(hex)
            .map_err(|_| Refusal::Because(node, format!("`{PREFIX}` must be followed by 64 hex digits")))?;
        Ok(Self(*hash.as_bytes()))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}
