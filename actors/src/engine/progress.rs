//! A sign of life: counts what the engine gets done, so that a watchdog can tell long work from none.
//!
//! Each of the engine's two threads has a count of its own: what one gets done says nothing of the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// One thing for each of an engine's two threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PerThread<T> {
    /// The loop, which loads and decodes.
    pub(crate) engine: T,
    /// The vocabulary thread.
    pub(crate) vocabulary: T,
}

/// Shared by one of the engine's threads, those that compute for it, and whoever watches it. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    counters: Arc<Counters>,
}

/// What is counted; its address is given to llama.cpp.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    done: AtomicU64,
    at_work: AtomicU32,
}

/// Work under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    counters: Arc<Counters>,
}

impl Progress {
    /// Something was done: a node of a graph, a piece of a file, a step.
    pub(crate) fn advance(&self) {
        self.counters.advance();
    }

    /// Begins work that must make progress until the value is dropped.
    pub(crate) fn work(&self) -> Work {
        self.counters.at_work.fetch_add(1, Ordering::Relaxed);
        Work { counters: self.counters.clone() }
    }

    /// How far it is.
    pub(crate) fn read(&self) -> Sign {
        let at_work = self.counters.at_work.load(Ordering::Relaxed) > 0;
        let activity = if at_work { Activity::Working } else { Activity::Idle };
        Sign { done: self.counters.done.load(Ordering::Relaxed), activity }
    }

    /// The counters themselves, for a callback that gets an address.
    #[cfg(feature = "llama")]
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

impl PerThread<Progress> {
    /// How far both are.
    pub(crate) fn read(&self) -> PerThread<Sign> {
        PerThread { engine: self.engine.read(), vocabulary: self.vocabulary.read() }
    }
}

impl Counters {
    /// See [`Progress::advance`].
    pub(crate) fn advance(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.counters.advance();
        self.counters.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one thread shows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sign {
    /// How much was done, in units without a meaning.
    pub(crate) done: u64,
    /// Whether there is work under way.
    pub(crate) activity: Activity,
}

/// Whether progress is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Activity {
    /// Nothing to do.
    Idle,
    /// A model loads, a command is applied, a step is decoded, a text is tokenized.
    Working,
}
