//! Which source wins, and how each source's values are read.

use std::time::Duration;

use cllm_actors::engine::spec::{EngineSpec, FlashAttention, KvType, LlamaSpec, SplitMode};

use super::*;

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let text = "server: {port: 1, max_body_mb: 2, num_threads: 3}";
    let variables = [("CLLM_SERVER__PORT", "10"), ("CLLM_SERVER__MAX_BODY_MB", "20")];
    let server = accepted(text, &variables, &["server.port=100"]).config.server;
    assert_eq!((server.port, server.max_body_mb, server.num_threads, server.min_threads), (100, 20, 3, 2));
}

#[test]
fn every_value_is_shown_with_its_source() {
    let text = "server:\n  port: 1\n  num_threads: 3\n";
    let sources = Sources {
        flags: vec![Flag::new("--port", "server.port", "0".to_owned()), Flag::set("logging.level=warn,cllm=debug")],
        ..sources(text, &[("CLLM_MODEL__ALIAS", "7")], &[])
    };
    let shown = load(&sources, Purpose::Check).unwrap().to_string();
    for line in [
        "  host: 127.0.0.1  # default",
        "  port: 0  # flag --port",
        "  num_threads: 3  # cllm.yaml:3",
        "  alias: \"7\"  # env CLLM_MODEL__ALIAS",
        "  level: \"warn,cllm=debug\"  # flag --set",
        "    n_batch: 2048  # default",
        "# warning: `model.path` is not set: name a GGUF file, with `--model` for example",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
    }
}

#[test]
fn the_default_model_is_served_only_where_nothing_else_names_one() {
    let served = |text: &str, variables: &[(&str, &str)], set: &[&str]| {
        let sources = Sources { default_model: Some("default.gguf".to_owned()), ..sources(text, variables, set) };
        load(&sources, Purpose::Serve).unwrap().config.model.path
    };
    assert_eq!(served("", &[], &[]), Some("default.gguf".into()));
    assert_eq!(served("model: {path: mine.gguf}", &[], &[]), Some("mine.gguf".into()));
    assert_eq!(served("", &[("CLLM_MODEL__PATH", "mine.gguf")], &[]), Some("mine.gguf".into()));
    assert_eq!(served("", &[], &["model.path=mine.gguf"]), Some("mine.gguf".into()));
    assert_eq!(served("backend: {engine: fake}", &[], &[]), None);
}

#[test]
fn text_values_become_the_types_of_their_keys() {
    let variables = [
        ("CLLM_BACKEND__LLAMA_CPP__TENSOR_SPLIT", "[3, 1.5]"),
        ("CLLM_BACKEND__LLAMA_CPP__N_GPU_LAYERS", "-1"),
        ("CLLM_BACKEND__LLAMA_CPP__USE_MMAP", "false"),
        ("CLLM_SCHEDULER__REQUEST_TIMEOUT", "120"),
        ("CLLM_SCHEDULER__MAX_BATCH_SIZE", "null"),
    ];
    let set =
        ["server.cors_origins=[\"*\", https://a.example:8443]", "model.alias=true", "backend.llama_cpp.type_k=q8_0"];
    let config = accepted("scheduler: {max_batch_size: 4}", &variables, &set).config;
    assert_eq!(config.backend.llama_cpp.tensor_split, [3.0, 1.5]);
    assert_eq!(config.backend.llama_cpp.n_gpu_layers, -1);
    assert!(!config.backend.llama_cpp.use_mmap);
    assert_eq!(config.scheduler.deadlines().total, Duration::from_secs(120));
    assert_eq!(config.scheduler.max_batch_size, None);
    assert_eq!(config.server.cors_origins, ["*", "https://a.example:8443"]);
    assert_eq!(config.model.alias.as_deref(), Some("true"));
    assert_eq!(config.backend.llama_cpp.type_k, KvType::Q8_0);
}

#[test]
fn every_key_of_llama_cpp_reaches_the_engine() {
    let text = "model: {path: m.gguf, max_context_length: 512}\n\
                scheduler: {max_batch_size: 3}\n\
                backend: {llama_cpp: {n_ctx: 4096, n_batch: 300, n_ubatch: 200, n_threads: 5, n_gpu_layers: 7, use_mmap: false, \
                use_mlock: true, type_k: q8_0, type_v: q4_0, kv_unified: true, flash_attn: enabled, main_gpu: 1, split_mode: row, \
                tensor_split: [3, 1.5], devices: [CUDA0, CUDA1]}}";
    let EngineSpec::Llama(spec) = accepted(text, &[], &[]).config.engine_spec() else { panic!("not llama.cpp") };
    let expected = LlamaSpec {
        n_ctx: Some(4096),
        max_context_length: 512,
        running: 3,
        n_batch: 300,
        n_ubatch: 200,
        n_threads: 5,
        n_gpu_layers: 7,
        use_mmap: false,
        use_mlock: true,
        type_k: KvType::Q8_0,
        type_v: KvType::Q4_0,
        kv_unified: true,
        flash_attn: FlashAttention::Enabled,
        main_gpu: 1,
        split_mode: SplitMode::Row,
        tensor_split: vec![3.0, 1.5],
        devices: vec!["CUDA0".to_owned(), "CUDA1".to_owned()],
        ..LlamaSpec { retained: spec.retained, ..LlamaSpec::new("m.gguf") }
    };
    assert_eq!(*spec, expected);
}

#[test]
fn an_empty_file_and_an_empty_section_change_nothing() {
    assert_eq!(accepted("", &[], &[]).config, Config::default());
    assert_eq!(accepted("# nothing\n", &[], &[]).config, Config::default());
    assert_eq!(accepted("server:\nbackend:\n  llama_cpp:\n", &[], &[]).config, Config::default());
}

#[test]
fn running_sequences_are_the_smallest_of_the_keys_that_are_set() {
    let running = |set: &[&str]| accepted("", &[], set).config.running();
    assert_eq!(running(&[]), 16);
    assert_eq!(running(&["scheduler.max_batch_size=64"]), 64);
    assert_eq!(running(&["scheduler.max_batch_size=64", "backend.llama_cpp.n_seq_max=3"]), 3);
    assert_eq!(running(&["resources.max_batch_size=1", "backend.llama_cpp.n_seq_max=3"]), 1);
}

#[test]
fn retained_prefixes_are_lowered_to_what_the_context_can_hold_and_a_note_says_so() {
    let loaded = accepted("resources: {kv_cache_max_size: 1000}", &[], &[]);
    assert_eq!(loaded.config.retained(), 240);
    let text = "`resources.kv_cache_max_size` is lowered from 1000 to 240: at most 256 sequences, 16 of them running";
    assert!(loaded.notes.contains(&Note::Info(text.to_owned())), "{:?}", loaded.notes);
}

#[test]
fn the_fake_engine_gets_its_times_and_needs_no_model() {
    let set = ["backend.engine=fake", "backend.fake.step_time_us=1500", "backend.fake.load_time_ms=20"];
    let loaded = load(&sources("scheduler: {max_batch_size: 5}", &[], &set), Purpose::Serve).unwrap();
    let EngineSpec::Fake(fake) = loaded.config.engine_spec() else { panic!("not the fake engine") };
    assert_eq!((fake.step_time, fake.load_time), (Duration::from_micros(1500), Duration::from_millis(20)));
    assert_eq!((fake.running, fake.retained), (5, 32));
}

#[test]
fn system_arguments_carry_the_limits() {
    let set = ["model.path=/m.gguf", "scheduler.max_queue=7", "scheduler.step_tokens=99", "scheduler.max_iterations=0"];
    let args = accepted("backend: {llama_cpp: {n_batch: 300, n_ctx: 1000}}", &[], &set).config.system_args();
    assert_eq!((args.max_queue, args.step_tokens, args.max_iterations), (7, 99, None));
    let EngineSpec::Llama(llama) = args.engine else { panic!("not llama.cpp") };
    assert_eq!(llama.path.to_str(), Some("/m.gguf"));
    assert_eq!((llama.n_batch, llama.n_ubatch), (300, 300));
    assert_eq!((llama.n_ctx, llama.max_context_length), (Some(1000), 1000));
}

#[test]
fn api_keys_are_kept_and_shown_as_hashes_only() {
    let hash = ApiKey::of("second").to_string();
    let loaded = accepted(&format!("server: {{api_keys: [first-secret, \"{hash}\"]}}"), &[], &[]);
    assert_eq!(loaded.config.server.api_keys, [ApiKey::of("first-secret"), ApiKey::of("second")]);
    assert!(!loaded.to_string().contains("first-secret"));
    assert!(!format!("{:?}", loaded.config).contains("first-secret"));
}

#[test]
fn keys_without_effect_are_named_in_a_note_when_changed() {
    let loaded = accepted("scheduler: {loop_interval: 5}\ncache: {cleanup_interval: 1000}", &[], &[]);
    let infos: Vec<_> = loaded.notes.iter().filter(|note| matches!(note, Note::Info(_))).collect();
    let expected = "nothing is polled here, so these change no speed: `scheduler.loop_interval`".to_owned();
    assert_eq!(infos, [&Note::Info(expected)]);
}

#[test]
fn an_open_address_without_api_keys_is_a_warning() {
    let warns =
        |set: &[&str]| accepted("", &[], set).notes.iter().any(|note| note.to_string().contains("other machines"));
    assert!(warns(&["server.host=0.0.0.0"]));
    assert!(!warns(&["server.host=0.0.0.0", "server.api_keys=[k]"]));
    assert!(!warns(&["server.host=::1"]));
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_are_ignored_with_a_note() {
    let loaded = accepted("", &[("CLLM_PORT", "tcp://10.0.0.1:80"), ("CLLM_SERVICE_HOST", "10.0.0.1")], &[]);
    let text = "these environment variables name no key and are ignored: CLLM_PORT, CLLM_SERVICE_HOST";
    assert_eq!(loaded.notes[0], Note::Info(text.to_owned()));
}

#[test]
fn connections_are_more_than_admitted_requests_unless_said_otherwise_which_is_a_warning() {
    let warned = |set: &[&str]| {
        let loaded = accepted("", &[], set);
        let warned = loaded.notes.iter().any(|note| note.to_string().starts_with("warning: `server.max_connections`"));
        (loaded.config.max_connections(), warned)
    };
    assert_eq!(warned(&[]), (2150, false));
    assert_eq!(warned(&["scheduler.max_queue=5000"]), (6524, false));
    assert_eq!(warned(&["server.max_connections=1126"]), (1126, false));
    assert_eq!(warned(&["server.max_connections=1125"]), (1125, true));
}
