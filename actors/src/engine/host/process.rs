//! The process host: an engine in a child process, over its stdin and stdout.
//!
//! Three threads of this process serve it: one writes commands, one reads its log, and the keeper owns the process: it
//! watches over the progress, kills, waits, and says how it ended. A task reads its events: a thread of its own would be
//! woken for each token, only to wake the runtime. The child never becomes a zombie,
//! because the keeper waits for it, and never an orphan, because it ends when its stdin closes.

mod keeper;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

use self::keeper::{Keeper, News};
use super::thread::LOOP_CAPACITY;
use super::{EventSink, HostError, Occupancy, ProcessOptions};
use crate::engine::child::{ARGUMENTS, BUILD, is_engine_process};
use crate::engine::frames::{FrameReader, FrameWriter, FromEngine, PROTOCOL, ToEngine};
use crate::engine::protocol::{EngineCommand, EngineEvent};
use crate::engine::spec::EngineSpec;

/// Commands that may wait for the pipe; no more than may wait at its other end.
const CAPACITY: usize = LOOP_CAPACITY;

/// Longest line of the child's log that is read, in bytes; the rest of a longer one is left out.
const LINE_BYTES: u64 = 16 << 10;

/// The child's name in a list of processes.
#[cfg(unix)]
const NAME: &str = "cllm-engine";

/// Lines of the child's log that are kept for the cause of its death.
const KEPT_LINES: usize = 4;

/// An engine in a child process. Dropping it closes the child's stdin, which ends the child; a child that does not end is killed.
#[derive(Debug)]
pub struct ProcessHost {
    commands: Sender<EngineCommand>,
    news: Sender<News>,
    pid: u32,
}

impl Drop for ProcessHost {
    fn drop(&mut self) {
        // A keeper that is gone has seen the process end.
        let _ = self.news.send(News::Dropped);
    }
}

impl ProcessHost {
    /// Starts the process; its model loads in the background.
    ///
    /// # Errors
    /// The operating system gives no process or thread; or this process should be an engine process itself, and would start
    /// others without end.
    ///
    /// # Panics
    /// Outside a tokio runtime, or in one without I/O.
    pub(super) fn start(
        spec: EngineSpec,
        options: &ProcessOptions,
        occupancy: Occupancy,
        sink: EventSink,
    ) -> std::io::Result<Self> {
        if is_engine_process() {
            return Err(std::io::Error::other(
                "an engine process that does not call `run_if_child` first in its `main`",
            ));
        }
        let (commands, from_host) = bounded(CAPACITY);
        let (news, keeper_news) = unbounded();
        let mut child = spawn(options)?;
        let pid = child.id();
        let pipes = Pipes::of(&mut child)?;
        let lines = LastLines::default();
        let keeper = Keeper::new(child, options, lines.clone(), sink.clone());
        let keeper = if spec.kv_store().is_some() { keeper.that_waits_for_files() } else { keeper };
        // From here on the keeper owns the child; if a later thread cannot be had, `news` is dropped, which ends it.
        thread("cllm-engine-keep", move || {
            let _occupancy = occupancy;
            keeper.run(&keeper_news);
        })?;
        let host = Self { commands, news: news.clone(), pid };
        let start = ToEngine::Start { spec: Box::new(spec), beat: options.kept_beat() };
        thread("cllm-engine-in", move || write_commands(pipes.stdin, start, &from_host))?;
        thread("cllm-engine-log", move || read_log(pipes.stderr, &lines))?;
        let stdout = tokio::process::ChildStdout::from_std(pipes.stdout)?;
        tokio::spawn(async move { read_events(stdout, &news, &sink).await });
        tracing::info!(pid, "engine process started");
        Ok(host)
    }

    /// See [`super::EngineHost::send`].
    pub(super) fn send(&self, command: EngineCommand) -> Result<(), HostError> {
        if command.is_advice() && self.commands.len() >= CAPACITY / 2 {
            return Err(HostError::Full);
        }
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => HostError::Full,
            TrySendError::Disconnected(_) => HostError::Gone,
        })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }
}

/// The child's ends of three pipes.
struct Pipes {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Pipes {
    fn of(child: &mut Child) -> std::io::Result<Self> {
        let missing = || std::io::Error::other("the engine process has no pipes");
        Ok(Self {
            stdin: child.stdin.take().ok_or_else(missing)?,
            stdout: child.stdout.take().ok_or_else(missing)?,
            stderr: child.stderr.take().ok_or_else(missing)?,
        })
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// Starts the running executable itself, whatever lies at its path by now.
fn spawn(options: &ProcessOptions) -> std::io::Result<Child> {
    let mut command = Command::new(executable()?);
    command.args(ARGUMENTS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A backtrace by ggml would start a debugger.
    command.env("GGML_NO_BACKTRACE", "1");
    if let Some(spin) = options.spin {
        command.env("GOMP_SPINCOUNT", spin.to_string());
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // What `ps` shows; else that would be `/proc/self/exe`.
        command.process_group(0).arg0(NAME);
    }
    command.spawn()
}

fn executable() -> std::io::Result<std::path::PathBuf> {
    let own = std::path::Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && own.exists() { Ok(own.to_owned()) } else { std::env::current_exe() }
}

/// Ends when the host is dropped or the pipe breaks; closing the pipe ends the child.
fn write_commands(stdin: ChildStdin, start: ToEngine, commands: &Receiver<EngineCommand>) {
    let mut writer = FrameWriter::new(stdin);
    let mut written = writer.write(&start);
    for command in commands {
        if written.is_err() {
            break;
        }
        written = writer.write(&ToEngine::Command(command));
    }
    if let Err(error) = written {
        // The keeper tells why the child is gone.
        tracing::debug!(%error, "the engine process takes no commands");
    }
}

/// Ends when the child does.
async fn read_events(stdout: tokio::process::ChildStdout, news: &Sender<News>, sink: &EventSink) {
    let mut reader = FrameReader::new(tokio::io::BufReader::with_capacity(64 << 10, stdout));
    let end = loop {
        match reader.next::<FromEngine>().await {
            Ok(Some(FromEngine::Event(EngineEvent::Failed { cause, thread }))) => break Some((cause, thread)),
            Ok(Some(FromEngine::Event(event))) => {
                if matches!(event, EngineEvent::Loaded(_)) {
                    let _ = news.send(News::Loaded);
                }
                sink(event);
            }
            Ok(Some(FromEngine::Beat(signs))) => drop(news.send(News::Beat(signs))),
            Ok(Some(FromEngine::Hello { protocol, build })) if protocol == PROTOCOL && build == BUILD => {}
            Ok(Some(FromEngine::Hello { protocol, build })) => {
                break Some((format!("the engine process is another build: {build}, protocol {protocol}"), None));
            }
            Ok(None) => break None,
            Err(error) => break Some((format!("the engine process speaks nonsense: {error}"), None)),
        }
    };
    let _ = news.send(News::Closed { failure: end });
}

/// The child's log becomes ours.
fn read_log(stderr: impl Read, lines: &LastLines) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!(read_line(&mut reader, &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        forward(text.trim_end(), lines);
        line.clear();
    }
}

/// Reads a line, of a long one the beginning.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let read = reader.by_ref().take(LINE_BYTES).read_until(b'\n', line)?;
    if read as u64 == LINE_BYTES && !line.ends_with(b"\n") {
        reader.skip_until(b'\n')?;
    }
    Ok(read)
}

/// The child's subscriber puts the level first; what has none is the C library's or ggml's last words.
fn forward(line: &str, lines: &LastLines) {
    let (level, text) = line.trim_start().split_once(' ').unwrap_or(("", line));
    let text = text.trim_start();
    match level {
        "TRACE" | "DEBUG" => tracing::debug!(target: "cllm_engine", "{text}"),
        "INFO" => tracing::info!(target: "cllm_engine", "{text}"),
        "WARN" => tracing::warn!(target: "cllm_engine", "{text}"),
        "ERROR" => {
            lines.push(text);
            tracing::error!(target: "cllm_engine", "{text}");
        }
        _ if line.is_empty() => {}
        _ => {
            lines.push(line);
            tracing::error!(target: "cllm_engine", "{line}");
        }
    }
}

/// The last telling lines of the child's log.
#[derive(Debug, Clone, Default)]
struct LastLines(Arc<Mutex<Vec<String>>>);

impl LastLines {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.remove(0);
        }
        lines.push(line.chars().take(300).collect());
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_end_is_cut_and_the_next_one_is_whole() {
        let log = [&[b'x'; 100_000][..], b"\nERROR next\n"].concat();
        let mut reader = BufReader::new(&*log);
        let mut line = Vec::new();
        assert_eq!(read_line(&mut reader, &mut line).expect("reads") as u64, LINE_BYTES);
        line.clear();
        assert!(read_line(&mut reader, &mut line).is_ok());
        assert_eq!(line, b"ERROR next\n");
        let lines = LastLines::default();
        read_log(&*log, &lines);
        assert!(lines.text().ends_with("x | next"), "{}", lines.text());
    }
}
