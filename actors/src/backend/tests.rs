//! Who is charged with an engine's death, and what becomes of commands that no engine takes any more.

use tokio::time::timeout;

use super::*;
use crate::engine::spec::FakeSpec;
use crate::quarantine::Verdict;

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Actors that do nothing.
macro_rules! deaf {
    ($name:ident, $message:ty) => {
        #[derive(Debug)]
        struct $name;

        #[ractor::actor(message = $message, state = (), arguments = ())]
        impl $name {
            async fn pre_start(&self, _myself: ActorRef<$message>, _: ()) -> Result<(), ActorProcessingErr> {
                Ok(())
            }
        }
    };
}

deaf!(Itself, BackendMsg);
deaf!(Session, SessionMsg);
deaf!(Scheduler, SchedulerMsg);

async fn spawned<A>(actor: A) -> ActorRef<A::Msg>
where
    A: ractor::Actor<Arguments = ()>,
{
    ractor::Actor::spawn(None, actor, ()).await.expect("it starts").0
}

/// Dropped with the engine's last byte.
struct Freed(std::sync::mpsc::Sender<()>);

impl Drop for Freed {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A backend whose engine, on threads, has ended.
async fn without_engine() -> BackendState {
    let (freed, is_freed) = std::sync::mpsc::channel();
    let spec = FakeSpec { load_failure: Some("it was to end".to_owned()), ..FakeSpec::default() };
    let host = EngineHost::start(EngineSpec::Fake(spec), &HostKind::Thread, Arc::new(Freed(freed)), Arc::new(|_| ()));
    tokio::task::spawn_blocking(move || is_freed.recv_timeout(PATIENCE)).await.expect("no panic").expect("it ends");
    let state = BackendState::new(spawned(Itself).await, Arc::default(), host.expect("threads"));
    let gone = async {
        // A channel closes with its thread, a moment after the memory is freed.
        for command in [EngineCommand::Shutdown, EngineCommand::Detokenize { id: 0, tokens: Vec::new() }] {
            while state.host.send(command.clone()) != Err(HostError::Gone) {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, gone).await.expect("in time");
    state
}

fn engine_died(state: &mut BackendState) -> String {
    engine_died_of(state, None)
}

fn engine_died_of(state: &mut BackendState, thread: Option<EngineThread>) -> String {
    let cause = "signal 9".to_owned();
    state.on_engine(EngineEvent::Failed { cause, thread }).expect_err("the actor ends").to_string()
}

#[tokio::test]
async fn a_command_that_comes_too_late_does_not_hide_who_killed_the_engine_and_how() {
    let mut state = without_engine().await;
    state.sessions.insert(7, spawned(Session).await);
    state.sessions.insert(8, spawned(Session).await);
    for _ in 0..3 {
        state.command(EngineCommand::Cancel { epoch: 0, request: 8 }).expect("the last event is yet to come");
        state.advise(EngineCommand::SetRank { epoch: 0, request: 8, rank: 1 }).expect("so it is");
        // What was said before it died is read after that.
        state.on_engine(EngineEvent::StepStarted { epoch: 0, requests: vec![7] }).expect("an event");
        assert_eq!(engine_died(&mut state), "signal 9");
    }
    assert_eq!(state.wiring.quarantine.verdict(7), Verdict::Guilty);
    assert_eq!(state.wiring.quarantine.verdict(8), Verdict::Trusted);
}

#[tokio::test]
async fn a_question_that_comes_too_late_is_lost_with_the_backend_and_not_before() {
    let mut state = without_engine().await;
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    let question = Question::Tokens(TokensTo::Caller(answer.into()));
    let asked =
        state.ask(question, 1, |id| EngineCommand::Tokenize { id, parts: Vec::new(), special: AddSpecial::Never });
    asked.expect("the last event is yet to come");
    assert_eq!(answered.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty), "it waits");
    drop(state);
    assert_eq!(answered.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed));
}

#[tokio::test]
async fn a_death_between_two_schedulers_clears_nobody_of_what_it_was_charged_with() {
    let mut state = without_engine().await;
    let quarantine = |state: &BackendState| state.wiring.quarantine.verdict(7);
    for _ in 0..2 {
        state.wiring.quarantine.charge(&[7]);
    }
    state.sessions.insert(7, spawned(Session).await);
    state.on_engine(EngineEvent::StepStarted { epoch: 0, requests: vec![7] }).expect("an event");
    // The new scheduler is here, its sessions have not submitted again.
    state.on_reset(1, spawned(Scheduler).await).expect("resets");
    state.on_engine(EngineEvent::StepStarted { epoch: 0, requests: vec![7] }).expect("an event, of the old scheduler");
    engine_died(&mut state);
    assert_eq!(quarantine(&state), Verdict::Suspect);
}

#[tokio::test]
async fn a_thread_that_fails_is_not_charged_to_what_the_other_one_worked_on() {
    let mut state = without_engine().await;
    let (reads, writes) = (spawned(Session).await, spawned(Session).await);
    state.sessions.insert(7, writes);
    let text = Question::Tokens(TokensTo::Session { session: reads, request: 8 });
    let asked = state.ask(text, 1, |id| EngineCommand::Tokenize { id, parts: Vec::new(), special: AddSpecial::Never });
    asked.expect("the last event is yet to come");
    let verdicts = |state: &BackendState| [7, 8].map(|request| state.wiring.quarantine.verdict(request));
    let working = |state: &mut BackendState| {
        state.on_engine(EngineEvent::StepStarted { epoch: 0, requests: vec![7] }).expect("an event");
        state.on_engine(EngineEvent::TokenizeStarted { id: 1 }).expect("an event");
    };
    for _ in 0..2 {
        working(&mut state);
        engine_died_of(&mut state, Some(EngineThread::Vocabulary));
    }
    assert_eq!(verdicts(&state), [Verdict::Trusted, Verdict::Suspect]);
    for _ in 0..2 {
        working(&mut state);
        engine_died_of(&mut state, Some(EngineThread::Loop));
    }
    assert_eq!(verdicts(&state), [Verdict::Suspect, Verdict::Suspect]);
    working(&mut state);
    engine_died(&mut state);
    assert_eq!(verdicts(&state), [Verdict::Guilty, Verdict::Guilty], "nobody knows which");
}

#[test]
fn whom_one_engine_after_the_other_cuts_off_comes_not_first() {
    let first = |worked| start::cut_off_first(worked) > Duration::ZERO;
    assert!(first(Some(Duration::from_secs(10))) && !first(Some(Duration::from_millis(9999))));
    assert!(!first(None), "nobody was cut off");
}

#[tokio::test]
async fn only_the_first_scheduler_beside_an_engine_says_who_comes_first() {
    let mut state = BackendState { cut_off_first: Duration::from_secs(5), ..without_engine().await };
    assert_eq!(state.reset(1), EngineCommand::Reset { epoch: 1, cut_off_first: Duration::from_secs(5) });
    assert_eq!(state.reset(2), EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
}
