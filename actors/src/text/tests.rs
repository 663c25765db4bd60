//! What a client reads, for any cut of the text into tokens.

use proptest::prelude::*;

use super::*;

/// What the client reads, and where it stopped.
fn read(stops: &[&str], tokens: &[&[u8]]) -> (String, Option<Stopped>) {
    let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
    let mut assembler = TextAssembler::new(&stops);
    let mut out = String::new();
    let mut stopped = None;
    for (token, bytes) in (0..).zip(tokens) {
        stopped = assembler.push(token, bytes, &mut out);
    }
    assembler.finish(&mut out);
    (out, stopped)
}

fn text(stops: &[&str], tokens: &[&str]) -> String {
    let tokens: Vec<&[u8]> = tokens.iter().map(|token| token.as_bytes()).collect();
    read(stops, &tokens).0
}

#[test]
fn a_character_over_several_tokens_appears_whole() {
    let mut assembler = TextAssembler::new(&[]);
    let mut out = String::new();
    for byte in [0xf0, 0x9f, 0x98] {
        assembler.push(0, &[byte], &mut out);
        assert_eq!(out, "");
        assert!(assembler.is_holding());
    }
    assembler.push(3, &[0x80, b'!'], &mut out);
    assert_eq!(out, "😀!");
    assert!(!assembler.is_holding());
}

#[test]
fn a_character_cut_by_the_end_is_dropped() {
    assert_eq!(read(&[], &[b"ab", &[0xe2, 0x82]]).0, "ab");
}

#[test]
fn bytes_that_are_no_text_become_one_replacement_character() {
    assert_eq!(read(&[], &[b"a\xff", b"b"]).0, "a\u{fffd}b");
    assert_eq!(read(&[], &[b"\xe2\x82", b"b"]).0, "\u{fffd}b");
    assert_eq!(read(&[], &[b"\xe2", b"\xe2\x82", b"\xac"]).0, "\u{fffd}€");
}

#[test]
fn a_stop_text_over_several_tokens_ends_the_text() {
    assert_eq!(text(&["END"], &["one E", "N", "D two"]), "one ");
    assert_eq!(text(&["\n\n"], &["a\n", "b\n", "\nc"]), "a\nb");
}

#[test]
fn the_token_that_completes_the_stop_text_is_told() {
    let (text, stopped) = read(&["x", "END"], &[b"one E", b"N", b"D two", b"three"]);
    assert_eq!((text.as_str(), stopped), ("one ", Some(Stopped { stop: 1, token: 2 })));
}

#[test]
fn only_what_may_become_a_stop_text_is_held_back() {
    let mut assembler = TextAssembler::new(&["abcabd".to_owned()]);
    let mut out = String::new();
    assembler.push(0, b"xabcab", &mut out);
    assert_eq!(out, "x");
    assembler.push(1, b"c", &mut out);
    assert_eq!(out, "xabc");
    assembler.push(2, b"!", &mut out);
    assert_eq!(out, "xabcabc!");
}

#[test]
fn held_back_text_appears_at_the_end() {
    assert_eq!(text(&["END"], &["the EN"]), "the EN");
}

#[test]
fn the_stop_text_that_is_complete_first_wins_then_the_longest() {
    assert_eq!(text(&["abcd", "bc"], &["xabcd"]), "xa");
    assert_eq!(text(&["bc", "abc"], &["xabc"]), "x");
    assert_eq!(read(&["bc", "abc"], &[b"xabc"]).1.map(|stopped| stopped.stop), Some(1));
}

#[test]
fn empty_stop_texts_are_ignored() {
    assert_eq!(text(&["", "b"], &["abc"]), "a");
}

#[test]
fn nothing_follows_a_stop_text() {
    assert_eq!(text(&["b"], &["ab", "cb", "d"]), "a");
}

/// The same by brute force, on the whole text.
fn cut(text: &str, stops: &[String]) -> String {
    let stops: Vec<&String> = stops.iter().filter(|stop| !stop.is_empty()).collect();
    for end in 0..=text.len() {
        let Some(seen) = text.get(..end) else {
            continue;
        };
        if let Some(stop) = stops.iter().filter(|stop| seen.ends_with(stop.as_str())).max_by_key(|stop| stop.len()) {
            return seen[..end - stop.len()].to_owned();
        }
    }
    text.to_owned()
}

fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

fn assemble(stops: &[String], pieces: &[Vec<u8>]) -> (String, Option<Stopped>) {
    let mut assembler = TextAssembler::new(stops);
    let mut out = String::new();
    let mut stopped = None;
    for (token, piece) in (0..).zip(pieces) {
        stopped = assembler.push(token, piece, &mut out);
    }
    assembler.finish(&mut out);
    (out, stopped)
}

proptest! {
    #[test]
    fn any_split_gives_the_text_before_the_first_stop_text(
        text in "[abé😀]{0,30}",
        stops in prop::collection::vec("[abé😀]{0,4}", 0..5),
        cuts in prop::collection::vec(0usize..200, 0..12),
    ) {
        let pieces = in_pieces(text.as_bytes(), &cuts);
        let (out, stopped) = assemble(&stops, &pieces);
        prop_assert_eq!(&out, &cut(&text, &stops));
        prop_assert!(!out.contains(char::REPLACEMENT_CHARACTER));
        prop_assert!(stops.iter().all(|stop| stop.is_empty() || !out.contains(stop.as_str())));
        if let Some(Stopped { stop, token }) = stopped {
            // The stop text is in the tokens up to this one, and not in those before it.
            let token = token as usize;
            let through = String::from_utf8_lossy(&pieces[..=token].concat()).into_owned();
            let before = String::from_utf8_lossy(&pieces[..token].concat()).into_owned();
            prop_assert!(through.contains(&stops[stop]) && !before.contains(&stops[stop]));
        }
    }

    #[test]
    fn any_bytes_give_the_text_that_std_gives_but_for_an_incomplete_end(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xe2u8), Just(0x82), Just(0xac), Just(0xf0)], 0..40),
        cuts in prop::collection::vec(0usize..200, 0..12),
    ) {
        let (out, _) = assemble(&[], &in_pieces(&bytes, &cuts));
        let lossy = String::from_utf8_lossy(&bytes);
        prop_assert!(lossy == out || lossy.strip_suffix('\u{fffd}') == Some(out.as_str()), "{:?} {:?}", lossy, out);
    }
}
