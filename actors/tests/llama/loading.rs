//! What a load tells, and how it fails.

use std::fs;

use cllm_actors::engine::llama::{LoadError, load};
use cllm_actors::engine::model::Model;
use cllm_actors::engine::protocol::MemoryKind;
use cllm_actors::engine::spec::LlamaSpec;

use crate::{PROMPT, engine, greedy_from_scratch, model_path, scratch, spec};

#[test]
fn the_model_describes_itself() {
    let engine = engine();
    let info = engine.info();
    assert_eq!((info.architecture.as_str(), info.n_vocab, info.n_layer), ("llama", 49_152, 30));
    assert_eq!((info.n_ctx, info.n_ctx_seq, info.n_seq_max, info.n_batch), (1024, 512, 8, 64));
    // 30 layers, 3 heads of 64 elements, K and V, two bytes each.
    assert_eq!(info.kv_bytes_per_token, 30 * 3 * 64 * 2 * 2);
    assert_eq!(info.memory, MemoryKind::Attention);
    assert!(info.chat_template.is_some());
    assert!(info.system.contains("CPU"), "{}", info.system);
    assert!(
        info.metadata.iter().any(|(key, value)| key == "general.file_type" && value == "Q4_1"),
        "{:?}",
        info.metadata
    );
    assert!(!info.end_tokens.is_empty());
}

#[test]
fn loading_reports_progress_and_can_be_cancelled() {
    let mut seen = Vec::new();
    load(&spec(), |progress| {
        seen.push(progress);
        true
    })
    .expect("loads");
    assert!(seen.is_sorted() && seen.last() == Some(&1.0), "{seen:?}");
    assert!(matches!(load(&spec(), |_| false), Err(LoadError::Cancelled)));
}

#[test]
fn a_panic_of_the_progress_callback_passes_through() {
    let panic = std::panic::catch_unwind(|| load(&spec(), |_| panic!("from the callback")).map(drop));
    assert_eq!(panic.expect_err("a panic").downcast_ref::<&str>(), Some(&"from the callback"));
}

fn load_error(spec: &LlamaSpec) -> String {
    let error = load(spec, |_| true).map(|_| ()).expect_err("a bad model").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_file_that_is_no_whole_model_is_named_with_its_fault() {
    let whole = fs::read(model_path()).expect("the test model");
    let wrong = |name: &str, bytes: &[u8]| {
        let path = scratch(name, bytes);
        let error = load_error(&LlamaSpec { path: path.clone(), ..spec() });
        fs::remove_file(path).expect("our own file");
        error
    };
    assert!(wrong("garbage.gguf", &[0xA5; 4096]).contains("not a GGUF file"));
    assert!(wrong("empty.gguf", &[]).contains("not a GGUF file"));
    let cut = wrong("cut.gguf", &whole[..whole.len() - 1000]);
    assert!(cut.contains("cut.gguf") && cut.contains("truncated"), "{cut}");
    assert!(wrong("head.gguf", &whole[..5000]).contains("truncated"));
    let missing = load_error(&LlamaSpec { path: "/nonexistent.gguf".into(), ..spec() });
    assert!(missing.contains("/nonexistent.gguf") && missing.contains("No such file"), "{missing}");
}

#[test]
fn what_llama_refuses_is_told_in_its_words() {
    let mut bytes = fs::read(model_path()).expect("the test model");
    let value = b"general.architecture".len() + 12;
    let at = bytes.windows(20).position(|window| window == b"general.architecture").expect("the key") + value;
    assert_eq!(&bytes[at..at + 5], b"llama");
    bytes[at..at + 5].copy_from_slice(b"nope!");
    let path = scratch("architecture.gguf", &bytes);
    let error = load_error(&LlamaSpec { path: path.clone(), ..spec() });
    fs::remove_file(path).expect("our own file");
    assert!(error.contains("unknown model architecture: 'nope!'"), "{error}");
}

#[test]
fn bad_parameters_are_refused_before_loading() {
    let error = load_error(&LlamaSpec { devices: vec!["CUDA7".to_owned()], ..spec() });
    assert!(error.contains("CUDA7"), "{error}");
    let error = load_error(&LlamaSpec { tensor_split: vec![1.0; 1000], ..spec() });
    assert!(error.contains("tensor_split"), "{error}");
    let error = load_error(&LlamaSpec { n_batch: 2, ..spec() });
    assert!(error.contains("n_batch"), "{error}");
}

#[test]
fn a_context_that_does_not_fit_is_an_error() {
    let spec = LlamaSpec { n_ctx: Some(1 << 31), ..spec() };
    let error = load_error(&spec);
    assert!(error.contains("cannot create a context") && error.contains("MiB"), "{error}");
}

#[test]
fn layers_for_a_missing_gpu_stay_on_the_cpu() {
    let mut engine = load(&LlamaSpec { n_gpu_layers: 10, ..spec() }, |_| true).expect("loads");
    assert!(!greedy_from_scratch(&mut engine, PROMPT, 64).is_empty());
}
