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
fn another_models_files_serve_nobody_and_stay_while_there_is_room() {
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
    assert!(store.make_room(0));
    assert_eq!(store.changes().gone, vec![1, 2]);
    let kept: Vec<Token> = store.prefixes().iter().map(|prefix| prefix.tokens[0]).collect();
    assert_eq!(kept, vec![3, 0]);
}

/// Bytes of a file of one token with the state that these tests store.
const ONE: u64 = 48 + 4 + 100;

fn touched(seconds_ago: u64, paths: &[PathBuf]) {
    paths.iter().for_each(|path| file::touch(path, SystemTime::now() - Duration::from_secs(seconds_ago)));
}

impl Folder {
    /// Files of so many tokens that a server with this fingerprint stored once; their paths.
    fn stored(&self, fingerprint: &str, tokens: std::ops::Range<Token>) -> Vec<PathBuf> {
        let mut store = self.open(fingerprint, 1 << 20);
        for token in tokens.clone() {
            store.store_at_last(ME, vec![token], vec![9; 100]);
        }
        let path = |token| self.0.join(file::name(store.fingerprint, ME, &[token]));
        let paths = tokens.map(path).collect();
        store.finish();
        paths
    }

    fn bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.0).expect("the folder");
        files.map(|file| file.expect("an entry").metadata().expect("a file").len()).sum()
    }
}

#[test]
fn files_of_other_models_count_and_go_when_they_were_used_longest_ago() {
    let folder = Folder::new("upgrade");
    let old = folder.stored("old", 0..2);
    let new = folder.stored("new", 2..4);
    touched(300, &new[..1]);
    touched(200, &old);
    // A younger one than the oldest of its own.
    touched(100, &old[1..]);
    let mut store = folder.open("new", 3 * ONE);
    assert!(!new[0].exists() && old.iter().all(|path| path.exists()), "the oldest of all, when it starts");
    store.store_at_last(ME, vec![4], vec![9; 100]);
    store.finish();
    assert!(!old[0].exists() && old[1].exists() && new[1].exists());
    assert_eq!(folder.bytes(), 3 * ONE);
}

#[test]
fn a_file_of_another_model_that_is_in_use_is_not_the_oldest() {
    let folder = Folder::new("in-use");
    let other = folder.stored("other", 0..2);
    let own = folder.stored("own", 2..3);
    touched(300, &other);
    touched(200, &own);
    let mut store = folder.open("own", 3 * ONE);
    // Its own server has read one since, and removed the other.
    touched(1, &other[..1]);
    std::fs::remove_file(&other[1]).expect("removes");
    store.store_at_last(ME, vec![3], vec![9; 100]);
    store.store_at_last(ME, vec![4], vec![9; 100]);
    store.finish();
    assert!(other[0].exists() && !own[0].exists());
    assert_eq!(folder.bytes(), 3 * ONE);
}

#[test]
fn room_is_made_before_a_file_is_written() {
    let folder = Folder::new("before");
    let own = folder.stored("own", 0..2);
    touched(100, &own[..1]);
    let mut store = folder.open("own", 2 * ONE);
    assert!(store.store(ME, vec![2], vec![9; 100]));
    assert!(!own[0].exists() && own[1].exists(), "whether it is written yet or not");
    assert_eq!(store.changes().gone.len(), 1);
    // What is under way has a place that nobody else gets.
    store.store_at_last(ME, vec![3], vec![9; 100]);
    store.store_at_last(ME, vec![4], vec![9; 100]);
    store.finish();
    assert!(folder.bytes() <= 2 * ONE);
}

#[test]
fn a_prefix_that_is_larger_than_the_folder_costs_no_file() {
    let folder = Folder::new("larger");
    let own = folder.stored("own", 0..2);
    let mut store = folder.open("own", 2 * ONE);
    assert!(!store.store(ME, vec![2], vec![9; 300]));
    assert!(!store.is_busy() && store.changes().gone.is_empty());
    store.finish();
    assert!(own.iter().all(|path| path.exists()));
}
