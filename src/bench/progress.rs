//! The progress bar on the terminal; nothing where standard error is none.

use std::io::{self, IsTerminal, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const WIDTH: usize = 30;
/// Drawing costs time that the measurement should not pay.
const REDRAW: Duration = Duration::from_millis(200);

/// What is done of what there is to do; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Option<Arc<Bar>>);

#[derive(Debug, Default)]
struct Bar {
    done: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    label: String,
    total: usize,
    drawn: Option<Instant>,
}

impl Progress {
    /// Draws on standard error if that is a terminal.
    pub(super) fn new() -> Self {
        Self(io::stderr().is_terminal().then(Arc::default))
    }

    /// Begins something new of `total` steps.
    pub(super) fn begin(&self, label: String, total: usize) {
        let Some(bar) = &self.0 else { return };
        bar.done.store(0, Ordering::Relaxed);
        *bar.state.lock().unwrap_or_else(PoisonError::into_inner) = State { label, total, drawn: None };
        bar.draw();
    }

    /// One step is done.
    pub(super) fn advance(&self) {
        if let Some(bar) = &self.0 {
            bar.done.fetch_add(1, Ordering::Relaxed);
            bar.draw();
        }
    }

    /// Clears the line.
    pub(super) fn clear(&self) {
        if self.0.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

impl Bar {
    fn draw(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        state.drawn = Some(Instant::now());
        let done = self.done.load(Ordering::Relaxed).min(state.total);
        let filled = (done * WIDTH).checked_div(state.total).unwrap_or(0);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
        // Nobody misses a bar that cannot be drawn.
        let _ = write!(io::stderr().lock(), "\r\x1b[K[{bar}] {done}/{} {}", state.total, state.label);
    }
}
