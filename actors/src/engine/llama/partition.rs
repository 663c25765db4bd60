//! Where special tokens' texts mean the tokens and where they are text: pure, over the joined parts of a prompt.
//!
//! llama.cpp knows one switch for a whole text. Here the template's text and a user's text are one string, so that
//! words and spaces join as in the model's training; only what lies in a user's text is never a control token.

use std::ops::Range;

use crate::engine::protocol::{TextPart, Token, Trust};

/// A token that is recognised by its text before anything else is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpecialToken {
    pub(super) token: Token,
    /// Never empty.
    pub(super) text: String,
    pub(super) scope: Scope,
    /// Whether white space before it belongs to it.
    pub(super) strip_left: bool,
    /// Whether white space after it belongs to it.
    pub(super) strip_right: bool,
}

/// Where a special token is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// In the template's text only: control tokens.
    Template,
    /// Everywhere: user-defined tokens, which stand for ordinary text such as runs of line breaks.
    Everywhere,
}

/// The parts as one text, with the places that come from users.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) text: String,
    /// Ascending, not empty, not touching.
    pub(super) user: Vec<Range<usize>>,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// A special token.
    Token(Token),
    /// Text without special tokens.
    Text(Range<usize>),
}

/// Joins the parts.
pub(super) fn join(parts: &[TextPart]) -> Joined {
    let mut joined = Joined::default();
    for part in parts.iter().filter(|part| !part.text.is_empty()) {
        let start = joined.text.len();
        joined.text.push_str(&part.text);
        let end = joined.text.len();
        match (part.trust, joined.user.last_mut()) {
            (Trust::Template, _) => {}
            (Trust::User, Some(last)) if last.end == start => last.end = end,
            (Trust::User, _) => joined.user.push(start..end),
        }
    }
    joined
}

/// Cuts the text at its special tokens: the longest first, as llama.cpp does. `specials` are in that order.
pub(super) fn partition(joined: &Joined, specials: &[SpecialToken]) -> Vec<Fragment> {
    let mut fragments = Vec::new();
    if !joined.text.is_empty() {
        fragments.push(Fragment::Text(0..joined.text.len()));
    }
    for special in specials.iter().filter(|special| joined.text.contains(&special.text)) {
        let mut cut = Vec::with_capacity(fragments.len());
        for fragment in fragments {
            match fragment {
                Fragment::Text(range) => cut_text(joined, range, special, &mut cut),
                token @ Fragment::Token(_) => cut.push(token),
            }
        }
        fragments = cut;
    }
    fragments
}

fn cut_text(joined: &Joined, range: Range<usize>, special: &SpecialToken, out: &mut Vec<Fragment>) {
    let Range { mut start, end } = range;
    let mut from = start;
    while let Some(at) = joined.text[from..end].find(&special.text).map(|at| from + at) {
        let after = at + special.text.len();
        if special.scope == Scope::Template && joined.is_users(at..after) {
            from = joined.text.ceil_char_boundary(at + 1);
            continue;
        }
        push_text(start..if special.strip_left { joined.skip_back(start..at) } else { at }, out);
        out.push(Fragment::Token(special.token));
        start = if special.strip_right { joined.skip(after..end) } else { after };
        from = start;
    }
    push_text(start..end, out);
}

fn push_text(range: Range<usize>, out: &mut Vec<Fragment>) {
    if !range.is_empty() {
        out.push(Fragment::Text(range));
    }
}

impl Joined {
    /// Whether any byte of the range is a user's.
    fn is_users(&self, range: Range<usize>) -> bool {
        let next = self.user.partition_point(|user| user.end <= range.start);
        self.user.get(next).is_some_and(|user| user.start < range.end)
    }

    fn skip(&self, range: Range<usize>) -> usize {
        let text = &self.text[range.clone()];
        range.end - text.trim_start_matches(is_space).len()
    }

    fn skip_back(&self, range: Range<usize>) -> usize {
        let text = &self.text[range.clone()];
        range.start + text.trim_end_matches(is_space).len()
    }
}

/// White space as C has it, which llama.cpp strips by.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests;
