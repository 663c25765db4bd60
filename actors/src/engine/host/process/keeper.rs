//! The keeper of an engine process: owns it, watches its progress, and says how it ended.

use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::runtime::Handle;

use super::LastLines;
use crate::engine::host::{EventSink, ProcessOptions};
use crate::engine::progress::{Activity, PerThread, Sign};
use crate::engine::protocol::{EngineEvent, EngineThread};

/// How often the keeper looks.
const TICK: Duration = Duration::from_millis(100);

/// Looks that lie so far apart, or half of the watchdog's time, mean that this process stood still itself (a container paused,
/// a terminal's Ctrl-Z), which is nobody's silence.
const STANDSTILL: Duration = Duration::from_secs(1);

/// No beat is read while the runtime stands still: so many times longer than usual one is waited for then.
const RUNTIME_PATIENCE: u32 = 10;

/// How long a process may take to end by itself once its pipes are closed.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// The same for one that writes KV files first.
const STORE_DEADLINE: Duration = Duration::from_secs(9);

/// How long the log's last lines may take to arrive after the process has ended.
const LOG_GRACE: Duration = Duration::from_millis(50);

/// Loading may go so many times longer without progress, of which reading is a part: context and buffers are made in
/// one call.
const LOAD_PATIENCE: u32 = 10;

/// A text is tokenized in one call that says nothing meanwhile, and takes seconds for a megabyte beside busy cores. Who
/// decodes does not wait for it.
const TEXT_PATIENCE: u32 = 10;

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
        /// Its own words, and which thread they are about.
        failure: Option<Failure>,
    },
    /// Nobody wants it any more.
    Dropped,
}

/// Why an engine ended, and which of its threads is the reason, if that is known.
pub(super) type Failure = (String, Option<EngineThread>);

/// Owns the process.
pub(super) struct Keeper {
    child: Child,
    patience: Patience,
    /// How long it may take to end by itself.
    end_deadline: Duration,
    lines: LastLines,
    sink: EventSink,
    /// Where the beats are read.
    runtime: Handle,
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
    reader: Reader,
}

/// What is known of the runtime whose task reads the beats, while none comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    NotAsked,
    /// A question waits for the runtime.
    Asked,
    /// It runs, since then: what the engine has said is read by now, or within a moment.
    Runs(Instant),
}

/// What is to be done with an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Wait,
    /// Find out whether the runtime runs.
    Ask,
    /// The thread that does nothing, or all of it.
    Hung(Option<EngineThread>),
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
        Self {
            watchdog,
            beat,
            loaded: false,
            threads,
            last_beat: now,
            last_look: now,
            stood_still: false,
            reader: Reader::NotAsked,
        }
    }

    /// To be told at least every [`TICK`].
    fn on_look(&mut self, now: Instant) {
        let passed = now.duration_since(self.last_look);
        if passed > self.standstill() && !self.stood_still {
            self.excuse(passed, now);
            self.stood_still = true;
        }
        self.last_look = now;
    }

    fn on_beat(&mut self, signs: PerThread<Sign>, now: Instant) {
        if self.reader != Reader::NotAsked {
            // The runtime stood still. What was not heard meanwhile may be further than what is heard first.
            self.excuse(now.duration_since(self.last_beat), now);
        }
        self.reader = Reader::NotAsked;
        self.stood_still = false;
        self.last_beat = now;
        self.threads.engine.on_sign(signs.engine, now);
        self.threads.vocabulary.on_sign(signs.vocabulary, now);
    }

    fn on_loaded(&mut self, now: Instant) {
        self.loaded = true;
        self.threads.engine.last_sign = now;
    }

    /// The runtime has answered.
    fn on_answer(&mut self, now: Instant) {
        if self.reader == Reader::Asked {
            self.reader = Reader::Runs(now);
        }
    }

    fn standstill(&self) -> Duration {
        STANDSTILL.min(self.watchdog / 2)
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

    /// The same for the vocabulary thread.
    fn text_limit(&self) -> Duration {
        self.watchdog.saturating_mul(TEXT_PATIENCE) + self.beat
    }

    fn judge(&mut self, now: Instant) -> Judgement {
        let silence = now.duration_since(self.last_beat);
        if silence > self.limit() {
            return self.judge_silence(silence, now);
        }
        // A thread that gets on says nothing of the other.
        let idle = |thread: Watched| now.duration_since(thread.last_sign);
        if idle(self.threads.engine) > self.limit() {
            Judgement::Hung(Some(EngineThread::Loop))
        } else if idle(self.threads.vocabulary) > self.text_limit() {
            Judgement::Hung(Some(EngineThread::Vocabulary))
        } else {
            Judgement::Wait
        }
    }

    /// The engine does not beat, or nobody reads its beats.
    fn judge_silence(&mut self, silence: Duration, now: Instant) -> Judgement {
        let hung = match self.reader {
            Reader::NotAsked => {
                self.reader = Reader::Asked;
                return Judgement::Ask;
            }
            Reader::Asked => silence > self.limit().saturating_mul(RUNTIME_PATIENCE),
            Reader::Runs(since) => now.duration_since(since) > self.standstill(),
        };
        if hung { Judgement::Hung(None) } else { Judgement::Wait }
    }

    /// What is said of an engine that is killed.
    fn epitaph(&self, thread: Option<EngineThread>) -> String {
        let (what, limit) = match thread {
            Some(EngineThread::Vocabulary) => (" with a text", self.text_limit()),
            Some(EngineThread::Loop) | None if self.loaded => ("", self.limit()),
            Some(EngineThread::Loop) | None => (" while loading", self.limit()),
        };
        format!("no progress for {} ms{what}, killed by the watchdog", (limit - self.beat).as_millis())
    }
}

/// Why the keeper stops watching.
enum End {
    Closed(Option<Failure>),
    Hung(Option<EngineThread>),
    Dropped,
}

impl Keeper {
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(child: Child, options: &ProcessOptions, lines: LastLines, sink: EventSink) -> Self {
        let patience = Patience::new(options.watchdog, options.kept_beat(), Instant::now());
        Self { child, patience, end_deadline: END_DEADLINE, lines, sink, runtime: Handle::current() }
    }

    /// For a process that writes KV files before it ends.
    pub(super) fn that_waits_for_files(self) -> Self {
        Self { end_deadline: STORE_DEADLINE, ..self }
    }

    /// Watches until the process has ended, and tells why if anybody still wants to know.
    pub(super) fn run(mut self, news: &Receiver<News>) {
        let end = self.watch(news);
        let deadline = if matches!(end, End::Hung(_)) { Duration::ZERO } else { self.end_deadline };
        let status = self.wait(deadline);
        if matches!(end, End::Dropped) {
            tracing::info!(pid = self.child.id(), "engine process ended");
            return;
        }
        std::thread::park_timeout(LOG_GRACE);
        let (how, thread) = match end {
            End::Hung(thread) => (self.patience.epitaph(thread), thread),
            End::Closed(Some(failure)) => failure,
            End::Closed(None) | End::Dropped => (describe(status), None),
        };
        let last = self.lines.text();
        let cause = if last.is_empty() { how } else { format!("{how}; last words: {last}") };
        (self.sink)(EngineEvent::Failed { cause, thread });
    }

    fn watch(&mut self, news: &Receiver<News>) -> End {
        let mut question: Option<Question> = None;
        loop {
            let heard = news.recv_timeout(TICK);
            let now = Instant::now();
            self.patience.on_look(now);
            match heard {
                Ok(News::Beat(signs)) => self.patience.on_beat(signs, now),
                Ok(News::Loaded) => self.patience.on_loaded(now),
                Ok(News::Closed { failure }) => return End::Closed(failure),
                Ok(News::Dropped) | Err(RecvTimeoutError::Disconnected) => return End::Dropped,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if question.as_ref().is_some_and(Question::is_answered) {
                question = None;
                self.patience.on_answer(now);
            }
            match self.patience.judge(now) {
                Judgement::Wait => {}
                Judgement::Ask => question = Some(Question::ask(&self.runtime)),
                Judgement::Hung(thread) => return End::Hung(thread),
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

/// A task that says that its runtime runs.
struct Question(Arc<AtomicBool>);

impl Question {
    fn ask(runtime: &Handle) -> Self {
        let answered = Arc::new(AtomicBool::new(false));
        let answer = answered.clone();
        runtime.spawn(async move {
            // Only then has the runtime looked at its pipes, and run who waits for them.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            answer.store(true, Ordering::Relaxed);
        });
        Self(answered)
    }

    fn is_answered(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
mod tests;
