//! What the engine process says, and what it does not die of.

use super::*;
use crate::engine::frames::MAX_FRAME_BYTES;
use crate::engine::progress::{Activity, Sign};
use crate::engine::protocol::Held;
use crate::request::TenantId;

/// A pipe that keeps what was written.
#[derive(Debug, Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the server gets of some events, and whether the process ends by them.
fn told(events: Vec<EngineEvent>) -> (Vec<EngineEvent>, bool) {
    let pipe = Pipe::default();
    let out = Arc::new(Mutex::new(FrameWriter::new(pipe.clone())));
    let (ended, end) = bounded(2);
    let progress = PerThread::default();
    let sink = event_sink(&out, ended, Loading::default(), &progress);
    for event in events {
        let (before, own) = (progress.read(), speaker(&progress, &event).clone());
        let said = own.read().done;
        sink(event);
        assert_eq!(own.read().done, said + 1, "what is said is progress, and the beats alone tell of it");
        let sum = |signs: PerThread<Sign>| signs.engine.done + signs.vocabulary.done;
        assert_eq!(sum(progress.read()), sum(before) + 1, "and not the other thread's");
    }
    let bytes = pipe.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut reader = FrameReader::new(&*bytes);
    let mut told = Vec::new();
    while let Ok(Some(FromEngine::Event(event))) = reader.read() {
        told.push(event);
    }
    (told, !end.is_empty())
}

#[test]
fn an_answer_over_the_frame_is_an_error_and_not_the_end() {
    let text = vec![b'a'; MAX_FRAME_BYTES + 1];
    let long = EngineEvent::Detokenized { id: 7, result: Ok(text) };
    let short = EngineEvent::Detokenized { id: 8, result: Ok(vec![b'a']) };
    let (told, ended) = told(vec![long, short.clone()]);
    assert!(
        matches!(&told[0], EngineEvent::Detokenized { id: 7, result: Err(message) } if message.contains("too much"))
    );
    assert_eq!(told[1], short);
    assert!(!ended);
}

#[test]
fn an_inventory_over_the_frame_is_an_empty_one_and_a_step_over_it_the_end() {
    let held = Held { sequence: 0, tenant: TenantId::NOBODY, tokens: vec![1; MAX_FRAME_BYTES + 1] };
    let long = EngineEvent::Inventory { epoch: 3, sequences: vec![held], files: Vec::new() };
    let (heard, ended) = told(vec![long]);
    assert_eq!(heard, [EngineEvent::Inventory { epoch: 3, sequences: Vec::new(), files: Vec::new() }]);
    assert!(!ended);
    let event = EngineEvent::Loading { progress: 0.5 };
    let cause = in_its_place(event, &WriteError::TooLong(MAX_FRAME_BYTES + 1));
    assert!(matches!(cause, EngineEvent::Failed { .. }));
    assert!(told(vec![cause]).1);
}

#[test]
fn what_a_load_reads_is_progress_until_the_model_is_loaded() {
    let progress = PerThread::<Progress>::default();
    let loading = Arc::new(Mutex::new(Some(progress.engine.work())));
    let signs = Signs { progress: progress.clone(), loading: loading.clone(), beat: Duration::ZERO };
    let mut read = Some(100);
    signs.look_at_the_load(&mut read, || Some(100));
    let before = progress.engine.read();
    assert_eq!(before.activity, Activity::Working);
    signs.look_at_the_load(&mut read, || Some(200));
    assert_eq!((progress.engine.read().done, read), (before.done + 1, Some(200)));
    loading.lock().unwrap_or_else(PoisonError::into_inner).take();
    let loaded = progress.engine.read();
    signs.look_at_the_load(&mut read, || Some(300));
    assert_eq!(progress.engine.read(), Sign { activity: Activity::Idle, ..loaded });
}

#[test]
fn the_engine_goes_before_its_server_when_memory_runs_out() {
    assert_eq!([0, -300, 999, 1000].map(higher), [500, 200, 1000, 1000]);
}
