//! What is refused, and what the message says.

use super::*;

#[test]
fn all_errors_of_all_sources_stand_in_one_message() {
    let text = "\
server:
  prot: 8080
  port: 99999
  api_keys: [12345, \"blake3:zz\"]
  cors_origins: [https://a.example, a.example]
sheduler:
  max_queue: 1
backend:
  engine: process
  llama_cpp:
    n_batch: 10
    type_v: q8_0
    flash_attn: disabled
    tensor_split: [1, -1]
n_ubatch: 1
logging: loud
";
    let variables = [
        ("CLLM_SERVER__HOTS", "x"),
        ("CLLM_SERVER_NUM_THREADS", "8"),
        ("CLLM_SERVER__USE_LIBTORCH", "yes"),
        ("CLLM_LOGGING__LEVEL", "inof"),
    ];
    let set = ["scheduler.max_queue=many", "model.pth=m", "server.host", "server.min_threads=", "server=1"];
    insta::assert_snapshot!(refused(text, &variables, &set), @r"
    19 errors in the configuration
      cllm.yaml:2:3: unknown key `server.prot`; did you mean `server.port`?
      cllm.yaml:3:9: `server.port` takes an integer from 0 to 65535, not `99999`
      cllm.yaml:4:14: `server.api_keys` takes a list of texts, not an integer (put it in quotes)
      cllm.yaml:5:37: `server.cors_origins`: `a.example` is no origin: it takes `*` or `scheme://host[:port]`, without path and final slash
      cllm.yaml:6:1: unknown key `sheduler`; did you mean `scheduler`?
      cllm.yaml:14:23: `backend.llama_cpp.tensor_split` takes a list of numbers of at least 0, not `-1`
      cllm.yaml:15:1: unknown key `n_ubatch`; did you mean `backend.llama_cpp.n_ubatch`?
      cllm.yaml:16:10: `logging` is a section with keys such as `logging.level`, not a text
      env CLLM_SERVER_NUM_THREADS: unknown variable; did you mean `CLLM_SERVER__NUM_THREADS`?
      env CLLM_SERVER__HOTS: unknown key `server.hots`; did you mean `CLLM_SERVER__HOST`?
      env CLLM_LOGGING__LEVEL: `logging.level`: `inof` is no level: it takes off, error, warn, info, debug, trace, or a filter such as `warn,cllm=debug`
      env CLLM_SERVER__USE_LIBTORCH: `server.use_libtorch` takes true or false, not `yes`
      flag --set: unknown key `model.pth`; did you mean `model.path`?
      flag --set: `server.host` has no value: it takes `key=value`
      flag --set: `server` is a section: set one of its keys, such as `server.host`
      flag --set: `scheduler.max_queue` takes an integer from 1 to 1000000, not `many`
      flag --set: `server.min_threads` takes an integer from 1 to 1024, not null
      cllm.yaml:11:14: `backend.llama_cpp.n_batch` is 10, fewer than the 48 sequences (16 running and 32 retained): raise it, or lower `resources.kv_cache_max_size`
      cllm.yaml:12:13: `backend.llama_cpp.type_v`: a quantised V cache needs flash attention, `backend.llama_cpp.flash_attn` disables it
    ");
}

#[test]
fn a_key_that_stands_twice_is_refused() {
    let text = "server:\n  port: 1\n  host: a\n  port: 2\nserver:\n  host: b\n";
    insta::assert_snapshot!(refused(text, &[], &[]), @r"
    2 errors in the configuration
      cllm.yaml:4:3: `server.port` stands twice: first in line 2
      cllm.yaml:5:1: `server` stands twice: first in line 1
    ");
    let set = ["server.port=1", "server.port=2"];
    insta::assert_snapshot!(refused("", &[], &set), @r"
    1 error in the configuration
      flag --set: `server.port` is set twice: first by --set
    ");
}

#[test]
fn a_file_that_is_no_mapping_is_refused() {
    insta::assert_snapshot!(refused("- server\n", &[], &[]), @r"
    1 error in the configuration
      cllm.yaml:1:1: the file must be a mapping of sections, not a list
    ");
    insta::assert_snapshot!(refused("server.port: 1\n", &[], &[]), @r"
    1 error in the configuration
      cllm.yaml:1:1: `server.port` must be written as nested sections, without dots
    ");
    insta::assert_snapshot!(refused("server: {port: {a: 1}}\n", &[], &[]), @r"
    1 error in the configuration
      cllm.yaml:1:16: `server.port` takes an integer from 0 to 65535, not a mapping
    ");
}

#[test]
fn a_syntax_error_has_a_place_and_hides_no_error_of_other_sources() {
    let message = refused("server:\n  port: [1\n", &[("CLLM_SERVER__PORT", "x")], &[]);
    assert!(message.contains("cllm.yaml:"), "{message}");
    assert!(
        message.contains("env CLLM_SERVER__PORT: `server.port` takes an integer from 0 to 65535, not `x`"),
        "{message}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let sources = Sources { file: Some(File::read("/no/such/file.yaml".to_owned())), ..Sources::default() };
    let message = load(&sources, Purpose::Check).unwrap_err().to_string();
    assert!(message.contains("/no/such/file.yaml: failed to read the file: "), "{message}");
}

#[test]
fn serving_without_a_model_is_refused() {
    let message = load(&Sources::default(), Purpose::Serve).unwrap_err().to_string();
    assert!(message.contains("`model.path` is not set"), "{message}");
}

#[test]
fn a_wrong_value_is_blamed_once() {
    let message = refused("backend: {engine: thraed, llama_cpp: {n_batch: 0}}", &[], &[]);
    assert!(message.starts_with("2 errors"), "{message}");
}

#[test]
fn secrets_never_show_in_messages() {
    let message = refused("", &[("CLLM_SERVER__API_KEYS", "[hush-hush")], &["server.api_keys=hush-hush"]);
    assert!(message.starts_with("2 errors"), "{message}");
    assert!(!message.contains("hush"), "{message}");
}

#[test]
fn the_nearest_name_is_suggested() {
    let suggestion = |path: &str| suggest::nearest(path);
    assert_eq!(suggestion("server.prot"), Some("server.port"));
    assert_eq!(suggestion("n_gpu_layers"), Some("backend.llama_cpp.n_gpu_layers"));
    assert_eq!(suggestion("resources.max_context_length"), Some("model.max_context_length"));
    assert_eq!(suggestion("backend.llama-cpp.n-batch"), Some("backend.llama_cpp.n_batch"));
    assert_eq!(suggestion("backend.lama_cpp"), Some("backend.llama_cpp"));
    assert_eq!(suggestion("scheduler.max-batch-size"), Some("scheduler.max_batch_size"));
    assert_eq!(suggestion("temperature"), None);
}

#[test]
fn origins_with_path_or_without_scheme_are_refused() {
    for origin in ["*", "http://localhost:3000", "https://a.example", "http://[::1]:80", "tauri://localhost"] {
        assert_eq!(rule::origin(origin), Ok(()), "{origin}");
    }
    for origin in ["", "a.example", "https://", "https://a.example/", "https://a.example:x", "http://a b", "null://:1"]
    {
        assert!(rule::origin(origin).is_err(), "{origin}");
    }
}

#[test]
fn a_host_with_a_port_or_scheme_is_refused() {
    for host in ["127.0.0.1", "::", "fe80::1%eth0", "localhost", "my-host.example"] {
        assert_eq!(rule::host(host), Ok(()), "{host}");
    }
    for host in ["", "127.0.0.1:80", "http://a", "a b"] {
        assert!(rule::host(host).is_err(), "{host}");
    }
}
