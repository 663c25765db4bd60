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
    std::fs::write(folder.0.join("00112233445566ff.kv"), b"nonsense").expect("writes");
    let abandoned = folder.0.join("00112233445566ff.123.tmp");
    std::fs::write(&abandoned, b"half").expect("writes");
    let long_ago = SystemTime::now() - 2 * ABANDONED;
    file::touch(&abandoned, long_ago);
    assert!(folder.open("a", 1 << 20).prefixes().is_empty());
    assert_eq!(folder.files(), 0);
}

#[cfg(unix)]
#[test]
fn what_else_is_in_the_folder_and_who_may_enter_it_is_not_ours_to_change() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("others");
    std::fs::create_dir(&folder.0).expect("a folder");
    std::fs::set_permissions(&folder.0, PermissionsExt::from_mode(0o755)).expect("ours");
    // Somebody's notes, a file of another program, one that another engine is writing.
    for name in ["notes.kv", "x.tmp", "00112233445566FF.kv", "00112233445566ff.123.tmp"] {
        std::fs::write(folder.0.join(name), b"not ours").expect("writes");
    }
    drop(folder.open("a", 1 << 20));
    assert_eq!(folder.files(), 4);
    assert_eq!(std::fs::metadata(&folder.0).expect("there").permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_file_that_cannot_be_read_now_is_a_miss_and_stays() {
    let folder = Folder::new("unreadable");
    drop(folder.open("a", 1 << 20));
    // A folder of that name: reading it fails, whoever asks, and says nothing about what was written.
    std::fs::create_dir(folder.0.join("00112233445566ff.kv")).expect("a folder");
    assert!(folder.open("a", 1 << 20).prefixes().is_empty());
    assert_eq!(folder.files(), 1);
    let mut store = folder.open("a", 1 << 20);
    store.store_at_last(ME, vec![1, 2, 3], vec![9; 64]);
    store.finish();
    let mut store = folder.open("a", 1 << 20);
    let (id, path) = store.files.iter().next().map(|(id, known)| (*id, known.path.clone())).expect("one");
    std::fs::remove_file(&path).expect("removes");
    std::fs::create_dir(&path).expect("a folder");
    assert_eq!(store.read(id, ME), None);
    assert!(path.exists() && store.prefixes().is_empty());
}

#[test]
fn a_file_is_read_beside_the_loop() {
    let folder = Folder::new("beside");
    let mut store = folder.open("a", 1 << 20);
    store.store_at_last(ME, vec![1, 2, 3], vec![9; 64]);
    store.finish();
    let mut store = folder.open("a", 1 << 20);
    let id = store.prefixes()[0].file;
    assert_eq!((store.bytes(id, ME), store.bytes(id, TenantId(2))), (Some(48 + 12 + 64), None));
    assert!(store.start_reading(id, (1, 7)));
    let read = store.reads().expect("a reader").recv().expect("alive");
    assert_eq!(read.ticket, (1, 7));
    assert_eq!(store.take(read, ME), Some((vec![1, 2, 3], vec![9; 64])));
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
        let path = folder.0.join(file::name(store.fingerprint, ME, &header.tokens));
        let bytes = header.file_bytes();
        store.know(header, path, bytes, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(used_s));
    }
    assert_eq!(store.changes().gone, vec![1, 2]);
    let kept: Vec<Token> = store.prefixes().iter().map(|prefix| prefix.tokens[0]).collect();
    assert_eq!(kept, vec![3, 0]);
}
