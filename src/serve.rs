//! Runs the server.

use cllm::config::Config;

/// Serves until a signal comes.
pub(crate) async fn run(_config: Config) -> anyhow::Result<()> {
    anyhow::bail!("the HTTP side is not built yet")
}
