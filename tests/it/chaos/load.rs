//! A mixed load whose every answer is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::Engine;
use crate::client::{Ask, Stream};
use crate::expected::{after, choice_text, chunks_text};
use crate::server::Server;

const PATH: &str = "/v1/completions";

/// Clients at a time.
const CLIENTS: usize = 12;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Manner {
    Streams,
    StreamsTwoChoices,
    StreamsAndReadsSlowly,
    StreamsAndLeaves,
    Waits,
    WaitsForTwoChoices,
    WaitsAndLeaves,
}

const MANNERS: [Manner; 7] = [
    Manner::Streams,
    Manner::StreamsTwoChoices,
    Manner::StreamsAndReadsSlowly,
    Manner::StreamsAndLeaves,
    Manner::Waits,
    Manner::WaitsForTwoChoices,
    Manner::WaitsAndLeaves,
];

impl Manner {
    fn choices(self) -> usize {
        if matches!(self, Self::StreamsTwoChoices | Self::WaitsForTwoChoices) { 2 } else { 1 }
    }

    fn streams(self) -> bool {
        !matches!(self, Self::Waits | Self::WaitsForTwoChoices | Self::WaitsAndLeaves)
    }

    fn leaves(self) -> bool {
        matches!(self, Self::StreamsAndLeaves | Self::WaitsAndLeaves)
    }
}

/// One request.
struct Request {
    id: String,
    manner: Manner,
    prompt: String,
    tokens: usize,
    engine: Engine,
    /// No answer of another's serves it, nor its own another.
    keeps_to_itself: bool,
    /// What is done when is drawn from here.
    random: fastrand::Rng,
}

/// The clients and what they have done.
pub(super) struct Load<'a> {
    server: &'a Server,
    engine: Engine,
    clients: Vec<fastrand::Rng>,
    /// By request id: whether it ended well, which one that leaves need not.
    done: BTreeMap<String, (Manner, bool)>,
    /// Answers that say they went on after a restart.
    resumed: usize,
}

impl<'a> Load<'a> {
    pub(super) fn new(server: &'a Server, engine: Engine, seed: u64) -> Self {
        let client = |number: usize| fastrand::Rng::with_seed(seed ^ (number as u64) << 32);
        Self { server, engine, clients: (0..CLIENTS).map(client).collect(), done: BTreeMap::new(), resumed: 0 }
    }

    /// Requests for so long, and until the last one has ended.
    pub(super) async fn run(&mut self, time: Duration) {
        let (server, engine, round) = (self.server, self.engine, self.done.len());
        let until = Instant::now() + time;
        let clients = self.clients.iter_mut().enumerate().map(async |(client, random)| {
            let mut done = Vec::new();
            while Instant::now() < until {
                let request = Request::draw(engine, random, format!("chaos-{round}-{client}-{}", done.len()));
                let (id, manner) = (request.id.clone(), request.manner);
                done.push((id, manner, request.make(server).await));
            }
            done
        });
        for (id, manner, resumed) in join_all(clients).await.into_iter().flatten() {
            self.resumed += usize::from(resumed == Some(true));
            self.done.insert(id, (manner, resumed.is_some()));
        }
    }

    /// The server has one line for each request, and it says what the client saw.
    pub(super) fn every_request_ended_once(&self, log: &str) {
        let mut ends = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains("request finished") && line.contains("chaos-")) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let id = line["request_id"].as_str().expect("a text").to_owned();
            assert_eq!(ends.insert(id.clone(), line["outcome"].clone()), None, "{id} ends twice");
        }
        for (id, (manner, well)) in &self.done {
            match ends.get(id).and_then(Value::as_str) {
                Some("completed") => {}
                Some("client_gone") if manner.leaves() && !well => {}
                // One that left before the server had read it.
                None if manner.leaves() && !well => {}
                other => panic!("{id} {manner:?}, ended well: {well}, in the log: {other:?}"),
            }
        }
    }
}

impl fmt::Display for Load<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_manner = BTreeMap::<_, usize>::new();
        self.done.values().for_each(|(manner, _)| *by_manner.entry(manner).or_default() += 1);
        write!(f, "{} requests {by_manner:?}, {} answers went on after a restart", self.done.len(), self.resumed)
    }
}

impl Request {
    fn draw(engine: Engine, random: &mut fastrand::Rng, id: String) -> Self {
        let manner = MANNERS[random.usize(..MANNERS.len())];
        let tokens = if engine == Engine::Fake { random.usize(20..150) } else { random.usize(8..48) };
        let prompt = format!("{id} says {}", "something ".repeat(random.usize(..8)));
        Self { id, manner, prompt, tokens, engine, keeps_to_itself: random.bool(), random: random.fork() }
    }

    /// The real model's texts cannot be foretold: its tokens are asked for and counted.
    fn counts_tokens(&self) -> bool {
        self.engine == Engine::Llama && self.keeps_to_itself
    }

    fn ask(&self) -> Ask {
        let mut body = json!({
            "prompt": self.prompt, "max_tokens": self.tokens, "temperature": 0, "ignore_eos": true,
            "n": self.manner.choices(), "stream": self.manner.streams(), "stream_options": { "include_usage": true },
        });
        if self.counts_tokens() {
            body["logprobs"] = 0.into();
        }
        // Equal choices share one sequence unless nothing is to be shared.
        let cache = if self.keeps_to_itself { "no-store" } else { "max-age=60" };
        let ask = Ask::post(PATH, &body).header("x-api-key", "boss").header("x-request-id", &self.id);
        ask.header("cache-control", cache)
    }

    /// `None`: the client left. Else whether the answer says that it went on after a restart.
    async fn make(mut self, server: &Server) -> Option<bool> {
        let patience = Duration::from_millis(self.random.u64(1..600));
        let leaves = self.manner.leaves();
        let whole = async {
            let response = server.open(self.ask()).await;
            assert_eq!(response.status, 200, "{}", self.id);
            if self.manner.streams() { self.check_stream(response).await } else { self.check(response).await }
        };
        if leaves { tokio::time::timeout(patience, whole).await.ok() } else { Some(whole.await) }
    }

    async fn check(&self, response: Stream) -> bool {
        let answer = response.answer().await.ok();
        self.check_usage(&answer["usage"]);
        for choice in 0..self.manner.choices() {
            self.check_text(&choice_text(&answer, choice));
            self.check_tokens(std::slice::from_ref(&answer), choice);
            assert_eq!(answer["choices"][choice]["finish_reason"], "length", "{}", self.id);
        }
        answer.get("resumed").is_some()
    }

    async fn check_stream(&mut self, mut response: Stream) -> bool {
        let mut chunks = Vec::new();
        let slow = if self.manner == Manner::StreamsAndReadsSlowly { 15 } else { 0 };
        // What piled up meanwhile may come in fewer chunks.
        let mut open = true;
        while open && chunks.len() < slow {
            let chunk = response.chunk().await;
            open = chunk.is_some();
            chunks.extend(chunk);
            tokio::time::sleep(Duration::from_millis(self.random.u64(..60))).await;
        }
        if open {
            chunks.extend(response.chunks().await);
        }
        for choice in 0..self.manner.choices() {
            self.check_text(&chunks_text(&chunks, choice));
            self.check_tokens(&chunks, choice);
            let reasons = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().expect("a list"));
            let reasons: Vec<_> = reasons
                .filter(|part| part["index"] == choice && !part["finish_reason"].is_null())
                .map(|part| &part["finish_reason"])
                .collect();
            assert_eq!(reasons, ["length"], "{}", self.id);
        }
        let last = chunks.last().expect("at least one");
        self.check_usage(&last["usage"]);
        last.get("resumed").is_some()
    }

    fn check_text(&self, text: &str) {
        match self.engine {
            Engine::Fake => assert_eq!(text, after(&self.prompt, self.tokens), "{}", self.id),
            Engine::Llama => assert!(!text.is_empty(), "{}", self.id),
        }
    }

    /// As many tokens as were asked for, and the text is theirs.
    fn check_tokens(&self, answers: &[Value], choice: usize) {
        if !self.counts_tokens() {
            return;
        }
        let parts = answers.iter().flat_map(|answer| answer["choices"].as_array().expect("a list"));
        let parts = parts.filter(|part| part["index"] == choice);
        let tokens = parts.filter_map(|part| part["logprobs"]["tokens"].as_array()).flatten();
        let tokens: Vec<&str> = tokens.map(|token| token.as_str().expect("a text")).collect();
        assert_eq!(tokens.len(), self.tokens, "{}: {tokens:?}", self.id);
        // A part of a character is shown as its bytes, and a control token has no text.
        if !tokens.iter().any(|token| token.starts_with("bytes:") || token.contains("<|")) {
            assert_eq!(tokens.concat(), chunks_text(answers, choice), "{}", self.id);
        }
    }

    fn check_usage(&self, usage: &Value) {
        assert_eq!(usage["completion_tokens"], self.tokens * self.manner.choices(), "{}: {usage}", self.id);
    }
}
