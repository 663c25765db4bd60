//! The endpoints taken over from the C++ cLLM: `{"success":true,"data":{…}}`, but with true statuses and real streams.

use cllm_actors::engine::protocol::{AddSpecial, TextPart, Trust};
use cllm_actors::{Prompt, SamplingParams};
use serde_json::{Value, json};
use warp::Reply;
use warp::reply::Response;

use crate::api::Api;
use crate::api::bill::Bill;
use crate::api::fields::{Fields, missing};
use crate::api::generation::whole;
use crate::api::openai::shapes::random_id;
use crate::api::plan::{Defaults, Delivery, Plan, Shared};
use crate::api::sequences::Outcome;
use crate::api::stream;
use crate::api::vocabulary::check_length;
use crate::http::context::Call;
use crate::http::error::ApiError;

use frames::{TokenFrames, generated_tokens};

mod benchmark;
mod frames;
mod info;

pub(super) use benchmark::{Turn, benchmark};
pub(super) use info::{index, model_info};

#[cfg(test)]
mod tests;

/// `POST /generate`: one document, or with `"stream": true` what [`generate_stream`] answers.
pub(super) async fn generate(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let plan = read(&api, &mut call).await?;
    match plan.shared.delivery {
        Delivery::Whole => answer(api, plan, call).await,
        Delivery::Stream { .. } => stream(api, plan, call).await,
    }
}

/// `POST /generate_stream`: always a stream.
pub(super) async fn generate_stream(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let plan = read(&api, &mut call).await?;
    stream(api, plan, call).await
}

/// `POST /encode`.
pub(super) async fn encode(api: Api, mut call: Call) -> Result<Response, ApiError> {
    let mut fields = Fields::of(call.json().await?);
    let text = fields.string(&["text"])?.filter(|text| !text.is_empty()).ok_or_else(|| missing("text"))?;
    check_length("text", &text)?;
    drop(fields);
    let parts = vec![TextPart { text, trust: Trust::User }];
    let tokens = api.app.system.tokenize(parts, AddSpecial::Never).await?;
    Ok(success(&json!({ "length": tokens.len(), "tokens": tokens })))
}

impl Api {
    /// What absent fields mean here; the C++ server's own values.
    fn cllm_defaults(&self, call: &Call) -> Defaults {
        let sampling =
            SamplingParams { temperature: 0.7, top_p: 0.9, repeat_penalty: 1.1, ..SamplingParams::default() };
        Defaults { sampling, ..self.defaults(call, Some(100)) }
    }
}

async fn read(api: &Api, call: &mut Call) -> Result<Plan, ApiError> {
    api.refuse_early(call).await?;
    let fields = Fields::of(call.json().await?);
    let plan = plan(fields, api.cllm_defaults(call))?;
    call.body.done();
    Ok(plan)
}

fn plan(mut fields: Fields, defaults: Defaults) -> Result<Plan, ApiError> {
    let shared = Shared::read(&mut fields, defaults)?;
    let prompt = fields.string(&["prompt"])?.filter(|prompt| !prompt.is_empty()).ok_or_else(|| missing("prompt"))?;
    if shared.choices != 1 {
        let message = "`n` must be 1 here: the answer has room for one text";
        return Err(ApiError::invalid("n".to_owned(), "invalid_value", message));
    }
    Plan::new(vec![Prompt::Text(prompt.into())], shared, &fields)
}

async fn answer(api: Api, plan: Plan, call: Call) -> Result<Response, ApiError> {
    let max_tokens = plan.shared.max_tokens();
    let sequences = api.start(plan, &call).await.map_err(|error| api.blame(error, "prompt"))?;
    let outcomes = whole(sequences, &call.log).await.map_err(|error| api.blame(error, "prompt"))?;
    let outcome = outcomes.first().ok_or_else(|| ApiError::internal("a plan without a sequence"))?;
    Ok(success(&answer_data(outcome, max_tokens, call.arrived.elapsed().as_secs_f64())))
}

async fn stream(api: Api, mut plan: Plan, call: Call) -> Result<Response, ApiError> {
    plan.want_positions();
    let sequences = api.start(plan, &call).await?;
    let response = stream::respond(sequences, TokenFrames::new(random_id()), 1, call.log).await;
    response.map_err(|error| api.blame(error, "prompt"))
}

/// The C++ server's fields, and the bill as everywhere. `seconds` from the request's arrival to the end of its answer.
fn answer_data(outcome: &Outcome, max_tokens: Option<u32>, seconds: f64) -> Value {
    let generated = generated_tokens(&outcome.finished);
    let rate = if seconds > 0.0 { f64::from(generated) / seconds } else { 0.0 };
    let bill = Bill::new([&outcome.finished], 1);
    let timings = bill.timings_object();
    let mut data = json!({
        "id": random_id(),
        "text": outcome.text,
        "response_time": seconds,
        "tokens_per_second": rate,
        "generated_tokens": generated,
        "max_tokens": max_tokens,
        "usage": bill.usage_object(),
        "timings": timings,
    });
    if let Some(resumed) = timings.resumed() {
        data["resumed"] = resumed.into();
    }
    data
}

fn success(data: &Value) -> Response {
    warp::reply::json(&json!({ "success": true, "data": data })).into_response()
}
