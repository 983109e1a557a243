//! What a managed server tells of itself over HTTP, for people.
//!
//! Invariant: each question has its deadline, each answer its bound.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use super::{ports, settings};
use crate::change::position::NodeId;

/// Bytes of one answer.
const MOST: u64 = 8 << 20;

/// When JetStream writes what it has stored to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before it acknowledges.
    Always,
    /// Every so often.
    Every(Duration),
}

/// Where the monitoring is of the managed server that has its files below `folder`, or had them; `None`: it never ran, or has no monitoring.
#[must_use]
pub fn monitor_of(folder: &Path, node: NodeId) -> Option<String> {
    let folder = settings::folder_of(folder, node).join(settings::PORTS);
    let url = ports::Ports::read(&folder)?.monitor_url()?.to_owned();
    Some(url)
}

/// When the managed server below `folder` writes to its disk; `None`: it does not run, or does not say.
#[must_use]
pub fn sync_of(folder: &Path, node: NodeId, patience: Duration) -> Option<Sync> {
    let url = monitor_of(folder, node)?;
    let (host, port) = url
        .strip_prefix("http://")?
        .trim_end_matches('/')
        .rsplit_once(':')?;
    sync(&get(host, port.parse().ok()?, "/varz", patience).ok()?)
}

fn sync(varz: &str) -> Option<Sync> {
    let varz: serde_json::Value = serde_json::from_str(varz).ok()?;
    let config = varz.get("jetstream")?.get("config")?;
    if config.get("sync_always").and_then(|v| v.as_bool()) == Some(true) {
        return Some(Sync::Always);
    }
    let nanos = config.get("sync_interval")?.as_u64()?;
    Some(Sync::Every(Duration::from_nanos(nanos)))
}

/// What an HTTP server answers; its first line too, where that is not 200.
///
/// # Errors
/// The system's.
pub fn get(host: &str, port: u16, path: &str, patience: Duration) -> io::Result<String> {
    let none = || io::Error::other("no address");
    let address = (host, port).to_socket_addrs()?.next().ok_or_else(none)?;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    Ok(match status.contains(" 200 ") {
        true => body.to_owned(),
        false => format!("{status}\n{body}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_when_it_writes() {
        let varz = |config: &str| format!("{{\"jetstream\": {{\"config\": {{{config}}}}}}}");
        let usual = sync(&varz("\"sync_interval\": 120000000000"));
        assert_eq!(usual, Some(Sync::Every(Duration::from_secs(120))));
        // As a server says that writes always.
        let always = sync(&varz(
            "\"sync_interval\": 120000000000, \"sync_always\": true",
        ));
        assert_eq!(always, Some(Sync::Always));
        assert_eq!(sync(&varz("")), None);
        assert_eq!(sync("404 page not found"), None);
    }
}
