//! KV files: what a server has computed serves the next one, and damaged or foreign files harm nobody.

use std::path::PathBuf;

use serde_json::json;

use crate::client::Ask;
use crate::expected::{after, choice_text, text_body};
use crate::server::Server;

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cllm-it-kv-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    async fn serve(&self, settings: &[&str]) -> Server {
        let path = format!("kv_store.path={}", self.0.display());
        Server::start(&[&[path.as_str()], settings].concat()).await
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(&self.0).expect("the folder").map(|entry| entry.expect("readable").path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn long_prompt() -> String {
    "All that was said before, once more. ".repeat(60)
}

/// Asks for the long prompt with this key; gives the tokens found in the cache.
async fn cached(server: &Server, key: &str) -> u64 {
    let body = text_body(&long_prompt(), json!({ "max_tokens": 20 }));
    let ask = Ask::post("/v1/completions", &body).header("x-api-key", key);
    let answer = server.ask(ask).await.ok();
    assert_eq!(choice_text(&answer, 0), after(&long_prompt(), 20));
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
}

async fn stop(mut server: Server) {
    server.signal("TERM").await;
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_restarted_server_answers_a_known_prompt_without_prefilling_it() {
    for host in ["thread", "process"] {
        let folder = Folder::new(host);
        let settings = [format!("backend.fake.host={host}"), "server.api_keys=[mine, yours]".to_owned()];
        let settings = [settings[0].as_str(), settings[1].as_str()];
        let server = folder.serve(&settings).await;
        assert_eq!(cached(&server, "mine").await, 0);
        stop(server).await;
        assert_eq!(folder.files().len(), 1);
        let server = folder.serve(&settings).await;
        assert_eq!(cached(&server, "yours").await, 0, "another key's");
        assert_eq!(cached(&server, "mine").await, long_prompt().len() as u64 - 1);
        stop(server).await;
    }
}

#[tokio::test]
async fn damaged_foreign_and_missing_files_are_computed_anew() {
    let folder = Folder::new("damage");
    let server = folder.serve(&[]).await;
    cached(&server, "").await;
    stop(server).await;
    // Found whole at the start, damaged afterwards: noticed when it is read.
    let server = folder.serve(&[]).await;
    let path = folder.files().remove(0);
    let mut bytes = std::fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("writes");
    assert_eq!(cached(&server, "").await, 0);
    server.log_line(&["kv file is of no use"]).await;
    stop(server).await;
    // Cut short: noticed at the start.
    let path = folder.files().remove(0);
    let bytes = std::fs::read(&path).expect("reads");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
    let server = folder.serve(&[]).await;
    assert_eq!(cached(&server, "").await, 0);
    stop(server).await;
    // Another model's.
    let server = folder.serve(&["backend.fake.end_every=1000000000"]).await;
    assert_eq!(cached(&server, "").await, 0);
    stop(server).await;
    // Gone meanwhile.
    let server = folder.serve(&[]).await;
    folder.files().iter().for_each(|path| std::fs::remove_file(path).expect("removes"));
    assert_eq!(cached(&server, "").await, 0);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_a_warning() {
    let server = Server::start(&["kv_store.path=/proc/no/such/folder"]).await;
    server.log_line(&["no kv files"]).await;
    assert_eq!(cached(&server, "").await, 0);
}
