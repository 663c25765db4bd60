//! A radix tree over token prefixes: which sequence shares the longest prefix with given tokens, in time linear in
//! their number. Pure. It keeps no budget and evicts nothing; `index.rs` does.
//!
//! Each tenant has a tree of its own, so that no match ever crosses from one to another. A node stands for the tokens
//! from the root to its end; the tokens of a sequence end at exactly one node. Inner nodes without such an end branch.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::engine::protocol::{SequenceId, Token};
use crate::request::TenantId;

/// Place of a node in the arena.
type NodeId = usize;

/// The trees of all tenants.
#[derive(Debug, Default)]
pub(crate) struct RadixTree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    roots: HashMap<TenantId, NodeId>,
    /// Where the tokens of a sequence end; those without tokens are not in it.
    ends: HashMap<SequenceId, End>,
    retained_tokens: usize,
}

/// Whether a sequence's tokens serve a running request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// A request runs on it, and may add tokens.
    Live,
    /// What a request left behind.
    Retained,
}

/// The longest prefix of some tokens that lies in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// The sequence.
    pub(crate) holder: SequenceId,
    /// Common tokens, at least 1.
    pub(crate) shared: usize,
}

#[derive(Debug, Clone, Copy)]
struct End {
    node: NodeId,
    tenant: TenantId,
    holding: Holding,
}

#[derive(Debug, Default)]
struct Node {
    /// `None` for a root.
    parent: Option<NodeId>,
    /// Tokens from the parent's end to this one's.
    edge: Vec<Token>,
    /// Tokens from the root to the end.
    end: usize,
    /// By the first token of their edges, in order.
    children: Vec<(Token, NodeId)>,
    /// Sequences whose tokens end here.
    ending: SmallVec<[SequenceId; 2]>,
    /// Sequences that end here or below.
    below: usize,
    /// Of these, retained ones.
    retained: usize,
}

impl RadixTree {
    /// Enters a sequence's tokens, in place of those it had.
    pub(crate) fn insert(&mut self, sequence: SequenceId, tenant: TenantId, tokens: &[Token], holding: Holding) {
        self.remove(sequence);
        if tokens.is_empty() {
            return;
        }
        let root = match self.roots.get(&tenant) {
            Some(root) => *root,
            None => self.add_root(tenant),
        };
        let node = self.reach(root, tokens);
        self.nodes[node].ending.push(sequence);
        self.ends.insert(sequence, End { node, tenant, holding });
        self.count(node, None, holding, 1);
    }

    /// Adds tokens to those of a sequence: `tokens` are all of them and begin with what it has. A no-op unless they are more.
    pub(crate) fn grow(&mut self, sequence: SequenceId, tokens: &[Token]) {
        let Some(End { node: old, holding, .. }) = self.ends.get(&sequence).copied() else { return };
        let old_end = self.nodes[old].end;
        if tokens.len() <= old_end {
            return;
        }
        let node = self.reach(old, &tokens[old_end..]);
        self.nodes[node].ending.push(sequence);
        self.count(node, Some(old), holding, 1);
        self.nodes[old].ending.retain(|other| *other != sequence);
        if let Some(end) = self.ends.get_mut(&sequence) {
            end.node = node;
        }
        self.tidy(old);
    }

    /// Takes a sequence out. A no-op if it has no tokens.
    pub(crate) fn remove(&mut self, sequence: SequenceId) {
        let Some(End { node, tenant, holding }) = self.ends.remove(&sequence) else { return };
        self.nodes[node].ending.retain(|other| *other != sequence);
        self.count(node, None, holding, -1);
        self.tidy(node);
        if let Some(root) = self.roots.get(&tenant).copied()
            && self.nodes[root].below == 0
        {
            self.roots.remove(&tenant);
            self.release(root);
        }
    }

    /// The sequence with the longest common prefix. Among those whose tokens are all of it, the first that `preferred`
    /// accepts; otherwise any.
    pub(crate) fn longest(
        &self,
        tenant: TenantId,
        tokens: &[Token],
        preferred: impl Fn(SequenceId) -> bool,
    ) -> Option<Match> {
        let (node, shared) = self.descend(*self.roots.get(&tenant)?, tokens);
        if shared == 0 {
            return None;
        }
        let whole = if self.nodes[node].end == shared { self.nodes[node].ending.as_slice() } else { &[] };
        let holder = whole.iter().find(|sequence| preferred(**sequence)).copied().or_else(|| self.any_below(node))?;
        Some(Match { holder, shared })
    }

    /// The sequence with the most tokens that are all a prefix of `tokens`, among those that `accepted` accepts: for
    /// memories that can't be cut.
    pub(crate) fn longest_whole(
        &self,
        tenant: TenantId,
        tokens: &[Token],
        accepted: impl Fn(SequenceId) -> bool,
    ) -> Option<Match> {
        let (node, shared) = self.descend(*self.roots.get(&tenant)?, tokens);
        let mut at = if self.nodes[node].end == shared { Some(node) } else { self.nodes[node].parent };
        while let Some(node) = at {
            let node = &self.nodes[node];
            if let Some(holder) = node.ending.iter().find(|sequence| accepted(**sequence)) {
                return Some(Match { holder: *holder, shared: node.end });
            }
            at = node.parent;
        }
        None
    }

    /// Number of a sequence's tokens.
    pub(crate) fn len(&self, sequence: SequenceId) -> usize {
        self.ends.get(&sequence).map_or(0, |end| self.nodes[end.node].end)
    }

    /// How many of a sequence's tokens, at its end, no other sequence shares: what would be lost with it.
    pub(crate) fn own_tokens(&self, sequence: SequenceId) -> usize {
        let Some(End { node, .. }) = self.ends.get(&sequence) else { return 0 };
        let alone = self.path(*node).map(|node| &self.nodes[node]).take_while(|node| node.below == 1);
        alone.map(|node| node.edge.len()).sum()
    }

    /// A sequence's tenant and tokens.
    pub(crate) fn tokens(&self, sequence: SequenceId) -> Option<(TenantId, Vec<Token>)> {
        let End { node, tenant, .. } = self.ends.get(&sequence)?;
        let mut path: Vec<NodeId> = self.path(*node).collect();
        path.reverse();
        Some((*tenant, path.iter().flat_map(|node| &self.nodes[*node].edge).copied().collect()))
    }

    /// Tokens in retained sequences; a prefix that several share counts once.
    pub(crate) fn retained_tokens(&self) -> usize {
        self.retained_tokens
    }

    fn add_root(&mut self, tenant: TenantId) -> NodeId {
        let root = self.add(Node::default());
        self.roots.insert(tenant, root);
        root
    }

    /// The node `tokens` below `start`, made if need be.
    fn reach(&mut self, start: NodeId, tokens: &[Token]) -> NodeId {
        let (node, shared) = self.descend(start, tokens);
        let node = self.split(node, self.nodes[start].end + shared);
        let rest = &tokens[shared..];
        let Some(first) = rest.first() else { return node };
        let end = self.nodes[node].end + rest.len();
        let leaf = self.add(Node { parent: Some(node), edge: rest.to_vec(), end, ..Node::default() });
        self.adopt(node, *first, leaf);
        leaf
    }

    /// Follows `tokens` from the end of `start`: the node on whose edge (or at whose end) they part, and how many were
    /// followed.
    fn descend(&self, start: NodeId, tokens: &[Token]) -> (NodeId, usize) {
        let (mut node, mut followed) = (start, 0);
        while let Some(child) = tokens.get(followed).and_then(|token| self.child(node, *token)) {
            let edge = &self.nodes[child].edge;
            let shared = edge.iter().zip(&tokens[followed..]).take_while(|(one, other)| one == other).count();
            followed += shared;
            node = child;
            if shared < edge.len() {
                break;
            }
        }
        (node, followed)
    }

    /// Makes a node end at `end`, on its edge; what lies beyond becomes its child. Returns the upper one.
    fn split(&mut self, node: NodeId, end: usize) -> NodeId {
        let Node { parent: Some(parent), end: old_end, .. } = self.nodes[node] else { return node };
        if end == old_end {
            return node;
        }
        let keep = self.nodes[node].edge.len() - (old_end - end);
        let lower = self.nodes[node].edge.split_off(keep);
        let upper = std::mem::replace(&mut self.nodes[node].edge, lower);
        let (below, retained) = (self.nodes[node].below, self.nodes[node].retained);
        let (first_above, first_below) = (upper[0], self.nodes[node].edge[0]);
        let middle = self.add(Node { parent: Some(parent), edge: upper, end, below, retained, ..Node::default() });
        self.adopt(parent, first_above, middle);
        self.adopt(middle, first_below, node);
        self.nodes[node].parent = Some(middle);
        middle
    }

    /// Removes a node that nothing ends at or below, or joins it with its only child; then looks at its parent.
    fn tidy(&mut self, node: NodeId) {
        let Some(parent) = self.nodes[node].parent else { return };
        if !self.nodes[node].ending.is_empty() {
            return;
        }
        match self.nodes[node].children.as_slice() {
            [] => {
                let first = self.nodes[node].edge[0];
                self.nodes[parent].children.retain(|(token, _)| *token != first);
                self.release(node);
                self.tidy(parent);
            }
            [(_, child)] => self.join(parent, node, *child),
            _ => {}
        }
    }

    /// Puts a node's edge before its only child's, which takes its place.
    fn join(&mut self, parent: NodeId, node: NodeId, child: NodeId) {
        let mut edge = std::mem::take(&mut self.nodes[node].edge);
        let first = edge[0];
        edge.append(&mut self.nodes[child].edge);
        self.nodes[child].edge = edge;
        self.nodes[child].parent = Some(parent);
        self.adopt(parent, first, child);
        self.release(node);
    }

    /// Adds a sequence to the counts from `node` up to `until`, or takes it away.
    fn count(&mut self, node: NodeId, until: Option<NodeId>, holding: Holding, by: isize) {
        let mut at = Some(node);
        while let Some(id) = at.filter(|id| Some(*id) != until) {
            let node = &mut self.nodes[id];
            node.below = node.below.saturating_add_signed(by);
            if holding == Holding::Retained {
                let before = node.retained;
                node.retained = node.retained.saturating_add_signed(by);
                match (before, node.retained) {
                    (0, 1..) => self.retained_tokens += node.edge.len(),
                    (1.., 0) => self.retained_tokens -= node.edge.len(),
                    _ => {}
                }
            }
            at = node.parent;
        }
    }

    fn any_below(&self, node: NodeId) -> Option<SequenceId> {
        let mut at = node;
        loop {
            match self.nodes[at].ending.first() {
                Some(sequence) => return Some(*sequence),
                None => at = self.nodes[at].children.first()?.1,
            }
        }
    }

    /// A node and its ancestors, itself first.
    fn path(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(Some(node), |node| self.nodes[*node].parent)
    }

    fn child(&self, node: NodeId, first: Token) -> Option<NodeId> {
        let children = &self.nodes[node].children;
        children.binary_search_by_key(&first, |(token, _)| *token).ok().map(|at| children[at].1)
    }

    fn adopt(&mut self, parent: NodeId, first: Token, child: NodeId) {
        let children = &mut self.nodes[parent].children;
        match children.binary_search_by_key(&first, |(token, _)| *token) {
            Ok(at) => children[at].1 = child,
            Err(at) => children.insert(at, (first, child)),
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        match self.free.pop() {
            Some(id) => {
                self.nodes[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    fn release(&mut self, node: NodeId) {
        self.nodes[node] = Node::default();
        self.free.push(node);
    }
}

#[cfg(test)]
mod tests;
