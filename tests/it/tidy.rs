//! The house rules that neither the compiler nor clippy checks: sizes, names, marks, and who may depend on whom.
//!
//! A rule is stated by its test's name; `CONTRIBUTING.md` gives the reasons. The measuring of functions relies on
//! rustfmt's layout, which `make lint` enforces.

use std::process::Command;

/// Longest file, in lines. Tests, examples and benches are not counted.
const FILE_LINES: usize = 500;
/// Longest function, in lines, signature and closing brace included.
const FUNCTION_LINES: usize = 60;
/// Names under which anything could be filed.
const EMPTY_NAMES: [&str; 6] = ["utils", "common", "helpers", "manager", "types", "misc"];
/// The keyword, put together so that this file does not find itself.
const UNSAFE: &str = concat!("un", "safe");
/// The only place for it.
const UNSAFE_HOME: &str = "actors/src/engine/llama";
/// What the actors must not know: HTTP, the command line, file formats of configuration.
const FORBIDDEN_TO_ACTORS: [&str; 9] =
    ["warp", "hyper", "hyper-util", "http", "http-body-util", "clap", "serde-saphyr", "serde_yaml", "toml"];

#[test]
fn no_file_is_over_500_lines() {
    let long = sources().into_iter().filter(|source| !source.is_test());
    let long = long.map(|source| (source.text.lines().count(), source.path)).filter(|(lines, _)| *lines > FILE_LINES);
    assert_none(long.map(|(lines, path)| format!("{path}: {lines} lines")).collect());
}

#[test]
fn no_function_is_over_60_lines() {
    let sources = sources().into_iter().filter(|source| !source.is_test());
    assert_none(sources.flat_map(|source| long_functions(&source)).collect());
}

#[test]
fn a_function_of_61_lines_is_found_and_one_of_60_is_not() {
    let function = |lines: usize| Source {
        path: "src/made.rs".into(),
        text: format!(
            "    async fn made(\n        a: u32,\n    ) -> u32 {{\n{}    }}\n",
            "        a;\n".repeat(lines - 4)
        ),
    };
    assert_eq!(long_functions(&function(60)), Vec::<String>::new());
    assert_eq!(long_functions(&function(61)), ["src/made.rs:1: 61 lines"]);
}

#[test]
fn every_module_is_named_after_what_it_owns() {
    let nameless = |path: &str| {
        let mut parts = path.trim_end_matches(".rs").split('/');
        path.ends_with("/mod.rs") || parts.any(|part| EMPTY_NAMES.contains(&part))
    };
    assert_none(sources().into_iter().map(|source| source.path).filter(|path| nameless(path)).collect());
}

#[test]
fn every_file_begins_by_saying_what_it_owns() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    assert_none(silent.map(|source| source.path).collect());
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Put together here, so that this file does not find itself.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("#[", "ignore"),
        concat!("should", "_panic"),
    ];
    let marked = |line: &str| marks.iter().any(|mark| line.contains(mark));
    assert_none(sources().iter().flat_map(|source| source.lines_where(marked)).collect());
}

#[test]
fn every_code_of_an_error_stands_in_the_readme() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("it is there");
    let table = readme.split("### Errors").nth(1).and_then(|rest| rest.split("\n###").next()).expect("it has a table");
    let sources = sources().into_iter().filter(|source| source.path.starts_with("src/") && !source.is_test());
    let codes: Vec<String> = sources.flat_map(|source| error_codes(&source.text)).collect();
    assert!(codes.len() > 30, "the search finds too little: {codes:?}");
    // Only the log line of a client that left has this one.
    let told = codes.into_iter().filter(|code| code != "client_gone");
    assert_none(told.filter(|code| !table.contains(&format!("`{code}`"))).collect());
}

#[test]
fn the_readme_embeds_with_a_program_that_compiles() {
    let readme = include_str!("../../README.md");
    let (_, program) = include_str!("../../examples/embed_shortest.rs").split_once("\n\n").expect("it has a head");
    assert!(readme.contains(&format!("```rust\n{program}```\n")), "README.md does not show examples/embed_shortest.rs");
}

/// The codes in the calls that make an error: the words with an underscore among their arguments.
fn error_codes(text: &str) -> Vec<String> {
    let makers = ["ApiError::invalid(", "Self::invalid(", "ApiError::conflict(", "Self::unavailable(", "Self::new("];
    let calls = makers.iter().flat_map(|maker| text.split(maker).skip(1));
    let statements = calls.filter_map(|rest| rest.split(';').next()?.split(")\n").next());
    let is_word = |text: &str| text.contains('_') && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    // OpenAI's types of errors stand beside them.
    let is_code = |word: &str| is_word(word) && (!word.ends_with("_error") || word == "internal_error");
    let words = statements.flat_map(|statement| {
        let parts: Vec<&str> = statement.split('"').collect();
        let texts = parts.windows(2).skip(1).step_by(2).filter(|pair| pair[1].starts_with(',')).map(|pair| pair[0]);
        texts.map(str::to_owned).collect::<Vec<_>>()
    });
    words.filter(|word| is_code(word)).collect()
}

#[test]
fn unsafe_code_is_only_in_the_llama_engine() {
    // A counting allocator cannot be written without; it is no part of what ships.
    let counting = "actors/tests/counting/allocator.rs";
    let outside =
        sources().into_iter().filter(|source| !source.path.starts_with(UNSAFE_HOME) && source.path != counting);
    let is_unsafe = |line: &str| words(code_of(line)).any(|word| word == UNSAFE);
    assert_none(outside.flat_map(|source| source.lines_where(is_unsafe)).collect());
}

#[test]
fn the_actors_know_no_http_no_command_line_and_no_file_format() {
    for features in [["--no-default-features"].as_slice(), &[]] {
        let tree = dependencies(&[&["--package", "cllm-actors", "--edges", "normal"], features].concat());
        assert_none(tree.into_iter().filter(|name| FORBIDDEN_TO_ACTORS.contains(&name.as_str())).collect());
    }
}

#[test]
fn the_actors_without_llama_need_no_cpp() {
    // blake3 brings `cc` along, but with its feature `pure` compiles nothing with it.
    let pure = ["--prune", "blake3"];
    let edges = ["--package", "cllm-actors", "--edges", "normal,build", "--no-default-features"];
    let tree = dependencies(&[edges.as_slice(), &pure].concat());
    let cpp = |name: &String| name.starts_with("llama-cpp") || ["cc", "cmake", "bindgen"].contains(&name.as_str());
    assert_none(tree.into_iter().filter(cpp).collect());
}

#[test]
fn the_server_reaches_llama_only_through_the_actors() {
    let direct = dependencies(&["--package", "cllm", "--edges", "normal,build,dev", "--depth", "1"]);
    assert!(direct.iter().any(|name| name == "cllm-actors"), "the listing is empty or wrong: {direct:?}");
    assert_none(direct.into_iter().filter(|name| name.starts_with("llama-cpp")).collect());
}

/// A Rust file of this repository.
struct Source {
    /// Relative to the root of the repository.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        let mut parts = self.path.trim_end_matches(".rs").split('/');
        parts.any(|part| ["tests", "benches", "examples"].contains(&part))
    }

    /// `path:line: text` of each line that fits.
    fn lines_where(&self, fits: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.text.lines().enumerate().filter(|(_, line)| fits(line));
        lines.map(|(index, line)| format!("{}:{}: {}", self.path, index + 1, line.trim())).collect()
    }
}

/// All Rust files that git knows or would add.
fn sources() -> Vec<Source> {
    let listing =
        run(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rs"]));
    let paths = listing.split('\0').filter(|path| !path.is_empty());
    // A file deleted but not yet committed is still listed.
    let found: Vec<Source> = paths
        .filter_map(|path| {
            let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect();
    assert!(found.iter().any(|source| source.path == "src/main.rs"), "git lists no sources");
    found
}

/// Functions over the limit, up to the first inline test module.
fn long_functions(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").collect();
    let lengths = lines.iter().enumerate().filter(|(_, line)| begins_function(line));
    let lengths = lengths.map(|(start, _)| (start + 1, function_lines(&lines[start..])));
    let long = lengths.filter(|(_, length)| *length > FUNCTION_LINES);
    long.map(|(line, length)| format!("{}:{line}: {length} lines", source.path)).collect()
}

/// Whether a line is the first of a function's signature.
fn begins_function(line: &str) -> bool {
    let qualifiers = ["const", "async", UNSAFE, "extern", "C"];
    let mut rest =
        words(code_of(line)).skip_while(|word| word.starts_with("pub") || ["crate", "super", "in"].contains(word));
    rest.find(|word| !qualifiers.contains(word)) == Some("fn") && !line.trim_start().starts_with("//")
}

/// Lines from a signature to the end of its body: rustfmt puts the closing brace under the first letter.
fn function_lines(lines: &[&str]) -> usize {
    if lines[0].ends_with('}') || lines[0].ends_with(';') {
        return 1;
    }
    let indent = &lines[0][..lines[0].len() - lines[0].trim_start().len()];
    let ends = |line: &&str| {
        let inner = line.strip_prefix(indent).unwrap_or_default();
        inner == "}" || (!inner.starts_with(' ') && inner.ends_with(';'))
    };
    lines.iter().skip(1).position(ends).map_or(lines.len(), |offset| offset + 2)
}

/// A line without its comment. A `//` in a string cuts too much, which hides nothing these rules look for.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// Names of the packages that `cargo tree` lists.
fn dependencies(arguments: &[&str]) -> Vec<String> {
    let tree = run(Command::new(env!("CARGO")).args(["tree", "--locked", "--prefix", "none"]).args(arguments));
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Standard output of a command that runs in the root of the repository and must succeed.
fn run(command: &mut Command) -> String {
    let output =
        command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the command is on every developer's machine");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("paths and package names are UTF-8")
}

#[track_caller]
fn assert_none(offenders: Vec<String>) {
    assert!(offenders.is_empty(), "\n  {}", offenders.join("\n  "));
}
