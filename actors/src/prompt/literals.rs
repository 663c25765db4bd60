//! Finds the texts that a template looks for in messages, such as `</think>` in `content.split('</think>')`.

use super::parts::is_telling;

/// What stands before such a text.
const BEFORE: [&str; 11] = [
    "split(",
    "startswith(",
    "endswith(",
    "replace(",
    "find(",
    "count(",
    "partition(",
    "removeprefix(",
    "removesuffix(",
    "startingwith(",
    "endingwith(",
];

/// What stands after it.
const AFTER: [&str; 2] = ["in ", "not in "];

/// The string literals of the source that are compared with parts of other strings, as far as the words around them show
/// it, and only those that hold telling characters.
pub(super) fn inspected(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find(['{']) {
        let (before, tag) = rest.split_at(start);
        let end = match tag.as_bytes().get(1) {
            Some(b'{') => tag.find("}}"),
            Some(b'%') => tag.find("%}"),
            _ => Some(0),
        };
        let end = end.unwrap_or(tag.len());
        in_tag(&tag[..end], &mut found);
        rest = &source[source.len() - rest.len() + before.len() + end.max(1)..];
    }
    found.sort();
    found.dedup();
    found
}

fn in_tag(tag: &str, found: &mut Vec<String>) {
    let mut at = 0;
    while let Some(offset) = tag[at..].find(['\'', '"']) {
        let open = at + offset;
        let quote = tag.as_bytes()[open];
        let Some(close) = closing_quote(tag, open + 1, quote) else {
            return;
        };
        let before = tag[..open].trim_end();
        let after = tag[close + 1..].trim_start();
        let literal = unescape(&tag[open + 1..close]);
        let inspected =
            BEFORE.iter().any(|word| before.ends_with(word)) || AFTER.iter().any(|word| after.starts_with(word));
        if inspected && literal.contains(is_telling) {
            found.push(literal);
        }
        at = close + 1;
    }
}

fn closing_quote(text: &str, from: usize, quote: u8) -> Option<usize> {
    let mut escaped = false;
    text.bytes().enumerate().skip(from).find_map(|(at, byte)| {
        let closes = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes.then_some(at)
    })
}

fn unescape(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len());
    let mut chars = literal.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            (char, false) => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::inspected;

    #[test]
    fn texts_that_a_template_looks_for_are_found() {
        let source = r#"{# '<a>' in x #}{% if '<b>' in x or "<c'>" not in x %}{{ x.split('<d>')[0] + '<e>' }}{% endif %}
            '<f>' in x {{ x | replace('\n<g>', '<h>') }}{% if x is startingwith("<i>") %}{% set y = '<j>' %}{{ 'k' in x }}"#;
        assert_eq!(inspected(source), ["\n<g>", "<b>", "<c'>", "<d>", "<i>"]);
    }
}
