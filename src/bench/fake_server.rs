//! Our own server with the fake engine, in a process of its own: all it costs is everything but the model.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::BenchError;

const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running server; killed on drop.
#[derive(Debug)]
pub(super) struct FakeServer {
    pub(super) url: String,
    pub(super) pid: u32,
    _process: Child,
}

impl FakeServer {
    /// Starts one on a free port, with these `key=value` settings, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or does not get ready in time.
    pub(super) async fn start(settings: &[String]) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Start { what: "a server with the fake engine", source };
        let start = async {
            let mut command = Command::new(std::env::current_exe()?);
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLLM_")) {
                command.env_remove(name);
            }
            command.args(["serve", "--engine", "fake", "--host", "127.0.0.1", "--port", "0"]);
            command.args(settings.iter().flat_map(|setting| ["--set", setting]));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
            let mut process = command.spawn()?;
            let ended = || io::Error::other("it ended at once");
            let (pid, stdout) = process.id().zip(process.stdout.take()).ok_or_else(ended)?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).await?;
            let url = line.split(' ').find(|word| word.starts_with("http://")).ok_or_else(ended)?.to_owned();
            Ok(Self { url, pid, _process: process })
        };
        let late = |_| failed(io::Error::from(io::ErrorKind::TimedOut));
        tokio::time::timeout(START_DEADLINE, start).await.map_err(late)?.map_err(failed)
    }
}
