//! The limit of open files of this process, raised to what the connections need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::connection::SPARE_CONNECTIONS;

/// Files beside connections: pipes to the engine, the model, KV files, the runtime's own, and a margin.
const OTHER_FILES: u64 = 128;

/// Raises the soft limit as far as the hard one allows, and warns when that is too little.
pub(super) fn make_room_for(connections: u32) {
    let wanted = u64::from(connections) + SPARE_CONNECTIONS as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let raised = raised(&limit, wanted);
    let soft = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files cannot be raised");
            limit.current
        }
    };
    if let Some(soft) = soft.filter(|soft| *soft < wanted) {
        tracing::warn!(
            limit = soft,
            wanted,
            "`server.max_connections` cannot be reached: too few open files are allowed; raise the limit (`ulimit -Hn`)"
        );
    }
}

/// The limit with a soft one that is no lower than before, and no higher than wanted or allowed. `None` is no limit.
fn raised(limit: &Rlimit, wanted: u64) -> Rlimit {
    let most = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    Rlimit { current: limit.current.map(|current| current.max(most)), maximum: limit.maximum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_grows_to_what_is_wanted_and_allowed_and_never_shrinks() {
        let soft = |current, maximum, wanted| raised(&Rlimit { current, maximum }, wanted).current;
        assert_eq!(soft(Some(1024), Some(4096), 2000), Some(2000));
        assert_eq!(soft(Some(1024), Some(1500), 2000), Some(1500));
        assert_eq!(soft(Some(1024), None, 2000), Some(2000));
        assert_eq!(soft(Some(5000), Some(9000), 2000), Some(5000));
        assert_eq!(soft(None, None, 2000), None);
    }
}
