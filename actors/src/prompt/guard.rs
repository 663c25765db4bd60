//! Tells a user's characters from the template's, by rendering with stand-ins: see the documentation of [`super`].

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use super::literals;
use super::parts::{ControlTexts, is_telling};
use crate::engine::protocol::TextPart;

/// Stand-ins are private-use characters from here on. A user may write them too: only a place that holds a
/// telling character in the plain rendering and its stand-in in the marked one counts.
const FIRST_STAND_IN: u32 = 0x0010_F000;

/// Most different telling characters; the private use area ends after them.
const MAX_STAND_INS: usize = 0xFFE;

/// How much of the users' strings is replaced. More is safer, but templates look at strings: one that splits at
/// `</think>` no longer finds it. So the strongest scope is taken under which the text comes out the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every telling character: finds control texts that are put together from pieces as well.
    Everything,
    /// As before, outside of the texts that the template itself looks for in messages.
    OutsideInspected,
    /// Only inside whole control texts that the template does not look for.
    ControlTexts,
}

impl Scope {
    /// In the order in which to try them.
    pub(super) const STRONGEST_FIRST: [Self; 3] = [Self::Everything, Self::OutsideInspected, Self::ControlTexts];
}

/// What has to be kept apart, for one template and vocabulary.
#[derive(Debug)]
pub(super) struct Guard {
    controls: ControlTexts,
    stand_ins: HashMap<char, char>,
    inspected: Vec<String>,
}

impl Guard {
    /// For these control texts and the source of this template.
    pub(super) fn new(control_texts: Vec<String>, source: &str) -> Self {
        let controls = ControlTexts::new(control_texts);
        let stand_ins = controls.telling_chars().into_iter().take(MAX_STAND_INS).zip(FIRST_STAND_IN..);
        let stand_ins = stand_ins.filter_map(|(char, code)| Some((char, char::from_u32(code)?))).collect();
        Self { controls, stand_ins, inspected: literals::inspected(source) }
    }

    /// Replaces characters of users' strings.
    pub(super) fn marker(&self, scope: Scope) -> Marker<'_> {
        Marker { guard: self, scope, marked: Cell::new(false) }
    }

    /// Byte offsets in `plain` of the characters that `marked` shows to be a user's. `None` if the two differ in anything
    /// but stand-ins: then the template has seen a difference.
    pub(super) fn tainted(&self, plain: &str, marked: &str) -> Option<Vec<usize>> {
        let mut tainted = Vec::new();
        let mut marked = marked.chars();
        for (offset, char) in plain.char_indices() {
            let other = marked.next()?;
            if other == char {
                continue;
            }
            if self.stand_ins.get(&char) != Some(&other) {
                return None;
            }
            tainted.push(offset);
        }
        marked.next().is_none().then_some(tainted)
    }

    /// Cuts the text so that no control text with a user's character in it is taken for a token.
    pub(super) fn split(&self, text: &str, tainted: &[usize]) -> Vec<TextPart> {
        self.controls.split(text, tainted)
    }

    /// Where control texts without a telling character begin in `text`, ascending.
    fn bare_starts(&self, text: &str) -> Vec<usize> {
        if !self.controls.has_bare() {
            return Vec::new();
        }
        let occurrences = self.controls.occurrences(text).into_iter();
        occurrences.filter(|range| !text[range.clone()].contains(is_telling)).map(|range| range.start).collect()
    }

    /// Which bytes of `text` belong to something that the template looks for.
    fn inspected_bytes(&self, text: &str) -> Vec<bool> {
        let mut bytes = vec![false; text.len()];
        for literal in &self.inspected {
            for (start, _) in text.match_indices(literal.as_str()) {
                bytes[start..start + literal.len()].fill(true);
            }
        }
        bytes
    }

    fn control_bytes(&self, text: &str) -> Vec<bool> {
        let mut bytes = vec![false; text.len()];
        for range in self.controls.occurrences(text) {
            bytes[range].fill(true);
        }
        bytes
    }
}

/// Replaces the characters of one scope, and remembers whether there was any.
pub(super) struct Marker<'a> {
    guard: &'a Guard,
    scope: Scope,
    marked: Cell<bool>,
}

impl Marker<'_> {
    /// The text with stand-ins.
    pub(super) fn mark<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let guard = self.guard;
        match self.scope {
            Scope::Everything => {
                let bare = guard.bare_starts(text);
                self.replace(text, |offset, char| is_telling(char) || bare.binary_search(&offset).is_ok())
            }
            Scope::OutsideInspected if !text.contains(is_telling) => Cow::Borrowed(text),
            Scope::OutsideInspected => {
                let inspected = guard.inspected_bytes(text);
                self.replace(text, |offset, char| is_telling(char) && !inspected[offset])
            }
            Scope::ControlTexts if !text.contains(is_telling) => Cow::Borrowed(text),
            Scope::ControlTexts => {
                let (controls, inspected) = (guard.control_bytes(text), guard.inspected_bytes(text));
                self.replace(text, |offset, char| is_telling(char) && controls[offset] && !inspected[offset])
            }
        }
    }

    /// Whether any character was replaced so far.
    pub(super) fn has_marked(&self) -> bool {
        self.marked.get()
    }

    fn replace<'t>(&self, text: &'t str, chosen: impl Fn(usize, char) -> bool) -> Cow<'t, str> {
        let stand_in = |(offset, char): (usize, char)| {
            if chosen(offset, char) { self.guard.stand_ins.get(&char).copied() } else { None }
        };
        if text.char_indices().all(|place| stand_in(place).is_none()) {
            return Cow::Borrowed(text);
        }
        self.marked.set(true);
        Cow::Owned(text.char_indices().map(|place| stand_in(place).unwrap_or(place.1)).collect())
    }
}

#[cfg(test)]
mod tests;
