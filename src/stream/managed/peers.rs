//! The other servers of a cluster: `nats://` as they are, `dns://` by all the addresses of the name, looked up again and again.

use std::collections::BTreeSet;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use super::supervisor::Command;
use crate::config::{PeerUrl, Secret};

/// How often names are looked up again: what a scheduler moves is found within this time, and a resolver is hardly
/// troubled.
const REFRESH_EVERY: Duration = Duration::from_secs(30);

/// The routes to all peers; waits until each name has as many addresses as it should.
pub(super) async fn resolve(peers: &[PeerUrl]) -> Vec<Secret> {
    let mut routes = Vec::new();
    for peer in peers {
        match peer {
            PeerUrl::Nats { host, .. } => routes.push(peer.server_url(host)),
            PeerUrl::Dns {
                host,
                port,
                min,
                interval,
                ..
            } => {
                let addresses = wait_for(host, *port, *min, *interval).await;
                routes.extend(addresses.iter().map(|address| peer.server_url(address)));
            }
        }
    }
    routes
}

async fn wait_for(host: &str, port: u16, min: u32, interval: Duration) -> BTreeSet<String> {
    let mut told = None;
    loop {
        let found = look_up(host, port).await.unwrap_or_default();
        if found.len() >= usize::try_from(min).unwrap_or(usize::MAX) {
            return found;
        }
        if told != Some(found.len()) {
            tracing::info!(
                name = host,
                found = found.len(),
                min,
                "waiting for cluster peers in DNS"
            );
            told = Some(found.len());
        }
        tokio::time::sleep(interval).await;
    }
}

async fn look_up(host: &str, port: u16) -> std::io::Result<BTreeSet<String>> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    Ok(addresses.map(|address| address.ip().to_string()).collect())
}

/// Looks the names up again for ever, and tells the supervisor when their addresses change. `None` where there are none.
pub(super) fn refresh(
    peers: Vec<PeerUrl>,
    commands: SyncSender<Command>,
) -> Option<tokio::task::JoinHandle<()>> {
    peers
        .iter()
        .any(|peer| matches!(peer, PeerUrl::Dns { .. }))
        .then(|| {
            tokio::spawn(async move {
                // A name that has too few addresses for a moment keeps those that it had.
                loop {
                    tokio::time::sleep(REFRESH_EVERY).await;
                    let routes = resolve(&peers).await;
                    // One that finds no room is made good by the next.
                    let sent = commands.try_send(Command::Routes(routes));
                    if matches!(sent, Err(TrySendError::Disconnected(_))) {
                        return;
                    }
                }
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_become_one_route_per_address() {
        let peers = [
            PeerUrl::parse("nats://node-2:4222/").unwrap(),
            PeerUrl::parse("dns://localhost:4223/?min=1&interval_ms=10").unwrap(),
        ];
        let routes = resolve(&peers).await;
        assert_eq!(routes[0].expose(), "nats://node-2:4222");
        assert!(
            routes[1..]
                .iter()
                .all(|route| ["nats://127.0.0.1:4223", "nats://[::1]:4223"]
                    .contains(&route.expose()))
        );
        assert!(routes.len() >= 2);
    }

    #[tokio::test]
    async fn too_few_addresses_are_waited_for() {
        let peers = [PeerUrl::parse("dns://localhost:4223/?min=900&interval_ms=10").unwrap()];
        let waited = tokio::time::timeout(Duration::from_millis(200), resolve(&peers)).await;
        assert!(waited.is_err());
    }
}
