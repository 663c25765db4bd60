//! The model card.

use super::*;

#[test]
fn a_model_that_loads_is_listed_without_its_numbers() {
    let settings = HttpSettings {
        model_id: "tiny".to_owned(),
        model_names: vec!["tiny".to_owned(), "tiny-q4".to_owned()],
        ..HttpSettings::default()
    };
    let expected = json!({
        "id": "tiny", "object": "model", "created": 7, "owned_by": "cllm", "aliases": ["tiny-q4"],
        "max_model_len": null, "context_length": null, "meta": null,
    });
    assert_eq!(json!(Card::new(&settings, 7, None)), expected);
}
