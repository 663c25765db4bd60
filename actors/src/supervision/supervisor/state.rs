//! What a supervisor knows, and how it carries its policy's actions out.

use std::collections::{HashMap, VecDeque};

use ractor::{ActorCell, ActorId, ActorProcessingErr, RpcReplyPort};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};

use super::{AddError, CommandError, SupervisorArgs, SupervisorError, SupervisorRef};
use crate::engine::protocol::Epoch;
use crate::supervision::mailbox;
use crate::supervision::policy::{Action, Event, Exit, Moment, Outcome, Policy};
use crate::supervision::record::{EventKind, Recorder};
use crate::supervision::spec::{ChildSpec, DEFAULT_STOP_DEADLINE};
use crate::supervision::tasks::{self, Completion, Completions, Corpse, Incarnation};

/// The work and knowledge of a supervisor. Only ractor sees it.
pub struct SupervisorState {
    pub(super) policy: Policy,
    slots: Vec<Slot>,
    recorder: Recorder,
    begun: Instant,
    done: Completions,
    pub(super) completed: mpsc::UnboundedReceiver<Completion>,
    tasks: JoinSet<()>,
    /// Exits of actors that are not known as children yet: a child may die before its start is reported.
    early_exits: HashMap<ActorId, EarlyExit>,
    /// Children that were stopped before ractor told of their exit: the news is on its way and is none.
    stopped: VecDeque<ActorId>,
    pub(super) outcome: Option<Outcome>,
}

/// Stopped children whose exit may still be told.
const REMEMBERED: usize = 64;

struct EarlyExit {
    who: ActorCell,
    exit: Exit,
    corpse: Option<Corpse>,
}

struct Slot {
    spec: ChildSpec,
    work: Work,
    corpse: Option<Corpse>,
    added: Option<RpcReplyPort<Result<ActorCell, AddError>>>,
}

enum Work {
    Idle,
    Starting {
        cancel: oneshot::Sender<()>,
    },
    Live(Incarnation),
    /// A task is ending it and will say so.
    Ending(Option<ActorId>),
}

impl SupervisorState {
    pub(super) fn new(myself: SupervisorRef, args: SupervisorArgs) -> Self {
        let (queue, completed) = mpsc::unbounded_channel();
        let mut policy = Policy::new(args.rules, args.epochs);
        let recorder = Recorder { path: args.path, events: args.events, registry: args.registry };
        for child in &args.children {
            recorder.registry.child(&recorder.path_of(Some(&child.id)), child, myself.clone());
            policy.insert(child.id.clone(), child.restart);
        }
        Self {
            policy,
            slots: args.children.into_iter().map(Slot::new).collect(),
            recorder,
            begun: Instant::now(),
            done: Completions { queue, wake: myself },
            completed,
            tasks: JoinSet::new(),
            early_exits: HashMap::new(),
            stopped: VecDeque::new(),
            outcome: None,
        }
    }

    pub(super) fn on_restart_child(&mut self, id: String) -> Result<(), CommandError> {
        if self.policy.is_ending() {
            return Err(CommandError::Stopping);
        }
        let child = self.policy.find(&id).ok_or(CommandError::UnknownChild(id))?;
        self.step(Event::Restart { child });
        Ok(())
    }

    pub(super) fn on_add_child(&mut self, spec: ChildSpec, reply_to: RpcReplyPort<Result<ActorCell, AddError>>) {
        if self.policy.is_ending() {
            return reply(reply_to, Err(AddError::Stopping));
        }
        let Some(child) = self.policy.add(&spec.id, spec.restart) else {
            return reply(reply_to, Err(AddError::Duplicate(spec.id)));
        };
        let path = self.recorder.path_of(Some(&spec.id));
        self.recorder.registry.child(&path, &spec, self.done.wake.clone());
        let slot = Slot { added: Some(reply_to), ..Slot::new(spec) };
        match self.slots.get_mut(child) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        self.step(Event::Begin);
    }

    pub(super) fn on_completed(&mut self) {
        while let Ok(completion) = self.completed.try_recv() {
            self.apply(completion);
        }
        // Finished tasks stay in a set until they are asked for.
        while self.tasks.try_join_next().is_some() {}
        if !self.slots.iter().any(|slot| matches!(slot.work, Work::Starting { .. })) {
            for (_, early) in std::mem::take(&mut self.early_exits) {
                self.on_stranger_exit(&early.who, early.exit);
            }
        }
    }

    pub(super) fn apply(&mut self, completion: Completion) {
        match completion {
            Completion::Started { child, epoch, incarnation } => self.on_started(child, epoch, incarnation),
            Completion::Other(event) => self.on_event(event),
        }
    }

    fn on_started(&mut self, child: usize, epoch: Epoch, incarnation: Incarnation) {
        let cell = incarnation.cell.clone();
        self.recorder.registry.started(&self.path(child), epoch, cell.clone());
        self.slots[child].work = Work::Live(incarnation);
        if let Some(reply_to) = self.slots[child].added.take() {
            reply(reply_to, Ok(cell.clone()));
        }
        self.step(Event::Started { child, epoch });
        if let Some(early) = self.early_exits.remove(&cell.get_id()) {
            self.on_exit(early.who, early.exit, early.corpse);
        }
    }

    fn on_event(&mut self, event: Event) {
        match &event {
            Event::StartFailed { child, cause, .. } => self.on_start_failed(*child, cause.clone()),
            Event::Stopped { child, epoch, .. } | Event::Exited { child, epoch, .. } => {
                if let Some(corpse) = self.slots[*child].corpse.take() {
                    return self.bury_first(*child, corpse, event);
                }
                self.recorder.registry.down(&self.path(*child));
                if let (Event::Stopped { .. }, Some(actor)) = (&event, self.slots[*child].actor()) {
                    self.expect_exit(actor);
                }
                self.slots[*child].on_down(*epoch);
            }
            _ => {}
        }
        self.step(event);
    }

    fn on_start_failed(&mut self, child: usize, cause: String) {
        let slot = &mut self.slots[child];
        slot.work = Work::Idle;
        if let Some(reply_to) = slot.added.take() {
            reply(reply_to, Err(AddError::StartFailed(cause)));
        }
    }

    /// The child is gone, its state is not: that comes first, then the event again.
    fn bury_first(&mut self, child: usize, corpse: Corpse, event: Event) {
        let (done, within) = (self.done.clone(), self.slots[child].spec.stop_deadline);
        self.tasks.spawn(async move {
            tasks::bury(Some(corpse), within).await;
            done.send(Completion::Other(event));
        });
    }

    /// An actor linked to this one ended: a child by itself, a child that is being stopped, or a stranger.
    pub(super) fn on_exit(&mut self, who: ActorCell, exit: Exit, corpse: Option<Corpse>) {
        let id = who.get_id();
        if let Some(child) = self.slots.iter().position(|slot| slot.actor() == Some(id)) {
            return self.on_child_exit(child, exit, corpse);
        }
        if let Some(at) = self.stopped.iter().position(|stopped| *stopped == id) {
            self.stopped.remove(at);
            let within = DEFAULT_STOP_DEADLINE;
            self.tasks.spawn(tasks::bury(corpse, within));
            return;
        }
        if self.slots.iter().any(|slot| matches!(slot.work, Work::Starting { .. })) {
            self.early_exits.insert(id, EarlyExit { who, exit, corpse });
            return;
        }
        self.on_stranger_exit(&who, exit);
    }

    /// A completion may overtake the exit that it follows: both come by ways of their own. An exit that came in time leaves
    /// its entry here until newer ones push it out.
    fn expect_exit(&mut self, actor: ActorId) {
        if self.stopped.len() == REMEMBERED {
            self.stopped.pop_front();
        }
        self.stopped.push_back(actor);
    }

    fn on_stranger_exit(&self, who: &ActorCell, exit: Exit) {
        mailbox::forget(who.get_id());
        let name = who.get_name().unwrap_or_else(|| who.get_id().to_string());
        let (Exit::Normal(cause) | Exit::Abnormal(cause) | Exit::FirstStartFailed(cause)) = exit;
        self.recorder.record(Some(&name), EventKind::Exited, 0, Some(cause));
    }

    fn on_child_exit(&mut self, child: usize, exit: Exit, corpse: Option<Corpse>) {
        let epoch = self.policy.epoch(child);
        let slot = &mut self.slots[child];
        match std::mem::replace(&mut slot.work, Work::Idle) {
            Work::Live(incarnation) => {
                slot.work = Work::Ending(Some(incarnation.cell.get_id()));
                let event = Event::Exited { child, epoch, exit };
                let within = slot.spec.stop_deadline;
                self.tasks.spawn(tasks::reap(incarnation, corpse, (event, within), self.done.clone()));
            }
            other => {
                slot.work = other;
                slot.corpse = corpse;
            }
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        let at = Moment { now: self.begun.elapsed(), draw: fastrand::f64() };
        for action in self.policy.step(event, at) {
            self.perform(action);
        }
        for facts in self.policy.facts() {
            let path = self.recorder.path_of(Some(&facts.id));
            self.recorder.registry.status(&path, facts.status, facts.epoch);
        }
    }

    fn path(&self, child: usize) -> String {
        self.recorder.path_of(Some(&self.slots[child].spec.id))
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { child, epoch } => self.start(child, epoch),
            Action::Stop { child, epoch } => self.stop(child, epoch),
            Action::Timer { timer, after } => self.set_timer(timer, after),
            Action::Record { child, kind, epoch, cause } => {
                let id = child.map(|child| self.slots[child].spec.id.as_str());
                self.recorder.record(id, kind, epoch, cause);
            }
            Action::End(outcome) => self.outcome = Some(outcome),
        }
    }

    fn start(&mut self, child: usize, epoch: Epoch) {
        let (cancel, cancelled) = oneshot::channel();
        let slot = &mut self.slots[child];
        slot.work = Work::Starting { cancel };
        self.tasks.spawn(tasks::start(slot.spec.clone(), (child, epoch), cancelled, self.done.clone()));
    }

    fn stop(&mut self, child: usize, epoch: Epoch) {
        let slot = &mut self.slots[child];
        match std::mem::replace(&mut slot.work, Work::Ending(None)) {
            Work::Live(incarnation) => {
                slot.work = Work::Ending(Some(incarnation.cell.get_id()));
                let deadline = slot.spec.stop_deadline;
                self.tasks.spawn(tasks::stop(incarnation, (child, epoch), deadline, self.done.clone()));
            }
            Work::Starting { cancel } => {
                // If it fails the start is over, and its completion is on the way.
                let _ = cancel.send(());
            }
            other => slot.work = other,
        }
    }

    fn set_timer(&mut self, timer: u64, after: Duration) {
        let done = self.done.clone();
        self.tasks.spawn(async move {
            sleep(after).await;
            done.send(Completion::Other(Event::TimerFired { timer }));
        });
    }

    /// Stops those that others have linked here, before the children that they may depend on.
    pub(super) async fn stop_linked(&mut self, myself: &SupervisorRef) {
        let linked = self.strangers(myself);
        for zombie in tasks::stop_linked(linked, DEFAULT_STOP_DEADLINE).await {
            let name = zombie.get_name().unwrap_or_else(|| zombie.get_id().to_string());
            self.recorder.record(Some(&name), EventKind::Zombie, 0, None);
        }
    }

    fn strangers(&self, myself: &SupervisorRef) -> Vec<ActorCell> {
        let is_child = |cell: &ActorCell| self.slots.iter().any(|slot| slot.actor() == Some(cell.get_id()));
        myself.get_children().into_iter().filter(|cell| !is_child(cell)).collect()
    }

    /// Ends the actor once the policy has ended. The error is a crash on purpose: it is how a supervisor escalates.
    pub(super) async fn end_when_due(&mut self, myself: &SupervisorRef) -> Result<(), ActorProcessingErr> {
        let error = match &self.outcome {
            None => return Ok(()),
            Some(Outcome::Stopped) => {
                myself.stop(Some("all children are stopped".to_owned()));
                return Ok(());
            }
            Some(Outcome::Exhausted { child, cause }) => {
                SupervisorError::Exhausted { child: child.clone(), cause: cause.clone() }
            }
            Some(Outcome::FirstStartFailed { child, cause }) => {
                SupervisorError::FirstStartFailed { child: child.clone(), cause: cause.clone() }
            }
        };
        self.stop_linked(myself).await;
        Err(error.into())
    }
}

impl Slot {
    fn new(spec: ChildSpec) -> Self {
        Self { spec, work: Work::Idle, corpse: None, added: None }
    }

    fn actor(&self) -> Option<ActorId> {
        match &self.work {
            Work::Live(incarnation) => Some(incarnation.cell.get_id()),
            Work::Ending(actor) => *actor,
            Work::Idle | Work::Starting { .. } => None,
        }
    }

    fn on_down(&mut self, epoch: Epoch) {
        self.work = Work::Idle;
        if let Some(call) = &self.spec.on_down {
            call(epoch);
        }
    }
}

/// A caller that went away is no fault.
pub(super) fn reply<T>(reply_to: RpcReplyPort<T>, answer: T) {
    let _ = reply_to.send(answer);
}
