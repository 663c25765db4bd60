//! What is printed when the server is ready: one line for scripts and, if wanted, what to try, for people.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::http::context::HttpSettings;

/// What a server prints when it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Announcement {
    /// The line that scripts wait for and read the address from.
    #[default]
    Line,
    /// That line, and what to try.
    LineAndHints,
}

impl Announcement {
    /// With or without hints.
    pub fn with_hints(wanted: bool) -> Self {
        if wanted { Self::LineAndHints } else { Self::Line }
    }

    /// Prints it to stdout. A stdout that is gone is no reason not to serve.
    pub(super) fn make(self, address: SocketAddr, settings: &HttpSettings) {
        let model = settings.model_id.as_str();
        let mut text = format!("cllm ready at http://{address} (model {model})\n");
        if self == Self::LineAndHints {
            text += &hints(address, model, !settings.keys.is_empty());
        }
        let mut stdout = io::stdout().lock();
        if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            tracing::warn!(%error, "the line that says the server is ready could not be printed");
        }
        tracing::info!(%address, model, "ready");
    }
}

/// What to try, as it works from this machine.
fn hints(address: SocketAddr, model: &str, needs_key: bool) -> String {
    let address = reachable(address);
    let (header, key) = if needs_key {
        (" -H \"Authorization: Bearer $API_KEY\"", "one of the API keys of the configuration")
    } else {
        ("", "any API key")
    };
    format!(
        r#"
Try it, in another terminal:

  curl http://{address}/v1/chat/completions{header} -H 'Content-Type: application/json' \
    -d '{{"messages": [{{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}}]}}'

or stream it with `"stream": true` and `curl -N`; with a chat and the actors in a browser: http://{address}/ui
Any OpenAI client works: base URL http://{address}/v1, model `{model}` or `default`, {key}.
Ctrl-C stops it.

"#
    )
}

/// Where to connect to: one that listens everywhere does so on the loopback interface, too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, address.port())
}

#[cfg(test)]
mod tests {
    use super::hints;

    #[test]
    fn hints_name_an_address_that_can_be_reached_and_the_key_that_is_needed() {
        let open = hints("0.0.0.0:9000".parse().unwrap(), "small", false);
        assert!(open.contains("curl http://127.0.0.1:9000/v1/chat/completions -H 'Content-Type"), "{open}");
        assert!(open.contains("model `small` or `default`, any API key"), "{open}");
        let closed = hints("[::]:80".parse().unwrap(), "small", true);
        assert!(closed.contains("http://[::1]:80/ui"), "{closed}");
        assert!(closed.contains("completions -H \"Authorization: Bearer $API_KEY\" -H"), "{closed}");
    }
}
