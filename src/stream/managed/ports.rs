//! Ports: those that a server says it listens on, and a free one for its monitoring.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use serde::Deserialize;

/// Where the monitoring listens when nothing else does: the port that NATS's documentation and tools assume.
pub(super) const FIRST_MONITOR_PORT: u16 = 8222;

/// Ports tried for the monitoring: more daemons than anybody runs on one machine.
pub(super) const MONITOR_PORTS: u16 = 100;

/// What the server writes into `ports_file_dir` once it listens.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Ports {
    #[serde(default)]
    nats: Vec<String>,
    #[serde(default)]
    monitoring: Vec<String>,
}

impl Ports {
    /// The ports file in `folder`; `None` while it is not there or not whole.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let entry = std::fs::read_dir(folder)
            .ok()?
            .flatten()
            .find(|entry| entry.path().extension().is_some_and(|it| it == "ports"))?;
        let ports: Self = serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?;
        (!ports.nats.is_empty()).then_some(ports)
    }

    /// The URL for clients of this machine: over loopback where the server listens there.
    pub(super) fn client_url(&self) -> Option<&str> {
        prefer_loopback(&self.nats)
    }

    pub(super) fn client_port(&self) -> Option<u16> {
        self.client_url()?.rsplit_once(':')?.1.parse().ok()
    }

    pub(super) fn monitor_url(&self) -> Option<&str> {
        prefer_loopback(&self.monitoring)
    }
}

fn prefer_loopback(urls: &[String]) -> Option<&str> {
    urls.iter()
        .find(|url| url.contains("//127.") || url.contains("//localhost:"))
        .or_else(|| urls.first())
        .map(String::as_str)
}

/// The first free port for the monitoring from `from` on. Somebody else may take it before the server does.
pub(super) fn free_monitor_port(from: u16) -> u16 {
    (from..=FIRST_MONITOR_PORT.saturating_add(MONITOR_PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_monitoring_port_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        // Outside the range there is no next one to take.
        assert_eq!(free_monitor_port(port), port);
        let first = free_monitor_port(FIRST_MONITOR_PORT);
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, first));
        if held.is_ok() {
            assert!(free_monitor_port(first) > first);
        }
    }

    #[test]
    fn the_loopback_address_is_preferred() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Ports::read(folder.path()).is_none());
        let file = folder.path().join("nats-server_1.ports");
        std::fs::write(&file, "{\"nats\":[\"nats://10.0.0").unwrap();
        assert!(Ports::read(folder.path()).is_none());
        std::fs::write(
            &file,
            r#"{"nats":["nats://10.0.0.7:4222","nats://127.0.0.1:4222"],"cluster":["nats://0.0.0.0:1"]}"#,
        )
        .unwrap();
        let ports = Ports::read(folder.path()).unwrap();
        assert_eq!(ports.client_url(), Some("nats://127.0.0.1:4222"));
        assert_eq!(ports.client_port(), Some(4222));
        assert_eq!(ports.monitor_url(), None);
    }
}
