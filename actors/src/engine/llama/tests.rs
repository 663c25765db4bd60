//! What KV files are told apart by.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cllm-fingerprint-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_fingerprint_names_the_build_that_is_linked() {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).expect("the lock file");
    let entry = lock.split("[[package]]").find(|entry| entry.contains("name = \"llama-cpp-sys-2\"")).expect("locked");
    let version = entry.lines().find_map(|line| line.strip_prefix("version = ")).expect("a version").trim_matches('"');
    assert!(BUILD.ends_with(&format!(" llama-cpp-sys-2 {version}")), "{BUILD}, locked is {version}");
}

#[test]
fn another_part_of_a_split_model_is_another_fingerprint() {
    let folder = Folder::new("split");
    let part = |number: u32| folder.0.join(format!("m-{number:05}-of-00002.gguf"));
    fs::write(part(1), b"first").expect("writes");
    fs::write(part(2), b"second").expect("writes");
    let spec = LlamaSpec::new(part(1));
    let header = Header::with_split_count(2);
    let unified = plan::plan(&spec, Needs::default(), None);
    let fingerprint = |plan: &Plan| super::fingerprint(&spec, plan, &header);
    let before = fingerprint(&unified);
    assert_eq!(fingerprint(&unified), before);
    assert_ne!(fingerprint(&Plan { streams: Some(16), ..unified }), before, "a state of another context");
    fs::write(part(2), b"second, longer").expect("writes");
    assert_ne!(fingerprint(&unified), before);
}
