//! Whole systems with the fake engine: routing, cancels, overload, and the death of every actor.

mod prefixes;
mod replaced_model;
mod templates;
mod vocabulary;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use tokio::time::timeout;

use super::*;
use crate::engine::fake;
use crate::engine::spec::{EngineSpec, FakeSpec};
use crate::error::GenerateError;
use crate::request::{CacheMode, FinishReason, Finished, Prompt};

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn start(test: &str, spec: FakeSpec) -> System {
    let system = System::builder().instance(test).engine(EngineSpec::Fake(spec)).start().await.expect("starts");
    timeout(PATIENCE, system.ready()).await.expect("in time").expect("loads");
    system
}

fn request(prompt: &[Token], max_tokens: u32) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Tokens(prompt.into()));
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(max_tokens);
    request
}

fn prompt(seed: u64) -> Vec<Token> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..random.usize(1..60)).map(|_| random.i32(97..123)).collect()
}

/// Waits until the engine works on a generation; gives what it brought by then.
async fn first_tokens(generation: &mut Generation) -> Vec<Token> {
    while let Some(event) = timeout(PATIENCE, generation.next()).await.expect("in time") {
        if let GenerationEvent::Delta(delta) = event {
            return delta.tokens;
        }
    }
    panic!("a generation brings tokens");
}

/// Tokens and end of a generation.
async fn collect(generation: Generation) -> (Vec<Token>, Result<Finished, GenerateError>) {
    collect_counted(generation, &AtomicU32::new(0)).await
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let polled = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

fn actor(system: &System, id: &str) -> ActorCell {
    let name = format!("{}/{id}", system.instance());
    ractor::registry::where_is(&name).unwrap_or_else(|| panic!("{name} is not registered"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_at_random_times_with_random_cancels_get_their_own_text() {
    let spec = FakeSpec { end_every: Some(40), ..FakeSpec::default() };
    let system = start("thousand", spec.clone()).await;
    let tasks = (0..1000u64).map(|seed| {
        let (system, spec) = (system.clone(), spec.clone());
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
            let (prompt, max_tokens) = (prompt(seed), random.u32(1..80));
            let mut generation = system.generate(request(&prompt, max_tokens)).await.expect("admitted");
            let expected = fake::continuation(&spec, &prompt, max_tokens as usize);
            if random.u8(0..4) == 0 {
                let mut seen = Vec::new();
                for _ in 0..random.usize(0..12) {
                    if let Some(GenerationEvent::Delta(delta)) = generation.next().await {
                        seen.extend(delta.tokens);
                    }
                }
                assert_eq!(seen[..], expected[..seen.len()], "request {seed}");
                return;
            }
            let (tokens, finished) = collect(generation).await;
            assert_eq!(tokens, expected, "request {seed}");
            let usage = finished.expect("finishes").usage;
            assert_eq!((usage.prompt_tokens, usage.completion_tokens), (prompt.len() as u32, expected.len() as u32));
        })
    });
    for outcome in join_all(tasks.collect::<Vec<_>>()).await {
        outcome.expect("no assertion failed");
    }
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

/// Counts the tokens of each stream while it collects them.
async fn collect_counted(
    mut generation: Generation,
    seen: &AtomicU32,
) -> (Vec<Token>, Result<Finished, GenerateError>) {
    let mut tokens = Vec::new();
    while let Some(event) = timeout(PATIENCE, generation.next()).await.expect("in time") {
        match event {
            GenerationEvent::Delta(delta) => {
                seen.fetch_add(delta.tokens.len() as u32, Ordering::Relaxed);
                tokens.extend(delta.tokens);
            }
            GenerationEvent::Finished(finished) => return (tokens, Ok(finished)),
            GenerationEvent::Failed(error) => return (tokens, Err(error)),
            _ => {}
        }
    }
    panic!("a generation ends with Finished or Failed");
}

/// Kills an actor three times in the middle of eight running and many waiting streams; each must go on with the right
/// tokens, and the health must show it.
async fn streams_survive(test: &str, id: &str) {
    const TOKENS: u32 = 400;
    let spec = FakeSpec { step_time: Duration::from_millis(2), running: 8, ..FakeSpec::default() };
    let system = start(test, spec.clone()).await;
    let seen: Arc<Vec<AtomicU32>> = Arc::new((0..24).map(|_| AtomicU32::new(0)).collect());
    let streams = (0..24u64).map(|seed| {
        let (system, spec, seen) = (system.clone(), spec.clone(), seen.clone());
        tokio::spawn(async move {
            let prompt = prompt(seed);
            let generation = system.generate(request(&prompt, TOKENS)).await.expect("admitted");
            let (tokens, finished) = collect_counted(generation, &seen[seed as usize]).await;
            assert_eq!(tokens, fake::continuation(&spec, &prompt, TOKENS as usize), "stream {seed}");
            assert_eq!(finished.map(|finished| finished.usage.completion_tokens), Ok(TOKENS));
        })
    });
    let streams: Vec<_> = streams.collect();
    for _ in 0..3 {
        let counts = || -> Vec<u32> { seen.iter().map(|count| count.load(Ordering::Relaxed)).collect() };
        let start = counts();
        let advanced = || counts().iter().zip(&start).filter(|(now, start)| *now >= &(*start + 5)).count() >= 4;
        eventually("streams in full flow", advanced).await;
        assert!(counts().iter().any(|count| *count < TOKENS), "all over before the kill");
        let (before, statuses) = (system.wiring().scheduler.epoch(), system.status());
        actor(&system, id).kill();
        eventually("a new scheduler", || system.wiring().scheduler.epoch() > before).await;
        assert!(statuses.has_changed().expect("lives"), "the status must show the restart");
        eventually("ready again", || *system.status().borrow() == Status::Ready).await;
    }
    for outcome in join_all(streams).await {
        outcome.expect("no assertion failed");
    }
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_when_the_scheduler_dies() {
    streams_survive("scheduler-dies", names::SCHEDULER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_when_the_kv_cache_dies() {
    streams_survive("kv-cache-dies", names::KV_CACHE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_when_the_backend_dies() {
    streams_survive("backend-dies", names::BACKEND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_when_the_engine_supervisor_dies() {
    streams_survive("engine-dies", names::ENGINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_goes_on_after_a_restart_finds_its_kv() {
    let spec = FakeSpec { step_time: Duration::from_millis(2), ..FakeSpec::default() };
    let system = start("resume-kv", spec).await;
    let seen = AtomicU32::new(0);
    let generation = system.generate(request(&prompt(1), 300)).await.expect("admitted");
    let watch = async {
        eventually("in full flow", || seen.load(Ordering::Relaxed) >= 20).await;
        actor(&system, names::KV_CACHE).kill();
    };
    let ((tokens, _), ()) = tokio::join!(collect_counted(generation, &seen), watch);
    // The whole sequence lies in the KV cache, the part from before the kill included.
    let mut longer = prompt(1);
    longer.extend(&tokens);
    let (_, finished) = collect(system.generate(request(&longer, 1)).await.expect("admitted")).await;
    assert!(finished.expect("finishes").usage.cached_tokens as usize >= longer.len() - 2);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_dies_ends_its_own_request_only() {
    let spec = FakeSpec { step_time: Duration::from_millis(1), ..FakeSpec::default() };
    let system = start("session-dies", spec.clone()).await;
    let first = system.generate(request(&prompt(1), 400)).await.expect("admitted");
    let second = system.generate(request(&prompt(2), 200)).await.expect("admitted");
    actor(&system, "sessions/1").kill();
    let (_, lost) = collect(first).await;
    assert!(matches!(lost, Err(GenerateError::Internal(_))));
    let (tokens, finished) = collect(second).await;
    assert_eq!(tokens, fake::continuation(&spec, &prompt(2), 200));
    assert!(finished.is_ok());
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_requests_end_with_an_error_when_the_sessions_supervisor_dies_and_new_ones_run() {
    let spec = FakeSpec { step_time: Duration::from_millis(1), ..FakeSpec::default() };
    let system = start("sessions-die", spec.clone()).await;
    let open = system.generate(request(&prompt(1), 4000)).await.expect("admitted");
    let supervisor = actor(&system, names::SESSIONS);
    supervisor.kill();
    assert!(collect(open).await.1.is_err());
    eventually("it is dead", || supervisor.get_status() == ActorStatus::Stopped).await;
    // Nobody has to wait for the next one himself.
    let again = system.generate(request(&prompt(2), 10)).await.expect("admitted");
    assert_eq!(collect(again).await.0, fake::continuation(&spec, &prompt(2), 10));
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_engine_restarts_it_and_others_go_on() {
    let spec =
        FakeSpec { poison: Some("POISON".to_owned()), step_time: Duration::from_millis(1), ..FakeSpec::default() };
    let system = start("engine-crash", spec.clone()).await;
    let good = system.generate(request(&prompt(1), 200)).await.expect("admitted");
    let before = system.wiring().backend.epoch();
    let poison = system.generate(GenerateRequest::text("POISON")).await.expect("admitted");
    eventually("a new backend", || system.wiring().backend.epoch() > before).await;
    drop(poison);
    let (tokens, finished) = collect(good).await;
    assert_eq!(tokens, fake::continuation(&spec, &prompt(1), 200));
    assert!(finished.is_ok());
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_context_for_all_preempts_and_loses_nothing() {
    let spec = FakeSpec { n_ctx: 300, max_context_length: 200, running: 8, ..FakeSpec::default() };
    let system = start("preempts", spec.clone()).await;
    let tasks = (0..12u64).map(|seed| {
        let (system, spec) = (system.clone(), spec.clone());
        tokio::spawn(async move {
            let prompt = prompt(seed);
            let generation = system.generate(request(&prompt, 100)).await.expect("admitted");
            assert_eq!(collect(generation).await.0, fake::continuation(&spec, &prompt, 100), "stream {seed}");
        })
    });
    for outcome in join_all(tasks.collect::<Vec<_>>()).await {
        outcome.expect("no assertion failed");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_limit_is_refused_with_a_time_to_retry() {
    let spec = FakeSpec { step_time: Duration::from_millis(1), ..FakeSpec::default() };
    let args = System::builder().instance("overload").engine(EngineSpec::Fake(spec)).max_queue(3).build();
    let system = System::start(args).await.expect("starts");
    system.ready().await.expect("loads");
    let mut held = Vec::new();
    for seed in 0..3 {
        held.push(system.generate(request(&prompt(seed), 4000)).await.expect("admitted"));
    }
    let refused = system.generate(request(&prompt(9), 1)).await;
    assert!(matches!(refused, Err(GenerateError::Overloaded { limit: 3, retry_after }) if retry_after.as_secs() >= 1));
    held.pop();
    eventually("a permit is back", || system.in_flight() == 2).await;
    let admitted = system.generate(request(&prompt(9), 1)).await.expect("admitted");
    assert!(collect(admitted).await.1.is_ok());
    drop(held);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_of_queue_and_total_are_told_apart() {
    let spec = FakeSpec { running: 1, step_time: Duration::from_millis(5), ..FakeSpec::default() };
    let system = start("deadlines", spec).await;
    let mut long = request(&prompt(1), 4000);
    long.deadlines.total = Duration::from_secs(3);
    let mut long = system.generate(long).await.expect("admitted");
    // Otherwise the other one may take the only place.
    first_tokens(&mut long).await;
    let mut queued = request(&prompt(2), 1);
    queued.deadlines.queue = Some(Duration::from_millis(50));
    let queued = system.generate(queued).await.expect("admitted");
    assert!(matches!(collect(queued).await.1, Err(GenerateError::DeadlineExceeded { which: "queue", .. })));
    assert!(matches!(collect(long).await.1, Err(GenerateError::DeadlineExceeded { which: "total", .. })));
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_every_token_gathered() {
    let system = start("slow-reader", FakeSpec::default()).await;
    let mut generation = system.generate(request(&prompt(1), 1000)).await.expect("admitted");
    // It runs, so it is through before the other one, which needs as many steps.
    let (mut tokens, mut deltas) = (first_tokens(&mut generation).await, 1);
    let other = system.generate(request(&prompt(2), 1000)).await.expect("admitted");
    assert!(collect(other).await.1.is_ok(), "a slow reader does not touch the engine");
    while let Some(event) = generation.next().await {
        if let GenerationEvent::Delta(delta) = event {
            tokens.extend(delta.tokens);
            deltas += 1;
        }
    }
    assert_eq!(tokens, fake::continuation(&FakeSpec::default(), &prompt(1), 1000));
    assert!(deltas <= 2 * CHANNEL_EVENTS, "{deltas} deltas");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_that_leaves_before_the_end_reaches_it_gives_its_permit_back() {
    let system = start("slow-leaver", FakeSpec::default()).await;
    for seed in 0..200 {
        let mut slow = system.generate(request(&prompt(seed), 100)).await.expect("admitted");
        let other = system.generate(request(&prompt(seed + 1000), 120)).await.expect("admitted");
        assert!(collect(other).await.1.is_ok());
        assert!(slow.next().await.is_some());
    }
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_counts_up_to_the_token_that_completes_the_stop_text() {
    let system = start("stop-text", FakeSpec::default()).await;
    let said = fake::continuation(&FakeSpec::default(), &prompt(1), 60);
    let text: String = said.iter().map(|token| char::from(*token as u8)).collect();
    let stop = text[20..23].to_owned();
    let cut = text.find(&stop).expect("it is in there");
    let mut request = request(&prompt(1), 60);
    request.stop = vec![stop.clone()];
    let mut generation = system.generate(request).await.expect("admitted");
    let mut got = String::new();
    let mut finished = None;
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Delta(delta) => got.push_str(&delta.text),
            GenerationEvent::Finished(end) => finished = Some(end),
            _ => {}
        }
    }
    assert_eq!(got, text[..cut]);
    let finished = finished.expect("finishes");
    assert_eq!(finished.reason, FinishReason::StopText(stop));
    assert_eq!(finished.usage.completion_tokens as usize, cut + 3);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_prompt_is_found_in_the_kv_cache() {
    let system = start("repeat", FakeSpec::default()).await;
    let prompt: Vec<Token> = (0..100).map(|at| 97 + at % 26).collect();
    let mut cached = HashMap::new();
    for round in 0..2 {
        let request = GenerateRequest { cache: CacheMode::Bypass, ..request(&prompt, 5) };
        let (_, finished) = collect(system.generate(request).await.expect("admitted")).await;
        cached.insert(round, finished.expect("finishes").usage.cached_tokens);
    }
    assert_eq!((cached[&0], cached[&1]), (0, 99));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_open_requests_with_a_clear_error() {
    let spec = FakeSpec { step_time: Duration::from_millis(1), ..FakeSpec::default() };
    let system = start("stopping", spec).await;
    let open = system.generate(request(&prompt(1), 4000)).await.expect("admitted");
    let stop = tokio::spawn({
        let system = system.clone();
        async move { system.stop().await }
    });
    assert_eq!(collect(open).await.1, Err(GenerateError::ShuttingDown));
    timeout(PATIENCE, stop).await.expect("in time").expect("stops");
    assert!(matches!(system.admit(Claim::of(&request(&[1], 1))), Err(GenerateError::ShuttingDown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_does_not_load_fails_the_start_with_its_cause() {
    let spec = FakeSpec { load_failure: Some("no such weights".to_owned()), ..FakeSpec::default() };
    let system = System::builder().instance("no-load").engine(EngineSpec::Fake(spec)).start().await.expect("starts");
    let failure = timeout(PATIENCE, system.ready()).await.expect("in time");
    assert!(matches!(failure, Err(GenerateError::EngineDown { cause, .. }) if cause.contains("no such weights")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_systems_live_in_one_process() {
    let one = start("twin-1", FakeSpec::default()).await;
    let two = start("twin-2", FakeSpec::default()).await;
    for system in [&one, &two] {
        let (tokens, _) = collect(system.generate(request(&prompt(3), 20)).await.expect("admitted")).await;
        assert_eq!(tokens, fake::continuation(&FakeSpec::default(), &prompt(3), 20));
    }
    one.stop().await;
    two.stop().await;
}
