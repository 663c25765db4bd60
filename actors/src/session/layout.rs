//! A session whose chat takes long to lay out: that is done elsewhere, and the answer comes as a message.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{Phase, SessionMsg, SessionRef, SessionState, answer};
use crate::admission::Permit;
use crate::engine::protocol::TextPart;
use crate::error::GenerateError;
use crate::prompt::{ChatPrompt, TemplateError};
use crate::response_cache::key::LaidOut;
use crate::wiring::LoadedModel;

/// The wait for a layout; given up on drop.
#[derive(Debug)]
pub(super) struct Layout {
    task: JoinHandle<()>,
}

impl Drop for Layout {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SessionState {
    /// The permit goes along: a request that is given up still counts while its chat is laid out.
    pub(super) fn lay_out(&mut self, myself: &SessionRef, model: Arc<LoadedModel>, chat: Arc<ChatPrompt>) {
        // Without a permit it is being laid out already, and a restart elsewhere changes nothing about that.
        let Some(permit) = self.permit.take() else { return };
        let (layouts, session) = (self.wiring.layouts.clone(), myself.clone());
        let task = tokio::spawn(async move {
            let (result, permit) = layouts.lay_out(model, chat, permit).await;
            // Undeliverable: the request is over, and the permit goes back with the message.
            let _ = session.cast(SessionMsg::LaidOut { result, permit });
        });
        self.layout = Some(Layout { task });
    }

    pub(super) fn on_laid_out(
        &mut self,
        myself: &SessionRef,
        result: Result<Vec<TextPart>, TemplateError>,
        permit: Option<Permit>,
    ) -> Result<(), GenerateError> {
        self.layout = None;
        self.permit = permit;
        let parts = result.map_err(|error| answer::template_error(&error))?;
        match self.model.clone() {
            Some(model) if self.phase == Phase::Tokenizing => self.share(myself, LaidOut::Parts(parts), &model),
            _ => Ok(()),
        }
    }
}
