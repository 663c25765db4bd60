//! Questions to the vocabulary beside everything else, and what an engine that dies over one costs.

use super::*;
use crate::engine::protocol::EngineEvent;
use crate::engine::vocabulary_thread::plain_text;
use crate::quarantine::Verdict;

fn engine_failed() -> BackendMsg {
    BackendMsg::Engine(EngineEvent::Failed { cause: "told to".to_owned(), thread: None })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_kills_every_engine_is_asked_twice_and_no_more() {
    let system = start("deadly-question", FakeSpec::default()).await;
    let asked = AtomicU32::new(0);
    let answer = system.ask_until_answered::<Vec<Token>>(|port| {
        asked.fetch_add(1, Ordering::Relaxed);
        drop(port);
        engine_failed()
    });
    let answer = timeout(PATIENCE, answer).await.expect("in time");
    assert_eq!(answer, Err(GenerateError::EngineCrashed));
    assert_eq!(asked.into_inner(), 2);
    let tokens = system.tokenize(plain_text("hi"), AddSpecial::Never).await;
    assert_eq!(tokens, Ok(vec![104, 105]), "the next one is answered");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_has_ended_is_charged_with_nothing() {
    let system = start("late-charge", FakeSpec::default()).await;
    let (wiring, ended) = (system.wiring(), 999);
    for _ in 0..2 {
        let before = wiring.backend.epoch();
        let step = EngineEvent::StepStarted { epoch: 1, requests: vec![ended] };
        assert!(wiring.backend.cast(BackendMsg::Engine(step)).is_ok());
        assert!(wiring.backend.cast(engine_failed()).is_ok());
        eventually("a new backend", || wiring.backend.epoch() > before && wiring.backend.current().is_some()).await;
    }
    assert_eq!(wiring.quarantine.verdict(ended), Verdict::Trusted);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_no_pipe_carries_is_its_senders_mistake() {
    let system = start("too-large", FakeSpec::default()).await;
    let huge = "word ".repeat(14 << 20);
    let refused = system.tokenize(plain_text(huge), AddSpecial::Never).await;
    assert!(matches!(refused, Err(GenerateError::InvalidRequest { param, .. }) if param == "content"));
    let mut generation = system.generate(GenerateRequest::text("word ".repeat(20_000))).await.expect("admitted");
    let first = timeout(PATIENCE, generation.next()).await.expect("in time");
    let Some(GenerationEvent::Failed(error)) = first else { panic!("it cannot fit: {first:?}") };
    assert_eq!(error.to_string(), "the prompt has at least 8334 tokens, the context holds 4096");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_thread_that_is_replaced_is_not_lost_however_long_the_load_takes() {
    let spec = FakeSpec { load_time: Duration::from_secs(2), ..FakeSpec::default() };
    let mut args = System::builder().instance("slow-load").engine(EngineSpec::Fake(spec)).build();
    args.stall_after = Duration::from_millis(50);
    let system = System::start(args).await.expect("starts");
    timeout(PATIENCE, system.ready()).await.expect("in time").expect("loads");
    let mut generation = system.generate(request(&prompt(1), 4000)).await.expect("admitted");
    first_tokens(&mut generation).await;
    let before = system.wiring().backend.epoch();
    assert!(system.wiring().backend.cast(engine_failed()).is_ok());
    eventually("a load", || matches!(*system.status().borrow(), Status::Restarting { .. })).await;
    eventually("a new engine, with nobody lost", || {
        assert!(!system.is_lost());
        system.wiring().backend.epoch() > before && system.wiring().backend.current().is_some()
    })
    .await;
    system.stop().await;
}
