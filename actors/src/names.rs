//! Names of the actors, in one place. Every system has its own prefix, so that two can live in one process.

/// The root supervisor.
pub const ROOT: &str = "cllm";
/// Supervisor of backend, kv-cache and scheduler.
pub const ENGINE: &str = "engine-0";
/// The owner of the engine.
pub const BACKEND: &str = "backend-0";
/// The prefix index.
pub const KV_CACHE: &str = "kv-cache-0";
/// Who runs next.
pub const SCHEDULER: &str = "scheduler-0";
/// Keeper of finished answers.
pub const RESPONSE_CACHE: &str = "response-cache";
/// Supervisor of the sessions.
pub const SESSIONS: &str = "sessions";
/// Injects faults when asked to.
pub const CHAOS: &str = "chaos";
/// Keeper of the event feed.
pub const INSPECTOR: &str = "inspector";
/// The listener; added by the server binary.
pub const HTTP: &str = "http";
