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

/// Most bytes of request bodies that are read at once, in all connections together. JSON in memory is many times its text;
/// how many values a body has is bounded for itself.
const BODIES_BYTES: u64 = 64 << 20;

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
        body: BodyLimits {
            max_bytes: server.max_body_bytes(),
            max_bytes_in_all: BODIES_BYTES,
            deadline: BODY_DEADLINE,
        },
        origins: AllowedOrigins::of_list(&server.cors_origins),
        keys: KeyRing::of_hashes(server.api_keys.iter().map(|key| *ApiKey::hash(key)))
            .with_admins(server.admin_keys.iter().map(|key| *ApiKey::hash(key)))
            .with_priorities(&server.api_key_priorities),
        deadlines: config.scheduler.deadlines(),
        connections: ConnectionLimits {
            max_connections: config.max_connections(),
            header_timeout: server.header_timeout(),
            write_timeout: WRITE_TIMEOUT,
        },
        shutdown_timeout: server.shutdown_timeout(),
    }
}

#[cfg(test)]
mod tests {
    use super::of_config;
    use crate::config::Config;
    use crate::http::context::HttpSettings;

    fn settings(path: Option<&str>, alias: Option<&str>) -> HttpSettings {
        let mut config = Config::default();
        config.model.path = path.map(Into::into);
        config.model.alias = alias.map(Into::into);
        of_config(&config)
    }

    #[test]
    fn a_model_answers_to_its_alias_and_its_file_and_goes_by_the_alias() {
        let both = settings(Some("/models/SmolLM2-Q4_K_M.gguf"), Some("small"));
        assert_eq!(both.model_id, "small");
        for name in ["small", "SmolLM2-Q4_K_M", "default"] {
            assert!(both.serves_model(name), "{name}");
        }
        assert!(!both.serves_model("gpt-4"));
        assert_eq!(settings(Some("a.gguf"), None).model_id, "a");
        assert!(settings(None, None).serves_model("fake"));
    }

    #[test]
    fn the_keys_of_the_configuration_close_the_server() {
        let mut config = Config::default();
        assert!(of_config(&config).keys.is_empty());
        config.server.api_keys = vec![crate::config::ApiKey::of("secret")];
        assert!(!of_config(&config).keys.is_empty());
    }
}
