//! Where long chats are laid out: beside the actors, a few at a time.
//!
//! A chat template is a program that came with the model, and its input came from a client: it may compute for a second.
//! That must hold up nobody, so whatever is long runs on threads that may block. Few do so at once, since they compete
//! for the cores with the threads that serve everybody.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::engine::protocol::TextPart;
use crate::prompt::{ChatPrompt, TemplateError};
use crate::wiring::LoadedModel;

/// Layouts that are computed at the same time; others wait.
const AT_ONCE: usize = 2;

/// The places; clones share them.
#[derive(Debug, Clone)]
pub struct Layouts {
    places: Arc<Semaphore>,
}

impl Default for Layouts {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Layouts {
    /// Lays a chat out when there is a place. `held` is what bounds the callers: if the caller goes away, it is dropped
    /// when nothing is computed for it any more, else it comes back.
    ///
    /// # Errors
    /// In the result, what the template says; what is held is lost if rendering panicked.
    pub async fn lay_out<T: Send + 'static>(
        &self,
        model: Arc<LoadedModel>,
        chat: Arc<ChatPrompt>,
        held: T,
    ) -> (Result<Vec<TextPart>, TemplateError>, Option<T>) {
        // Nobody closes the semaphore.
        let place = self.places.clone().acquire_owned().await.ok();
        let rendered = tokio::task::spawn_blocking(move || {
            let _place = place;
            (model.template.render(&chat), held)
        });
        match rendered.await {
            Ok((result, held)) => (result, Some(held)),
            Err(error) => (Err(TemplateError::Invalid { message: error.to_string() }), None),
        }
    }

    /// Takes all the places, so that a test sees who waits for one.
    #[cfg(test)]
    pub(crate) async fn occupy(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.places.clone().acquire_many_owned(AT_ONCE as u32).await.expect("nobody closes it")
    }
}

#[cfg(test)]
mod tests;
