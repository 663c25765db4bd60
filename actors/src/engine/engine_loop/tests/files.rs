//! KV files beside the loop: what is written when, and that reading one keeps nobody waiting.

use std::path::PathBuf;

use super::*;
use crate::engine::spec::KvStoreSpec;
use crate::engine::store::ReadFile;

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cllm-loop-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Store {
        self.open_for(1 << 30)
    }

    /// With room for so many bytes.
    fn open_for(&self, max_bytes: u64) -> Store {
        let spec = KvStoreSpec { path: self.0.clone(), max_bytes };
        Store::open(&spec, "this").expect("a folder can be made")
    }

    /// All its files together.
    fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.0).expect("the folder");
        entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum()
    }

    /// With a file of these tokens.
    fn with_file(&self, tokens: &[Token], state: Vec<u8>) -> Store {
        let mut store = self.open();
        store.store_at_last(TenantId::NOBODY, tokens.to_vec(), state);
        store.finish();
        self.open()
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

/// The state of a sequence with these tokens.
fn state(tokens: &[Token]) -> Vec<u8> {
    let mut model = FakeModel::load(&FakeSpec::default()).expect("the fake loads");
    let mut batch = Batch::with_capacity(tokens.len());
    for (position, token) in (0..).zip(tokens) {
        batch.push(crate::engine::batch::Row { token: *token, position, sequence: 0, output: false });
    }
    model.decode(&batch).expect("decodes");
    model.save(0).expect("the fake has one")
}

/// An engine whose sequence 5 runs, with a file of 600 tokens that is long enough to be read beside the loop.
fn beside_a_stream(folder: &Folder) -> (Engine, Vec<Token>) {
    let tokens = prompt(1, 600);
    let mut engine = Engine::new(FakeSpec::default());
    engine.inner.busy_bytes = 0;
    engine.inner.store = Some(folder.with_file(&tokens, state(&tokens)));
    engine.apply(EngineCommand::Admit(Box::new(admit(100, 5, prompt(9, 10), 1000))));
    engine.step();
    (engine, tokens)
}

fn from_file(request: RequestId, sequence: SequenceId, engine: &Engine, tokens: Vec<Token>) -> EngineCommand {
    let file = engine.inner.stored()[0].file;
    let placement = Placement::Restore { file, tokens: 600 };
    EngineCommand::Admit(Box::new(Admit { placement, ..admit(request, sequence, tokens, 5) }))
}

fn copied(request: RequestId, sequence: SequenceId, from: SequenceId, tokens: Vec<Token>) -> EngineCommand {
    let placement = Placement::Copy { from, tokens: 600 };
    EngineCommand::Admit(Box::new(Admit { placement, ..admit(request, sequence, tokens, 5) }))
}

fn read(engine: &Engine) -> ReadFile {
    let store = engine.inner.store.as_ref().expect("a store");
    store.reads().expect("a reader").recv().expect("it lives")
}

#[test]
fn others_go_on_while_a_file_is_read_and_what_copies_from_it_waits() {
    let folder = Folder::new("beside");
    let (mut engine, tokens) = beside_a_stream(&folder);
    let (one, two) = ([tokens.clone(), prompt(2, 5)].concat(), [tokens.clone(), prompt(3, 5)].concat());
    engine.apply(from_file(1, 0, &engine, one.clone()));
    engine.apply(copied(2, 1, 0, two.clone()));
    engine.apply(EngineCommand::Admit(Box::new(admit(3, 0, prompt(4, 5), 5))));
    let file = read(&engine);
    let before = engine.outcome().tokens[&100].len();
    engine.step();
    let outcome = engine.outcome();
    assert_eq!(outcome.tokens[&100].len(), before + 1);
    assert!(!outcome.reused.contains_key(&1) && !outcome.reused.contains_key(&2));
    assert!(matches!(outcome.ended[&3][0].reason, EndReason::Refused(_)), "the sequence is taken");
    engine.inner.on_read(file);
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 100 });
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!((outcome.reused[&1], outcome.reused[&2]), (600, 600));
    assert_eq!(outcome.tokens[&1], fake::continuation(&engine.spec, &one, 5));
    assert_eq!(outcome.tokens[&2], fake::continuation(&engine.spec, &two, 5));
}

#[test]
fn a_request_that_waits_for_its_file_is_cancelled_once_and_holds_nobody_up() {
    let folder = Folder::new("cancel");
    let (mut engine, tokens) = beside_a_stream(&folder);
    let (one, two) = ([tokens.clone(), prompt(2, 5)].concat(), [tokens.clone(), prompt(3, 5)].concat());
    engine.apply(from_file(1, 0, &engine, one));
    engine.apply(copied(2, 1, 0, two.clone()));
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 1 });
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 1 });
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 100 });
    let late = read(&engine);
    engine.inner.on_read(late);
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!((outcome.ended[&1].len(), outcome.ended[&1][0].reason.clone()), (1, EndReason::Cancelled));
    assert_eq!((outcome.reused[&2], &outcome.tokens[&2]), (0, &fake::continuation(&engine.spec, &two, 5)));
}

#[test]
fn a_file_that_comes_after_a_reset_serves_nobody() {
    let folder = Folder::new("reset");
    let (mut engine, tokens) = beside_a_stream(&folder);
    engine.apply(from_file(1, 0, &engine, [tokens, prompt(2, 5)].concat()));
    engine.apply(EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
    let late = read(&engine);
    engine.inner.on_read(late);
    assert!(!engine.inner.has_work() && engine.outcome().ended.is_empty());
}

#[test]
fn an_idle_loop_admits_what_has_been_read() {
    let folder = Folder::new("idle");
    let (mut engine, tokens) = beside_a_stream(&folder);
    engine.apply(EngineCommand::Cancel { epoch: 1, request: 100 });
    engine.apply(from_file(1, 0, &engine, [tokens, prompt(2, 5)].concat()));
    let (_commands, queue) = crossbeam_channel::bounded(1);
    assert!(matches!(engine.inner.take_commands(&queue), Flow::Continue));
    assert_eq!(engine.outcome().reused[&1], 600);
}

#[test]
fn a_file_is_read_before_it_makes_room_for_what_its_reader_overwrites() {
    let folder = Folder::new("full");
    let tokens = prompt(1, 600);
    let mut engine = Engine::new(FakeSpec::default());
    drop(folder.with_file(&tokens, state(&tokens)));
    // Room for one of two.
    engine.inner.store = Some(folder.open_for(folder.bytes() * 3 / 2));
    engine.apply(EngineCommand::Admit(Box::new(admit(9, 3, prompt(3, 600), 1))));
    engine.run_dry();
    let asked = [tokens, prompt(2, 5)].concat();
    engine.apply(from_file(1, 3, &engine, asked.clone()));
    engine.run_dry();
    let outcome = engine.outcome();
    assert_eq!((outcome.reused[&1], &outcome.tokens[&1]), (600, &fake::continuation(&engine.spec, &asked, 5)));
}

#[test]
fn a_file_whose_state_is_refused_is_removed_and_said_to_be_gone() {
    let folder = Folder::new("refused");
    let tokens = prompt(1, 600);
    let mut engine = Engine::new(FakeSpec::default());
    // Whole and ours, but not what the model takes for 600 tokens.
    engine.inner.store = Some(folder.with_file(&tokens, vec![7; 100]));
    let asked = [tokens, prompt(2, 5)].concat();
    engine.apply(EngineCommand::Admit(Box::new(admit(9, 3, prompt(3, 50), 1))));
    engine.run_dry();
    engine.apply(from_file(1, 0, &engine, asked.clone()));
    assert!(engine.inner.slots[3].in_cells(), "nobody makes way for what can never be restored");
    engine.run_dry();
    assert_eq!(engine.outcome().tokens[&1], fake::continuation(&engine.spec, &asked, 5));
    let gone = |event: &EngineEvent| matches!(event, EngineEvent::Files { gone, .. } if !gone.is_empty());
    assert!(engine.events.borrow().iter().any(gone));
    assert_eq!(folder.files(), 0);
}

/// Sequence 0 is idle with a prefix that is worth a file, 1 runs.
fn worth_a_file(folder: &Folder, parked_limit: u32) -> Engine {
    let mut engine = Engine::new(FakeSpec { parked_limit, ..FakeSpec::default() });
    engine.inner.store = Some(folder.open());
    engine.inner.busy_bytes = 0;
    engine.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 600), 1))));
    engine.run_dry();
    engine.apply(EngineCommand::Admit(Box::new(admit(2, 1, prompt(2, 20), 100))));
    (0..3).for_each(|_| engine.step());
    engine
}

fn is_written(engine: &Engine) -> bool {
    engine.inner.store.as_ref().is_some_and(Store::is_busy)
}

#[test]
fn what_lies_in_memory_is_written_beside_others_whatever_its_size() {
    let folder = Folder::new("memory");
    for (parked_limit, written) in [(0, true), (u32::MAX, false)] {
        let mut engine = worth_a_file(&folder, parked_limit);
        engine.apply(EngineCommand::Evict { epoch: 1, sequence: 0 });
        assert_eq!(is_written(&engine), written, "copying it out of the cells would delay the others");
    }
}

#[test]
fn a_prefix_that_is_overwritten_gets_its_file_as_well() {
    let folder = Folder::new("overwritten");
    let mut engine = worth_a_file(&folder, 0);
    engine.apply(EngineCommand::Admit(Box::new(admit(3, 0, prompt(3, 10), 1))));
    assert!(is_written(&engine));
}
