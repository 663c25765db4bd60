//! Which sizes a context gets, and which it is refused.

use super::*;

fn spec() -> LlamaSpec {
    LlamaSpec::new("model.gguf")
}

#[test]
fn the_default_holds_every_running_sequence() {
    let plan = plan(&spec(), 1000, Some(1 << 40));
    assert_eq!((plan.n_ctx, plan.n_ctx_seq, plan.n_seq_max), (2048 * 16, 2048, 48));
    assert_eq!((plan.n_batch, plan.n_ubatch), (2048, 512));
}

#[test]
fn the_default_is_lowered_to_half_of_the_memory() {
    let bytes = 2 * 10_000 * 1000;
    assert_eq!(plan(&spec(), 1000, Some(bytes)).n_ctx, 10_240);
    assert_eq!(plan(&spec(), 0, Some(bytes)).n_ctx, 2048 * 16);
    assert_eq!(plan(&spec(), 1000, None).n_ctx, 2048 * 16);
}

#[test]
fn one_request_always_fits() {
    assert_eq!(plan(&spec(), 1000, Some(0)).n_ctx, 2048);
}

#[test]
fn a_given_context_is_not_lowered_but_lowers_the_request() {
    let spec = LlamaSpec { n_ctx: Some(1000), ..spec() };
    let plan = plan(&spec, 1 << 30, Some(1));
    assert_eq!((plan.n_ctx, plan.n_ctx_seq, plan.n_batch), (1024, 1024, 1024));
    assert!(plan.n_batch >= plan.n_seq_max);
}

#[test]
fn what_llama_would_abort_on_is_refused_with_its_name() {
    let bad = [
        ("n_batch", LlamaSpec { n_batch: 47, ..spec() }),
        ("running", LlamaSpec { running: 0, ..spec() }),
        ("n_ubatch", LlamaSpec { n_ubatch: 0, ..spec() }),
        ("n_ctx", LlamaSpec { n_ctx: Some(0), ..spec() }),
        ("256", LlamaSpec { retained: 256, ..spec() }),
        ("type_v", LlamaSpec { type_v: KvType::Q8_0, flash_attn: FlashAttention::Disabled, ..spec() }),
        ("tensor_split", LlamaSpec { tensor_split: vec![1.0, f32::NAN], ..spec() }),
        ("n_threads", LlamaSpec { n_threads: 513, ..spec() }),
    ];
    for (name, spec) in bad {
        let error = check(&spec).expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    }
    check(&spec()).expect("the defaults are good");
}

#[test]
fn a_context_larger_than_the_memory_is_refused_with_both_sizes() {
    let plan = plan(&LlamaSpec { n_ctx: Some(2048), ..spec() }, 1 << 20, Some(1 << 30));
    let error = check_memory(&plan, Some(1 << 30)).expect_err("too much").to_string();
    assert!(error.contains("2048 MiB") && error.contains("1024 MiB"), "{error}");
    check_memory(&plan, Some(2 << 30)).expect("just fits");
    check_memory(&plan, None).expect("nobody knows");
}
