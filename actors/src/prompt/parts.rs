//! Cuts a rendered prompt at control tokens, so that forged ones become plain text and everything else is tokenized as if in one piece.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use crate::engine::protocol::{TextPart, Trust};

/// A text that is the template's own from end to end.
pub(super) fn single(text: String) -> Vec<TextPart> {
    if text.is_empty() { Vec::new() } else { vec![TextPart { text, trust: Trust::Template }] }
}

/// Whether a character in a control text betrays who wrote it. Letters, digits and `_` do not: they are in names that
/// templates look up and compare. A control text cannot be forged without the others, unless it has none.
/// Quotes and backslashes change when they are written as JSON.
pub(super) fn is_telling(char: char) -> bool {
    !(char.is_alphanumeric() || char.is_whitespace() || char.is_control() || matches!(char, '_' | '"' | '\\'))
}

/// The texts of a vocabulary's control tokens.
#[derive(Debug)]
pub(super) struct ControlTexts {
    texts: HashSet<String>,
    /// Lengths in bytes, longest first.
    lengths: Vec<usize>,
    /// Whether a text begins with this byte.
    starts: [bool; 256],
    has_bare: bool,
}

impl ControlTexts {
    /// Runs of whitespace are left out: user-defined tokens of some vocabularies, and harmless.
    pub(super) fn new(texts: Vec<String>) -> Self {
        let texts: HashSet<String> = texts.into_iter().filter(|text| !text.trim().is_empty()).collect();
        let lengths: BTreeSet<usize> = texts.iter().map(String::len).collect();
        let mut starts = [false; 256];
        for first in texts.iter().filter_map(|text| text.bytes().next()) {
            starts[usize::from(first)] = true;
        }
        let has_bare = texts.iter().any(|text| !text.contains(is_telling));
        Self { texts, lengths: lengths.into_iter().rev().collect(), starts, has_bare }
    }

    /// The characters by which a user's hand is recognised in these texts: the telling ones, and the first of a text that has none.
    pub(super) fn telling_chars(&self) -> BTreeSet<char> {
        let telling = self.texts.iter().flat_map(|text| text.chars().filter(|char| is_telling(*char)));
        let bare = self.texts.iter().filter(|text| !text.contains(is_telling));
        telling.chain(bare.filter_map(|text| text.chars().next())).collect()
    }

    /// Whether there are texts without a telling character.
    pub(super) fn has_bare(&self) -> bool {
        self.has_bare
    }

    /// Where control texts stand, overlapping ones too, by their start and then longest first.
    pub(super) fn occurrences(&self, text: &str) -> Vec<Range<usize>> {
        let bytes = text.as_bytes();
        let starts = (0..bytes.len()).filter(|start| self.starts[usize::from(bytes[*start])]);
        let ranges = starts.flat_map(|start| self.lengths.iter().map(move |length| start..start + length));
        ranges.filter(|range| text.get(range.clone()).is_some_and(|found| self.texts.contains(found))).collect()
    }

    /// Cuts `text` at the template's own control texts. A stretch between them that a forged one touches, that is one
    /// with a character of `tainted` (byte offsets, ascending), is a user's; everything else is the template's.
    pub(super) fn split(&self, text: &str, tainted: &[usize]) -> Vec<TextPart> {
        let is_forged = |range: &Range<usize>| {
            tainted.get(tainted.partition_point(|offset| *offset < range.start)).is_some_and(|at| *at < range.end)
        };
        let (forged, own): (Vec<_>, Vec<_>) = self.occurrences(text).into_iter().partition(is_forged);
        if forged.is_empty() {
            return single(text.to_owned());
        }
        let mut parts = Parts { parts: Vec::new(), forged: reach(&forged) };
        let mut at = 0;
        for token in disjoint(own, text.len()) {
            parts.stretch(text, at..token.start);
            parts.push(&text[token.clone()], Trust::Template);
            at = token.end;
        }
        parts.stretch(text, at..text.len());
        parts.parts
    }
}

/// The occurrences that become tokens where several overlap: longer texts first, then the earlier, as llama.cpp does.
fn disjoint(mut occurrences: Vec<Range<usize>>, len: usize) -> Vec<Range<usize>> {
    occurrences.sort_by_key(|range| (std::cmp::Reverse(range.len()), range.start));
    let mut taken = vec![false; len];
    occurrences.retain(|range| {
        let free = !taken[range.clone()].contains(&true);
        if free {
            taken[range.clone()].fill(true);
        }
        free
    });
    occurrences.sort_by_key(|range| range.start);
    occurrences
}

/// The starts of the ranges, ascending, each with the farthest end of those up to it.
fn reach(ranges: &[Range<usize>]) -> Vec<(usize, usize)> {
    let mut farthest = 0;
    let reach = ranges.iter().map(|range| {
        farthest = farthest.max(range.end);
        (range.start, farthest)
    });
    reach.collect()
}

struct Parts {
    parts: Vec<TextPart>,
    forged: Vec<(usize, usize)>,
}

impl Parts {
    /// Adds what lies between two control tokens.
    fn stretch(&mut self, text: &str, range: Range<usize>) {
        let begun = self.forged.partition_point(|(start, _)| *start < range.end);
        let touched = self.forged[..begun].last().is_some_and(|(_, farthest)| *farthest > range.start);
        self.push(&text[range], if touched { Trust::User } else { Trust::Template });
    }

    fn push(&mut self, text: &str, trust: Trust) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.trust == trust => last.text.push_str(text),
            _ => self.parts.push(TextPart { text: text.to_owned(), trust }),
        }
    }
}
