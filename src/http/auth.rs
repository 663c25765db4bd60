//! API keys: kept as hashes, compared in constant time, named in logs by a short form of the hash.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cllm_actors::request::TenantId;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::http::error::ApiError;

/// The header that clients of other APIs send their key in.
const X_API_KEY: &str = "x-api-key";

/// Bytes of the hash that name a key.
const SHORT_BYTES: usize = 4;

/// BLAKE3 of a key.
type Hash = [u8; blake3::OUT_LEN];

/// Who a request is from: whoever has this key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant {
    name: Arc<str>,
    id: TenantId,
    priority: i32,
}

impl Tenant {
    /// The first 8 hex digits of the key's hash. Safe to log.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The same for every request with this key, and different from every other key's.
    pub fn id(&self) -> TenantId {
        self.id
    }

    /// The priority of requests with this key, and the best they may ask for.
    pub fn priority(&self) -> i32 {
        self.priority
    }
}

/// The keys that open this server. With none it is open to everybody, and nobody is an admin.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    hashes: Arc<[Hash]>,
    tenants: Arc<[Tenant]>,
    /// From here on the hashes are of admins' keys.
    first_admin: usize,
}

impl KeyRing {
    /// Takes BLAKE3 hashes of keys.
    pub fn of_hashes(hashes: impl IntoIterator<Item = Hash>) -> Self {
        let hashes: Arc<[_]> = hashes.into_iter().collect();
        Self { first_admin: hashes.len(), tenants: tenants(&hashes), hashes }
    }

    /// Adds keys that open everything, commands to actors included.
    pub fn with_admins(self, hashes: impl IntoIterator<Item = Hash>) -> Self {
        let hashes: Arc<[_]> = self.hashes[..self.first_admin].iter().copied().chain(hashes).collect();
        Self { first_admin: self.first_admin, tenants: tenants(&hashes), hashes }
    }

    /// Gives the keys that were added first their priorities, in their order; the others have 0.
    pub fn with_priorities(self, priorities: &[i32]) -> Self {
        let by_hash: HashMap<_, _> = self.hashes[..self.first_admin].iter().zip(priorities).collect();
        let tenant = |(hash, tenant): (&Hash, &Tenant)| {
            let priority = by_hash.get(hash).map_or(0, |priority| **priority);
            Tenant { priority, ..tenant.clone() }
        };
        let tenants = self.hashes.iter().zip(&*self.tenants).map(tenant).collect();
        Self { tenants, ..self }
    }

    /// How many different keys there are.
    pub fn len(&self) -> usize {
        self.hashes.iter().collect::<HashSet<_>>().len()
    }

    /// Whether any key is configured.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Finds out who asks. `None`: no keys are configured.
    ///
    /// # Errors
    /// 401 without a key or with one that is unknown.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<Tenant>, ApiError> {
        if self.is_empty() {
            return Ok(None);
        }
        self.identify(headers).map(|index| Some(self.tenants[index].clone()))
    }

    /// Finds out which admin asks.
    ///
    /// # Errors
    /// 401 as for [`KeyRing::check`]; 403 for a key that is no admin's, or when there are no admins.
    pub fn check_admin(&self, headers: &HeaderMap) -> Result<Tenant, ApiError> {
        let index = if self.is_empty() { None } else { Some(self.identify(headers)?) };
        match index {
            _ if self.first_admin == self.hashes.len() => Err(ApiError::admin_disabled()),
            Some(index) if index >= self.first_admin => Ok(self.tenants[index].clone()),
            _ => Err(ApiError::admin_required()),
        }
    }

    fn identify(&self, headers: &HeaderMap) -> Result<usize, ApiError> {
        let key = presented_key(headers).ok_or_else(ApiError::unauthorized)?;
        self.find(key).ok_or_else(ApiError::unauthorized)
    }

    /// Looks at every hash, so that the time does not tell which one was near. Of equal ones the last counts: the admin's.
    fn find(&self, key: &[u8]) -> Option<usize> {
        let hash = blake3::hash(key);
        let mut found = Choice::from(0);
        let mut index = 0_u64;
        for (at, known) in self.hashes.iter().enumerate() {
            let equal = known.ct_eq(hash.as_bytes());
            index.conditional_assign(&(at as u64), equal);
            found |= equal;
        }
        bool::from(found).then_some(index as usize)
    }
}

/// Who each key stands for. A tenant's number is the beginning of the hash, so that it stays the same when other keys
/// come and go; where two hashes begin alike, and for 0, it is the next free one.
fn tenants(hashes: &[Hash]) -> Arc<[Tenant]> {
    let mut taken = HashSet::from([TenantId::NOBODY.0]);
    let mut numbers = HashMap::new();
    for hash in hashes.iter().collect::<BTreeSet<_>>() {
        let begin = hash.iter().take(SHORT_BYTES).fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
        let free = (0..=u32::MAX).map(|step| begin.wrapping_add(step)).find(|number| taken.insert(*number));
        numbers.insert(hash, free.unwrap_or(begin));
    }
    let tenant = |hash: &Hash| {
        let short = &blake3::Hash::from_bytes(*hash).to_hex()[..2 * SHORT_BYTES];
        Tenant { name: Arc::from(short), id: TenantId(numbers[hash]), priority: 0 }
    };
    hashes.iter().map(tenant).collect()
}

fn presented_key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| bearer_token(value.as_bytes()));
    bearer.or_else(|| headers.get(X_API_KEY).map(|value| value.as_bytes().trim_ascii()))
}

fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests;
