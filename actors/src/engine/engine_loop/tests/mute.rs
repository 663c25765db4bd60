//! A model that gives no logits fails: no request ends as if it were done.

use super::*;
use crate::engine::model::{DecodeError, Model, Vocabulary};
use crate::engine::protocol::ModelInfo;

/// The fake without its logits.
struct Mute(FakeModel);

impl Model for Mute {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    fn vocabulary(&self) -> Arc<dyn Vocabulary> {
        self.0.vocabulary()
    }

    fn decode(&mut self, batch: &Batch) -> Result<(), DecodeError> {
        self.0.decode(batch)
    }

    fn rest(&mut self, sequence: SequenceId) {
        self.0.rest(sequence);
    }

    fn logits(&self, _row: usize) -> &[f32] {
        &[]
    }

    fn truncate(&mut self, sequence: SequenceId, from: u32) -> bool {
        self.0.truncate(sequence, from)
    }

    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    fn save(&mut self, sequence: SequenceId) -> Option<Vec<u8>> {
        self.0.save(sequence)
    }

    fn restore(&mut self, sequence: SequenceId, state: &[u8], tokens: u32) -> bool {
        self.0.restore(sequence, state, tokens)
    }

    fn copy(&mut self, from: SequenceId, to: SequenceId, tokens: u32) -> bool {
        self.0.copy(from, to, tokens)
    }
}

#[test]
fn no_logits_are_a_failure_of_the_engine() {
    for prompt_logprobs in [None, Some(2)] {
        let events: Events = Rc::default();
        let sink = events.clone();
        let model = Mute(FakeModel::load(&FakeSpec::default()).expect("the fake loads"));
        let mut inner = EngineLoop::new(model, Progress::default(), move |event| sink.borrow_mut().push(event));
        let _ = inner.apply(EngineCommand::Reset { epoch: 1, cut_off_first: Duration::ZERO });
        let admit = Admit { prompt_logprobs, ..admit(1, 0, prompt(1, 10), 5) };
        let _ = inner.apply(EngineCommand::Admit(Box::new(admit)));
        let cause = inner.step().expect_err("there is nothing to draw from");
        assert!(cause.contains("no logits"), "{cause}");
        assert!(!events.borrow().iter().any(|event| matches!(event, EngineEvent::Ended(_))));
    }
}
