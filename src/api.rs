//! The generation API: what each endpoint takes and answers. No connection, no key, no log line is handled here
//! ([`crate::http`] does that), no token is drawn ([`cllm_actors`] does that).
//!
//! A request's way: `fields` reads the body's fields one by one, `openai` or `cllm` make a `plan` of them,
//! `generation` takes the permits and starts the `sequences`, and their events become one document
//! (`openai/answer.rs`) or server-sent events (`stream`, in the dialect of the endpoint).

use std::future::Future;

use cllm_actors::engine::spec::EngineSpec;
use warp::reply::Response;

use crate::http::context::{AppState, Call};
use crate::http::error::{ApiError, ErrorShape};
use crate::http::route::Route;

mod actors;
mod bill;
mod cllm;
mod fields;
mod generation;
mod models;
mod openai;
mod plan;
mod priority;
mod refusals;
mod sampling;
mod sequences;
mod stream;
mod vocabulary;

/// What the endpoints work with; cheap to clone.
#[derive(Debug, Clone)]
struct Api {
    app: AppState,
    /// What `/model/info` says about the engine's settings.
    engine: std::sync::Arc<EngineSpec>,
    /// When the model was first offered, in seconds since 1970.
    created: u64,
}

/// The routes of the generation API. `engine` is what the system was started with.
pub fn routes(app: AppState, engine: EngineSpec) -> Vec<Route> {
    let api = Api { app, engine: engine.into(), created: openai::shapes::unix_seconds() };
    vec![
        Route::post("/v1/chat/completions", api.handler(generation::chat)),
        Route::post("/v1/completions", api.handler(generation::text)),
        Route::get("/v1/models", api.handler(models::list)),
        Route::get("/v1/models/{id}", api.handler(models::card)),
        Route::post("/tokenize", api.handler(vocabulary::tokenize)),
        Route::post("/detokenize", api.handler(vocabulary::detokenize)),
        Route::post("/apply-template", api.handler(vocabulary::apply_template)),
        Route::get("/tokenizer_info", api.handler(vocabulary::tokenizer_info)),
        Route::post("/generate", api.handler(cllm::generate)).errors(ErrorShape::Cllm),
        Route::post("/generate_stream", api.handler(cllm::generate_stream)).errors(ErrorShape::Cllm),
        Route::post("/encode", api.handler(cllm::encode)).errors(ErrorShape::Cllm),
        Route::get("/model/info", api.handler(cllm::model_info)).errors(ErrorShape::Cllm),
        Route::get("/actors", api.handler(actors::list)),
        Route::get("/actors/events", api.handler(actors::events)),
        Route::get("/actors/{path}", api.handler(actors::one)),
        Route::post("/actors/{path}", api.handler(actors::act)).admin(),
        Route::get("/", api.handler(cllm::index)).errors(ErrorShape::Cllm),
    ]
}

impl Api {
    /// Gives a handler its state.
    fn handler<F, R>(&self, handle: F) -> impl Fn(Call) -> R + Send + Sync + 'static
    where
        F: Fn(Api, Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let api = self.clone();
        move |call| handle(api.clone(), call)
    }
}
