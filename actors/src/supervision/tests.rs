//! Supervision with real actors, on a paused clock.

mod addresses;
mod dynamic;
mod mailboxes;
mod supervisor;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::concurrency::JoinHandle;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::*;
use crate::engine::protocol::Epoch;

/// Far beyond any deadline in here; virtual time.
const LONG: Duration = Duration::from_secs(3600);

/// A prefix for names that no other test uses.
fn unique(test: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{test}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

#[derive(Debug)]
enum WorkerMsg {
    Panic,
    Finish,
    Hang,
    /// Blocks the thread until the sender is dropped.
    Block {
        begun: tokio::sync::oneshot::Sender<()>,
        until: std::sync::mpsc::Receiver<()>,
    },
    Epoch {
        reply_to: RpcReplyPort<Epoch>,
    },
}

crate::impl_message!(WorkerMsg);

/// How a worker's incarnations behave, and what they did.
#[derive(Default)]
struct Script {
    /// How many of the next starts fail.
    failing_starts: AtomicU32,
    /// How long a start takes.
    start_ms: AtomicU64,
    /// States in memory.
    alive: AtomicU32,
    journal: Arc<Mutex<Vec<String>>>,
}

struct Worker;

struct WorkerState {
    id: String,
    epoch: Epoch,
    script: Arc<Script>,
}

impl Drop for WorkerState {
    fn drop(&mut self) {
        self.script.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    fn write(&self, what: &str, id: &str) {
        self.journal.lock().unwrap().push(format!("{what} {id}"));
    }
}

#[ractor::actor(message = WorkerMsg, state = WorkerState, arguments = (String, Epoch, Arc<Script>))]
impl Worker {
    async fn pre_start(
        &self,
        _myself: ActorRef<WorkerMsg>,
        (id, epoch, script): (String, Epoch, Arc<Script>),
    ) -> Result<WorkerState, ActorProcessingErr> {
        let copies = script.alive.fetch_add(1, Ordering::SeqCst);
        let state = WorkerState { id, epoch, script };
        assert_eq!(copies, 0, "the state of the former incarnation is still in memory");
        tokio::time::sleep(Duration::from_millis(state.script.start_ms.load(Ordering::SeqCst))).await;
        let failing = &state.script.failing_starts;
        if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err("no such file".into());
        }
        state.script.write("start", &state.id);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<WorkerMsg>,
        message: WorkerMsg,
        state: &mut WorkerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMsg::Panic => panic!("told to"),
            WorkerMsg::Finish => myself.stop(Some("finished".to_owned())),
            WorkerMsg::Hang => std::future::pending().await,
            WorkerMsg::Block { begun, until } => {
                begun.send(()).unwrap();
                let _ = until.recv();
            }
            WorkerMsg::Epoch { reply_to } => drop(reply_to.send(state.epoch)),
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<WorkerMsg>, state: &mut WorkerState) -> Result<(), ActorProcessingErr> {
        state.script.write("stop", &state.id);
        Ok(())
    }
}

/// A worker as a child, with what a test needs to play with it.
#[derive(Clone)]
struct Part {
    addr: Addr<WorkerMsg>,
    script: Arc<Script>,
    spec: ChildSpec,
}

fn part(prefix: &str, id: &str, journal: &Arc<Mutex<Vec<String>>>) -> Part {
    let addr = Addr::new();
    let script = Arc::new(Script { journal: journal.clone(), ..Script::default() });
    let (name, plan) = (id.to_owned(), script.clone());
    let spec = ChildSpec::actor(prefix, id, addr.clone(), move |epoch| (Worker, (name.clone(), epoch, plan.clone())));
    Part { addr, script, spec }
}

/// A supervisor over workers.
struct Tree {
    prefix: String,
    supervisor: ActorRef<SupervisorMsg>,
    ended: JoinHandle<()>,
    parts: Vec<Part>,
    journal: Arc<Mutex<Vec<String>>>,
    events: broadcast::Receiver<SupervisionEventRecord>,
}

impl Tree {
    /// Starts a tree of workers `a`, `b`, … and waits for nothing.
    async fn start(test: &str, rules: Rules, parts: usize, adjust: impl Fn(usize, Part) -> Part) -> Self {
        let prefix = unique(test);
        let journal = Arc::default();
        let ids = ["a", "b", "c", "d"];
        let parts: Vec<_> = (0..parts).map(|index| adjust(index, part(&prefix, ids[index], &journal))).collect();
        let (feed, events) = broadcast::channel(256);
        let args = SupervisorArgs {
            path: prefix.clone(),
            rules,
            children: parts.iter().map(|part| part.spec.clone()).collect(),
            epochs: EpochSource::default(),
            events: feed,
            registry: ActorRegistry::default(),
        };
        let (supervisor, ended) = Supervisor::spawn(Some(prefix.clone()), Supervisor, args).await.unwrap();
        Self { prefix, supervisor, ended, parts, journal, events }
    }

    /// Starts a tree and waits until all workers run.
    async fn running(test: &str, rules: Rules, parts: usize) -> Self {
        let mut tree = Self::start(test, rules, parts, |_, part| part).await;
        for index in 0..parts {
            tree.wait_for(index, EventKind::Started).await;
        }
        tree
    }

    /// The next record of a worker with that kind; others are skipped.
    async fn wait_for(&mut self, index: usize, kind: EventKind) -> SupervisionEventRecord {
        let path = format!("{}/{}", self.prefix, self.parts[index].spec.id);
        self.wait_until(|record| record.path == path && record.kind == kind).await
    }

    async fn wait_until(&mut self, is: impl Fn(&SupervisionEventRecord) -> bool) -> SupervisionEventRecord {
        let search = async {
            loop {
                let record = self.events.recv().await.unwrap();
                if is(&record) {
                    return record;
                }
            }
        };
        timeout(LONG, search).await.expect("the record never came")
    }

    async fn epoch(&self, index: usize) -> Epoch {
        let actor = self.parts[index].addr.current().expect("the worker is up");
        ask(&actor, |reply_to| WorkerMsg::Epoch { reply_to }).await
    }

    async fn children(&self) -> Vec<ChildFacts> {
        ask(&self.supervisor, |reply_to| SupervisorMsg::Children { reply_to }).await
    }

    async fn add(&self, part: &Part) -> Result<ractor::ActorCell, AddError> {
        let spec = Box::new(part.spec.clone());
        ask(&self.supervisor, |reply_to| SupervisorMsg::AddChild { spec, reply_to }).await
    }

    fn tell(&self, index: usize, message: WorkerMsg) {
        self.parts[index].addr.cast(message).unwrap();
    }

    fn take_journal(&self) -> Vec<String> {
        std::mem::take(&mut *self.journal.lock().unwrap())
    }

    async fn stop(&mut self) {
        self.supervisor.stop(None);
        timeout(LONG, &mut self.ended).await.expect("the supervisor does not stop").unwrap();
    }
}

async fn ask<M: ractor::Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> T {
    actor.call(message, Some(LONG)).await.unwrap().expect("no reply")
}
