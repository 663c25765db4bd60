//! A neighbour that wants a core: a process that does nothing useful as fast as it can.

use std::io::{self, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The hidden subcommand that runs [`burn`].
pub const BURN_COMMAND: &str = "burn-one-core";

/// A burner that nobody ends would be a nuisance.
const LONGEST: Duration = Duration::from_secs(3600);

/// A running burner; it ends on drop, and with this process however that ends.
#[derive(Debug)]
pub(super) struct Burner(Child);

impl Burner {
    /// Starts one.
    ///
    /// # Errors
    /// No process could be started.
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BURN_COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        // It may be gone already. After a kill there is next to nothing to wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Burns one core until standard input closes, which it does when whoever started this ends, or for an hour.
pub fn burn() {
    let over = Arc::new(AtomicBool::new(false));
    let closed = Arc::clone(&over);
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        closed.store(true, Ordering::Relaxed);
    });
    let (began, mut number) = (Instant::now(), 1_u64);
    while !over.load(Ordering::Relaxed) && began.elapsed() < LONGEST {
        for _ in 0..1_000_000 {
            number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}
