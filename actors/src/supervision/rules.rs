//! What a supervisor is configured with. Defaults stand here.

use std::time::Duration;

/// Who is restarted beside the child that went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody.
    OneForOne,
    /// All children.
    OneForAll,
    /// Those that were started after it.
    RestForOne,
}

/// When a child is restarted at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// After every exit.
    Permanent,
    /// After an abnormal exit: panic, error, kill, cancelled task.
    Transient,
    /// Never.
    Temporary,
}

/// How many restarts are a fault of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts within `period` that are still carried out; 0 gives up at the first exit.
    pub max_restarts: u32,
    /// The sliding window.
    pub period: Duration,
}

/// How long a restart waits. The first one of a series does not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Delay of the second restart of a series.
    pub min: Duration,
    /// Longest delay, before jitter.
    pub max: Duration,
    /// Each further delay is this much longer; at least 1.
    pub factor: f64,
    /// Share of the delay by which it may be longer or shorter, 0 to 1.
    pub jitter: f64,
    /// A child that ran this long begins a new series when it exits.
    pub reset_after: Duration,
}

/// What happens when [`Intensity`] is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenExhausted {
    /// The supervisor stops its children and ends with an error; its own supervisor decides.
    Escalate,
    /// The children stay down and are tried again after a while, or when a restart is asked for.
    Hold {
        /// Until the next try.
        retry_after: Duration,
    },
}

/// Everything a supervisor decides by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Default [`Strategy::OneForOne`].
    pub strategy: Strategy,
    /// Default 5 restarts in 60 s.
    pub intensity: Intensity,
    /// Default 200 ms to 30 s, factor 2, jitter 0.2, reset after 60 s.
    pub backoff: Backoff,
    /// Default [`WhenExhausted::Escalate`].
    pub when_exhausted: WhenExhausted,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { max_restarts: 5, period: Duration::from_secs(60) }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(200),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.2,
            reset_after: Duration::from_secs(60),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            intensity: Intensity::default(),
            backoff: Backoff::default(),
            when_exhausted: WhenExhausted::Escalate,
        }
    }
}

impl Backoff {
    /// The wait before restart number `failures` of a series (the first is 1 and waits for nothing).
    /// `draw` is a random number in 0 to 1 that decides the jitter.
    pub fn delay(&self, failures: u32, draw: f64) -> Duration {
        if failures <= 1 {
            return Duration::ZERO;
        }
        // Beyond 2^10 any sensible factor has long reached `max`; the cap keeps the power finite.
        let grown = self.min.as_secs_f64() * self.factor.max(1.0).powi((failures - 2).min(1024) as i32);
        let capped = grown.min(self.max.as_secs_f64());
        let spread = 1.0 + self.jitter.clamp(0.0, 1.0) * (2.0 * draw.clamp(0.0, 1.0) - 1.0);
        Duration::from_secs_f64(capped * spread)
    }
}
