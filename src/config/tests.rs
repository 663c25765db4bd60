//! Tests of the configuration as a whole.

#[test]
fn dump() {
    std::fs::write("/tmp/cllm-defaults.yaml", super::documented_defaults()).unwrap();
}
