//! Which fault comes next. Pure: it follows from the seed and from where the engine runs.

use std::time::Duration;

use crate::names;

/// Longest time that something is slow, well below any watchdog.
const SLOW_MS: std::ops::RangeInclusive<u64> = 5..=150;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something happens to an actor.
    Actor {
        /// Its path below the root's.
        victim: &'static str,
        /// What.
        what: ActorFault,
    },
    /// Something happens to the engine's process.
    Engine(ProcessFault),
}

/// What happens to an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ActorFault {
    /// It is killed where it is.
    Killed,
    /// Its next handler panics.
    Panics,
    /// Its next handler takes so long.
    Slow(Duration),
}

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessFault {
    /// It is killed, as for want of memory.
    Killed,
    /// It aborts, as by a failed assertion.
    Aborted,
    /// It stands still until the watchdog ends it.
    Hung,
    /// It stands still for so long.
    Slow(Duration),
}

/// Whether the engine can be hurt without the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// It has a process of its own.
    Process,
    /// It is a thread of the server.
    Thread,
}

/// Actors that may be hit in every way. Sessions are not among the victims: one that dies ends its request, by design.
/// The last one is there only if answers are kept.
const BUSY: [&str; 4] = ["engine-0/scheduler-0", "engine-0/kv-cache-0", "engine-0/backend-0", names::RESPONSE_CACHE];

/// Actors that get too few messages for a fault in the next one.
const QUIET: [&str; 3] = [names::ENGINE, names::INSPECTOR, names::HTTP];

/// Draws faults.
#[derive(Debug)]
pub(super) struct Plan {
    random: fastrand::Rng,
    engine: Engine,
    busy: &'static [&'static str],
}

/// Whether there is a response cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResponseCache {
    /// It can be hit.
    There,
    /// A fault that hits nobody would be none.
    Absent,
}

impl Plan {
    pub(super) fn new(seed: u64, engine: Engine, cache: ResponseCache) -> Self {
        let busy = if cache == ResponseCache::There { &BUSY[..] } else { &BUSY[..BUSY.len() - 1] };
        Self { random: fastrand::Rng::with_seed(seed), engine, busy }
    }

    /// The next one: half of them hit the engine where it can be hit.
    pub(super) fn next(&mut self) -> Fault {
        match self.engine {
            Engine::Process if self.random.bool() => Fault::Engine(self.process_fault()),
            Engine::Process | Engine::Thread => self.actor_fault(),
        }
    }

    fn process_fault(&mut self) -> ProcessFault {
        match self.random.u8(..4) {
            0 => ProcessFault::Killed,
            1 => ProcessFault::Aborted,
            2 => ProcessFault::Hung,
            _ => ProcessFault::Slow(self.slow()),
        }
    }

    fn actor_fault(&mut self) -> Fault {
        let victim = self.random.usize(..self.busy.len() + QUIET.len());
        match self.busy.get(victim) {
            None => Fault::Actor { victim: QUIET[victim - self.busy.len()], what: ActorFault::Killed },
            Some(victim) => {
                let what = match self.random.u8(..3) {
                    0 => ActorFault::Killed,
                    1 => ActorFault::Panics,
                    _ => ActorFault::Slow(self.slow()),
                };
                Fault::Actor { victim, what }
            }
        }
    }

    fn slow(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(SLOW_MS))
    }
}

impl std::fmt::Display for ActorFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Killed => f.write_str("killed"),
            Self::Panics => f.write_str("panics at its next message"),
            Self::Slow(time) => write!(f, "slow for {} ms at its next message", time.as_millis()),
        }
    }
}

impl std::fmt::Display for ProcessFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Killed => f.write_str("engine killed"),
            Self::Aborted => f.write_str("engine aborted"),
            Self::Hung => f.write_str("engine hung"),
            Self::Slow(time) => write!(f, "engine slow for {} ms", time.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seed: u64, engine: Engine) -> Vec<Fault> {
        faults_with(ResponseCache::There, seed, engine)
    }

    fn faults_with(cache: ResponseCache, seed: u64, engine: Engine) -> Vec<Fault> {
        let mut plan = Plan::new(seed, engine, cache);
        (0..1000).map(|_| plan.next()).collect()
    }

    #[test]
    fn the_same_seed_brings_the_same_faults() {
        assert_eq!(faults(7, Engine::Process), faults(7, Engine::Process));
        assert_ne!(faults(7, Engine::Process), faults(8, Engine::Process));
    }

    #[test]
    fn every_victim_is_hit_and_an_engine_in_a_thread_is_not() {
        let faults = [faults(1, Engine::Thread), faults(1, Engine::Process)];
        for victim in BUSY.iter().chain(&QUIET) {
            let hit = |fault: &Fault| matches!(fault, Fault::Actor { victim: hit, .. } if hit == victim);
            assert!(faults.iter().all(|faults| faults.iter().any(hit)), "{victim}");
        }
        let engine = faults.map(|faults| faults.iter().filter(|fault| matches!(fault, Fault::Engine(_))).count());
        assert_eq!(engine[0], 0);
        assert!(engine[1] > 400, "{engine:?}");
    }

    #[test]
    fn a_response_cache_that_is_not_there_is_not_hit() {
        let hit = |fault: &Fault| matches!(fault, Fault::Actor { victim: names::RESPONSE_CACHE, .. });
        assert!(!faults_with(ResponseCache::Absent, 1, Engine::Thread).iter().any(hit));
    }
}
