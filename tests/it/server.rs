//! The real binary as a child process.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Answer, Ask, Stream, soon};

/// The model of `make setup`.
pub(crate) const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/SmolLM2-135M-Instruct.Q4_1.gguf");

/// A running server; killed on drop.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The line that it printed when it was ready.
    pub(crate) ready_line: String,
    process: Process,
}

impl Server {
    /// Starts one with the fake engine and these `key=value` settings, and waits until it is ready.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        Self::start_with(&["--engine", "fake"], settings).await
    }

    /// The same with these arguments.
    pub(crate) async fn start_with(arguments: &[&str], settings: &[&str]) -> Self {
        let mut process = Process::start(&with_settings(&[&["--port", "0"], arguments].concat(), settings));
        let mut stdout = BufReader::new(process.child.stdout.take().expect("it is a pipe"));
        let mut ready_line = String::new();
        soon("the ready line", stdout.read_line(&mut ready_line)).await.expect("a pipe can be read");
        let address = ready_line.split("http://").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {ready_line:?}; its log: {}", process.log()));
        Self { address, ready_line, process }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&self, ask: Ask) -> Answer {
        self.open(ask).await.answer().await
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn open(&self, ask: Ask) -> Stream {
        soon("the head of a response", ask.send(self.address)).await.expect("the server answers")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Ask::get(path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Ask::post(path, &body)).await
    }

    /// Posts a request whose response is read piece by piece.
    pub(crate) async fn stream(&self, path: &str, body: Value) -> Stream {
        self.open(Ask::post(path, &body)).await
    }

    /// Sends a request in the background; dropping the result closes its connection.
    pub(crate) fn begin(&self, path: &str, body: &Value) -> Pending {
        self.begin_ask(Ask::post(path, body))
    }

    /// The same for any request.
    pub(crate) fn begin_ask(&self, ask: Ask) -> Pending {
        let address = self.address;
        Pending(tokio::spawn(async move {
            soon("the head of a response", ask.send(address)).await.expect("the server answers").answer().await
        }))
    }

    /// The whole log up to now.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for a line of the log with all these parts.
    pub(crate) async fn log_line(&self, parts: &[&str]) -> String {
        self.process.log_line(parts).await
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends it a signal, by `kill`'s name for it.
    pub(crate) async fn signal(&self, name: &str) {
        self.process.signal(name).await;
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await
    }
}

/// A request under way.
pub(crate) struct Pending(JoinHandle<Answer>);

impl Pending {
    /// Whether the answer is there.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Answer {
        soon("the answer", &mut self.0).await.expect("no panic")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `cllm serve`, whether it gets ready or not.
pub(crate) struct Process {
    child: Child,
    log: watch::Receiver<String>,
}

impl Process {
    /// Starts it, without the variables of the machine that tests it.
    pub(crate) fn start(arguments: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLLM_")) {
            command.env_remove(name);
        }
        command.arg("serve").args(arguments).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built for this test");
        let log = gather(child.stderr.take().expect("it is a pipe"));
        Self { child, log }
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        soon("the end of the process", self.child.wait()).await.expect("it is our child")
    }

    /// Waits for its end and for the last of its log.
    pub(crate) async fn exit_and_log(mut self) -> (ExitStatus, String) {
        let status = self.exit().await;
        let mut log = self.log.clone();
        // The sender goes when the pipe is closed.
        soon("the end of the log", async { while log.changed().await.is_ok() {} }).await;
        (status, self.log())
    }

    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    async fn log_line(&self, parts: &[&str]) -> String {
        let find = |log: &str| log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned);
        let mut log = self.log.clone();
        let found = soon("a line of the log", log.wait_for(|log| find(log).is_some())).await;
        let line = found.ok().and_then(|log| find(&log));
        line.unwrap_or_else(|| panic!("no line with {parts:?} in {}", self.log()))
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }
}

/// Sends a process a signal, by `kill`'s name for it.
pub(crate) async fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status().await.expect("every Unix has `kill`");
    assert!(sent.success());
}

/// Collects a pipe, so that the child never waits for us.
fn gather(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    let sender = Arc::new(sender);
    tokio::spawn(async move {
        let mut bytes = vec![0; 16 * 1024];
        // Ends when the child does.
        while let Ok(count @ 1..) = pipe.read(&mut bytes).await {
            sender.send_modify(|log| log.push_str(&String::from_utf8_lossy(&bytes[..count])));
        }
    });
    receiver
}

/// Arguments with a `--set` for each setting.
pub(crate) fn with_settings(arguments: &[&str], settings: &[&str]) -> Vec<String> {
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    arguments.iter().copied().chain(settings).map(str::to_owned).collect()
}
