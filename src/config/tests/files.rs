//! The files in `config/`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cllm_actors::engine::host::HostKind;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn load_file(name: &str) -> Loaded {
    let file = File::read(folder().join(name).to_string_lossy().into_owned());
    load(&Sources { file: Some(file), ..Sources::default() }, Purpose::Check).unwrap()
}

#[test]
fn every_file_in_the_folder_loads() {
    let names = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.len() >= 2, "{names:?}");
    for name in names {
        load_file(&name);
    }
}

#[test]
fn the_documented_file_has_every_key_at_its_default() {
    let written = std::fs::read_to_string(folder().join("cllm.yaml")).unwrap();
    let fresh = std::env::temp_dir().join("cllm.yaml");
    if written != documented_defaults() {
        std::fs::write(&fresh, documented_defaults()).unwrap();
        panic!("config/cllm.yaml is out of date: replace it by {}", fresh.display());
    }
    let loaded = load_file("cllm.yaml");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.origins.len(), sections::SECTIONS.iter().copied().flatten().count());
}

#[test]
fn the_seed_file_means_what_the_report_says() {
    let loaded = load_file("seed-recommended.yaml");
    let config = &loaded.config;
    assert_eq!((config.running(), config.retained()), (16, 200));
    assert_eq!((config.server.host.as_str(), config.server.port, config.server.worker_threads()), ("0.0.0.0", 8080, 8));
    assert_eq!(config.scheduler.deadlines().total, Duration::from_secs(120));
    assert_eq!(config.system_args().max_iterations, Some(2000));
    let cache = config.system_args().response_cache.unwrap();
    assert_eq!((cache.max_entries, cache.max_bytes, cache.eviction_threshold), (200, Some(8192 << 20), 0.9));
    assert_eq!(cache.cleanup_interval, Duration::from_millis(500));
    assert_eq!((config.model.max_context_length, config.model.quantization.as_str()), (2048, "q4_k_m"));
    assert_eq!((config.backend.llama_cpp.n_batch, config.backend.engine), (1024, Engine::Process));
    let HostKind::Process(process) = config.system_args().host else { panic!("an engine of its own") };
    assert_eq!(process.beat, Duration::from_millis(50));
    let notes: Vec<_> = loaded.notes.iter().map(Note::to_string).collect();
    insta::assert_snapshot!(notes.join("\n"), @r"
    note: 16 sequences run at once, the smallest of `scheduler.max_batch_size`, `resources.max_batch_size`, `backend.llama_cpp.n_seq_max`
    note: nothing is polled here, so these change no speed: `scheduler.loop_interval`, `scheduler.wait_poll_interval_ms`
    warning: other machines can reach `0.0.0.0`, and `server.api_keys` asks for no key
    ");
}
