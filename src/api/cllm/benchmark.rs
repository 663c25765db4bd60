//! `/benchmark`: a load run inside the server, through the same handle that HTTP requests go through. Bounded in every
//! way, for admins only, one at a time; it ends when its client leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cllm_actors::admission::Claim;
use cllm_actors::request::{CacheMode, Finished, TenantId};
use cllm_actors::system::{Status, System};
use cllm_actors::{GenerateError, GenerateRequest, GenerationEvent, SamplingParams};
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use warp::reply::Response;

use crate::api::Api;
use crate::api::cllm::success;
use crate::api::fields::Fields;
use crate::api::sampling;
use crate::http::context::Call;
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

const MOST_REQUESTS: i64 = 1_000;
const MOST_AT_ONCE: i64 = 128;
const MOST_TOKENS: i64 = 4_096;
/// Of all answers together.
const MOST_TOKENS_IN_ALL: u32 = 200_000;
/// How long a client is asked to wait for an engine that restarts.
const RESTART_RETRY: Duration = Duration::from_secs(2);

/// Whose turn it is to run the benchmark.
#[derive(Debug, Clone)]
pub(crate) struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// What to run.
#[derive(Debug, Clone, PartialEq)]
struct Load {
    requests: u32,
    concurrency: u32,
    max_tokens: u32,
    prompt: String,
    temperature: f32,
}

/// What one request came to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Run {
    seconds: f64,
    /// From the start to the first text; `None` if there was none.
    first_token_seconds: Option<f64>,
    prompt_tokens: u32,
    generated_tokens: u32,
}

/// `POST /benchmark`.
pub(crate) async fn benchmark(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let load = Load::read(Fields::of(call.json().await?))?;
    call.body.done();
    check_ready(&api.app.system)?;
    let _turn = api
        .benchmark
        .0
        .try_acquire()
        .map_err(|_| ApiError::conflict("benchmark_running", "another benchmark is running; one runs at a time"))?;
    let limit = api.app.settings.deadlines.total;
    tracing::info!(
        request_id = &*call.request_id,
        requests = load.requests,
        concurrency = load.concurrency,
        max_tokens = load.max_tokens,
        "benchmark begins"
    );
    let began = Instant::now();
    let runs = stream::iter(0..load.requests)
        .map(|_| one(&api.app.system, &load, limit))
        .buffer_unordered(load.concurrency as usize)
        .collect::<Vec<_>>();
    let late = |_| GenerateError::DeadlineExceeded { which: "benchmark", limit };
    let runs = tokio::time::timeout(limit, runs).await.map_err(late)?;
    Ok(success(&summary(&runs, began.elapsed().as_secs_f64())))
}

fn check_ready(system: &System) -> Result<(), ApiError> {
    if let Status::Restarting { cause } = &*system.status().borrow() {
        return Err(GenerateError::EngineDown { cause: cause.clone(), retry_after: RESTART_RETRY }.into());
    }
    // Taking none tells why there are none.
    system.admit(Claim::unhurried(TenantId::NOBODY, 0, 0))?;
    Ok(())
}

async fn one(system: &System, load: &Load, limit: Duration) -> Result<Run, GenerateError> {
    let began = Instant::now();
    let mut request = GenerateRequest::text(load.prompt.as_str());
    request.trace_id = Arc::from("benchmark");
    request.max_tokens = Some(load.max_tokens);
    request.deadlines.total = limit;
    request.sampling.temperature = load.temperature;
    // Equal requests would be answered from each other's results.
    request.cache = CacheMode::Bypass;
    let mut generation = system.generate(request).await?;
    let mut first = None;
    while let Some(event) = generation.next().await {
        match event {
            GenerationEvent::Delta(delta) if !delta.text.is_empty() => {
                first.get_or_insert_with(|| began.elapsed().as_secs_f64());
            }
            GenerationEvent::Finished(Finished { usage, .. }) => {
                return Ok(Run {
                    seconds: began.elapsed().as_secs_f64(),
                    first_token_seconds: first,
                    prompt_tokens: usage.prompt_tokens,
                    generated_tokens: usage.completion_tokens,
                });
            }
            GenerationEvent::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Err(GenerateError::Internal("a generation without an end".to_owned()))
}

impl Load {
    /// The C++ server's fields and defaults.
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let requests = fields.integer(&["requests"], 1..=MOST_REQUESTS)?.unwrap_or(40);
        let most = MOST_AT_ONCE.min(requests);
        let concurrency = fields.integer(&["concurrency"], 1..=most)?.unwrap_or(most.min(8));
        let max_tokens = fields.integer(&["max_tokens"], 1..=MOST_TOKENS)?.unwrap_or(50);
        let prompt = fields.string(&["prompt"])?.unwrap_or_else(|| "Hello, world! How are you today?".to_owned());
        let temperature = fields.float(&["temperature"])?.unwrap_or(0.7);
        let load = Self {
            requests: requests as u32,
            concurrency: concurrency as u32,
            max_tokens: max_tokens as u32,
            prompt,
            temperature,
        };
        load.check()?;
        Ok(load)
    }

    fn check(&self) -> Result<(), ApiError> {
        let invalid = |param: &str, message: String| Err(ApiError::invalid(param.to_owned(), "invalid_value", message));
        if self.prompt.is_empty() {
            return invalid("prompt", "`prompt` is empty".to_owned());
        }
        sampling::check(&SamplingParams { temperature: self.temperature, ..SamplingParams::default() }, None)?;
        let tokens = self.requests * self.max_tokens;
        if tokens > MOST_TOKENS_IN_ALL {
            let message =
                format!("`requests` times `max_tokens` must be at most {MOST_TOKENS_IN_ALL} tokens, got {tokens}");
            return invalid("max_tokens", message);
        }
        Ok(())
    }
}

/// Under the C++ server's names, but true: throughput is tokens over wall time, the rate per request is the mean of
/// each one's own, and all means are over the requests that succeeded.
fn summary(runs: &[Result<Run, GenerateError>], seconds: f64) -> Value {
    let done: Vec<&Run> = runs.iter().flatten().collect();
    let mean = |of: &dyn Fn(&Run) -> Option<f64>| {
        let values: Vec<f64> = done.iter().filter_map(|run| of(run)).collect();
        if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
    };
    let times = || done.iter().map(|run| run.seconds);
    let rate = |run: &Run| f64::from(run.generated_tokens) / run.seconds.max(f64::MIN_POSITIVE);
    let generated: u64 = done.iter().map(|run| u64::from(run.generated_tokens)).sum();
    let prompts: u64 = done.iter().map(|run| u64::from(run.prompt_tokens)).sum();
    json!({
        "total_requests": runs.len(),
        "successful_requests": done.len(),
        "failed_requests": runs.len() - done.len(),
        "avg_response_time": mean(&|run| Some(run.seconds)),
        "min_response_time": times().reduce(f64::min).unwrap_or(0.0),
        "max_response_time": times().reduce(f64::max).unwrap_or(0.0),
        "avg_time_to_first_token": mean(&|run| run.first_token_seconds),
        "avg_throughput": generated as f64 / seconds.max(f64::MIN_POSITIVE),
        "avg_tokens_per_second": mean(&|run| Some(rate(run))),
        "total_tokens_processed": prompts + generated,
        "avg_generated_tokens": mean(&|run| Some(f64::from(run.generated_tokens))),
        "total_time": seconds,
    })
}
