//! Which sizes a context gets, and which it is refused.

use super::*;

fn spec() -> LlamaSpec {
    LlamaSpec::new("model.gguf")
}

fn kv(kv_bytes_per_token: u64) -> Needs {
    Needs { kv_bytes_per_token, ..Needs::default() }
}

fn header(architecture: &str, numbers: &[(&str, &[u64])]) -> Header {
    Header::with_numbers(architecture, numbers)
}

fn needs(header: &Header) -> Needs {
    Needs::of(header, |_, elements| 2 * elements)
}

#[test]
fn the_default_holds_every_running_sequence() {
    let plan = plan(&spec(), kv(1000), Some(1 << 40));
    assert_eq!((plan.n_ctx, plan.n_ctx_seq, plan.n_seq_max), (2048 * 16, 2048, 48));
    assert_eq!((plan.n_batch, plan.n_ubatch), (2048, 512));
}

#[test]
fn the_default_is_lowered_to_half_of_the_memory() {
    let bytes = 2 * 10_000 * 1000;
    assert_eq!(plan(&spec(), kv(1000), Some(bytes)).n_ctx, 10_240);
    assert_eq!(plan(&spec(), kv(0), Some(bytes)).n_ctx, 2048 * 16);
    assert_eq!(plan(&spec(), kv(1000), None).n_ctx, 2048 * 16);
}

#[test]
fn one_request_always_fits() {
    assert_eq!(plan(&spec(), kv(1000), Some(0)).n_ctx, 2048);
}

#[test]
fn a_given_context_is_not_lowered_but_lowers_the_request() {
    let spec = LlamaSpec { n_ctx: Some(1000), ..spec() };
    let plan = plan(&spec, kv(1 << 30), Some(1));
    assert_eq!((plan.n_ctx, plan.n_ctx_seq, plan.n_batch), (1024, 1024, 1024));
    assert!(plan.n_batch >= plan.n_seq_max);
}

#[test]
fn each_running_sequence_has_a_buffer_where_that_is_possible_and_long_enough() {
    let plain = Needs { splits: true, ..kv(1000) };
    let of = |spec: LlamaSpec| plan(&spec, plain, None);
    let split = of(spec());
    assert_eq!((split.streams, split.n_ctx, split.n_ctx_seq), (Some(16), 2048 * 16, 2048));
    let odd = of(LlamaSpec { running: 3, n_ctx: Some(1000), max_context_length: 300, ..spec() });
    assert_eq!((odd.streams, odd.n_ctx, odd.n_ctx_seq), (Some(3), 3 * 512, 300), "as llama.cpp rounds");
    let unified = [
        LlamaSpec { n_ctx: Some(2048 * 16 - 1), ..spec() },
        LlamaSpec { kv_unified: true, ..spec() },
        LlamaSpec { n_gpu_layers: 1, ..spec() },
        LlamaSpec { running: 1, ..spec() },
        LlamaSpec { n_ubatch: 15, ..spec() },
    ];
    for spec in unified {
        assert_eq!(of(spec.clone()).streams, None, "{spec:?}");
    }
    assert_eq!(plan(&spec(), kv(1000), None).streams, None, "sliding windows, states");
    assert_eq!(plan(&spec(), plain, Some(2 * 10_000 * 1000)).streams, None, "no memory for all of them");
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
    let plan = plan(&LlamaSpec { n_ctx: Some(2048), ..spec() }, kv(1 << 20), Some(1 << 30));
    let error = check_memory(&plan, Some(1 << 30)).expect_err("too much").to_string();
    assert!(error.contains("2048 MiB") && error.contains("1024 MiB"), "{error}");
    check_memory(&plan, Some(2 << 30)).expect("just fits");
    check_memory(&plan, None).expect("nobody knows");
}

#[test]
fn learned_positions_bound_a_request() {
    let mut gpt2 = header("gpt2", &[("context_length", &[1024]), ("block_count", &[12])]);
    assert_eq!(needs(&gpt2).positions, None, "a training length alone is no bound");
    gpt2.learned_positions = true;
    let sized = plan(&LlamaSpec { max_context_length: 4096, ..spec() }, needs(&gpt2), None);
    assert_eq!((sized.n_ctx_seq, sized.n_ctx), (1024, 1024 * 16));
    let shorter = plan(&LlamaSpec { max_context_length: 512, ..spec() }, needs(&gpt2), None);
    assert_eq!(shorter.n_ctx_seq, 512);
}

#[test]
fn recurrent_states_of_all_sequences_count() {
    // Mamba-130M: 24 layers, each 3 shifts of 1536 channels and 16 numbers for each channel.
    let mamba = header(
        "mamba",
        &[
            ("block_count", &[24]),
            ("embedding_length", &[768]),
            ("ssm.conv_kernel", &[4]),
            ("ssm.inner_size", &[1536]),
            ("ssm.state_size", &[16]),
        ],
    );
    let state = (3 * 1536 + 16 * 1536) * 4 * 24;
    assert_eq!(needs(&mamba), Needs { state_bytes: state, ..Needs::default() });
    let sized = plan(&spec(), needs(&mamba), None);
    assert_eq!(sized.state_bytes, 48 * state);
    check_memory(&sized, Some(48 * state - 1)).expect_err("too much");
    check_memory(&sized, Some(48 * state)).expect("just fits");
}

#[test]
fn states_of_other_kinds_are_known_by_their_layers() {
    let rwkv = header("rwkv7", &[("block_count", &[12]), ("embedding_length", &[768]), ("wkv.head_size", &[64])]);
    assert_eq!(needs(&rwkv).state_bytes, (2 * 768 + 768 * 64) * 4 * 12);
    let lfm2: &[(&str, &[u64])] = &[
        ("block_count", &[4]),
        ("embedding_length", &[1024]),
        ("shortconv.l_cache", &[3]),
        ("attention.head_count_kv", &[0, 0, 8, 0]),
    ];
    assert_eq!(needs(&header("lfm2", lfm2)).state_bytes, 2 * 1024 * 4 * 3);
    let qwen: &[(&str, &[u64])] = &[
        ("block_count", &[48]),
        ("full_attention_interval", &[4]),
        ("ssm.conv_kernel", &[4]),
        ("ssm.inner_size", &[4096]),
        ("ssm.state_size", &[128]),
        ("ssm.group_count", &[16]),
    ];
    assert_eq!(needs(&header("qwen3next", qwen)).state_bytes, (3 * (4096 + 2 * 16 * 128) + 128 * 4096) * 4 * 36);
    assert_eq!(needs(&header("llama", &[("block_count", &[30])])).state_bytes, 0);
}

#[test]
fn states_leave_less_for_cells() {
    let needs = Needs { kv_bytes_per_token: 1000, state_bytes: 1_000_000, ..Needs::default() };
    assert_eq!(plan(&spec(), needs, Some(48 * 1_000_000 + 2 * 10_000 * 1000)).n_ctx, 10_240);
}
