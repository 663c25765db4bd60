//! What the actors of one system share: addresses of each other, the loaded model, the status.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::backend::BackendMsg;
use crate::boards::Boards;
use crate::engine::protocol::ModelInfo;
use crate::error::GenerateError;
use crate::kv_cache::KvCacheMsg;
use crate::layouts::Layouts;
use crate::meters::Meters;
use crate::prompt::ChatTemplate;
use crate::pulse::Pulse;
use crate::quarantine::Quarantine;
use crate::response_cache::ResponseCacheMsg;
use crate::response_cache::key::ModelIdentity;
use crate::scheduler::SchedulerMsg;
use crate::supervision::{ActorRegistry, Addr};
use crate::system::Status;

/// Shared by all actors of a system.
#[derive(Debug)]
pub struct Wiring {
    /// Owner of the engine.
    pub backend: Addr<BackendMsg>,
    /// Prefix index.
    pub kv_cache: Addr<KvCacheMsg>,
    /// Who runs next.
    pub scheduler: Addr<SchedulerMsg>,
    /// Finished answers; nobody if there is no response cache.
    pub response_cache: Addr<ResponseCacheMsg>,
    /// The model, once loaded.
    pub model: watch::Sender<Option<Arc<LoadedModel>>>,
    /// What the system can do.
    pub status: watch::Sender<Status>,
    /// Who may have killed an engine.
    pub quarantine: Quarantine,
    /// One permit: the device memory. Held until the last byte of a model is freed.
    pub occupancy: Arc<Semaphore>,
    /// The facts about every actor.
    pub actors: ActorRegistry,
    /// What backend, kv-cache and scheduler show of themselves.
    pub boards: Boards,
    /// What all requests came to.
    pub meters: Meters,
    /// Where long chats are laid out.
    pub layouts: Layouts,
    /// Whether the engine ends its steps, and how long those before it worked.
    pub pulse: Pulse,
}

/// A model and its compiled chat template.
#[derive(Debug)]
pub struct LoadedModel {
    /// Facts.
    pub info: Arc<ModelInfo>,
    /// Lays conversations out.
    pub template: ChatTemplate,
    /// Tells it from others.
    pub identity: ModelIdentity,
}

impl LoadedModel {
    /// A request that began with this model cannot go on with that one, if it is another: its tokens would be read as words
    /// of another vocabulary, and its text go on in another voice.
    ///
    /// # Errors
    /// `EngineDown`: it can be sent again at once.
    pub fn goes_on_as(&self, now: &Self) -> Result<(), GenerateError> {
        if self.identity.is_same_file(&now.identity) {
            return Ok(());
        }
        let cause = format!("`{}` was replaced by `{}` while the request was under way", self.info.name, now.info.name);
        Err(GenerateError::EngineDown { cause, retry_after: Duration::from_secs(1) })
    }
}

impl Wiring {
    /// Nobody is there yet.
    pub fn new() -> Self {
        Self {
            backend: Addr::new(),
            kv_cache: Addr::new(),
            scheduler: Addr::new(),
            response_cache: Addr::new(),
            model: watch::Sender::new(None),
            status: watch::Sender::new(Status::Loading { progress: 0.0 }),
            quarantine: Quarantine::default(),
            occupancy: Arc::new(Semaphore::new(1)),
            actors: ActorRegistry::default(),
            boards: Boards::default(),
            meters: Meters::default(),
            layouts: Layouts::default(),
            pulse: Pulse::default(),
        }
    }

    /// The loaded model, if there is one.
    pub fn loaded(&self) -> Option<Arc<LoadedModel>> {
        self.model.borrow().clone()
    }

    /// Changes the status, except that draining stays.
    pub fn set_status(&self, status: Status) {
        self.set_status_if(status, |_| true);
    }

    /// The same if this applies to the present one, which nobody changes meanwhile.
    pub fn set_status_if(&self, status: Status, applies: impl FnOnce(&Status) -> bool) {
        self.status.send_if_modified(|current| {
            let change = *current != Status::Draining && *current != status && applies(current);
            if change {
                *current = status;
            }
            change
        });
    }
}

impl Default for Wiring {
    fn default() -> Self {
        Self::new()
    }
}
