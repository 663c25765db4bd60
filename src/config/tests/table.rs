//! What holds for every key of the table.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::config::rule::Rule;
use crate::config::schema::Key;

fn keys() -> Vec<&'static Key> {
    sections::SECTIONS.iter().copied().flatten().collect()
}

/// Values for a key, as `--set` takes them.
fn values(key: &'static Key) -> BoxedStrategy<String> {
    let kind = (key.kind)();
    if let Some(words) = kind.expected.strip_prefix("one of ") {
        let words: Vec<_> = words.split(", ").map(|word| word.trim_matches('`').to_owned()).collect();
        return proptest::sample::select(words).boxed();
    }
    match (kind.expected.as_str(), key.rule) {
        ("true or false", _) => any::<bool>().prop_map(|value| value.to_string()).boxed(),
        ("a list of integers", Rule::Integer(from, to)) => {
            prop::collection::vec(from..=to, 0..4).prop_map(|list| format!("{list:?}")).boxed()
        }
        (_, Rule::Integer(from, to)) => (from..=to).prop_map(|value| value.to_string()).boxed(),
        (_, Rule::Number(from, to)) => (from..=to).prop_map(|value| format!("{value:?}")).boxed(),
        ("a list of numbers", _) => {
            prop::collection::vec(0.0f32..9.0, 0..4).prop_map(|list| format!("{list:?}")).boxed()
        }
        ("a list of texts", _) => {
            prop::collection::vec("http://[a-z]{1,9}", 0..4).prop_map(|list| format!("{list:?}")).boxed()
        }
        ("a text", Rule::Text(_)) => "off|info|debug".boxed(),
        ("a text", _) => any::<String>().boxed(),
        (expected, _) => panic!("no values for {expected}"),
    }
}

fn key_and_value() -> impl Strategy<Value = (&'static Key, String)> {
    proptest::sample::select(keys()).prop_flat_map(|key| (Just(key), values(key)))
}

/// Merges without the checks of keys against each other.
fn merge(sources: &Sources) -> Loaded {
    let collected = sources::collect(sources);
    let mut merged = Merged { problems: collected.problems, ..Merged::default() };
    collected.assignments.into_iter().for_each(|assignment| merged.take(assignment));
    assert_eq!(merged.problems, []);
    Loaded { config: merged.config, notes: Vec::new(), origins: merged.origins }
}

/// Paths of the keys in which two configurations differ.
fn differences(left: &Config, right: &Config) -> Vec<&'static str> {
    let keys = keys().into_iter();
    keys.filter(|key| (key.show)(left) != (key.show)(right)).map(|key| key.path).collect()
}

#[test]
fn every_default_is_a_legal_value_of_its_key() {
    let config = merge(&Sources { file: file(&documented_defaults()), ..Sources::default() }).config;
    assert_eq!(config, Config::default());
}

#[test]
fn keys_and_variables_are_unique() {
    let paths: HashSet<_> = keys().iter().map(|key| key.path).collect();
    let variables: HashSet<_> = keys().iter().map(|key| key.variable().replace("__", "_")).collect();
    assert_eq!((paths.len(), variables.len()), (keys().len(), keys().len()));
}

#[test]
fn every_key_can_be_set_by_a_flag_to_something_else() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for key in keys() {
        let changes = (0..100).any(|_| {
            let value = values(key).new_tree(&mut runner).unwrap().current();
            let config = merge(&sources("", &[], &[&format!("{}={value}", key.path)])).config;
            differences(&config, &Config::default()) == [key.path]
        });
        assert!(changes, "{} keeps its default", key.path);
    }
}

proptest! {
    #[test]
    fn a_flag_changes_no_key_but_its_own((key, value) in key_and_value()) {
        let config = merge(&sources("", &[], &[&format!("{}={value}", key.path)])).config;
        let others = differences(&config, &Config::default()).into_iter().filter(|path| *path != key.path).count();
        prop_assert_eq!(others, 0);
    }

    #[test]
    fn a_variable_means_the_same_as_a_flag((key, value) in key_and_value()) {
        prop_assume!(!value.contains('\0'));
        let by_flag = merge(&sources("", &[], &[&format!("{}={value}", key.path)])).config;
        let by_variable = merge(&sources("", &[(&key.variable(), &value)], &[])).config;
        prop_assert_eq!(by_flag, by_variable);
    }

    #[test]
    fn what_check_config_prints_loads_as_the_same_configuration(
        settings in prop::collection::hash_map(proptest::sample::select((0..keys().len()).collect::<Vec<_>>()), any::<u64>(), 0..9),
        texts in prop::collection::vec(any::<String>(), 3),
    ) {
        let mut set = vec![
            format!("model.quantization={}", texts[0]),
            format!("backend.fake.load_failure={}", texts[1]),
        ];
        for (index, seed) in settings {
            let key = keys()[index];
            let rng = proptest::test_runner::TestRng::from_seed(
                proptest::test_runner::RngAlgorithm::XorShift,
                &[seed.to_le_bytes(), [7; 8]].concat(),
            );
            let mut runner = proptest::test_runner::TestRunner::new_with_rng(Default::default(), rng);
            let value = values(key).new_tree(&mut runner).unwrap().current();
            if !set.iter().any(|other| other.starts_with(key.path)) {
                set.push(format!("{}={value}", key.path));
            }
        }
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        let loaded = merge(&sources("", &[], &set));
        let again = merge(&Sources { file: file(&loaded.to_string()), ..Sources::default() });
        prop_assert_eq!(again.config, loaded.config);
    }
}
