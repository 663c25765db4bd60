//! Headers made by hand: whole, cut, and wrong in every place.

use std::io::Cursor;

use super::*;

fn types(kind: u32) -> Option<(u64, u64)> {
    match kind {
        0 => Some((1, 4)),
        2 => Some((32, 18)),
        _ => None,
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn tensor(out: &mut Vec<u8>, name: &str, elements: u64, kind: u32, offset: u64) {
    text(out, name);
    out.extend(1_u32.to_le_bytes());
    out.extend(elements.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(offset.to_le_bytes());
}

/// A file with a string, an array of strings, a number, an array of numbers and two tensors of 64 and 36 bytes.
fn file() -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend(2_u64.to_le_bytes());
    out.extend(4_u64.to_le_bytes());
    text(&mut out, "general.architecture");
    out.extend(8_u32.to_le_bytes());
    text(&mut out, "llama");
    text(&mut out, "tokens");
    out.extend(9_u32.to_le_bytes());
    out.extend(8_u32.to_le_bytes());
    out.extend(2_u64.to_le_bytes());
    text(&mut out, "a");
    text(&mut out, "bc");
    text(&mut out, "llama.block_count");
    out.extend(4_u32.to_le_bytes());
    out.extend(30_u32.to_le_bytes());
    text(&mut out, "llama.attention.head_count_kv");
    out.extend(9_u32.to_le_bytes());
    out.extend(5_u32.to_le_bytes());
    out.extend(2_u64.to_le_bytes());
    out.extend(3_i32.to_le_bytes());
    out.extend(0_i32.to_le_bytes());
    tensor(&mut out, "first", 16, 0, 0);
    tensor(&mut out, "second", 64, 2, 64);
    out.resize(out.len().next_multiple_of(32) + 64 + 36, 7);
    out
}

fn look(bytes: &[u8]) -> Result<Header, GgufError> {
    read(Cursor::new(bytes), bytes.len() as u64, types)
}

#[test]
fn a_whole_file_passes_and_shows_its_numbers() {
    let header = look(&file()).expect("a good file");
    assert_eq!(header.architecture, "llama");
    assert_eq!(header.of_architecture("block_count"), [30]);
    assert_eq!(header.of_architecture("attention.head_count_kv"), [3, 0]);
    assert_eq!(header.split_count(), 1);
}

#[test]
fn a_table_of_learned_positions_is_noticed() {
    let mut learned = file();
    // Any tensor of that name: the first one gets it, with the same length in the file.
    let at = learned.windows(6).position(|bytes| bytes == b"second").expect("the tensor's name");
    learned.splice(at - 8..at + 6, [&20_u64.to_le_bytes()[..], b"position_embd.weight"].concat());
    learned.extend([7; 32]);
    assert!(look(&learned).expect("a good file").learned_positions);
    assert!(!look(&file()).expect("a good file").learned_positions);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = file();
    for len in 0..whole.len() {
        let error = look(&whole[..len]).expect_err("a cut file");
        let expected = if len < 4 { "not a GGUF file" } else { "truncated" };
        assert!(error.to_string().starts_with(expected), "{len}: {error}");
    }
}

#[test]
fn the_cut_tensor_is_named() {
    let whole = file();
    let error = look(&whole[..whole.len() - 1]).expect_err("a cut file").to_string();
    assert!(error.contains("tensor `second`"), "{error}");
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(look(b"PK\x03\x04 a zip file"), Err(GgufError::NotGguf)));
    let mut old = file();
    old[4] = 1;
    assert!(matches!(look(&old), Err(GgufError::Version(1))));
}

#[test]
fn no_garbage_in_the_header_panics() {
    let whole = file();
    for at in 4..whole.len() - 100 {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            // Either verdict is right, as long as there is one.
            let _ = look(&bytes);
        }
    }
}

#[test]
fn a_missing_file_says_so() {
    let error = inspect(Path::new("/nonexistent/model.gguf"), types).expect_err("no such file").to_string();
    assert!(error.contains("No such file"), "{error}");
    assert!(matches!(inspect(Path::new("/"), types), Err(GgufError::NotAFile)));
}

#[test]
fn parts_of_a_split_model_are_found_by_name() {
    let parts = further_parts(Path::new("/m/big-00001-of-00003.gguf"), 3);
    assert_eq!(parts, [Path::new("/m/big-00002-of-00003.gguf"), Path::new("/m/big-00003-of-00003.gguf")]);
    assert!(further_parts(Path::new("/m/one.gguf"), 1).is_empty());
}
