//! Runs the server from its start to its last response: binds early, waits for the model, says so in one line, and
//! stops in order when it is told to.

mod announcement;
mod open_files;
mod settings;
mod signals;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cllm_actors::GenerateError;
use cllm_actors::engine::spec::EngineSpec;
use cllm_actors::names;
use cllm_actors::supervision::{Addr, ChildSpec, Restart, START_DEADLINE};
use cllm_actors::system::{Status, System};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::http::connection::Connections;
use crate::http::context::{AppState, HttpSettings};
use crate::http::health;
use crate::http::route::Route;
use crate::http::server::{HttpServer, HttpServerArgs, HttpServerMsg};

pub use announcement::Announcement;
pub use signals::{Signal, Signals};

/// How long the actors get to stop when no request runs any more.
const ACTORS_STOP_TIME: Duration = Duration::from_secs(5);

/// How long a root that takes no children any more gets to say why.
const CAUSE_WAIT: Duration = Duration::from_secs(1);

/// Builds the routes of the API.
pub type ApiRoutes = fn(AppState, EngineSpec) -> Vec<Route>;

/// Why the server never served, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, not ours or not allowed.
    #[error("failed to listen on {host}:{port}")]
    Listen {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No signal handler could be installed.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// The actors did not start.
    #[error("failed to start the actors")]
    Actors(#[source] GenerateError),
    /// An actor failed too often, and nothing is left to restart it.
    #[error("gave up restarting: {cause}")]
    GaveUp {
        /// Why it failed last.
        cause: String,
    },
    /// The model did not load at the first try.
    #[error("failed to load the model: {cause}")]
    FirstLoad {
        /// What the engine says.
        cause: String,
    },
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// In order: what ran has finished, or had its time.
    InOrder,
    /// At once, by a second signal.
    AtOnce(Signal),
}

/// Serves until a signal comes.
///
/// # Errors
/// Whatever keeps the server from serving for the first time; afterwards errors are dealt with inside.
pub async fn run(config: &Config, routes: ApiRoutes, announcement: Announcement) -> Result<Stopped, ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let listener = bind(&config.server.host, config.server.port).await?;
    let address = listener.local_addr().map_err(|source| listen_error(config, source))?;
    let settings = Arc::new(settings::of_config(config));
    open_files::make_room_for(settings.connections.max_connections);
    let args = config.system_args();
    let engine = args.engine.clone();
    let system = System::start(args).await.map_err(ServeError::Actors)?;

    let (watched, hopeless) = (system.clone(), system.clone());
    let mut all = health::routes(system.status(), move || watched.stalled(), move || hopeless.is_lost());
    all.extend(crate::ui::routes());
    all.extend(routes(AppState { system: system.clone(), settings: Arc::clone(&settings) }, engine));
    let http = HttpServerArgs::new(listener, all, Arc::clone(&settings));
    let connections = Arc::clone(&http.connections);

    tokio::select! {
        loaded = listen_and_load(&system, http, config.supervision.restart.http.into()) => if let Err(error) = loaded {
            end(&system, &connections).await;
            return Err(error);
        },
        signal = signals.next() => {
            tracing::info!(%signal, "stopping before the model was loaded");
            return Ok(until_second_signal(&mut signals, end(&system, &connections)).await);
        }
    }
    check_quantization(config, &system);
    announcement.make(address, &settings);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        cause = gave_up(&system) => {
            end(&system, &connections).await;
            return Err(ServeError::GaveUp { cause });
        }
    };
    let (requests, at_most_s) = (connections.running().count(), settings.shutdown_timeout.as_secs_f64());
    tracing::info!(%signal, requests, at_most_s, "stopping when the requests are done; a second signal ends at once");
    Ok(until_second_signal(&mut signals, stop(&system, &connections, &settings)).await)
}

async fn bind(host: &str, port: u16) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind((host, port)).await;
    listener.map_err(|source| ServeError::Listen { host: host.to_owned(), port, source })
}

fn listen_error(config: &Config, source: io::Error) -> ServeError {
    ServeError::Listen { host: config.server.host.clone(), port: config.server.port, source }
}

/// Answers probes from the start and waits for the model. A load that fails at once takes the root down before `http`
/// has its place under it: then the load's cause is the one to tell.
async fn listen_and_load(system: &System, http: HttpServerArgs, restart: Restart) -> Result<(), ServeError> {
    let loaded = first_load(system.status());
    match start_http(system, http, restart).await {
        Ok(()) => loaded.await,
        Err(error) => {
            let loaded = tokio::time::timeout(CAUSE_WAIT, loaded).await;
            Err(loaded.ok().and_then(Result::err).unwrap_or(error))
        }
    }
}

/// Puts the `http` actor under the root supervisor.
async fn start_http(system: &System, args: HttpServerArgs, restart: Restart) -> Result<(), ServeError> {
    let (addr, board) = (Addr::new(), Arc::clone(args.connections.board()));
    let make = move |_| (HttpServer, args.clone());
    let spec = ChildSpec::actor(system.instance(), names::HTTP, addr.clone(), make)
        .restart(restart)
        .start_deadline(START_DEADLINE)
        .board(board)
        .pausable(move |gate| addr.cast(HttpServerMsg::SetGate(gate)).is_ok());
    system.add_child(spec).await.map(drop).map_err(ServeError::Actors)
}

/// Waits for the first end of loading. Later failures are the supervisors' business; the first one ends the server,
/// since a file that is wrong stays wrong.
async fn first_load(mut status: watch::Receiver<Status>) -> Result<(), ServeError> {
    let settled = status.wait_for(|status| !matches!(status, Status::Loading { .. })).await;
    match settled.as_deref() {
        Ok(Status::Failed { cause }) => Err(ServeError::FirstLoad { cause: cause.clone() }),
        Ok(_) => Ok(()),
        Err(_) => Err(ServeError::FirstLoad { cause: "the actors are gone".to_owned() }),
    }
}

/// Completes when the root supervisor has given up or is gone.
async fn gave_up(system: &System) -> String {
    let mut status = system.status();
    let root = system.root();
    tokio::select! {
        failed = status.wait_for(|status| matches!(status, Status::Failed { .. })) => match failed.as_deref() {
            Ok(Status::Failed { cause }) => cause.clone(),
            _ => "the actors are gone".to_owned(),
        },
        _ = root.wait(None) => "the root supervisor is gone".to_owned(),
    }
}

/// A configured quantization that is not the file's is most likely a mistake in `model.path`.
fn check_quantization(config: &Config, system: &System) {
    let plain =
        |name: &str| name.to_lowercase().replace(['-', '_', ' '], "").replace("medium", "m").replace("small", "s");
    let configured = &config.model.quantization;
    let Some(model) = system.model() else { return };
    let file_type = model.metadata.iter().find(|(key, _)| key == "general.file_type").map_or("", |(_, name)| name);
    if !configured.is_empty() && !file_type.is_empty() && plain(file_type) != plain(configured) {
        tracing::warn!(configured, file = file_type, "the file's quantization is not the configured one");
    }
}

async fn until_second_signal(signals: &mut Signals, stopping: impl Future<Output = ()>) -> Stopped {
    tokio::select! {
        () = stopping => Stopped::InOrder,
        signal = signals.next() => Stopped::AtOnce(signal),
    }
}

/// Not ready, nothing new, what runs may finish.
async fn stop(system: &System, connections: &Arc<Connections>, settings: &HttpSettings) {
    system.drain();
    connections.drain();
    if tokio::time::timeout(settings.shutdown_timeout, connections.idle()).await.is_err() {
        tracing::warn!(requests = connections.running().count(), "requests are ended by the shutdown timeout");
    }
    end(system, connections).await;
}

/// Stops the actors first: a request still open then gets to say why it ends.
async fn end(system: &System, connections: &Arc<Connections>) {
    connections.drain();
    if tokio::time::timeout(ACTORS_STOP_TIME, system.stop()).await.is_err() {
        tracing::warn!("the actors did not stop in time");
    }
    connections.shut_down().await;
}

#[cfg(test)]
mod tests;
