//! What was computed once serves again, through whole systems with the real model.

use std::time::Duration;

use cllm_actors::boards::{backend, kv_cache};
use cllm_actors::engine::spec::{EngineSpec, KvStoreSpec, LlamaSpec};
use cllm_actors::request::Usage;
use cllm_actors::{GenerateRequest, GenerationEvent, Prompt, System, SystemArgs};
use futures_util::StreamExt;

use cllm_actors::engine::llama::load;
use cllm_actors::engine::model::Model;

use crate::{Sequence, greedy, spec};

/// Far beyond anything these tests take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

async fn start(instance: &str, spec: LlamaSpec) -> System {
    start_with(args(instance, spec)).await
}

fn args(instance: &str, spec: LlamaSpec) -> SystemArgs {
    System::builder().instance(instance).engine(EngineSpec::Llama(Box::new(spec))).build()
}

async fn start_with(args: SystemArgs) -> System {
    let system = System::start(args).await.expect("starts");
    tokio::time::timeout(PATIENCE, system.ready()).await.expect("in time").expect("the test model loads");
    system
}

const CAPITALS: [(&str, &str); 4] =
    [("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid")];

/// So many sentences of seven tokens that begin alike for every `who`, and the beginning of one that is its own. After
/// that the model is sure of itself, whatever it was computed beside.
fn prompt(sentences: usize, who: usize) -> String {
    let sentences = CAPITALS.iter().cycle().take(sentences);
    let known: String = sentences.map(|(country, city)| format!("The capital of {country} is {city}. ")).collect();
    format!("{known}The capital of {} is", CAPITALS[who % CAPITALS.len()].0)
}

fn request(prompt: String) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Text(prompt.into()));
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(2);
    request
}

/// Its text and its bill.
async fn run(system: &System, prompt: String) -> (String, Usage) {
    let mut generation = system.generate(request(prompt)).await.expect("admitted");
    let mut text = String::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, generation.next()).await.expect("in time") {
        match event {
            GenerationEvent::Delta(delta) => text.push_str(&delta.text),
            GenerationEvent::Finished(finished) => return (text, finished.usage),
            GenerationEvent::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    panic!("a generation has an end")
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let polled = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_goes_on_where_a_cancelled_prefill_stopped() {
    let system = start("llama-retry", spec()).await;
    let impatient = system.generate(request(prompt(60, 0))).await.expect("admitted");
    let boards = &system.wiring().boards;
    until("some of the prompt is computed", || boards.backend.get(backend::CELLS_USED) >= Some(64)).await;
    drop(impatient);
    until("what it computed is kept", || boards.kv_cache.get(kv_cache::ENTRIES) == Some(1)).await;
    let (text, usage) = run(&system, prompt(60, 0)).await;
    assert!(text.starts_with(" Paris"), "{text}");
    assert!((64..usage.prompt_tokens).contains(&usage.cached_tokens), "{usage:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_new_prefix_is_prefilled_once_and_each_gets_its_own_text() {
    let system = start("llama-together", spec()).await;
    let together = (0..4).map(|who| run(&system, prompt(20, who)));
    let answers = futures_util::future::join_all(together).await;
    for ((text, _), (_, city)) in answers.iter().zip(CAPITALS) {
        assert!(text.starts_with(&format!(" {city}")), "{text}");
    }
    let mut missing: Vec<u32> = answers.iter().map(|(_, usage)| usage.prompt_tokens - usage.cached_tokens).collect();
    missing.sort_unstable();
    assert!(missing[3] >= 140, "somebody has to: {missing:?}");
    assert!(missing[2] <= 5, "{missing:?}");
    system.stop().await;
}

/// The prompt is long enough for its file to be read beside the loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_system_finds_what_the_last_one_has_computed() {
    let path = std::env::temp_dir().join(format!("cllm-llama-kv-{}", std::process::id()));
    let spec = LlamaSpec {
        n_ctx: Some(2048),
        max_context_length: 1024,
        n_batch: 256,
        kv_store: Some(KvStoreSpec { path: path.clone(), max_bytes: 1 << 30 }),
        ..spec()
    };
    let first = start("llama-files-1", spec.clone()).await;
    assert_eq!(run(&first, prompt(115, 0)).await.1.cached_tokens, 0);
    first.stop().await;
    let second = start("llama-files-2", spec).await;
    let (text, usage) = run(&second, prompt(115, 0)).await;
    let (other_text, other_usage) = run(&second, prompt(115, 1)).await;
    second.stop().await;
    let _ = std::fs::remove_dir_all(&path);
    assert!(text.starts_with(" Paris") && other_text.starts_with(" Berlin"), "{text}, {other_text}");
    assert_eq!(usage.cached_tokens, usage.prompt_tokens - 1);
    assert!(other_usage.prompt_tokens - other_usage.cached_tokens <= 5, "what is common, whatever comes after it");
}

/// Both ends of what `resources.kv_cache_max_memory_mb` promises: as many prefixes are kept as fit, and what they are
/// counted with is what they take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_prefixes_take_the_memory_that_they_may_within_five_percent() {
    const BUDGET: u64 = 8 << 20;
    let spec = LlamaSpec { n_ctx: Some(4096), n_batch: 128, retained: 64, ..spec() };
    let bytes_per_token = {
        let mut engine = load(&spec, |_| true).expect("the test model loads");
        let tokens: Vec<_> = (0..64).map(|at| 1000 + at).collect();
        greedy(&mut engine, &mut Sequence::new(0, &tokens), 64, 1);
        engine.save(0).expect("a state").len() as f64 / 64.0
    };
    let system = start_with(SystemArgs { retained_bytes: Some(BUDGET), ..args("llama-budget", spec) }).await;
    for number in 0..40 {
        run(&system, format!("{number} {number} is how we begin, and nobody else does. ")).await;
    }
    let board = &system.wiring().boards.kv_cache;
    let (entries, tokens) = (board.get(kv_cache::ENTRIES), board.get(kv_cache::RETAINED_TOKENS));
    let (entries, bytes) = (entries.expect("shown"), tokens.expect("shown") as f64 * bytes_per_token);
    system.stop().await;
    assert!(entries < 40, "{entries} of 40: nothing was forgotten");
    let share = bytes / BUDGET as f64;
    assert!((0.95..=1.0).contains(&share), "{entries} prefixes take {bytes} bytes, {share:.3} of the budget");
}
