//! A file is read as it was written, or not at all.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cllm-kv-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        make_folder(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sample(state: &[u8]) -> Header {
    Header::new(7, TenantId(9), vec![1, -2, 300_000], state)
}

#[test]
fn a_file_is_read_as_it_was_written_and_belongs_to_its_owner_only() {
    let folder = Folder::new("whole");
    let path = folder.0.join("a.kv");
    let state: Vec<u8> = (0..1000).map(|at| at as u8).collect();
    write(&path, &sample(&state), &state).expect("writes");
    assert_eq!(read_header(&path).expect("reads"), sample(&state));
    assert_eq!(read(&path).expect("reads"), (sample(&state), state));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.0)), (0o600, 0o700));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_is_cut_added_or_changed_is_noticed(at in 0usize..200, bit in 0u8..8, kind in 0u8..3) {
        let folder = Folder::new("damage");
        let path = folder.0.join("a.kv");
        let state = vec![5; 100];
        write(&path, &sample(&state), &state).expect("writes");
        let mut bytes = std::fs::read(&path).expect("reads");
        let at = at % bytes.len();
        match kind {
            0 => bytes.truncate(at),
            1 => bytes.push(bit),
            _ => bytes[at] ^= 1 << bit,
        }
        std::fs::write(&path, &bytes).expect("writes");
        prop_assert!(read(&path).is_err());
    }
}
