//! The way to the caller: never blocks, never loses, gathers text while the caller is slow.

use std::collections::VecDeque;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;

use crate::request::GenerationEvent;
use crate::session::{SessionMsg, SessionRef};

/// Room of a caller's channel.
pub const CHANNEL_EVENTS: usize = 32;

/// A caller that reads nothing for so long is gone.
const STALL_DEADLINE: Duration = Duration::from_secs(30);

/// Who receives the events.
pub enum Receiver {
    /// A bounded channel; its closing cancels the request.
    Channel(mpsc::Sender<GenerationEvent>),
    /// An actor, by a function that sends it a message; `cell` says whether it lives.
    Actor {
        /// Sends; false when the actor is gone.
        send: Box<dyn Fn(GenerationEvent) -> bool + Send + Sync>,
        /// The actor.
        cell: ractor::ActorCell,
    },
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Channel(_) => "Channel",
            Self::Actor { .. } => "Actor",
        })
    }
}

impl Receiver {
    /// An actor whose messages can be made from events.
    pub fn actor<M: ractor::Message + From<GenerationEvent>>(actor: ActorRef<M>) -> Self {
        let cell = actor.get_cell();
        Self::Actor { send: Box::new(move |event| actor.cast(M::from(event)).is_ok()), cell }
    }
}

/// Events on their way.
#[derive(Debug)]
pub struct Outbox {
    receiver: Receiver,
    session: SessionRef,
    backlog: VecDeque<GenerationEvent>,
    waiting: Option<JoinHandle<()>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The last event is in the backlog.
    Ending,
    Done,
}

/// What became of an event.
enum Sent {
    Taken,
    /// It comes back.
    NoRoom(GenerationEvent),
    /// Nobody is there.
    Gone,
}

impl Outbox {
    /// Nothing sent yet. `session` is told when a slow caller has room again.
    pub fn new(receiver: Receiver, session: SessionRef) -> Self {
        Self { receiver, session, backlog: VecDeque::new(), waiting: None, state: State::Open }
    }

    /// Sends an event or keeps it until there is room. After the last event nothing is sent, and a caller that is gone
    /// misses it: what the session does next must not depend on that, because others may follow it. The session's watch
    /// tells it when the caller goes.
    pub fn send(&mut self, event: GenerationEvent) {
        if self.state == State::Open {
            self.push(event);
        }
    }

    fn push(&mut self, event: GenerationEvent) {
        if !self.backlog.is_empty() {
            return self.gather(event);
        }
        match self.try_send(event) {
            Sent::Taken => {}
            Sent::NoRoom(event) => {
                self.backlog.push_back(event);
                self.wait_for_room();
            }
            Sent::Gone => self.give_up(),
        }
    }

    /// Sends the last event.
    pub fn end(&mut self, event: GenerationEvent) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Ending;
        self.push(event);
        if self.backlog.is_empty() {
            self.give_up();
        }
    }

    /// There is room for one event.
    pub fn flush(&mut self, room: mpsc::OwnedPermit<GenerationEvent>) {
        self.waiting = None;
        if let Some(event) = self.backlog.pop_front() {
            room.send(event);
        }
        while let Some(event) = self.backlog.pop_front() {
            match self.try_send(event) {
                Sent::Taken => {}
                Sent::NoRoom(event) => {
                    self.backlog.push_front(event);
                    return self.wait_for_room();
                }
                Sent::Gone => return self.give_up(),
            }
        }
        if self.state == State::Ending {
            self.state = State::Done;
        }
    }

    /// Nothing more can or need be told.
    pub fn give_up(&mut self) {
        self.backlog.clear();
        self.state = State::Done;
    }

    /// Whether the last event is still to come.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether nothing waits for room.
    pub fn is_clear(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Whether the last event is delivered or given up.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn try_send(&self, event: GenerationEvent) -> Sent {
        match &self.receiver {
            Receiver::Channel(channel) => match channel.try_send(event) {
                Ok(()) => Sent::Taken,
                Err(TrySendError::Full(event)) => Sent::NoRoom(event),
                Err(TrySendError::Closed(_)) => Sent::Gone,
            },
            Receiver::Actor { send, .. } if send(event) => Sent::Taken,
            Receiver::Actor { .. } => Sent::Gone,
        }
    }

    fn gather(&mut self, event: GenerationEvent) {
        match (self.backlog.back_mut(), event) {
            (Some(GenerationEvent::Delta(last)), GenerationEvent::Delta(more)) => last.append(more),
            (Some(GenerationEvent::Queued { position: last }), GenerationEvent::Queued { position }) => {
                *last = position
            }
            (_, event) => self.backlog.push_back(event),
        }
    }

    fn wait_for_room(&mut self) {
        let Receiver::Channel(channel) = &self.receiver else { return };
        let (channel, session) = (channel.clone(), self.session.clone());
        self.waiting = Some(tokio::spawn(async move {
            let room = tokio::time::timeout(STALL_DEADLINE, channel.reserve_owned()).await;
            // The session is gone when its request is over; then nobody needs the room.
            let _ = session.cast(SessionMsg::RoomInChannel(room.ok().and_then(Result::ok)));
        }));
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            waiting.abort();
        }
    }
}
