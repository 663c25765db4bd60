//! What the loop does for a command is work, so that a watchdog finds it when it hangs there.

use std::cell::Cell;

use super::*;
use crate::engine::model::{DecodeError, Model, Vocabulary};
use crate::engine::progress::Activity;
use crate::engine::protocol::ModelInfo;

/// The fake, which looks at the progress where a state is copied, and hears who rests.
struct Observed {
    model: FakeModel,
    progress: Progress,
    seen: Rc<Cell<Option<Activity>>>,
    rested: Rc<RefCell<Vec<SequenceId>>>,
}

impl Model for Observed {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn vocabulary(&self) -> Arc<dyn Vocabulary> {
        self.model.vocabulary()
    }

    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        self.model.decode(batch)
    }

    fn rest(&mut self, sequence: SequenceId) {
        self.rested.borrow_mut().push(sequence);
    }

    fn logits(&self, row: usize) -> &[f32] {
        self.model.logits(row)
    }

    fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool {
        self.seen.set(Some(self.progress.read().activity));
        self.model.truncate(sequence, from)
    }

    fn fingerprint(&self) -> String {
        self.model.fingerprint()
    }

    fn save(&mut self, sequence: SequenceId) -> Option<Vec<u8>> {
        self.model.save(sequence)
    }

    fn restore(&mut self, sequence: SequenceId, state: &[u8], tokens: u32) -> bool {
        self.model.restore(sequence, state, tokens)
    }

    fn copy(&mut self, from: SequenceId, to: SequenceId, tokens: u32) -> bool {
        self.seen.set(Some(self.progress.read().activity));
        self.model.copy(from, to, tokens)
    }
}

#[test]
fn a_copy_and_an_eviction_are_work_and_a_loop_between_commands_is_idle() {
    let (progress, seen) = (Progress::default(), Rc::new(Cell::new(None)));
    let model = FakeModel::load(&FakeSpec::default()).expect("the fake loads");
    let model = Observed { model, progress: progress.clone(), seen: seen.clone(), rested: Rc::default() };
    let mut inner = EngineLoop::new(model, progress.clone(), |_| ());
    let _ = inner.apply(EngineCommand::Reset { epoch: 1, cut_off_first: Duration::ZERO });
    let _ = inner.apply(EngineCommand::Admit(Box::new(admit(1, 0, prompt(1, 10), 1))));
    inner.step().expect("the fake decodes");
    let placement = Placement::Copy { from: 0, tokens: 9 };
    let copied = Admit { placement, ..admit(2, 1, prompt(1, 10), 1) };
    for command in [EngineCommand::Admit(Box::new(copied)), EngineCommand::Evict { epoch: 1, sequence: 0 }] {
        seen.set(None);
        let before = progress.read().done;
        let _ = inner.apply(command);
        assert_eq!(seen.get(), Some(Activity::Working));
        assert_eq!(progress.read().activity, Activity::Idle);
        assert!(progress.read().done > before, "what was done is progress");
    }
}

#[test]
fn who_ends_is_cancelled_or_reset_rests_and_nobody_else() {
    let rested = Rc::new(RefCell::new(Vec::new()));
    let model = FakeModel::load(&FakeSpec::default()).expect("the fake loads");
    let model = Observed { model, progress: Progress::default(), seen: Rc::default(), rested: rested.clone() };
    let mut inner = EngineLoop::new(model, Progress::default(), |_| ());
    let _ = inner.apply(EngineCommand::Reset { epoch: 1, cut_off_first: Duration::ZERO });
    for (request, sequence, tokens) in [(1, 0, 1), (2, 1, 100), (3, 2, 100)] {
        let _ = inner.apply(EngineCommand::Admit(Box::new(admit(request, sequence, prompt(request, 10), tokens))));
    }
    assert!(rested.take().is_empty());
    inner.step().expect("the fake decodes");
    assert_eq!(rested.take(), [0], "it has its one token");
    let _ = inner.apply(EngineCommand::Cancel { epoch: 1, request: 2 });
    assert_eq!(rested.take(), [1]);
    let _ = inner.apply(EngineCommand::Reset { epoch: 2, cut_off_first: Duration::ZERO });
    assert_eq!(rested.take(), [2]);
}
