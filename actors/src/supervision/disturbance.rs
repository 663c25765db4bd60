//! A fault that an actor is to have in its next handler, for the chaos actor. Nobody else asks for one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Longest sleep: a handler blocks a thread that serves others too.
const LONGEST: Duration = Duration::from_millis(200);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// The handler panics.
    Panic,
    /// The handler blocks its thread for so long, at most 200 ms.
    Block(Duration),
}

const NONE: u32 = 0;
const PANIC: u32 = u32::MAX;

/// The next handler's fault: none, a panic, or milliseconds.
#[derive(Debug, Default)]
pub(super) struct Next(AtomicU32);

impl Next {
    pub(super) fn set(&self, disturbance: Disturbance) {
        let code = match disturbance {
            Disturbance::Panic => PANIC,
            Disturbance::Block(time) => time.min(LONGEST).as_millis() as u32,
        };
        self.0.store(code, Ordering::Relaxed);
    }

    /// Whether it is still to come.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != NONE
    }

    /// Has it happen, once.
    #[expect(clippy::disallowed_methods, reason = "blocking the thread is the fault")]
    pub(super) fn happen(&self) {
        if !self.is_set() {
            return;
        }
        match self.0.swap(NONE, Ordering::Relaxed) {
            NONE => {}
            PANIC => panic!("told to panic by the chaos actor"),
            time => std::thread::sleep(Duration::from_millis(time.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_happens_once() {
        let next = Next::default();
        next.happen();
        next.set(Disturbance::Panic);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next.happen()));
        assert!(panicked.is_err() && !next.is_set());
        next.happen();
    }

    #[test]
    fn a_block_is_bounded() {
        let next = Next::default();
        next.set(Disturbance::Block(Duration::from_secs(3600)));
        assert_eq!(next.0.load(Ordering::Relaxed), 200);
    }
}
