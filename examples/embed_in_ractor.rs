//! Puts a model under a supervisor of your own ractor system; an actor of yours receives the tokens as its messages.
//!
//! ```text
//! cargo run --example embed_in_ractor                      # the fake engine: gibberish, but no model is needed
//! cargo run --release --example embed_in_ractor model.gguf
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use cllm_actors::{GenerateRequest, GenerationEvent, System};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

#[tokio::main]
async fn main() -> Result<(), ActorProcessingErr> {
    let (_, host) = Host::spawn(Some("host".to_owned()), Host, std::env::args().nth(1)).await?;
    Ok(host.await?)
}

/// What the reader is told. Any message that can be made of an event will do.
enum ReaderMsg {
    /// The model has something to say.
    Said(GenerationEvent),
}

impl From<GenerationEvent> for ReaderMsg {
    fn from(event: GenerationEvent) -> Self {
        Self::Said(event)
    }
}

// `cllm-actors` builds ractor with its feature `cluster`, and then messages need this line.
impl ractor::Message for ReaderMsg {}

/// Receives the tokens. If it ended early, its request would be cancelled.
struct Reader;

#[ractor::actor(message = ReaderMsg, state = String, arguments = ())]
impl Reader {
    async fn pre_start(&self, _myself: ActorRef<ReaderMsg>, (): ()) -> Result<String, ActorProcessingErr> {
        Ok(String::new())
    }

    async fn handle(
        &self,
        myself: ActorRef<ReaderMsg>,
        message: ReaderMsg,
        answer: &mut String,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ReaderMsg::Said(GenerationEvent::Delta(delta)) => answer.push_str(&delta.text),
            ReaderMsg::Said(GenerationEvent::Finished(end)) => {
                println!("{answer}\n[{:?}, {:?}]", end.reason, end.usage);
                myself.stop(None);
            }
            ReaderMsg::Said(GenerationEvent::Failed(error)) => return Err(error.into()),
            ReaderMsg::Said(_) => {}
        }
        Ok(())
    }
}

/// The host's own supervisor: owns the model's system and the reader, and ends with the answer.
struct Host;

#[ractor::actor(message = (), state = System, arguments = Option<String>)]
impl Host {
    async fn pre_start(&self, myself: ActorRef<()>, model: Option<String>) -> Result<System, ActorProcessingErr> {
        // The prefix of all registered names: a second system in this process would need another one.
        let mut builder = System::builder().instance("host/llm");
        if let Some(path) = model {
            builder = builder.model(path);
        }
        let system = builder.spawn_linked(myself.get_cell()).await?;
        system.ready().await?;

        let (reader, _) = Reader::spawn_linked(Some("host/reader".to_owned()), Reader, (), myself.get_cell()).await?;
        let mut request = GenerateRequest::text("Once upon a time");
        request.max_tokens = Some(48);
        system.generate_to(reader, request).await?;
        Ok(system)
    }

    /// The system restarts what fails inside it. What arrives here is the end of all of it, or of the reader.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        _system: &mut System,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(..) => myself.stop(None),
            SupervisionEvent::ActorFailed(_, cause) => return Err(cause),
            _ => {}
        }
        Ok(())
    }

    /// In order: without this ractor would kill the system with its supervisor.
    async fn post_stop(&self, _myself: ActorRef<()>, system: &mut System) -> Result<(), ActorProcessingErr> {
        system.stop().await;
        Ok(())
    }
}
