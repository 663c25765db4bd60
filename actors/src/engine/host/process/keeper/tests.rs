//! When an engine is taken for a hung one.

use super::*;

const WATCHDOG: Duration = Duration::from_secs(10);

fn patience(start: Instant) -> Patience {
    Patience::new(WATCHDOG, Duration::from_millis(250), start)
}

/// What is heard of a loop that has got so much done, while nobody asks the vocabulary anything.
fn engine(done: u64, activity: Activity) -> PerThread<Sign> {
    PerThread { engine: Sign { done, activity }, vocabulary: Sign { done: 0, activity: Activity::Idle } }
}

fn after(seconds: u64, start: Instant) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn only_work_without_progress_is_a_hang() {
    let start = Instant::now();
    let mut patience = Patience { loaded: true, ..patience(start) };
    patience.on_beat(engine(1, Activity::Working), after(9, start));
    assert_eq!(patience.judge(after(18, start)), Judgement::Wait, "progress nine seconds ago");
    patience.on_beat(engine(1, Activity::Working), after(18, start));
    assert_eq!(patience.judge(after(20, start)), Judgement::Hung(Some(EngineThread::Loop)), "beats without progress");
    patience.on_beat(engine(1, Activity::Idle), after(20, start));
    assert_eq!(patience.judge(after(29, start)), Judgement::Wait, "nothing to do");
    assert_eq!(patience.judge(after(31, start)), Judgement::Ask, "not even a beat");
    patience.on_answer(after(31, start));
    assert_eq!(patience.judge(after(31, start)), Judgement::Wait, "it may just be read");
    assert_eq!(patience.judge(after(33, start)), Judgement::Hung(None), "the runtime runs, and there is no beat");
}

#[test]
fn a_thread_that_gets_on_does_not_excuse_the_one_that_hangs() {
    let busy = |done| Sign { done, activity: Activity::Working };
    let start = Instant::now();
    // A text may take longer than a step.
    for (thread, found_after) in [(EngineThread::Loop, 12), (EngineThread::Vocabulary, 102)] {
        let mut patience = Patience { loaded: true, ..patience(start) };
        for second in 1..=found_after {
            let (hung, alive) = (busy(1), busy(second));
            let (engine, vocabulary) = if thread == EngineThread::Loop { (hung, alive) } else { (alive, hung) };
            patience.on_beat(PerThread { engine, vocabulary }, after(second, start));
            let expected = if second == found_after { Judgement::Hung(Some(thread)) } else { Judgement::Wait };
            assert_eq!(patience.judge(after(second, start)), expected, "{second} s, {thread:?}");
        }
    }
}

#[test]
fn a_load_may_take_longer() {
    let start = Instant::now();
    let mut patience = patience(start);
    assert_eq!(patience.judge(after(99, start)), Judgement::Wait);
    assert_eq!(patience.judge(after(101, start)), Judgement::Ask);
    assert_eq!(patience.epitaph(None), "no progress for 100000 ms while loading, killed by the watchdog");
    let loaded = Patience { loaded: true, ..patience };
    assert_eq!(loaded.epitaph(None), "no progress for 10000 ms, killed by the watchdog");
    let text = loaded.epitaph(Some(EngineThread::Vocabulary));
    assert_eq!(text, "no progress for 100000 ms with a text, killed by the watchdog");
}

#[test]
fn a_server_that_stood_still_blames_nobody() {
    let start = Instant::now();
    let mut patience = Patience { loaded: true, ..patience(start) };
    patience.on_look(after(1, start));
    patience.on_look(after(3600, start));
    assert_eq!(patience.judge(after(3600, start)), Judgement::Wait, "it may have slept as well");
    for second in 3600..3612 {
        patience.on_look(after(second, start));
    }
    assert_eq!(patience.judge(after(3612, start)), Judgement::Ask, "awake for twelve seconds");
    let mut patience = Patience { loaded: true, ..self::patience(start) };
    (1..10).for_each(|look| patience.on_look(after(2 * look, start)));
    assert_eq!(patience.judge(after(18, start)), Judgement::Ask, "one that stands still all the time waits no longer");
}

#[test]
fn an_engine_is_not_killed_because_nobody_reads_its_beats() {
    let start = Instant::now();
    let asked = || {
        let mut patience = Patience { loaded: true, ..patience(start) };
        patience.on_beat(engine(1, Activity::Working), start);
        assert_eq!(patience.judge(after(11, start)), Judgement::Ask);
        patience
    };
    let mut patience = asked();
    assert_eq!(patience.judge(after(60, start)), Judgement::Wait, "the runtime stands still");
    patience.on_answer(after(60, start));
    // Said 59 seconds ago, and further ones lie in the pipe.
    patience.on_beat(engine(1, Activity::Working), after(60, start));
    assert_eq!(patience.judge(after(60, start)), Judgement::Wait, "what it did meanwhile is not read yet");
    patience.on_beat(engine(1, Activity::Working), after(61, start));
    assert_eq!(patience.judge(after(71, start)), Judgement::Hung(Some(EngineThread::Loop)), "it did nothing");
    assert_eq!(asked().judge(after(103, start)), Judgement::Hung(None), "not for ever");
}

#[test]
fn a_runtime_answers_when_it_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let question = Question::ask(runtime.handle());
    assert!(!question.is_answered(), "nobody drives it");
    runtime.block_on(async {
        while !question.is_answered() {
            tokio::task::yield_now().await;
        }
    });
}
