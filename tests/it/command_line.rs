//! Exit codes and output of the command line.

use std::process::{Command, Output};

/// Runs the binary without the variables of the machine that tests it.
fn cllm(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("CLLM_"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cllm"));
    for name in ours {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).output().expect("the binary was built for this test")
}

fn code(arguments: &[&str]) -> i32 {
    cllm(arguments, &[]).status.code().expect("no signal ends it")
}

fn seed_file() -> String {
    format!("{}/config/seed-recommended.yaml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn version_and_help_exit_with_0_and_bad_usage_with_2() {
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["serve", "--help"]), 0);
    assert_eq!(code(&[]), 2);
    assert_eq!(code(&["serve", "--no-such-flag"]), 2);
    let version = String::from_utf8(cllm(&["--version"], &[]).stdout).unwrap();
    assert_eq!(version, format!("cllm {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_bad_configuration_exits_with_2_before_anything_is_served() {
    let output = cllm(&["serve", "--port", "-1", "--engine", "cloud", "--set", "sever.host=a"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.starts_with("error: 3 errors in the configuration\n"), "{message}");
    for part in ["flag --port: ", "flag --engine: ", "did you mean `server.host`?"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn check_config_prints_a_file_that_loads_again() {
    let first = cllm(&["check-config", &seed_file(), "--set", "server.port=0"], &[("CLLM_MODEL__ALIAS", "a")]);
    assert_eq!(first.status.code(), Some(0));
    let printed = String::from_utf8(first.stdout).unwrap();
    assert!(printed.contains("  port: 0  # flag --set\n"), "{printed}");
    assert!(printed.contains("  alias: a  # env CLLM_MODEL__ALIAS\n"), "{printed}");
    assert!(printed.contains(&format!("    n_batch: 1024  # {}:38\n", seed_file())), "{printed}");

    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("printed.yaml");
    std::fs::write(&path, &printed).unwrap();
    let second = cllm(&["check-config"], &[("CLLM_CONFIG", path.to_str().unwrap())]);
    let without_sources = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(without_sources(&String::from_utf8(second.stdout).unwrap()), without_sources(&printed));
}
