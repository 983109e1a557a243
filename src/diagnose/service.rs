//! What the daemon and its NATS server say: over the control socket and over HTTP.
//!
//! Invariants: nothing is asked that changes anything; each question has its deadline, each answer its bound.

use std::process::Command;

use super::ASK;
use super::system::output;
use crate::change::position::NodeId;
use crate::config::{Config, ListenAddress};
use crate::control::{Request, client};
use crate::stream::managed;

/// Versions of everything.
pub fn versions(config: &Config) -> String {
    let mut out = format!(
        "harmonylite {}\nSQLite {}\n",
        env!("CARGO_PKG_VERSION"),
        rusqlite::version()
    );
    match client::request(&config.db_path, Request::Ping, ASK, |_| {}) {
        Ok(answer) => out.push_str(&format!("daemon: {}\n", answer.result.unwrap_or_default())),
        Err(e) => out.push_str(&format!("daemon: {e}\n")),
    }
    if config.nats.urls.is_empty()
        && let Ok(binary) = managed::find_binary(&config.nats)
    {
        let said = output(Command::new(&binary).arg("--version"));
        out.push_str(&format!("{}: {said}\n", binary.display()));
    }
    out
}

/// All parts.
pub fn all(config: &Config) -> Vec<(&'static str, &'static str, String)> {
    let mut parts = Vec::new();
    for (name, about, request) in [
        (
            "status.json",
            "harmonylite status: every node",
            Request::Status,
        ),
        (
            "streams.json",
            "harmonylite streams: what the streams hold",
            Request::Streams,
        ),
    ] {
        let answer = client::request(&config.db_path, request, ASK, |_| {});
        let text = match answer {
            Ok(answer) => serde_json::to_string_pretty(&answer.result).unwrap_or_default(),
            Err(e) => format!("{e}\n"),
        };
        parts.push((name, about, text));
    }
    let off = || "it is off in the configuration\n".to_owned();
    let health = &config.health_check;
    let text = match health.enable {
        true => fetch(&health.bind, &health.path),
        false => off(),
    };
    parts.push(("health.json", "what the health endpoint answers", text));
    let text = match config.prometheus.enable {
        true => fetch(&config.prometheus.bind, "/metrics"),
        false => off(),
    };
    parts.push(("metrics.txt", "what the metrics endpoint answers", text));
    if config.nats.urls.is_empty() {
        let monitor = managed::monitor_of(config.folder(), NodeId(config.node_id));
        let monitor = monitor
            .as_deref()
            .and_then(|url| url.strip_prefix("http://"));
        for (name, about, path) in [
            (
                "nats-varz.json",
                "the managed NATS server of itself",
                "/varz",
            ),
            (
                "nats-jsz.json",
                "the managed NATS server of JetStream",
                "/jsz?streams=1",
            ),
        ] {
            let text = match monitor {
                Some(at) => fetch(at.trim_end_matches('/'), path),
                None => "the managed server does not run, or has no monitoring\n".to_owned(),
            };
            parts.push((name, about, text));
        }
    }
    parts
}

/// What an HTTP server of this machine answers.
fn fetch(bind: &str, path: &str) -> String {
    let Ok(ListenAddress {
        host,
        port: Some(port),
    }) = ListenAddress::parse(bind)
    else {
        return format!("{bind} has no port that is known\n");
    };
    let everywhere = host.is_empty() || host == "0.0.0.0" || host == "::";
    let host = if everywhere {
        "127.0.0.1".to_owned()
    } else {
        host
    };
    managed::get(&host, port, path, ASK).unwrap_or_else(|e| format!("{host}:{port}{path}: {e}\n"))
}
