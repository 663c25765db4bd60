//! Whole systems with the fake engine: what equal requests get, and who dies meanwhile.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::engine::fake;
use crate::engine::protocol::{Token, TokenLogprob};
use crate::engine::spec::{EngineSpec, FakeSpec};
use crate::error::GenerateError;
use crate::names;
use crate::prompt::ChatPrompt;
use crate::request::{
    CacheMode, CacheOutcome, Delta, FinishReason, Finished, GenerateRequest, GenerationEvent, Prompt,
};
use crate::system::{ActorAction, Generation, Status, System};

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const SCHEDULER: &str = "engine-0/scheduler-0";

async fn start_with(test: &str, spec: FakeSpec, options: CacheOptions) -> System {
    let builder = System::builder().instance(test).engine(EngineSpec::Fake(spec)).response_cache(Some(options));
    let system = builder.start().await.expect("starts");
    soon(system.ready()).await.expect("loads");
    system
}

async fn start(test: &str, spec: FakeSpec) -> System {
    start_with(test, spec, CacheOptions::default()).await
}

/// Slow enough that others can join in the middle.
fn slow() -> FakeSpec {
    FakeSpec { step_time: Duration::from_millis(3), ..FakeSpec::default() }
}

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("in time")
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let polled = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

fn shown(system: &System, place: usize) -> u64 {
    system.wiring().boards.response_cache.get(place).unwrap_or(0)
}

fn request(prompt: &str, max_tokens: u32) -> GenerateRequest {
    let mut request = GenerateRequest::text(prompt);
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(max_tokens);
    request
}

fn expected(prompt: &str, count: usize) -> Vec<Token> {
    let prompt: Vec<Token> = prompt.bytes().map(Token::from).collect();
    fake::continuation(&FakeSpec::default(), &prompt, count)
}

/// Everything that a caller got.
#[derive(Debug)]
struct Got {
    cache: Option<CacheOutcome>,
    prompt: Vec<TokenLogprob>,
    deltas: Vec<Delta>,
    end: Result<Finished, GenerateError>,
}

impl Got {
    fn tokens(&self) -> Vec<Token> {
        self.deltas.iter().flat_map(|delta| delta.tokens.clone()).collect()
    }

    fn whole(&self) -> Delta {
        self.deltas.iter().cloned().fold(Delta::default(), |mut whole, delta| {
            whole.append(delta);
            whole
        })
    }
}

/// A generation under way.
struct Open {
    generation: Generation,
    cache: Option<CacheOutcome>,
    deltas: Vec<Delta>,
}

impl Open {
    /// Starts one and waits until its prompt is known, or it is queued.
    async fn start(system: &System, request: GenerateRequest) -> Self {
        let generation = system.generate(request).await.expect("admitted");
        let mut open = Self { generation, cache: None, deltas: Vec::new() };
        if let Some(GenerationEvent::Started { cache, .. }) = soon(open.generation.next()).await {
            open.cache = cache;
        }
        open
    }

    /// Waits for so many further deltas.
    async fn read(&mut self, count: usize) {
        let until = self.deltas.len() + count;
        while self.deltas.len() < until {
            match soon(self.generation.next()).await {
                Some(GenerationEvent::Delta(delta)) => self.deltas.push(delta),
                Some(GenerationEvent::Finished(_) | GenerationEvent::Failed(_)) | None => panic!("over too early"),
                Some(_) => {}
            }
        }
    }

    async fn finish(mut self) -> Got {
        let mut prompt = Vec::new();
        while let Some(event) = soon(self.generation.next()).await {
            match event {
                GenerationEvent::Delta(delta) => self.deltas.push(delta),
                GenerationEvent::Prompt(logprobs) => prompt = logprobs,
                GenerationEvent::Started { cache, .. } => self.cache = cache,
                GenerationEvent::Queued { .. } => {}
                GenerationEvent::Finished(end) => {
                    return Got { cache: self.cache, prompt, deltas: self.deltas, end: Ok(end) };
                }
                GenerationEvent::Failed(error) => {
                    return Got { cache: self.cache, prompt, deltas: self.deltas, end: Err(error) };
                }
            }
        }
        panic!("a generation ends with Finished or Failed");
    }
}

async fn ask(system: &System, request: GenerateRequest) -> Got {
    Open::start(system, request).await.finish().await
}

fn kill(system: &System, id: &str) {
    let name = format!("{}/{id}", system.instance());
    ractor::registry::where_is(&name).unwrap_or_else(|| panic!("{name} is not registered")).kill();
}

async fn all_is_over(system: System) {
    eventually("all permits are back", || system.in_flight() == 0).await;
    eventually("nobody leads any more", || shown(&system, board::IN_FLIGHT) == 0).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_again_gives_the_same_events_without_computing() {
    let spec = FakeSpec { end_every: Some(40), ..FakeSpec::default() };
    let system = start("cache-hit", spec.clone()).await;
    let chat = |content: &str| {
        let message = serde_json::json!({ "role": "user", "content": content });
        let (tools, variables) = (Vec::new(), serde_json::Map::new());
        let prompt = ChatPrompt { messages: vec![message], tools, add_generation_prompt: true, variables };
        let mut request = GenerateRequest::chat(prompt);
        request.sampling.temperature = 0.0;
        request
    };
    let first_words: String = ask(&system, request("until it stops", 12)).await.whole().text;
    let requests = [
        request("as long as it may", 20),
        GenerateRequest { stop: vec![first_words[6..9].to_owned()], ..request("until it stops", 100) },
        chat("until you end"),
        GenerateRequest { logprobs: Some(2), prompt_logprobs: Some(1), ..request("with numbers", 10) },
        GenerateRequest { prompt: Prompt::Tokens(vec![104, 105].into()), ..request("", 5) },
        request("only read", 0),
    ];
    let mut reasons = Vec::new();
    for request in requests {
        let first = ask(&system, request.clone()).await;
        let again = ask(&system, request).await;
        assert_eq!((first.cache, again.cache), (Some(CacheOutcome::Miss), Some(CacheOutcome::Hit)));
        assert_eq!((again.whole(), &again.prompt), (first.whole(), &first.prompt));
        let (first, again) = (first.end.expect("finishes"), again.end.expect("finishes"));
        assert_eq!(again.reason, first.reason);
        assert_eq!(again.usage.prompt_tokens, first.usage.prompt_tokens);
        assert_eq!(again.usage.completion_tokens, first.usage.completion_tokens);
        assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens, "nothing of it was computed");
        reasons.push(again.reason);
    }
    assert!(matches!(reasons[1], FinishReason::StopText(_)), "{reasons:?}");
    assert_eq!((&reasons[0], &reasons[2]), (&FinishReason::Length, &FinishReason::EndToken));
    assert_eq!((shown(&system, board::HITS), shown(&system, board::ENTRIES)), (6, 7));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_given_again_token_by_token() {
    let system = start("cache-replay", FakeSpec::default()).await;
    ask(&system, request("long", 500)).await;
    let again = ask(&system, request("long", 500)).await;
    assert_eq!((again.cache, again.deltas.len()), (Some(CacheOutcome::Hit), 500));
    assert_eq!(again.tokens(), expected("long", 500));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_answer_is_given_to_its_end_while_the_engine_is_down() {
    let system = start("cache-down", slow()).await;
    ask(&system, request("long", 200)).await;
    let hit = Open::start(&system, request("long", 200)).await;
    let computed = Open::start(&system, request("other", 1500)).await;
    let cause = "five deaths".to_owned();
    system.wiring().set_status(Status::Held { cause, retry_at: Instant::now() + Duration::from_secs(60) });
    assert!(matches!(computed.finish().await.end, Err(GenerateError::EngineDown { .. })));
    let hit = hit.finish().await;
    assert_eq!((hit.cache, hit.tokens()), (Some(CacheOutcome::Hit), expected("long", 200)));
    assert!(hit.end.is_ok(), "{:?}", hit.end);
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_determined_and_allowed_is_kept() {
    let system = start("cache-rules", FakeSpec::default()).await;
    let warm = |seed| {
        let mut request = request("dice", 5);
        (request.sampling.temperature, request.sampling.seed) = (1.0, seed);
        request
    };
    let mut seen = Vec::new();
    for request in [warm(None), warm(None), warm(Some(1)), warm(Some(1)), warm(Some(2))] {
        seen.push(ask(&system, request).await.cache);
    }
    let (hit, miss) = (Some(CacheOutcome::Hit), Some(CacheOutcome::Miss));
    assert_eq!(seen, [None, None, miss, hit, miss]);

    let with = |cache| GenerateRequest { cache, ..request("modes", 5) };
    let mut seen = Vec::new();
    for cache in [CacheMode::Bypass, CacheMode::Use, CacheMode::Refresh, CacheMode::Bypass, CacheMode::Use] {
        seen.push(ask(&system, with(cache)).await.cache);
    }
    assert_eq!(seen, [None, miss, miss, None, hit]);
    let refreshed = GenerateRequest { cache: CacheMode::Refresh, ..request("only refreshed", 5) };
    ask(&system, refreshed).await;
    assert_eq!(ask(&system, request("only refreshed", 5)).await.cache, hit);
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_forgotten_when_they_are_too_old_or_too_many() {
    let short = CacheOptions {
        ttl: Some(Duration::from_millis(30)),
        cleanup_interval: Duration::from_millis(10),
        ..CacheOptions::default()
    };
    let system = start_with("cache-ttl", FakeSpec::default(), short).await;
    let forgotten = async {
        ask(&system, request("soon forgotten", 5)).await;
        while ask(&system, request("soon forgotten", 5)).await.cache != Some(CacheOutcome::Miss) {}
    };
    soon(forgotten).await;
    all_is_over(system).await;

    let few = CacheOptions { max_entries: 3, eviction_threshold: 1.0, ..CacheOptions::default() };
    let system = start_with("cache-few", FakeSpec::default(), few).await;
    for number in 0..4 {
        ask(&system, request(&format!("one of many {number}"), 5)).await;
    }
    eventually("one had to go", || shown(&system, board::EVICTIONS) == 1).await;
    assert_eq!(ask(&system, request("one of many 3", 5)).await.cache, Some(CacheOutcome::Hit));
    assert_eq!(ask(&system, request("one of many 0", 5)).await.cache, Some(CacheOutcome::Miss));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_cache_every_request_is_computed() {
    let builder = System::builder().instance("cache-off").response_cache(None);
    let system = builder.start().await.expect("starts");
    soon(system.ready()).await.expect("loads");
    for _ in 0..2 {
        assert_eq!(ask(&system, request("again", 5)).await.cache, None);
    }
    assert!(!system.actors().actors.iter().any(|actor| actor.path.ends_with(names::RESPONSE_CACHE)));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_requests_in_flight_are_computed_once_and_each_gets_it_from_the_first_token() {
    let system = start("cache-follow", slow()).await;
    let mut leader = Open::start(&system, request("together", 200)).await;
    leader.read(10).await;
    let followers = (0..10).map(|_| ask(&system, request("together", 200)));
    let (followers, led) = tokio::join!(join_all(followers), leader.finish());
    assert_eq!(led.tokens(), expected("together", 200));
    for follower in followers {
        assert_eq!(follower.cache, Some(CacheOutcome::Coalesced));
        assert_eq!(follower.whole(), led.whole());
        let usage = follower.end.expect("finishes").usage;
        assert_eq!((usage.completion_tokens, usage.cached_tokens), (200, usage.prompt_tokens));
    }
    let counts = [board::MISSES, board::COALESCED, board::HITS].map(|place| shown(&system, place));
    assert_eq!(counts, [1, 10, 0]);
    assert_eq!(ask(&system, request("together", 200)).await.cache, Some(CacheOutcome::Hit));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_stay_when_the_leaders_client_leaves_and_the_last_one_ends_it() {
    let system = start("cache-leaves", slow()).await;
    let mut leader = Open::start(&system, request("left", 300)).await;
    leader.read(5).await;
    let mut follower = Open::start(&system, request("left", 300)).await;
    follower.read(5).await;
    drop(leader);
    follower.read(5).await;
    // The session without a client can still be followed.
    let late = Open::start(&system, request("left", 300)).await;
    assert_eq!(late.cache, Some(CacheOutcome::Coalesced));
    assert_eq!(follower.finish().await.tokens(), expected("left", 300));
    assert_eq!(late.finish().await.tokens(), expected("left", 300));
    assert_eq!(shown(&system, board::MISSES), 1);

    let mut leader = Open::start(&system, request("left by all", 400)).await;
    leader.read(5).await;
    let follower = Open::start(&system, request("left by all", 400)).await;
    drop((leader, follower));
    // Nothing is computed for nobody, and what is not complete is not kept.
    eventually("all sessions end", || system.in_flight() == 0).await;
    assert_eq!(ask(&system, request("left by all", 400)).await.cache, Some(CacheOutcome::Miss));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_go_on_by_themselves_when_the_leader_dies() {
    let system = start("cache-leader-dies", slow()).await;
    let mut leader = Open::start(&system, request("orphans", 1000)).await;
    leader.read(10).await;
    let mut followers = Vec::new();
    for _ in 0..3 {
        let mut follower = Open::start(&system, request("orphans", 1000)).await;
        follower.read(3).await;
        followers.push(follower);
    }
    kill(&system, "sessions/1");
    assert!(matches!(leader.finish().await.end, Err(GenerateError::Internal(_))));
    for follower in followers {
        let got = follower.finish().await;
        assert_eq!(got.tokens(), expected("orphans", 1000));
        assert_eq!(got.end.map(|end| (end.reason, end.resumed)), Ok((FinishReason::Length, 1)));
    }
    assert_eq!(
        ask(&system, request("orphans", 1000)).await.cache,
        Some(CacheOutcome::Hit),
        "an orphan's answer is kept"
    );
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_of_a_leader_that_dies_before_its_first_token_go_on_too() {
    let system = start("cache-early-death", slow()).await;
    system.act(SCHEDULER, ActorAction::Pause).await.expect("it can pause");
    let leader = Open::start(&system, request("never said", 50)).await;
    let followers =
        [Open::start(&system, request("never said", 50)).await, Open::start(&system, request("never said", 50)).await];
    kill(&system, "sessions/1");
    assert!(leader.finish().await.end.is_err());
    system.act(SCHEDULER, ActorAction::Resume).await.expect("it goes on");
    for follower in followers {
        assert_eq!(follower.finish().await.tokens(), expected("never said", 50));
    }
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_the_cache_is_noticed_by_nobody_and_later_answers_are_kept() {
    let system = start("cache-dies", slow()).await;
    let mut leader = Open::start(&system, request("in flight", 200)).await;
    leader.read(10).await;
    let follower = Open::start(&system, request("in flight", 200)).await;
    ask(&system, request("kept before", 3)).await;
    let cache = &system.wiring().response_cache;
    let before = cache.epoch();
    kill(&system, names::RESPONSE_CACHE);
    // Asked while nobody is there, or of the next one, which knows of no leader.
    let third = Open::start(&system, request("in flight", 200)).await;
    assert_eq!(third.cache, Some(CacheOutcome::Miss));
    eventually("a new cache", || cache.epoch() > before).await;
    for open in [leader, follower, third] {
        let got = open.finish().await;
        assert_eq!((got.tokens(), got.end.map(|end| end.resumed)), (expected("in flight", 200), Ok(0)));
    }
    assert_eq!(ask(&system, request("in flight", 200)).await.cache, Some(CacheOutcome::Hit));
    assert_eq!(ask(&system, request("kept before", 3)).await.cache, Some(CacheOutcome::Miss), "it starts empty");
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_and_followers_survive_the_scheduler_together() {
    let system = start("cache-scheduler-dies", slow()).await;
    let mut leader = Open::start(&system, request("resumed", 200)).await;
    leader.read(10).await;
    let mut follower = Open::start(&system, request("resumed", 200)).await;
    follower.read(5).await;
    kill(&system, names::SCHEDULER);
    for open in [leader, follower] {
        let got = open.finish().await;
        assert_eq!((got.tokens(), got.end.map(|end| end.resumed)), (expected("resumed", 200), Ok(1)));
    }
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_failure_is_everybodys_and_is_not_kept() {
    let spec = FakeSpec { poison: Some("POISON".to_owned()), ..FakeSpec::default() };
    let system = start("cache-failure", spec).await;
    system.act(SCHEDULER, ActorAction::Pause).await.expect("it can pause");
    let leader = Open::start(&system, request("POISON", 50)).await;
    let follower = Open::start(&system, request("POISON", 50)).await;
    assert_eq!(follower.cache, Some(CacheOutcome::Coalesced));
    system.act(SCHEDULER, ActorAction::Resume).await.expect("it goes on");
    for open in [leader, follower] {
        assert_eq!(open.finish().await.end, Err(GenerateError::EngineCrashed));
    }
    assert_eq!(shown(&system, board::ENTRIES), 0);
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_own_deadline_and_the_latest_counts_for_the_answer() {
    let system = start("cache-deadlines", FakeSpec::default()).await;
    system.act(SCHEDULER, ActorAction::Pause).await.expect("it can pause");
    let within = |ms| {
        let mut request = request("in time", 50);
        request.deadlines.total = Duration::from_millis(ms);
        request
    };
    let impatient = Open::start(&system, within(3000)).await;
    let patient = Open::start(&system, within(200_000)).await;
    let in_between = Open::start(&system, within(4000)).await;
    let caches = [impatient.cache, patient.cache, in_between.cache];
    for open in [impatient, in_between] {
        assert!(matches!(open.finish().await.end, Err(GenerateError::DeadlineExceeded { which: "total", .. })));
    }
    assert_eq!(caches, [Some(CacheOutcome::Miss), Some(CacheOutcome::Coalesced), Some(CacheOutcome::Coalesced)]);
    system.act(SCHEDULER, ActorAction::Resume).await.expect("it goes on");
    assert_eq!(patient.finish().await.tokens(), expected("in time", 50));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_reads_nothing_slows_nobody_and_misses_nothing() {
    let system = start("cache-slow-follower", slow()).await;
    let mut leader = Open::start(&system, request("unread", 300)).await;
    leader.read(5).await;
    let follower = Open::start(&system, request("unread", 300)).await;
    assert_eq!(leader.finish().await.tokens(), expected("unread", 300));
    let got = follower.finish().await;
    assert_eq!((got.cache, got.tokens()), (Some(CacheOutcome::Coalesced), expected("unread", 300)));
    all_is_over(system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_equal_requests_with_random_leaves_and_deaths_gives_everybody_the_right_text() {
    let system = start("cache-storm", FakeSpec { step_time: Duration::from_millis(1), ..FakeSpec::default() }).await;
    let tasks = (0..300_u64).map(|seed| {
        let system = system.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
            let prompt = format!("storm {}", random.u8(0..12));
            let mut open = Open::start(&system, request(&prompt, 60)).await;
            match random.u8(0..4) {
                0 => {
                    for _ in 0..random.u8(0..20) {
                        let _ = soon(open.generation.next()).await;
                    }
                }
                _ => assert_eq!(open.finish().await.tokens(), expected(&prompt, 60), "request {seed}"),
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for _ in 0..3 {
        let before = system.wiring().response_cache.epoch();
        let hits = shown(&system, board::HITS);
        eventually("some hits", || {
            shown(&system, board::HITS) > hits + 3 || tasks.iter().all(|task| task.is_finished())
        })
        .await;
        kill(&system, names::RESPONSE_CACHE);
        eventually("a new cache", || system.wiring().response_cache.epoch() > before).await;
    }
    for outcome in join_all(tasks).await {
        outcome.expect("no assertion failed");
    }
    all_is_over(system).await;
}
