//! The file of the model is replaced by another model's, and the engine starts again: no stream goes on in another voice.

use super::*;
use crate::prompt::ChatTemplate;
use crate::response_cache::key::ModelIdentity;
use crate::wiring::LoadedModel;

/// A stream in full flow, over which a model is loaded that differs from its own by this; how it ends.
async fn with_model_changed(test: &str, change: impl FnOnce(&mut ModelInfo)) -> Result<Finished, GenerateError> {
    let spec = FakeSpec { step_time: Duration::from_millis(2), ..FakeSpec::default() };
    let system = start(test, spec.clone()).await;
    let mut stream = system.generate(request(&prompt(1), 300)).await.expect("admitted");
    first_tokens(&mut stream).await;
    let mut info = (*system.wiring().loaded().expect("loaded").info).clone();
    change(&mut info);
    let identity = ModelIdentity::of(&info, &EngineSpec::Fake(spec));
    let template = ChatTemplate::compile(None, None, None, Vec::new()).expect("compiles");
    system.wiring().model.send_replace(Some(Arc::new(LoadedModel { info: info.into(), template, identity })));
    actor(&system, names::SCHEDULER).kill();
    let ended = collect(stream).await.1;
    eventually("all permits are back", || system.in_flight() == 0).await;
    system.stop().await;
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_a_clear_error_when_another_model_was_loaded() {
    let ended = with_model_changed("replaced", |info| info.name = "another".to_owned()).await;
    let Err(GenerateError::EngineDown { cause, retry_after }) = ended else { panic!("{ended:?}") };
    assert_eq!(cause, "`fake` was replaced by `another` while the request was under way");
    assert!(retry_after.as_secs() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_when_the_same_model_has_got_another_context() {
    let ended = with_model_changed("resized", |info| (info.n_ctx, info.streams) = (info.n_ctx / 2, None)).await;
    assert_eq!(ended.map(|finished| finished.usage.completion_tokens), Ok(300));
}
