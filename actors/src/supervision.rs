//! Supervision: who restarts whom, and how everybody else keeps reaching the restarted.
//!
//! [`rules`] are what a tree is configured with, [`policy`] decides (pure), [`supervisor`] carries it out with
//! `tasks`, [`spec`] describes a child, [`dynamic`] watches over short-lived children, [`record`] is what is told
//! about it, [`registry`] the facts about every actor, which anybody may read. [`addr`] is an address that survives restarts, [`mailbox`] counts what waits in each actor's mailbox.
//!
//! Every incarnation of a child has an epoch from one counter per system ([`addr::EpochSource`]); an older epoch is
//! an older life, everywhere.

pub mod addr;
pub mod board;
pub(crate) mod disturbance;
pub mod dynamic;
pub mod histogram;
pub mod mailbox;
pub mod policy;
pub mod record;
pub mod registry;
pub mod rules;
pub mod spec;
pub mod supervisor;
mod tasks;
#[cfg(test)]
mod tests;

pub use addr::{Addr, EpochSource, Undeliverable};
pub use board::{Board, Field};
pub use dynamic::{DynamicSupervisor, DynamicSupervisorArgs, DynamicSupervisorMsg, Tally};
pub use mailbox::{MailboxStats, mailbox_stats};
pub use policy::{ChildFacts, ChildStatus};
pub use record::{EventKind, SupervisionEventRecord};
pub use registry::{ActorRegistry, ActorStatus, Gate, SessionRow};
pub use rules::{Backoff, Intensity, Restart, Rules, Strategy, WhenExhausted};
pub use spec::{ChildSpec, START_DEADLINE, StartError};
pub use supervisor::{AddError, CommandError, Supervisor, SupervisorArgs, SupervisorError, SupervisorMsg};
