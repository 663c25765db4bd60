//! How `serve` starts, and how it says that it cannot.

use std::net::TcpListener;
use std::process::ExitStatus;

use serde_json::json;

use crate::client::{Ask, soon};
use crate::server::{Process, Server, with_settings};

/// Runs `serve` to its end.
async fn serve(arguments: &[&str], settings: &[&str]) -> (ExitStatus, String) {
    Process::start(&with_settings(arguments, settings)).exit_and_log().await
}

/// Checks that it failed with exit code 1 and one clear line that has all these parts.
#[track_caller]
fn assert_fails_clearly((status, log): &(ExitStatus, String), parts: &[&str]) {
    assert_eq!(status.code(), Some(1), "{log}");
    let errors: Vec<&str> = log.lines().filter(|line| line.starts_with("error:")).collect();
    let [error] = errors[..] else { panic!("not one line: {log}") };
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    assert_eq!(log.lines().last(), Some(error), "it is the last word");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn a_ready_server_says_where_and_what_it_serves() {
    let server = Server::start(&[]).await;
    assert_eq!(server.ready_line, format!("cllm ready at http://{} (model fake)\n", server.address));
    assert_eq!(server.get("/readyz").await.ok(), json!({ "status": "ok" }));
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = serve(&["--engine", "fake", "--port", &port], &[]).await;
    assert_fails_clearly(&ended, &["failed to listen on", &port, "in use"]);
}

#[tokio::test]
async fn a_model_that_does_not_load_is_one_clear_line() {
    let settings = ["backend.fake.load_failure=the file is made of cheese"];
    let ended = serve(&["--engine", "fake", "--port", "0"], &settings).await;
    assert_fails_clearly(&ended, &["failed to load the model", "the file is made of cheese"]);
}

#[tokio::test]
async fn while_the_model_loads_the_server_lives_and_is_not_ready() {
    // Free a moment ago; nobody else is given it so soon.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let arguments = ["--engine", "fake", "--port", &port.to_string()];
    let mut process = Process::start(&with_settings(&arguments, &["backend.fake.load_time_ms=60000"]));
    let address = ([127, 0, 0, 1], port).into();
    let listening = async {
        loop {
            if let Ok(stream) = Ask::get("/livez").send(address).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(soon("it listens", listening).await.status, 200);
    let ready = Ask::get("/readyz").send(address).await.unwrap().answer().await;
    assert_eq!((ready.status.as_u16(), &ready.json()["status"]), (503, &json!("loading")), "{}", process.log());
    let early = Ask::post("/v1/completions", &json!({ "prompt": "hi" })).send(address).await.unwrap().answer().await;
    assert_eq!((early.status.as_u16(), &early.json()["error"]["code"]), (503, &json!("model_loading")));
    assert!(!early.header("retry-after").is_empty());
    process.signal("TERM").await;
    assert_eq!(process.exit().await.code(), Some(0));
}

/// What only llama.cpp can refuse.
#[cfg(feature = "llama")]
mod model_files {
    use std::path::PathBuf;

    use super::{assert_fails_clearly, serve};

    /// A file of its own for each test.
    fn file(name: &str, bytes: &[u8]) -> PathBuf {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, bytes).expect("the folder for temporary files is ours");
        path
    }

    /// A GGUF header, version 3: no tensors and these entries, each a key with a text.
    fn gguf(entries: &[(&str, &str)]) -> Vec<u8> {
        const STRING: u32 = 8;
        let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((entries.len() as u64).to_le_bytes());
        for (key, value) in entries {
            bytes.extend(text(key));
            bytes.extend(STRING.to_le_bytes());
            bytes.extend(text(value));
        }
        bytes
    }

    async fn assert_refused(path: &std::path::Path) {
        let path = path.to_str().expect("our paths are UTF-8");
        for engine in ["thread", "process"] {
            let ended = serve(&["--engine", engine, "--port", "0", "--model", path], &[]).await;
            assert_fails_clearly(&ended, &["failed to load", path]);
        }
    }

    #[tokio::test]
    async fn a_missing_model_is_one_clear_line() {
        assert_refused(&PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-such-model.gguf")).await;
    }

    #[tokio::test]
    async fn a_file_that_is_no_model_is_one_clear_line() {
        assert_refused(&file("text.gguf", b"This is a text and no model at all, however it is called.")).await;
        assert_refused(&file("empty.gguf", b"")).await;
    }

    #[tokio::test]
    async fn a_truncated_model_is_one_clear_line() {
        let whole = gguf(&[("general.architecture", "llama"), ("general.name", "cut")]);
        assert_refused(&file("truncated.gguf", &whole[..whole.len() - 7])).await;
    }

    #[tokio::test]
    async fn an_unknown_architecture_is_one_clear_line() {
        assert_refused(&file("unknown.gguf", &gguf(&[("general.architecture", "perpetuum-mobile")]))).await;
    }

    #[tokio::test]
    async fn a_folder_is_one_clear_line() {
        assert_refused(std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))).await;
    }

    #[tokio::test]
    async fn a_file_without_permission_is_one_clear_line() {
        use std::os::unix::fs::PermissionsExt;
        // Root may read it all the same, and then finds no model in it.
        let path = file("locked.gguf", b"none of your business");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("it is ours");
        assert_refused(&path).await;
        std::fs::remove_file(&path).expect("it is ours");
    }
}
