//! The tree against a model that compares everything with everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ANYONE: TenantId = TenantId(0);

fn tokens(text: &str) -> Vec<Token> {
    text.bytes().map(Token::from).collect()
}

/// Sequences with their tokens, and nothing else.
#[derive(Debug, Default)]
struct Naive(BTreeMap<SequenceId, (TenantId, Vec<Token>, Holding)>);

fn common(one: &[Token], other: &[Token]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

impl Naive {
    fn longest(&self, tenant: TenantId, wanted: &[Token]) -> usize {
        self.of(tenant).map(|held| common(held, wanted)).max().unwrap_or(0)
    }

    fn longest_whole(&self, tenant: TenantId, wanted: &[Token]) -> usize {
        self.of(tenant).filter(|held| wanted.starts_with(held)).map(<[Token]>::len).max().unwrap_or(0)
    }

    fn own_tokens(&self, sequence: SequenceId) -> usize {
        let Some((tenant, tokens, _)) = self.0.get(&sequence) else { return 0 };
        let others = self.0.iter().filter(|(other, (theirs, ..))| **other != sequence && theirs == tenant);
        tokens.len() - others.map(|(_, (_, held, _))| common(held, tokens)).max().unwrap_or(0)
    }

    fn retained_tokens(&self) -> usize {
        let retained = self.0.values().filter(|(.., holding)| *holding == Holding::Retained);
        let prefixes = retained.flat_map(|(tenant, tokens, _)| (1..=tokens.len()).map(|end| (*tenant, &tokens[..end])));
        prefixes.collect::<std::collections::HashSet<_>>().len()
    }

    fn of(&self, tenant: TenantId) -> impl Iterator<Item = &[Token]> {
        self.0.values().filter(move |(theirs, ..)| *theirs == tenant).map(|(_, tokens, _)| tokens.as_slice())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(SequenceId, u32, String, Holding),
    Grow(SequenceId, String),
    Remove(SequenceId),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let holding = prop_oneof![Just(Holding::Live), Just(Holding::Retained)];
    let step = prop_oneof![
        4 => (0u32..6, 0u32..2, "[ab]{0,9}", holding).prop_map(|(at, tenant, text, holding)| Step::Insert(at, tenant, text, holding)),
        2 => (0u32..6, "[ab]{0,5}").prop_map(|(at, text)| Step::Grow(at, text)),
        2 => (0u32..6).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn the_tree_agrees_with_comparing_everything(steps in steps(), asked in prop::collection::vec("[ab]{1,12}", 8)) {
        let (mut tree, mut naive) = (RadixTree::default(), Naive::default());
        for step in steps {
            match step {
                Step::Insert(at, tenant, text, holding) => {
                    tree.insert(at, TenantId(tenant), &tokens(&text), holding);
                    naive.0.remove(&at);
                    if !text.is_empty() {
                        naive.0.insert(at, (TenantId(tenant), tokens(&text), holding));
                    }
                }
                Step::Grow(at, text) => {
                    if let Some((_, held, _)) = naive.0.get_mut(&at) {
                        held.extend(tokens(&text));
                        tree.grow(at, held);
                    }
                }
                Step::Remove(at) => {
                    tree.remove(at);
                    naive.0.remove(&at);
                }
            }
            prop_assert_eq!(tree.retained_tokens(), naive.retained_tokens());
            for at in 0..6 {
                prop_assert_eq!(tree.own_tokens(at), naive.own_tokens(at));
                prop_assert_eq!(tree.tokens(at), naive.0.get(&at).map(|(tenant, held, _)| (*tenant, held.clone())));
            }
            for (text, tenant) in asked.iter().zip([0u32, 1].into_iter().cycle()) {
                let (wanted, tenant) = (tokens(text), TenantId(tenant));
                let found = tree.longest(tenant, &wanted, |_| true);
                prop_assert_eq!(found.map_or(0, |found| found.shared), naive.longest(tenant, &wanted));
                if let Some(Match { holder, shared }) = found {
                    let (theirs, held, _) = &naive.0[&holder];
                    prop_assert!(*theirs == tenant && common(held, &wanted) == shared);
                }
                let whole = tree.longest_whole(tenant, &wanted, |_| true);
                prop_assert_eq!(whole.map_or(0, |found| found.shared), naive.longest_whole(tenant, &wanted));
            }
        }
        for at in 0..6 {
            tree.remove(at);
        }
        prop_assert!(tree.roots.is_empty() && tree.free.len() == tree.nodes.len(), "nothing is left behind");
    }
}

#[test]
fn a_preferred_sequence_is_chosen_among_equal_ones() {
    let mut tree = RadixTree::default();
    for sequence in 0..4 {
        tree.insert(sequence, ANYONE, &tokens("once upon a time"), Holding::Retained);
    }
    let found = tree.longest(ANYONE, &tokens("once upon a time there"), |sequence| sequence == 2);
    assert_eq!(found, Some(Match { holder: 2, shared: 16 }));
}

#[test]
fn a_match_never_crosses_tenants() {
    let mut tree = RadixTree::default();
    tree.insert(0, TenantId(1), &tokens("once upon a time"), Holding::Retained);
    assert_eq!(tree.longest(TenantId(2), &tokens("once upon a time"), |_| true), None);
    assert_eq!(tree.longest_whole(TenantId(2), &tokens("once upon a time there"), |_| true), None);
}
