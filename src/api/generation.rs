//! The OpenAI generation endpoints: from the body to the answer.

use std::sync::Arc;

use cllm_actors::admission::{Claim, Permit};
use cllm_actors::engine::protocol::Token;
use cllm_actors::ledger::Ledger;
use cllm_actors::request::{CacheMode, TenantId};
use cllm_actors::system::Generation;
use cllm_actors::{Counted, GenerateError, Prompt, SamplingParams};
use futures_util::future;
use hyper::HeaderMap;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use warp::Reply;
use warp::reply::Response;

use crate::api::Api;
use crate::api::bill;
use crate::api::fields::Fields;
use crate::api::openai::answer::{self, Echo, TextExtras};
use crate::api::openai::chunks::{ChatChunks, TextChunks};
use crate::api::openai::completion::DEFAULT_MAX_TOKENS;
use crate::api::openai::shapes::Stamp;
use crate::api::openai::{chat as chat_request, completion};
use crate::api::plan::{Defaults, Delivery, Plan};
use crate::api::priority::Allowance;
use crate::api::sequences::{Outcome, Sequences};
use crate::api::stream;
use crate::http::auth::Tenant;
use crate::http::context::{Call, HttpSettings};
use crate::http::error::ApiError;
use crate::http::request_log::RequestLog;

/// `POST /v1/chat/completions`.
pub(super) async fn chat(api: Api, mut call: Call) -> Result<Response, ApiError> {
    api.refuse_early(&mut call).await?;
    let fields = Fields::of(call.json().await?);
    let plan = chat_request::plan(fields, api.defaults(&call, None))?;
    call.body.done();
    let shared = plan.shared.clone();
    let logprobs = plan.requests.iter().any(|request| request.logprobs.is_some());
    let sequences = api.start(plan, &call).await.map_err(|error| api.blame(error, "messages"))?;
    let stamp = Stamp::new("chatcmpl", &api.app.settings.model_id).of_tier(shared.class.tier);
    match shared.delivery {
        Delivery::Whole => {
            let outcomes = whole(sequences, &call.log).await;
            let outcomes = outcomes.map_err(|error| api.blame(error, "messages"))?;
            document(answer::chat(&stamp, &outcomes, logprobs))
        }
        Delivery::Stream { include_usage } => {
            let chunks = ChatChunks::new(stamp, sequences.total(), include_usage, logprobs);
            let response = stream::respond(sequences, chunks, shared.choices, call.log).await;
            response.map_err(|error| api.blame(error, "messages"))
        }
    }
}

/// `POST /v1/completions`.
pub(super) async fn text(api: Api, mut call: Call) -> Result<Response, ApiError> {
    api.refuse_early(&mut call).await?;
    let fields = Fields::of(call.json().await?);
    let request = completion::plan(fields, api.defaults(&call, Some(DEFAULT_MAX_TOKENS)))?;
    call.body.done();
    let shared = request.plan.shared.clone();
    let permits = api.admit(&request.plan, &call)?;
    let extras = TextExtras {
        logprobs: request.plan.requests.iter().any(|request| request.logprobs.is_some()),
        echo: if request.echo { Some(api.echo(&request.plan).await?) } else { None },
    };
    let sequences = api.begin(request.plan, permits, &call).await.map_err(|error| api.blame(error, "prompt"))?;
    let stamp = Stamp::new("cmpl", &api.app.settings.model_id).of_tier(shared.class.tier);
    match shared.delivery {
        Delivery::Whole => {
            let outcomes = whole(sequences, &call.log).await;
            let outcomes = outcomes.map_err(|error| api.blame(error, "prompt"))?;
            document(answer::text(&stamp, &outcomes, shared.choices, &extras))
        }
        Delivery::Stream { include_usage } => {
            let chunks = TextChunks::new(stamp, sequences.total(), include_usage, extras);
            let response = stream::respond(sequences, chunks, shared.choices, call.log).await;
            response.map_err(|error| api.blame(error, "prompt"))
        }
    }
}

impl Api {
    /// What absent fields mean at the OpenAI endpoints.
    pub(super) fn defaults(&self, call: &Call, max_tokens: Option<u32>) -> Defaults {
        Defaults {
            sampling: SamplingParams::default(),
            max_tokens,
            deadlines: self.app.settings.deadlines,
            allowance: Allowance::of(call.tenant.as_ref()),
        }
    }

    /// Refuses a request that would find no permit whatever its body says, before that is read.
    pub(super) async fn refuse_early(&self, call: &mut Call) -> Result<(), ApiError> {
        let tenant = call.tenant.as_ref();
        let priority = Allowance::of(tenant).best();
        // How long it would wait, its body says.
        let claim = Claim::unhurried(tenant_id(tenant), priority, 1);
        let Err(error) = self.app.system.could_admit(claim) else { return Ok(()) };
        call.body.discard(&call.headers).await;
        Err(error.into())
    }

    /// Checks what the body's shape cannot say: the model's name, the token ids, and what fits a context.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), ApiError> {
        check_model(&self.app.settings, plan.shared.model.as_deref())?;
        match self.app.system.model() {
            Some(model) => {
                plan.check_tokens(model.n_vocab)?;
                plan.check_messages(model.n_ctx_seq)?;
                plan.check_logprobs(model.n_ctx_seq, self.app.system.max_iterations())
            }
            // Admission says why there is none.
            None => Ok(()),
        }
    }

    /// Takes the permits and starts every sequence. Dropping the result, or this future, cancels them.
    pub(super) async fn start(&self, plan: Plan, call: &Call) -> Result<Sequences<Generation>, ApiError> {
        let permits = self.admit(&plan, call)?;
        self.begin(plan, permits, call).await
    }

    /// Checks the request and takes the permits of all its sequences.
    fn admit(&self, plan: &Plan, call: &Call) -> Result<Vec<Permit>, ApiError> {
        call.log.ignored(plan.ignored.clone());
        self.check(plan)?;
        let (priority, count) = (plan.shared.class.priority, plan.requests.len() as u32);
        let claim = Claim::unhurried(tenant_id(call.tenant.as_ref()), priority, count);
        Ok(self.app.system.admit(claim.due(&plan.shared.deadlines, call.arrived))?)
    }

    /// Starts every sequence under its permit.
    async fn begin(&self, plan: Plan, permits: Vec<Permit>, call: &Call) -> Result<Sequences<Generation>, ApiError> {
        let choices = plan.shared.choices;
        let system = &self.app.system;
        let cache = cache_mode(&call.headers);
        let tenant = tenant_id(call.tenant.as_ref());
        let generations = permits.into_iter().zip(plan.requests).map(|(permit, mut request)| {
            request.trace_id = Arc::clone(&call.request_id);
            request.arrived_at = call.arrived;
            request.cache = cache;
            request.tenant = tenant;
            system.generate_with(permit, request)
        });
        let generations = future::try_join_all(generations).await?;
        let ledgers: Vec<Ledger> = generations.iter().map(|generation| generation.ledger().clone()).collect();
        call.log.generates(move || bill::so_far(&ledgers, choices));
        Ok(Sequences::new(generations))
    }

    /// A prompt that does not fit has no use for its text.
    fn check_fits(&self, tokens: &[Token]) -> Result<(), ApiError> {
        let context_tokens = self.app.system.model().map_or(u32::MAX, |model| model.n_ctx_seq);
        let prompt_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        if prompt_tokens <= context_tokens {
            return Ok(());
        }
        let counted = Counted::Exactly;
        Err(self.blame(GenerateError::ContextLengthExceeded { prompt_tokens, counted, context_tokens }, "prompt"))
    }

    /// A prompt that does not fit is the fault of the field it came in, and the message says what would make room.
    pub(super) fn blame(&self, error: impl Into<ApiError>, param: &str) -> ApiError {
        let error = error.into();
        if error.code() != "context_length_exceeded" {
            return error;
        }
        let trained = self.app.system.model().filter(|model| model.n_ctx_train > model.n_ctx_seq);
        error.or_param(param).with_room(trained.map(|model| model.n_ctx_train))
    }

    /// The text of each sequence's prompt; may ask the engine for each, so only under permits.
    async fn echo(&self, plan: &Plan) -> Result<Vec<Echo>, ApiError> {
        let bos = self.app.system.model().and_then(|model| model.bos);
        let mut echo = Vec::with_capacity(plan.requests.len());
        for prompt in plan.prompts() {
            let shown = match prompt {
                Prompt::Text(text) => Echo { text: Arc::clone(text), added: bos },
                Prompt::Tokens(tokens) => {
                    self.check_fits(tokens)?;
                    let bytes = self.app.system.detokenize(tokens.to_vec()).await.map_err(about_prompt)?;
                    Echo { text: String::from_utf8_lossy(&bytes).into(), added: None }
                }
                Prompt::Chat(_) => Echo { text: "".into(), added: None },
            };
            echo.extend(std::iter::repeat_n(shown, plan.shared.choices as usize));
        }
        Ok(echo)
    }
}

/// On whose behalf a request with this key is made.
fn tenant_id(tenant: Option<&Tenant>) -> TenantId {
    tenant.map_or(TenantId::NOBODY, Tenant::id)
}

/// Waits for the end of all sequences and logs where their answers come from.
pub(super) async fn whole(sequences: Sequences<Generation>, log: &RequestLog) -> Result<Vec<Outcome>, GenerateError> {
    let outcomes = sequences.collect().await?;
    log.cached(outcomes.iter().filter_map(|outcome| outcome.cache).max());
    Ok(outcomes)
}

/// Whether this server serves the model: no name, an empty one and `default` mean whatever it serves.
pub(super) fn check_model(settings: &HttpSettings, name: Option<&str>) -> Result<(), ApiError> {
    match name {
        Some(name) if !name.is_empty() && !settings.serves_model(name) => Err(ApiError::unknown_model(name)),
        _ => Ok(()),
    }
}

/// What the client lets the response cache do: `Cache-Control` as in a request to any cache (RFC 9111, 5.2.1), as far as
/// it says `no-cache` or `no-store`.
fn cache_mode(headers: &HeaderMap) -> CacheMode {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.fold(CacheMode::Use, |mode, directive| match mode {
        _ if directive.eq_ignore_ascii_case("no-store") => CacheMode::Bypass,
        CacheMode::Use if directive.eq_ignore_ascii_case("no-cache") => CacheMode::Refresh,
        mode => mode,
    })
}

/// The vocabulary knows the tokens it is asked about by another name.
fn about_prompt(error: GenerateError) -> GenerateError {
    match error {
        GenerateError::InvalidRequest { message, .. } => {
            GenerateError::InvalidRequest { param: "prompt".to_owned(), message }
        }
        error => error,
    }
}

fn document(answer: serde_json::Result<Vec<u8>>) -> Result<Response, ApiError> {
    let answer = answer.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(warp::reply::with_header(answer, CONTENT_TYPE, "application/json").into_response())
}
