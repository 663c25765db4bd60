//! The folder over several lives of an engine.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cllm-kv-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self, fingerprint: &str, max_bytes: u64) -> Store {
        Store::open(&KvStoreSpec { path: self.0.clone(), max_bytes }, fingerprint).expect("a folder can be made")
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).expect("the folder").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const ME: TenantId = TenantId(1);

#[test]
fn the_next_engine_finds_what_this_one_has_stored() {
    let folder = Folder::new("next");
    let mut store = folder.open("a", 1 << 20);
    store.store_at_last(ME, vec![1, 2, 3], vec![9; 64]);
    store.finish();
    let mut store = folder.open("a", 1 << 20);
    let found = store.prefixes();
    assert_eq!((found[0].tenant, found[0].tokens.as_slice()), (ME, &[1, 2, 3][..]));
    assert_eq!((store.known_of(ME, &[1, 2, 9]), store.known_of(TenantId(2), &[1])), (2, 0));
    assert_eq!(store.read(found[0].file, TenantId(2)), None);
    assert_eq!(store.read(found[0].file, ME), Some((vec![1, 2, 3], vec![9; 64])));
}

#[test]
fn another_models_files_are_left_alone_and_serve_nobody() {
    let folder = Folder::new("foreign");
    let mut store = folder.open("a", 1 << 20);
    store.store_at_last(ME, vec![1, 2, 3], vec![9; 64]);
    store.finish();
    assert!(folder.open("b", 1 << 20).prefixes().is_empty());
    assert_eq!(folder.open("a", 1 << 20).prefixes().len(), 1);
}

#[test]
fn damaged_files_and_leftovers_are_removed() {
    let folder = Folder::new("damaged");
    drop(folder.open("a", 1 << 20));
    std::fs::write(folder.0.join("x.kv"), b"nonsense").expect("writes");
    std::fs::write(folder.0.join("y.tmp"), b"half").expect("writes");
    assert!(folder.open("a", 1 << 20).prefixes().is_empty());
    assert_eq!(folder.files(), 0);
}

#[test]
fn a_file_that_was_damaged_meanwhile_is_a_miss_and_goes() {
    let folder = Folder::new("meanwhile");
    let mut store = folder.open("a", 1 << 20);
    store.store_at_last(ME, vec![1, 2, 3], vec![9; 64]);
    store.finish();
    let mut store = folder.open("a", 1 << 20);
    let (id, known) = store.files.iter().next().map(|(id, known)| (*id, known.path.clone())).expect("one");
    let mut bytes = std::fs::read(&known).expect("reads");
    *bytes.last_mut().expect("long") ^= 1;
    std::fs::write(&known, bytes).expect("writes");
    assert_eq!(store.read(id, ME), None);
    assert_eq!(folder.files(), 0);
}

#[test]
fn the_folder_stays_within_its_size_and_what_was_used_longest_ago_goes_first() {
    let folder = Folder::new("size");
    let mut store = folder.open("a", 400);
    for (token, used_s) in [(0, 30), (1, 10), (2, 20), (3, 40)] {
        let header = Header::new(store.fingerprint, ME, vec![token], &[9; 100]);
        let (path, bytes) = (folder.0.join(header.name()), header.file_bytes());
        store.know(header, path, bytes, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(used_s));
    }
    assert_eq!(store.changes().gone, vec![1, 2]);
    let kept: Vec<Token> = store.prefixes().iter().map(|prefix| prefix.tokens[0]).collect();
    assert_eq!(kept, vec![3, 0]);
}
