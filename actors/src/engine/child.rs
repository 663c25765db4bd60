//! The other end of the process host: what the engine process runs.
//!
//! It reads commands from its stdin and writes events to what was its stdout. It ends when its stdin closes, at once,
//! also in mid-decode: the thread that reads does nothing else and never waits for the engine.

use std::ffi::OsStr;
use std::io::{self, BufReader, Stdin, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::engine::disk_reads;
use crate::engine::frames::{FrameReader, FrameWriter, FromEngine, PROTOCOL, ToEngine, WriteError};
use crate::engine::host::thread::ThreadHost;
use crate::engine::host::{EventSink, HostError, Occupancy};
use crate::engine::progress::{PerThread, Progress, Work};
use crate::engine::protocol::EngineEvent;

/// Arguments by which an executable knows that it is the engine process.
pub(crate) const ARGUMENTS: [&str; 2] = ["engine", "--over-pipes"];

/// Version of the program; both ends must be the same one.
pub(crate) const BUILD: &str = env!("CARGO_PKG_VERSION");

/// How long the engine gets to free its model once nobody wants it any more.
const FREE_DEADLINE: Duration = Duration::from_millis(200);

/// The same when KV files are to be written first.
const STORE_DEADLINE: Duration = Duration::from_secs(8);

/// Runs the engine, and nothing else, if this process was started as an engine process by the process host; to be
/// called first in `main`, whose exit code it gives. In any other process it does nothing and returns `None`.
pub fn run_if_child() -> Option<ExitCode> {
    is_engine_process().then(|| match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ERROR the engine process cannot start: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Whether this process was started to be an engine process.
pub(crate) fn is_engine_process() -> bool {
    std::env::args_os().skip(1).eq(ARGUMENTS.iter().map(OsStr::new))
}

type Out<W> = Arc<Mutex<FrameWriter<W>>>;

/// The work of loading the model, until it is loaded.
type Loading = Arc<Mutex<Option<Work>>>;

fn run() -> io::Result<ExitCode> {
    let out = Arc::new(Mutex::new(FrameWriter::new(own_the_pipe()?)));
    settle_in();
    send(&out, &FromEngine::Hello { protocol: PROTOCOL, build: BUILD.to_owned() })?;
    let mut input = FrameReader::new(BufReader::with_capacity(64 << 10, io::stdin()));
    let Some(ToEngine::Start { spec, beat }) = input.read()? else {
        return Err(io::Error::other("the first frame is no start"));
    };
    let deadline = if spec.kv_store().is_some() { STORE_DEADLINE } else { FREE_DEADLINE };
    let (ended, end) = bounded(2);
    let progress = PerThread::<Progress>::default();
    let occupancy: Occupancy = Arc::new(EndSignal(ended.clone()));
    let loading: Loading = Arc::new(Mutex::new(Some(progress.engine.work())));
    let sink = event_sink(&out, ended, loading.clone(), &progress);
    let host = ThreadHost::start(*spec, occupancy, sink, progress.clone())?;
    std::thread::Builder::new().name("cllm-engine-in".to_owned()).spawn({
        let end = end.clone();
        move || take_commands(input, host, &end, deadline)
    })?;
    Ok(beat_until_the_end(&out, &Signs { progress, loading, beat }, &end))
}

/// Takes stdout away from everybody else: what C code prints goes to stderr.
fn own_the_pipe() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd;
    let pipe = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(pipe.into())
}

/// What is asked of an engine process: it outlives the signals that stop the server, so that the server can drain;
/// leaves no core file of gigabytes; is the first to go when memory runs out; and logs in lines that the server reads.
fn settle_in() {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::default()) {
            eprintln!("WARN signal {signal} is not ignored: {error}");
        }
    }
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let core = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let first_to_go = go_first("/proc/self/oom_score_adj");
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_max_level(tracing::Level::DEBUG)
        .try_init();
    tracing::debug!(?core, ?first_to_go, ?log, "engine process set up");
}

fn go_first(score: &str) -> io::Result<()> {
    let inherited = std::fs::read_to_string(score)?.trim().parse().map_err(io::Error::other)?;
    std::fs::write(score, higher(inherited).to_string())
}

/// More than the server, whatever that was given: in Kubernetes up to 1,000, which is the most.
fn higher(inherited: i32) -> i32 {
    inherited.saturating_add(500).min(1000)
}

fn send<W: Write>(out: &Out<W>, frame: &FromEngine) -> Result<(), WriteError> {
    out.lock().unwrap_or_else(PoisonError::into_inner).write(frame)
}

/// Writes at once, on the engine's own thread: what was said before a crash has then been said.
fn event_sink<W: Write + Send + 'static>(
    out: &Out<W>,
    ended: Sender<ExitCode>,
    loading: Loading,
    progress: &PerThread<Progress>,
) -> EventSink {
    let (out, progress) = (out.clone(), progress.clone());
    Arc::new(move |event| {
        speaker(&progress, &event).advance();
        let mut last = is_last(&event);
        if last || matches!(event, EngineEvent::Loaded(_)) {
            loading.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let frame = FromEngine::Event(event);
        let mut written = send(&out, &frame);
        if let (Err(error @ WriteError::TooLong(_)), FromEngine::Event(event)) = (&written, frame) {
            let other = in_its_place(event, error);
            last = is_last(&other);
            written = send(&out, &FromEngine::Event(other));
        }
        if last || written.is_err() {
            // Full: the end is known already.
            let _ = ended.try_send(ExitCode::FAILURE);
        }
    })
}

/// Whose event it is, and so whose progress.
const fn speaker<'a>(progress: &'a PerThread<Progress>, event: &EngineEvent) -> &'a Progress {
    match event {
        EngineEvent::TokenizeStarted { .. } | EngineEvent::Tokenized { .. } | EngineEvent::Detokenized { .. } => {
            &progress.vocabulary
        }
        _ => &progress.engine,
    }
}

const fn is_last(event: &EngineEvent) -> bool {
    matches!(event, EngineEvent::Failed { .. } | EngineEvent::LoadFailed { .. })
}

/// What is said instead of an event that no frame carries: no answer may be the engine's end, and what is advice can be
/// left out. Anything else would be missed for ever.
fn in_its_place(event: EngineEvent, error: &WriteError) -> EngineEvent {
    match event {
        EngineEvent::Tokenized { id, .. } => {
            EngineEvent::Tokenized { id, result: Err(format!("the text has too many tokens: {error}")) }
        }
        EngineEvent::Detokenized { id, .. } => {
            EngineEvent::Detokenized { id, result: Err(format!("the tokens have too much text: {error}")) }
        }
        EngineEvent::Inventory { epoch, .. } => {
            EngineEvent::Inventory { epoch, sequences: Vec::new(), files: Vec::new() }
        }
        EngineEvent::Files { epoch, gone, .. } => EngineEvent::Files { epoch, stored: Vec::new(), gone },
        _ => EngineEvent::Failed { cause: format!("an event cannot be told: {error}"), thread: None },
    }
}

/// Says that the last byte of the model is freed.
struct EndSignal(Sender<ExitCode>);

impl Drop for EndSignal {
    fn drop(&mut self) {
        let _ = self.0.try_send(ExitCode::SUCCESS);
    }
}

/// Hands commands over until the server closes the pipe or is gone; then the process ends, whatever the engine does.
fn take_commands(
    mut input: FrameReader<BufReader<Stdin>>,
    host: ThreadHost,
    end: &Receiver<ExitCode>,
    deadline: Duration,
) {
    while let Ok(Some(ToEngine::Command(command))) = input.read() {
        let advice = command.is_advice();
        match host.send(command) {
            Ok(()) => {}
            Err(HostError::Full) if advice => {}
            Err(error) => {
                eprintln!("ERROR {error}");
                break;
            }
        }
    }
    drop(host);
    let _ = end.recv_timeout(deadline);
    // In mid-decode there is nobody to ask, and no destructor may run beside a decode.
    std::process::abort();
}

/// What a beat is made of.
struct Signs {
    progress: PerThread<Progress>,
    loading: Loading,
    /// Time from one to the next.
    beat: Duration,
}

fn beat_until_the_end<W: Write>(out: &Out<W>, signs: &Signs, end: &Receiver<ExitCode>) -> ExitCode {
    let mut read = disk_reads::so_far();
    loop {
        match end.recv_timeout(signs.beat) {
            Ok(code) => return code,
            Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            Err(RecvTimeoutError::Timeout) => {
                signs.look_at_the_load(&mut read, disk_reads::so_far);
                if send(out, &FromEngine::Beat(signs.progress.read())).is_err() {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
}

impl Signs {
    /// While the model loads, what has been read since is progress; see [`disk_reads`].
    fn look_at_the_load(&self, read: &mut Option<u64>, so_far: impl Fn() -> Option<u64>) {
        if self.loading.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return;
        }
        let now = so_far();
        if now != *read {
            *read = now;
            self.progress.engine.advance();
        }
    }
}

#[cfg(test)]
mod tests;
