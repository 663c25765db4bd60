use cllm_actors::FinishReason;
use cllm_actors::request::{Delta, Timings, Usage};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

fn delta(text: &str) -> GenerationEvent {
    GenerationEvent::Delta(Delta {
        text: text.to_owned(),
        ..Delta::default()
    })
}

fn finished() -> GenerationEvent {
    let (usage, timings) = (Usage::default(), Timings::default());
    GenerationEvent::Finished(Finished {
        reason: FinishReason::Length,
        usage,
        timings,
    })
}

#[tokio::test]
async fn the_deltas_of_each_sequence_become_its_text() {
    let first = stream::iter(vec![delta("a"), delta("b"), finished()]);
    let second = stream::iter(vec![
        GenerationEvent::Queued { position: 3 },
        delta("x"),
        finished(),
    ]);
    let outcomes = Sequences::new(vec![first, second]).collect().await.unwrap();
    let texts: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.text.as_str())
        .collect();
    assert_eq!(texts, ["ab", "x"]);
}

#[tokio::test]
async fn a_session_that_vanishes_is_an_error_and_no_short_answer() {
    let error = Sequences::new(vec![stream::iter(vec![delta("a")])])
        .collect()
        .await
        .unwrap_err();
    assert!(matches!(error, GenerateError::Internal(_)));
}

#[tokio::test]
async fn one_failure_cancels_the_other_choices() {
    let (running, receiver) = mpsc::channel(1);
    let (failing, failed) = mpsc::channel(1);
    failing
        .send(GenerationEvent::Failed(GenerateError::ShuttingDown))
        .await
        .unwrap();
    let sequences = Sequences::new(vec![
        ReceiverStream::new(receiver),
        ReceiverStream::new(failed),
    ]);
    assert_eq!(
        sequences.collect().await.unwrap_err(),
        GenerateError::ShuttingDown
    );
    assert!(running.is_closed());
}

#[tokio::test]
async fn nothing_follows_the_end_of_a_sequence() {
    let events: Vec<_> = Sequences::new(vec![stream::iter(vec![finished(), delta("late")])])
        .map(|(at, _)| at)
        .collect()
        .await;
    assert_eq!(events, [0]);
}
