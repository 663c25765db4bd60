//! From the configuration to the settings of the HTTP side.

use std::path::Path;
use std::time::Duration;

use crate::config::{ApiKey, Config};
use crate::http::auth::KeyRing;
use crate::http::body::BodyLimits;
use crate::http::context::{ConnectionLimits, HttpSettings};
use crate::http::cors::AllowedOrigins;

/// Longest time for a whole request body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Longest time without write progress before a client counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The model's name when there is neither an alias nor a file.
const UNNAMED: &str = "fake";

/// What the HTTP side needs to know of the configuration.
pub(super) fn of_config(config: &Config) -> HttpSettings {
    let server = &config.server;
    let stem = config.model.path.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let model_names: Vec<String> = config.model.alias.clone().into_iter().chain(stem).collect();
    HttpSettings {
        model_id: model_names.first().map_or(UNNAMED, String::as_str).to_owned(),
        model_names: if model_names.is_empty() { vec![UNNAMED.to_owned()] } else { model_names },
        body: BodyLimits { max_bytes: server.max_body_bytes(), deadline: BODY_DEADLINE },
        origins: AllowedOrigins::of_list(&server.cors_origins),
        keys: KeyRing::of_hashes(server.api_keys.iter().map(|key| *ApiKey::hash(key))),
        deadlines: config.scheduler.deadlines(),
        connections: ConnectionLimits {
            max_connections: server.max_connections,
            header_timeout: server.header_timeout(),
            write_timeout: WRITE_TIMEOUT,
        },
        shutdown_timeout: server.shutdown_timeout(),
    }
}
