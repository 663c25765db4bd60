//! Hosts: where an engine runs and how it is reached.
//!
//! The **thread** host runs it on two named threads of this process, without any isolation: an abort inside llama.cpp
//! ends everything. The **process** host runs it in a child process, over pipes; what happens there ends nothing here.

pub mod process;
pub mod thread;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::progress::PerThread;
use crate::engine::protocol::{EngineCommand, EngineEvent};
use crate::engine::spec::EngineSpec;

use process::ProcessHost;
use rustix::process::Signal;
use thread::ThreadHost;

/// Takes the engine's events; called on its threads.
pub type EventSink = Arc<dyn Fn(EngineEvent) + Send + Sync>;

/// Stands for the device memory: dropped when the last byte of the model is freed.
pub type Occupancy = Arc<dyn Any + Send + Sync>;

/// Where an engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKind {
    /// On threads of this process.
    Thread,
    /// In a child process of the running executable, which must call [`run_if_child`](crate::engine::run_if_child)
    /// first in its `main`.
    Process(ProcessOptions),
}

/// How an engine process is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOptions {
    /// Without progress for so long, with work under way, the process is killed; ten times as long while it loads.
    /// Default 10 s.
    pub watchdog: Duration,
    /// Time between two of its signs of life, within 10 ms and a quarter of `watchdog`. Default 250 ms.
    pub beat: Duration,
    /// How often OpenMP's threads look for work before they sleep (`GOMP_SPINCOUNT`); `None`: as libgomp decides.
    pub spin: Option<u32>,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { watchdog: Duration::from_secs(10), beat: Duration::from_millis(250), spin: None }
    }
}

impl ProcessOptions {
    /// The time between two beats that is kept: a process that beats as it was told is never taken for a dead one.
    fn kept_beat(&self) -> Duration {
        self.beat.min(self.watchdog / 4).max(Duration::from_millis(10))
    }
}

/// A running engine. Dropping it ends the engine; the occupancy given to [`EngineHost::start`] is released when the
/// last byte of the model is freed.
#[derive(Debug)]
pub enum EngineHost {
    /// On threads.
    Thread(ThreadHost),
    /// In a process.
    Process(ProcessHost),
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The engine does not keep up.
    #[error("the engine's command queue is full")]
    Full,
    /// The engine has ended.
    #[error("the engine has ended")]
    Gone,
}

/// What can be done to an engine's process on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineFault {
    /// `SIGKILL`.
    Killed,
    /// `SIGABRT`, as by a failed assertion.
    Aborted,
    /// `SIGSTOP`, which only the watchdog finds.
    Hung,
    /// `SIGSTOP`, and somebody sends [`EngineFault::Resumed`] before the watchdog finds it.
    Paused,
    /// `SIGCONT`.
    Resumed,
}

impl EngineFault {
    /// Whether the engine ends by it.
    pub const fn is_lethal(self) -> bool {
        matches!(self, Self::Killed | Self::Aborted | Self::Hung)
    }
}

impl EngineHost {
    /// Starts an engine; its model loads in the background.
    ///
    /// # Errors
    /// The operating system gives no thread or no process.
    pub fn start(spec: EngineSpec, kind: &HostKind, occupancy: Occupancy, sink: EventSink) -> std::io::Result<Self> {
        match kind {
            HostKind::Thread => ThreadHost::start(spec, occupancy, sink, PerThread::default()).map(Self::Thread),
            HostKind::Process(options) => ProcessHost::start(spec, options, occupancy, sink).map(Self::Process),
        }
    }

    /// Hands a command over; never blocks.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn send(&self, command: EngineCommand) -> Result<(), HostError> {
        match self {
            Self::Thread(host) => host.send(command),
            Self::Process(host) => host.send(command),
        }
    }

    /// Hurts the engine's process on purpose; does nothing to threads.
    pub(crate) fn disturb(&self, fault: EngineFault) {
        let signal = match fault {
            EngineFault::Killed => Signal::KILL,
            EngineFault::Aborted => Signal::ABORT,
            EngineFault::Hung | EngineFault::Paused => Signal::STOP,
            EngineFault::Resumed => Signal::CONT,
        };
        if let Some(pid) = self.pid().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // Fails for a process that has ended, and its keeper knows that.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// The engine's process, if it has one of its own.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Thread(_) => None,
            Self::Process(host) => Some(host.pid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_beats_come_before_the_watchdog() {
        let beat = |beat, watchdog| {
            let (beat, watchdog) = (Duration::from_millis(beat), Duration::from_millis(watchdog));
            ProcessOptions { watchdog, beat, spin: None }.kept_beat().as_millis()
        };
        assert_eq!(ProcessOptions::default().kept_beat().as_millis(), 250);
        assert_eq!([beat(50, 10_000), beat(604_800_000, 10_000), beat(0, 10_000)], [50, 2500, 10]);
        assert_eq!(beat(250, 100), 25);
    }
}
