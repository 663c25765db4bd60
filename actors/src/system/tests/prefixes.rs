//! What one request has computed serves the next: retries, equal prefixes in flight, tenants, memories that can't be cut.

use super::*;
use crate::boards::{backend as engine_board, kv_cache as cache_board};
use crate::engine::protocol::MemoryKind;
use crate::request::TenantId;

/// A long prompt takes a second or two, long enough to be interrupted on a busy machine.
fn slow_prefill() -> FakeSpec {
    FakeSpec { token_time: Duration::from_micros(500), ..FakeSpec::default() }
}

/// Tokens that all have in common, then some that only `who` has.
fn shared_prompt(shared: usize, own: usize, who: u64) -> Vec<Token> {
    let mut random = fastrand::Rng::with_seed(77);
    let mut tokens: Vec<Token> = (0..shared).map(|_| random.i32(97..123)).collect();
    let mut random = fastrand::Rng::with_seed(who);
    tokens.extend((0..own).map(|_| random.i32(97..123)));
    tokens
}

fn cells_used(system: &System) -> u64 {
    system.inner.wiring.boards.backend.get(engine_board::CELLS_USED).unwrap_or(0)
}

fn retained(system: &System) -> u64 {
    system.inner.wiring.boards.kv_cache.get(cache_board::ENTRIES).unwrap_or(0)
}

async fn cached_tokens(system: &System, tenant: u32, prompt: &[Token]) -> u32 {
    let request = GenerateRequest { tenant: TenantId(tenant), ..request(prompt, 1) };
    let (_, finished) = collect(system.generate(request).await.expect("admitted")).await;
    finished.expect("finishes").usage.cached_tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_goes_on_where_a_cancelled_prefill_stopped() {
    let system = start("retry", slow_prefill()).await;
    let prompt = shared_prompt(3000, 0, 0);
    let impatient = system.generate(request(&prompt, 5)).await.expect("admitted");
    eventually("some of the prompt is computed", || cells_used(&system) >= 256).await;
    drop(impatient);
    eventually("what it computed is kept", || retained(&system) == 1).await;
    let (tokens, finished) = collect(system.generate(request(&prompt, 5)).await.expect("admitted")).await;
    assert_eq!(tokens, fake::continuation(&slow_prefill(), &prompt, 5));
    let cached = finished.expect("finishes").usage.cached_tokens;
    assert!(cached >= 256, "{cached}");
    system.stop().await;
}

/// Sixteen requests at once; gives what each found in the cache.
async fn sixteen_at_once(system: &System, spec: &FakeSpec) -> Vec<u32> {
    let tasks = (0..16u64).map(|who| async move {
        let prompt = shared_prompt(400, 30, who);
        let (tokens, finished) = collect(system.generate(request(&prompt, 8)).await.expect("admitted")).await;
        assert_eq!(tokens, fake::continuation(spec, &prompt, 8), "request {who}");
        finished.expect("finishes").usage.cached_tokens
    });
    let mut cached = join_all(tasks).await;
    cached.sort_unstable();
    cached
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_new_prefix_of_sixteen_requests_is_prefilled_once() {
    let system = start("prefilled-once", slow_prefill()).await;
    let cached = sixteen_at_once(&system, &slow_prefill()).await;
    assert_eq!(cached[0], 0, "somebody has to");
    assert!(cached[1..].iter().all(|cached| *cached >= 400), "{cached:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_that_cannot_be_cut_gives_each_its_own_text() {
    let spec = FakeSpec { memory: MemoryKind::Recurrent, ..slow_prefill() };
    let system = start("recurrent", spec.clone()).await;
    sixteen_at_once(&system, &spec).await;
    let prompt = shared_prompt(400, 0, 0);
    let (tokens, _) = collect(system.generate(request(&prompt, 9)).await.expect("admitted")).await;
    // A conversation goes on exactly where its state is; one that turns off before it starts anew.
    let longer = [prompt.clone(), tokens, shared_prompt(0, 20, 5)].concat();
    assert_eq!(cached_tokens(&system, 0, &longer).await, 408);
    assert_eq!(cached_tokens(&system, 0, &shared_prompt(300, 40, 5)).await, 0);
    let (tokens, _) = collect(system.generate(request(&prompt, 9)).await.expect("admitted")).await;
    assert_eq!(tokens, fake::continuation(&spec, &prompt, 9));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_one_that_prefills_for_all_leaves_the_next_goes_on_from_there() {
    let system = start("producer-leaves", slow_prefill()).await;
    let producer = system.generate(request(&shared_prompt(3000, 10, 99), 5)).await.expect("admitted");
    eventually("some of the prompt is computed", || cells_used(&system) >= 256).await;
    let waiters = (0..4u64).map(|who| {
        let system = system.clone();
        tokio::spawn(async move {
            let prompt = shared_prompt(3000, 10, who);
            let (tokens, finished) = collect(system.generate(request(&prompt, 5)).await.expect("admitted")).await;
            assert_eq!(tokens, fake::continuation(&slow_prefill(), &prompt, 5), "request {who}");
            finished.expect("finishes").usage.cached_tokens
        })
    });
    let waiters: Vec<_> = waiters.collect();
    eventually("they wait", || system.inner.wiring.boards.scheduler.get(crate::boards::scheduler::WAITING) == Some(4))
        .await;
    drop(producer);
    let mut cached: Vec<u32> = join_all(waiters).await.into_iter().map(|it| it.expect("no assertion failed")).collect();
    cached.sort_unstable();
    assert!(cached[0] >= 256, "{cached:?}");
    assert!(cached[1..].iter().all(|cached| *cached >= 3000), "{cached:?}");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_are_each_tenants_own_also_after_a_restart() {
    let system = start("tenants", FakeSpec::default()).await;
    let prompt = shared_prompt(200, 0, 0);
    assert_eq!(cached_tokens(&system, 1, &prompt).await, 0);
    assert_eq!(cached_tokens(&system, 2, &prompt).await, 0);
    assert_eq!(cached_tokens(&system, 1, &prompt).await, 199);
    let cache = actor(&system, names::KV_CACHE);
    cache.kill();
    let current = || system.inner.wiring.kv_cache.current().is_some_and(|new| new.get_id() != cache.get_id());
    eventually("a new kv-cache", current).await;
    assert_eq!(cached_tokens(&system, 3, &prompt).await, 0);
    assert_eq!(cached_tokens(&system, 2, &prompt).await, 199);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_trust_each_other_share_their_prefixes() {
    let mut args = System::builder().instance("trust").build();
    args.share_across_tenants = true;
    let system = System::start(args).await.expect("starts");
    timeout(PATIENCE, system.ready()).await.expect("in time").expect("loads");
    let prompt = shared_prompt(200, 0, 0);
    assert_eq!(cached_tokens(&system, 1, &prompt).await, 0);
    assert_eq!(cached_tokens(&system, 2, &prompt).await, 199);
    system.stop().await;
}
