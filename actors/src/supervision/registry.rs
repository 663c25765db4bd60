//! The facts about every actor of a system, by its path in the tree. Written by supervisors when something happens to a
//! child, kept across restarts, read by anybody without asking an actor.
//!
//! A child's row stays for good; a session's goes with its [`SessionRow`].

mod row;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use ractor::{ActorCell, ActorRef};

use super::board::Board;
use super::policy::ChildStatus;
use super::record::SupervisionEventRecord;
use super::spec::ChildSpec;
use super::supervisor::SupervisorMsg;
use crate::engine::protocol::Epoch;

pub(super) use row::GateFn;
pub use row::{ActorStatus, Gate, Restarted, Row, RowFacts};

/// Longest text of a cause that is kept, in bytes; an error of a model file may quote half of it.
const CAUSE_BYTES: usize = 1024;

/// All rows of a system; clones are the same registry.
#[derive(Debug, Clone)]
pub struct ActorRegistry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rows: RwLock<BTreeMap<String, Arc<Row>>>,
    /// Rows that were ever made; changes under the lock of `rows`.
    made: AtomicU64,
    begun: Instant,
}

impl Default for ActorRegistry {
    fn default() -> Self {
        Self(Arc::new(Inner { rows: RwLock::default(), made: AtomicU64::new(0), begun: Instant::now() }))
    }
}

impl ActorRegistry {
    /// When the registry was made: the start of its system.
    pub fn begun(&self) -> Instant {
        self.0.begun
    }

    /// The row of an actor.
    pub fn find(&self, path: &str) -> Option<Arc<Row>> {
        self.rows().get(path).cloned()
    }

    /// All rows, parents before their children, children in the order in which they were first started.
    pub fn in_tree_order(&self) -> Vec<Arc<Row>> {
        let all: Vec<_> = self.rows().values().cloned().collect();
        let mut below: BTreeMap<&str, Vec<&Arc<Row>>> = BTreeMap::new();
        for row in &all {
            below.entry(parent(row.path())).or_default().push(row);
        }
        below.values_mut().for_each(|rows| rows.sort_by_key(|row| row.number()));
        let known: HashSet<_> = all.iter().map(|row| row.path()).collect();
        let is_top = |row: &&Arc<Row>| !known.contains(parent(row.path()));
        let mut tops: Vec<_> = all.iter().filter(is_top).collect();
        tops.sort_by_key(|row| std::cmp::Reverse(row.number()));
        let (mut ordered, mut open) = (Vec::with_capacity(all.len()), tops);
        while let Some(row) = open.pop() {
            ordered.push(row.clone());
            open.extend(below.get(row.path()).into_iter().flatten().rev());
        }
        ordered
    }

    /// The row of the root, which nobody of ours supervises.
    pub fn root(&self, path: &str, cell: ActorCell) {
        self.row(path, None).started(0, cell);
    }

    /// A session's row, until the result is dropped.
    pub fn session(&self, path: String, board: Arc<Board>) -> SessionRow {
        let row = self.row(&path, Some(board));
        SessionRow { registry: self.clone(), row }
    }

    /// A supervisor's child: its row is there from now on.
    pub(super) fn child(&self, path: &str, spec: &ChildSpec, supervisor: ActorRef<SupervisorMsg>) {
        self.row(path, spec.board.clone()).supervised(supervisor, spec.gate.clone());
    }

    pub(super) fn started(&self, path: &str, epoch: Epoch, cell: ActorCell) {
        if let Some(row) = self.find(path) {
            row.started(epoch, cell);
        }
    }

    /// The incarnation is gone, and with it all that were below.
    pub(super) fn down(&self, path: &str) {
        let prefix = format!("{path}/");
        let rows = self.rows();
        let below = rows.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(&prefix));
        below.map(|(_, row)| row).chain(rows.get(path)).for_each(|row| row.down());
    }

    pub(super) fn status(&self, path: &str, status: ChildStatus, epoch: Epoch) {
        if let Some(row) = self.find(path) {
            row.child_status(status, epoch);
        }
    }

    pub(super) fn note(&self, record: &SupervisionEventRecord) {
        if let Some(row) = self.find(&record.path) {
            row.note(record);
        }
    }

    fn row(&self, path: &str, board: Option<Arc<Board>>) -> Arc<Row> {
        let mut rows = self.0.rows.write().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Row::new(path, self.0.made.fetch_add(1, Ordering::Relaxed), board));
        rows.entry(path.to_owned()).or_insert_with(made).clone()
    }

    fn rows(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Row>>> {
        self.0.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, path: &str) {
        self.0.rows.write().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
}

/// The path above, empty for the top.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The row of a session, as long as this lives.
#[derive(Debug)]
pub struct SessionRow {
    registry: ActorRegistry,
    row: Arc<Row>,
}

impl SessionRow {
    /// The session runs.
    pub fn started(&self, cell: ActorCell) {
        self.row.started(0, cell);
    }

    /// What the session shows of itself.
    pub fn board(&self) -> Option<&Board> {
        self.row.board()
    }
}

impl Drop for SessionRow {
    fn drop(&mut self) {
        self.registry.forget(self.row.path());
    }
}
