//! The keeper of an engine process: owns it, watches its progress, and says how it ended.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::LastLines;
use crate::engine::host::{EventSink, ProcessOptions};
use crate::engine::progress::{Activity, PerThread, Sign};
use crate::engine::protocol::EngineEvent;

/// How often the keeper looks.
const TICK: Duration = Duration::from_millis(100);

/// Looks that lie so far apart, or half of the watchdog's time, mean that this process stood still itself (a container paused,
/// a terminal's Ctrl-Z), which is nobody's silence.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How long a process may take to end by itself once its pipes are closed.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// The same for one that writes KV files first.
const STORE_DEADLINE: Duration = Duration::from_secs(9);

/// How long the log's last lines may take to arrive after the process has ended.
const LOG_GRACE: Duration = Duration::from_millis(50);

/// Loading may go so many times longer without progress, of which reading is a part: context and buffers are made in
/// one call.
const LOAD_PATIENCE: u32 = 10;

/// What the keeper is told by the threads beside it. Not of every event: the beats say that there was one, and to wake a
/// thread for each token takes time from those that compute.
#[derive(Debug)]
pub(super) enum News {
    /// A sign of life: how far each thread is.
    Beat(PerThread<Sign>),
    /// The model is loaded.
    Loaded,
    /// The engine says nothing any more, and why, if it said so.
    Closed {
        /// Its own words.
        cause: Option<String>,
    },
    /// Nobody wants it any more.
    Dropped,
}

/// Owns the process.
pub(super) struct Keeper {
    child: Child,
    patience: Patience,
    /// How long it may take to end by itself.
    end_deadline: Duration,
    lines: LastLines,
    sink: EventSink,
}

/// Decides whether an engine is hung. Pure: it is told the time.
#[derive(Debug)]
struct Patience {
    watchdog: Duration,
    /// From one beat to the next: so late may be heard what has been done.
    beat: Duration,
    loaded: bool,
    threads: PerThread<Watched>,
    last_beat: Instant,
    last_look: Instant,
    /// Since the last beat: a server that stands still all the time may not wait for ever.
    stood_still: bool,
}

/// One of the engine's threads.
#[derive(Debug, Clone, Copy)]
struct Watched {
    done: u64,
    /// When it was last seen to get on, or to owe nothing.
    last_sign: Instant,
}

impl Watched {
    /// An idle thread owes no progress, only beats.
    fn on_sign(&mut self, sign: Sign, now: Instant) {
        if sign.done != self.done || sign.activity == Activity::Idle {
            *self = Self { done: sign.done, last_sign: now };
        }
    }
}

impl Patience {
    fn new(watchdog: Duration, beat: Duration, now: Instant) -> Self {
        let thread = Watched { done: 0, last_sign: now };
        let threads = PerThread { engine: thread, vocabulary: thread };
        Self { watchdog, beat, loaded: false, threads, last_beat: now, last_look: now, stood_still: false }
    }

    /// To be told at least every [`TICK`].
    fn on_look(&mut self, now: Instant) {
        let passed = now.duration_since(self.last_look);
        if passed > STANDSTILL.min(self.watchdog / 2) && !self.stood_still {
            self.excuse(passed, now);
            self.stood_still = true;
        }
        self.last_look = now;
    }

    fn on_beat(&mut self, signs: PerThread<Sign>, now: Instant) {
        self.stood_still = false;
        self.last_beat = now;
        self.threads.engine.on_sign(signs.engine, now);
        self.threads.vocabulary.on_sign(signs.vocabulary, now);
    }

    fn on_loaded(&mut self, now: Instant) {
        self.loaded = true;
        self.threads.engine.last_sign = now;
    }

    /// So much time is nobody's silence.
    fn excuse(&mut self, passed: Duration, now: Instant) {
        for since in [&mut self.threads.engine.last_sign, &mut self.threads.vocabulary.last_sign, &mut self.last_beat] {
            *since = (*since + passed).min(now);
        }
    }

    /// Longest time without progress.
    fn limit(&self) -> Duration {
        let patience = if self.loaded { self.watchdog } else { self.watchdog.saturating_mul(LOAD_PATIENCE) };
        patience + self.beat
    }

    fn is_over(&self, now: Instant) -> bool {
        // A thread that gets on says nothing of the other.
        let oldest = self.threads.engine.last_sign.min(self.threads.vocabulary.last_sign).min(self.last_beat);
        now.duration_since(oldest) > self.limit()
    }

    /// What is said of an engine that is killed.
    fn epitaph(&self) -> String {
        let what = if self.loaded { "" } else { " while loading" };
        format!("no progress for {} ms{what}, killed by the watchdog", (self.limit() - self.beat).as_millis())
    }
}

/// Why the keeper stops watching.
enum End {
    Closed(Option<String>),
    Hung,
    Dropped,
}

impl Keeper {
    pub(super) fn new(child: Child, options: &ProcessOptions, lines: LastLines, sink: EventSink) -> Self {
        let patience = Patience::new(options.watchdog, options.kept_beat(), Instant::now());
        Self { child, patience, end_deadline: END_DEADLINE, lines, sink }
    }

    /// For a process that writes KV files before it ends.
    pub(super) fn that_waits_for_files(self) -> Self {
        Self { end_deadline: STORE_DEADLINE, ..self }
    }

    /// Watches until the process has ended, and tells why if anybody still wants to know.
    pub(super) fn run(mut self, news: &Receiver<News>) {
        let end = self.watch(news);
        let deadline = if matches!(end, End::Hung) { Duration::ZERO } else { self.end_deadline };
        let status = self.wait(deadline);
        if matches!(end, End::Dropped) {
            tracing::info!(pid = self.child.id(), "engine process ended");
            return;
        }
        std::thread::park_timeout(LOG_GRACE);
        let how = match end {
            End::Hung => self.patience.epitaph(),
            End::Closed(Some(cause)) => cause,
            End::Closed(None) | End::Dropped => describe(status),
        };
        let last = self.lines.text();
        let cause = if last.is_empty() { how } else { format!("{how}; last words: {last}") };
        (self.sink)(EngineEvent::Failed { cause });
    }

    fn watch(&mut self, news: &Receiver<News>) -> End {
        loop {
            let heard = news.recv_timeout(TICK);
            let now = Instant::now();
            self.patience.on_look(now);
            match heard {
                Ok(News::Beat(signs)) => self.patience.on_beat(signs, now),
                Ok(News::Loaded) => self.patience.on_loaded(now),
                Ok(News::Closed { cause }) => return End::Closed(cause),
                Ok(News::Dropped) | Err(RecvTimeoutError::Disconnected) => return End::Dropped,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.patience.is_over(now) {
                return End::Hung;
            }
        }
    }

    /// Waits for the process; kills it when it does not end in time.
    fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // Fails only for a process that has ended.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

fn describe(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "the engine process is gone".to_owned() };
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            4 => " (illegal instruction)",
            6 => " (aborted)",
            7 => " (bus error)",
            8 => " (arithmetic error)",
            9 => " (killed, perhaps for want of memory)",
            11 => " (segmentation fault)",
            15 => " (terminated)",
            _ => "",
        };
        return format!("the engine process was ended by signal {signal}{name}");
    }
    format!("the engine process ended with {status}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHDOG: Duration = Duration::from_secs(10);

    fn patience(start: Instant) -> Patience {
        Patience::new(WATCHDOG, Duration::from_millis(250), start)
    }

    /// What is heard of a loop that has got so much done, while nobody asks the vocabulary anything.
    fn engine(done: u64, activity: Activity) -> PerThread<Sign> {
        PerThread { engine: Sign { done, activity }, vocabulary: Sign { done: 0, activity: Activity::Idle } }
    }

    fn after(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn only_work_without_progress_is_a_hang() {
        let start = Instant::now();
        let mut patience = Patience { loaded: true, ..patience(start) };
        patience.on_beat(engine(1, Activity::Working), after(9, start));
        assert!(!patience.is_over(after(18, start)), "progress nine seconds ago");
        patience.on_beat(engine(1, Activity::Working), after(18, start));
        assert!(patience.is_over(after(20, start)), "beats without progress");
        patience.on_beat(engine(1, Activity::Idle), after(20, start));
        assert!(!patience.is_over(after(29, start)), "nothing to do");
        assert!(patience.is_over(after(31, start)), "not even a beat");
    }

    #[test]
    fn a_thread_that_gets_on_does_not_excuse_the_one_that_hangs() {
        let busy = |done| Sign { done, activity: Activity::Working };
        let start = Instant::now();
        for hung_is_engine in [true, false] {
            let mut patience = Patience { loaded: true, ..patience(start) };
            for second in 1..=12 {
                let (hung, alive) = (busy(1), busy(second));
                let (engine, vocabulary) = if hung_is_engine { (hung, alive) } else { (alive, hung) };
                patience.on_beat(PerThread { engine, vocabulary }, after(second, start));
                assert_eq!(patience.is_over(after(second, start)), second == 12, "{second} s, {hung_is_engine}");
            }
        }
    }

    #[test]
    fn a_load_may_take_longer() {
        let start = Instant::now();
        let patience = patience(start);
        assert!(!patience.is_over(after(99, start)));
        assert!(patience.is_over(after(101, start)));
        assert_eq!(patience.epitaph(), "no progress for 100000 ms while loading, killed by the watchdog");
        let loaded = Patience { loaded: true, ..patience };
        assert_eq!(loaded.epitaph(), "no progress for 10000 ms, killed by the watchdog");
    }

    #[test]
    fn a_server_that_stood_still_blames_nobody() {
        let start = Instant::now();
        let mut patience = Patience { loaded: true, ..patience(start) };
        patience.on_look(after(1, start));
        patience.on_look(after(3600, start));
        assert!(!patience.is_over(after(3600, start)), "it may have slept as well");
        for second in 3600..3612 {
            patience.on_look(after(second, start));
        }
        assert!(patience.is_over(after(3612, start)), "awake for twelve seconds");
        let mut patience = Patience { loaded: true, ..self::patience(start) };
        (1..10).for_each(|look| patience.on_look(after(2 * look, start)));
        assert!(patience.is_over(after(18, start)), "one that stands still all the time waits no longer");
    }
}
