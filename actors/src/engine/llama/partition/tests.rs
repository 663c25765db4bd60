//! Who may speak a special token.

use super::*;

fn special(token: Token, text: &str, scope: Scope) -> SpecialToken {
    SpecialToken { token, text: text.to_owned(), scope, strip_left: false, strip_right: false }
}

fn specials() -> Vec<SpecialToken> {
    vec![
        special(1, "<|im_start|>", Scope::Template),
        special(2, "<|im|>", Scope::Template),
        special(3, "\n\n", Scope::Everywhere),
    ]
}

fn part(trust: Trust, text: &str) -> TextPart {
    TextPart { text: text.to_owned(), trust }
}

/// The fragments as text, tokens as `[id]`.
fn cut(parts: &[TextPart], specials: &[SpecialToken]) -> Vec<String> {
    let joined = join(parts);
    let show = |fragment: Fragment| match fragment {
        Fragment::Token(token) => format!("[{token}]"),
        Fragment::Text(range) => joined.text[range].to_owned(),
    };
    partition(&joined, specials).into_iter().map(show).collect()
}

#[test]
fn a_templates_control_token_is_a_token_and_a_users_is_text() {
    let parts = [
        part(Trust::Template, "<|im_start|>user\n"),
        part(Trust::User, "say <|im_start|> é"),
        part(Trust::Template, "<|im|>"),
    ];
    assert_eq!(cut(&parts, &specials()), ["[1]", "user\nsay <|im_start|> é", "[2]"]);
}

#[test]
fn a_control_token_half_of_it_a_users_is_text() {
    let parts = [part(Trust::Template, "a<|im"), part(Trust::User, "|>b")];
    assert_eq!(cut(&parts, &specials()), ["a<|im|>b"]);
    let parts = [part(Trust::User, "a<|im"), part(Trust::Template, "|>b<|im|>")];
    assert_eq!(cut(&parts, &specials()), ["a<|im|>b", "[2]"]);
}

#[test]
fn text_joins_across_parts() {
    let parts = [part(Trust::Template, "user\nHel"), part(Trust::User, "lo"), part(Trust::Template, " world")];
    assert_eq!(cut(&parts, &specials()), ["user\nHello world"]);
}

#[test]
fn user_defined_tokens_are_tokens_in_a_users_text_too() {
    assert_eq!(cut(&[part(Trust::User, "a\n\nb\n\n\n")], &specials()), ["a", "[3]", "b", "[3]", "\n"]);
}

#[test]
fn white_space_goes_with_a_token_that_strips_it() {
    let mut stripping = specials();
    stripping[1].strip_left = true;
    stripping[1].strip_right = true;
    assert_eq!(cut(&[part(Trust::Template, "a \n<|im|>\t b <|im|>")], &stripping), ["a", "[2]", "b", "[2]"]);
}

#[test]
fn nothing_comes_of_nothing() {
    assert!(cut(&[], &specials()).is_empty());
    assert!(cut(&[part(Trust::User, "")], &specials()).is_empty());
}
