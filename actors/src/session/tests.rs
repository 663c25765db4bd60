//! One session with everything around it in the test's hands, so that what comes in which order is certain: the tests run
//! on one thread, and a caller that is gone is noticed only when the test waits for something.

use std::time::Duration;

use ractor::{Actor, ActorRef};
use smallvec::{SmallVec, smallvec};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::outbox::{CHANNEL_EVENTS, Receiver};
use super::*;
use crate::admission::{Admission, AdmissionLimits, Claim};
use crate::boards::session as board;
use crate::engine::fake::FakeModel;
use crate::engine::model::Model;
use crate::engine::protocol::{OutputToken, TokenLogprob};
use crate::engine::spec::{EngineSpec, FakeSpec};
use crate::ledger::Ledger;
use crate::prompt::ChatTemplate;
use crate::request::CacheMode;
use crate::response_cache::key::ModelIdentity;
use crate::response_cache::{CacheOptions, ResponseCache, ResponseCacheArgs};
use crate::supervision::Board;

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const EPOCH: Epoch = 5;

/// An actor that hands on what it is told.
macro_rules! ear {
    ($name:ident, $message:ty) => {
        #[derive(Debug)]
        struct $name;

        #[ractor::actor(message = $message, state = UnboundedSender<$message>, arguments = UnboundedSender<$message>)]
        impl $name {
            async fn pre_start(
                &self,
                _myself: ActorRef<$message>,
                heard: UnboundedSender<$message>,
            ) -> Result<UnboundedSender<$message>, ActorProcessingErr> {
                Ok(heard)
            }

            async fn handle(
                &self,
                _myself: ActorRef<$message>,
                message: $message,
                heard: &mut UnboundedSender<$message>,
            ) -> Result<(), ActorProcessingErr> {
                let _ = heard.send(message);
                Ok(())
            }
        }
    };
}

ear!(BackendEar, BackendMsg);
ear!(SchedulerEar, SchedulerMsg);

/// What a session has around it.
struct World {
    wiring: Arc<Wiring>,
    admission: Admission,
    backend: UnboundedReceiver<BackendMsg>,
    scheduler: UnboundedReceiver<SchedulerMsg>,
}

/// A session, and its caller's end.
struct Open {
    session: SessionRef,
    events: mpsc::Receiver<GenerationEvent>,
    board: Arc<Board>,
}

impl World {
    async fn new() -> Self {
        let wiring = Arc::new(Wiring::new());
        let spec = FakeSpec::default();
        let info = FakeModel::load(&spec).expect("loads").info().clone();
        let template = ChatTemplate::compile(None, None, None, Vec::new()).expect("compiles");
        let identity = ModelIdentity::of(&info, &EngineSpec::Fake(spec));
        wiring.model.send_replace(Some(Arc::new(LoadedModel { info: info.into(), template, identity })));
        let (heard, backend) = unbounded_channel();
        wiring.backend.publish(Actor::spawn(None, BackendEar, heard).await.expect("starts").0, EPOCH);
        let (heard, scheduler) = unbounded_channel();
        wiring.scheduler.publish(Actor::spawn(None, SchedulerEar, heard).await.expect("starts").0, EPOCH);
        let cache = ResponseCacheArgs { options: CacheOptions::default(), wiring: wiring.clone() };
        let cache = Actor::spawn(None, ResponseCache, cache).await.expect("starts").0;
        wiring.response_cache.publish(cache, EPOCH);
        let admission = Admission::new(AdmissionLimits { max_queue: 8, per_tenant: None, running: 1 });
        Self { wiring, admission, backend, scheduler }
    }

    async fn open(&self, request_id: RequestId, request: &GenerateRequest) -> Open {
        let (sender, events) = mpsc::channel(CHANNEL_EVENTS);
        let board = Arc::new(board::board());
        let args = SessionArgs {
            request_id,
            request: request.clone(),
            permit: self.admission.try_acquire(Claim::of(request)).expect("free").remove(0),
            receiver: Receiver::Channel(sender),
            wiring: self.wiring.clone(),
            row: self.wiring.actors.session(format!("test/sessions/{request_id}"), board.clone()),
            ledger: Ledger::new(request.arrived_at),
            arrived_at: request.arrived_at,
            arrived_us: 1,
            max_iterations: None,
        };
        let (session, _) = Actor::spawn(None, Session, args).await.expect("starts");
        Open { session, events, board }
    }

    /// A session that leads and waits for its tokens, and one that follows it.
    async fn pair(&mut self, request: &GenerateRequest) -> (Open, Open) {
        let leader = self.open(1, request).await;
        soon("tokens are asked for", self.backend.recv()).await.expect("lives");
        let follower = self.open(2, request).await;
        soon("it follows", async {
            // Set by the handler that tells the leader.
            while follower.board.get(board::PHASE) != Some(board::FOLLOWING) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        (leader, follower)
    }

    async fn submitted(&mut self) {
        loop {
            if let SchedulerMsg::Submit(_) = soon("a submission", self.scheduler.recv()).await.expect("lives") {
                return;
            }
        }
    }
}

impl Open {
    fn tell(&self, message: SessionMsg) {
        self.session.cast(message).expect("it lives");
    }

    fn tokenized(&self) {
        self.tell(SessionMsg::Tokenized { result: Ok(vec![1, 2, 3]) });
    }

    fn started(&self) {
        self.tell(SessionMsg::Started { epoch: EPOCH, reused: 0 });
    }

    fn output(&self, index: u32, text: &str, prompt_logprobs: Vec<TokenLogprob>) {
        let tokens: SmallVec<_> = text.bytes().map(token).collect();
        let output = SequenceOutput { request: 1, index, tokens, prefill_left: 0, prompt_logprobs };
        self.tell(SessionMsg::Output { epoch: EPOCH, output });
    }

    fn ended(&self) {
        self.tell(SessionMsg::Ended { epoch: EPOCH, reason: EndReason::Length });
    }

    /// The caller is gone, and the session has yet to hear of it.
    fn left(mut self) -> Self {
        self.events = mpsc::channel(1).1;
        self
    }

    /// The whole answer.
    async fn text(mut self) -> String {
        let mut text = String::new();
        loop {
            match soon("the end of a stream", self.events.recv()).await.expect("an end comes first") {
                GenerationEvent::Delta(delta) => text.push_str(&delta.text),
                GenerationEvent::Finished(_) => return text,
                GenerationEvent::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    }
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

fn token(byte: u8) -> OutputToken {
    OutputToken { id: Token::from(byte), bytes: smallvec![byte], logprobs: None }
}

fn request() -> GenerateRequest {
    let mut request = GenerateRequest::text("the same");
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(100);
    request
}

#[tokio::test]
async fn a_leader_whose_caller_leaves_before_its_tokens_come_computes_for_its_followers() {
    let mut world = World::new().await;
    let (leader, follower) = world.pair(&request()).await;
    let leader = leader.left();
    leader.tokenized();
    world.submitted().await;
    leader.started();
    leader.output(0, "all of it", Vec::new());
    leader.ended();
    assert_eq!(follower.text().await, "all of it");
}

#[tokio::test]
async fn a_leader_whose_caller_leaves_at_the_end_gives_its_followers_the_end() {
    let mut world = World::new().await;
    let stop = vec!["it never comes".to_owned()];
    let (leader, follower) = world.pair(&GenerateRequest { stop, ..request() }).await;
    leader.tokenized();
    world.submitted().await;
    leader.started();
    // The last two are held back: a stop text may begin with them.
    leader.output(0, "all of it", Vec::new());
    soon("it is said", async {
        while leader.board.get(board::EMITTED_TOKENS) != Some(9) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let leader = leader.left();
    leader.ended();
    assert_eq!(follower.text().await, "all of it");
}

#[tokio::test]
async fn a_leader_whose_caller_leaves_before_the_prompts_log_probabilities_loses_no_token() {
    let mut world = World::new().await;
    let request = GenerateRequest { prompt_logprobs: Some(0), ..request() };
    let (leader, follower) = world.pair(&request).await;
    leader.tokenized();
    world.submitted().await;
    leader.started();
    let leader = leader.left();
    let logprob = TokenLogprob { id: 1, bytes: smallvec![1], logprob: None, top: Vec::new() };
    leader.output(0, "all ", vec![logprob; 3]);
    leader.output(4, "of it", Vec::new());
    leader.ended();
    assert_eq!(follower.text().await, "all of it");
    // Nothing else was kept.
    assert_eq!(world.open(3, &request).await.text().await, "all of it");
}

#[tokio::test]
async fn a_request_whose_caller_never_takes_the_end_is_in_the_books_once() {
    let mut world = World::new().await;
    let mut open = world.open(1, &GenerateRequest { cache: CacheMode::Bypass, ..request() }).await;
    soon("tokens are asked for", world.backend.recv()).await.expect("lives");
    open.tokenized();
    world.submitted().await;
    open.started();
    // More than there is room for.
    (0..CHANNEL_EVENTS as u32 + 8).for_each(|index| open.output(index, "x", Vec::new()));
    open.ended();
    soon("it waits for room", async {
        while open.board.get(board::PHASE) != Some(board::OVER) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    open.events.close();
    soon("it ends", open.session.wait(None)).await.expect("it ends");
    assert_eq!(world.wiring.meters.finished.load(std::sync::atomic::Ordering::Relaxed), 1);
}
