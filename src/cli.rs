//! The command line: what can be typed, and how it becomes sources of configuration.

use clap::{Args, Parser, Subcommand};
use cllm::config::{Flag, Sources};

mod bench;

use bench::BenchArgs;

/// An LLM inference server built as a system of supervised actors.
#[derive(Debug, Parser)]
#[command(name = "cllm", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a model over HTTP.
    Serve {
        /// Configuration file; the variable CLLM_CONFIG names one, too.
        #[arg(long, value_name = "FILE")]
        config: Option<String>,
        /// GGUF file to serve if no file, variable or flag names one
        #[arg(long, value_name = "PATH")]
        default_model: Option<String>,
        /// When ready, print on stdout what to try
        #[arg(long)]
        hints: bool,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Print the effective configuration, and where each value comes from.
    CheckConfig {
        /// Configuration file; the variable CLLM_CONFIG names one, too.
        #[arg(value_name = "FILE")]
        config: Option<String>,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Measure servers as their clients see them. Ends with 1 if a request failed.
    Bench(BenchArgs),
    /// Burn one core until standard input closes.
    #[command(name = cllm::bench::BURN_COMMAND, hide = true)]
    Burn,
}

/// Flags that set keys. They are read as text and checked with all other sources, so that all errors show at once.
#[derive(Debug, Args)]
pub(crate) struct Overrides {
    /// GGUF file of the model [key: model.path]
    #[arg(long, value_name = "PATH")]
    model: Option<String>,
    /// Host name or IP address to listen on [key: server.host]
    #[arg(long)]
    host: Option<String>,
    /// TCP port to listen on, 0 for any free one [key: server.port]
    #[arg(long, allow_negative_numbers = true)]
    port: Option<String>,
    /// Where the engine runs [key: backend.engine]
    #[arg(long, value_name = "process|thread|fake")]
    engine: Option<String>,
    /// Inject faults on purpose, such as seed=1 [key: chaos.seed]
    #[arg(long, value_name = "seed=N")]
    chaos: Option<String>,
    /// Set any key, such as scheduler.max_queue=64; lists as in YAML
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Overrides {
    /// The sources of configuration of this process.
    pub(crate) fn sources(self, config: Option<String>) -> Sources {
        let named = [
            ("--model", "model.path", self.model),
            ("--host", "server.host", self.host),
            ("--port", "server.port", self.port),
            ("--engine", "backend.engine", self.engine),
            ("--chaos", "chaos.seed", self.chaos.map(|chaos| chaos.trim_start_matches("seed=").to_owned())),
        ];
        let named = named.into_iter().filter_map(|(name, key, value)| Some(Flag::new(name, key, value?)));
        let set = self.set.iter().map(|argument| Flag::set(argument));
        Sources::of_process(config, named.chain(set).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_sources_for_their_keys() {
        let cli = Cli::try_parse_from(["cllm", "serve", "--port", "-1", "--set", "logging.level=warn,cllm=debug"]);
        let Command::Serve { config: None, overrides, .. } = cli.unwrap().command else { panic!("not `serve`") };
        let flags = overrides.sources(None).flags;
        assert_eq!(
            flags,
            [
                Flag::new("--port", "server.port", "-1".into()),
                Flag::new("--set", "logging.level", "warn,cllm=debug".into())
            ]
        );
    }
}
