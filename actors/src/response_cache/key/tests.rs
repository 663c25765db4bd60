//! Which requests are the same.

use super::*;
use crate::engine::protocol::Trust;
use crate::engine::spec::FakeSpec;

const MODEL: ModelIdentity = ModelIdentity { whole: [7; 32], file: [7; 32] };

fn parts(texts: &[&str]) -> LaidOut {
    LaidOut::Parts(texts.iter().map(|text| TextPart { text: (*text).to_owned(), trust: Trust::User }).collect())
}

fn key_with(change: impl FnOnce(&mut GenerateRequest)) -> Key {
    let mut request = GenerateRequest::text("hi");
    request.sampling.temperature = 0.0;
    change(&mut request);
    Key::of(&request, &parts(&["hi"]), &MODEL)
}

#[test]
fn what_decides_the_answer_makes_another_key() {
    let changes: [fn(&mut GenerateRequest); 12] = [
        |_| {},
        |request| request.sampling.temperature = 0.7,
        |request| request.sampling.ignore_eos = true,
        |request| request.sampling.repeat_penalty = 1.1,
        |request| request.sampling.logit_bias = vec![(3, 1.0)].into(),
        |request| request.sampling.dry.multiplier = 0.8,
        |request| request.max_tokens = Some(0),
        |request| request.stop = vec!["ab".to_owned()],
        |request| request.stop = vec!["a".to_owned(), "b".to_owned()],
        |request| request.logprobs = Some(0),
        |request| request.prompt_logprobs = Some(0),
        |request| request.tenant = TenantId(1),
    ];
    let mut keys: Vec<_> = changes.into_iter().map(key_with).collect();
    let request = GenerateRequest {
        sampling: SamplingParams { temperature: 0.0, ..Default::default() },
        ..GenerateRequest::text("hi")
    };
    keys.extend(
        [parts(&["h", "i"]), parts(&["hi", ""]), LaidOut::Tokens(vec![1])]
            .map(|prompt| Key::of(&request, &prompt, &MODEL)),
    );
    keys.push(Key::of(&request, &parts(&["hi"]), &ModelIdentity { whole: [8; 32], ..MODEL }));
    for (number, key) in keys.iter().enumerate() {
        assert!(!keys[..number].contains(key), "key {number} is not new");
    }
}

#[test]
fn what_does_not_decide_the_answer_does_not() {
    let plain = key_with(|_| {});
    assert_eq!(plain, key_with(|request| request.trace_id = "another".into()));
    assert_eq!(plain, key_with(|request| request.deadlines.total /= 2));
    // Greedy looks at nothing of this.
    assert_eq!(plain, key_with(|request| request.sampling.seed = Some(5)));
    assert_eq!(plain, key_with(|request| request.sampling.top_p = 0.5));
    assert_eq!(plain, key_with(|request| request.sampling.temperature = -0.0));
    let biases = |biases: &[(Token, f32)]| key_with(|request| request.sampling.logit_bias = biases.into());
    assert_eq!(biases(&[(1, 2.0), (3, 4.0)]), biases(&[(3, 4.0), (1, 2.0)]));
    assert_ne!(biases(&[(1, 2.0), (1, -2.0)]), biases(&[(1, -2.0), (1, 2.0)]));
}

#[test]
fn with_temperature_the_seed_decides() {
    let seeded = |seed| key_with(|request| (request.sampling.temperature, request.sampling.seed) = (1.0, Some(seed)));
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    let open = SamplingParams { seed: None, ..SamplingParams::default() };
    assert!(!is_determined(&open) && is_determined(&SamplingParams { seed: Some(1), ..open.clone() }));
    assert!(is_determined(&SamplingParams { temperature: 0.0, ..open }));
}

#[test]
fn another_model_has_another_identity() {
    use crate::engine::fake::FakeModel;
    use crate::engine::model::Model;
    let spec = FakeSpec::default();
    let info = FakeModel::load(&spec).expect("it loads").info().clone();
    let engine = EngineSpec::Fake(spec);
    let identity = ModelIdentity::of(&info, &engine);
    assert_eq!(identity, ModelIdentity::of(&info, &engine));
    assert_ne!(identity, ModelIdentity::of(&ModelInfo { n_vocab: info.n_vocab + 1, ..info }, &engine));
}
