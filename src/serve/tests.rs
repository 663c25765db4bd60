//! The first load and the signals.

use cllm_actors::system::Status;
use tokio::sync::watch;

use super::first_load;
use crate::serve::Signal;

#[tokio::test]
async fn a_model_that_fails_at_the_first_try_ends_the_server_with_its_cause() {
    let (status, follow) = watch::channel(Status::Loading { progress: 0.0 });
    let waiting = tokio::spawn(first_load(follow));
    status.send_replace(Status::Loading { progress: 0.5 });
    status.send_replace(Status::Failed { cause: "not a GGUF file".to_owned() });
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "failed to load the model: not a GGUF file");
}

#[tokio::test]
async fn a_loaded_model_lets_the_server_go_on() {
    let (status, follow) = watch::channel(Status::Loading { progress: 1.0 });
    status.send_replace(Status::Ready);
    first_load(follow).await.unwrap();
}

#[test]
fn a_second_signal_exits_with_the_code_a_shell_expects() {
    assert_eq!((Signal::Interrupt.exit_code(), Signal::Terminate.exit_code()), (130, 143));
}
