//! Connecting: from `[nats]` to a connected client, and the state of that connection.
//!
//! The client reconnects by itself for ever; [`Link`] says whether it is connected and how many connections there have
//! been, so that whoever depends on server-side state (a pull request, an answer) notices that it is gone.

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ClientError, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;

use super::error::StreamError;
use super::refusal::Refusal;
use crate::change::position::NodeId;
use crate::config::{Login, NatsConfig};

/// How long one try to connect may take, over all servers. A healthy server answers in milliseconds; five seconds covers a
/// lost SYN and its two retransmissions.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The client answers a silent server's absence after two of these: fifteen seconds at most for a cut cable.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// First wait between tries to reconnect: a server that is restarted is back within about 30 ms.
const FIRST_RECONNECT_WAIT: Duration = Duration::from_millis(50);

/// Longest wait between tries to reconnect, however long the outage: it bounds how late a node notices its end.
const LONGEST_RECONNECT_WAIT: Duration = Duration::from_secs(15);

/// Messages that one subscription may hold before the client drops some. A reader asks for far fewer (see `session`).
const SUBSCRIPTION_CAPACITY: usize = 64 * 1024;

/// The state of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// Connections made so far; it rises by one at each reconnect.
    pub generation: u64,
    /// Whether there is a connection now.
    pub connected: bool,
    /// Why the server does not let us in again, where that is what keeps us out.
    pub refused: Option<Refusal>,
}

/// Makes aws-lc-rs the process's TLS provider. Harmless when called again, or when another was installed before.
pub fn install_crypto_provider() {
    // An error means that one is installed already, which is all we need.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Tries once to connect.
pub(super) async fn connect(
    config: &NatsConfig,
    urls: &[String],
    node: NodeId,
) -> Result<(Client, watch::Receiver<Link>), StreamError> {
    install_crypto_provider();
    let servers = redact_all(urls);
    let addresses = urls
        .iter()
        .map(|url| {
            // Without its login, which the library would only show in its log (see `options`).
            let url = redact(url);
            url.parse::<ServerAddr>()
                .map_err(|source| StreamError::Url { url, source })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (events, mut link) = watch::channel(Link::default());
    let options = options(config, node)?.event_callback(move |event| {
        note(&events, &event);
        std::future::ready(())
    });
    let options = if config.urls.is_empty() {
        // The managed server is ours and local; the addresses that its cluster gossips are other nodes' servers.
        options.ignore_discovered_servers()
    } else {
        options
    };
    let client = tokio::time::timeout(CONNECT_DEADLINE, options.connect(addresses))
        .await
        .map_err(|_| StreamError::ConnectTimeout {
            servers: servers.clone(),
            after: CONNECT_DEADLINE,
        })?
        .map_err(|source| StreamError::Connect {
            remedy: Refusal::of(&source).map(|refusal| refusal.remedy(config)),
            servers,
            source,
        })?;
    // The event of this very connection comes through the library's event task, a moment later.
    let announced = link.wait_for(|link| link.connected);
    let _ = tokio::time::timeout(CONNECT_DEADLINE, announced).await;
    Ok((client, link))
}

fn note(link: &watch::Sender<Link>, event: &Event) {
    match event {
        Event::Connected => {
            link.send_modify(|link| {
                link.generation += 1;
                link.connected = true;
                link.refused = None;
            });
            tracing::info!(connection = link.borrow().generation, "connected to NATS");
        }
        Event::Disconnected => {
            link.send_modify(|link| link.connected = false);
            tracing::warn!("lost the connection to NATS, reconnecting");
        }
        Event::Closed => link.send_modify(|link| link.connected = false),
        Event::SlowConsumer(_) => {
            tracing::warn!("a NATS subscription dropped messages; its reader will start over");
        }
        Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
        Event::ClientError(ClientError::Other(text)) => {
            let refused = Refusal::of_kind(text);
            let is_new = link.send_if_modified(|link| {
                let is_new = refused.is_some() && link.refused != refused;
                link.refused = refused;
                is_new
            });
            if is_new {
                tracing::warn!(
                    error = text,
                    "the NATS server does not let this node in again"
                );
            }
        }
        Event::ClientError(error) => tracing::debug!(%error, "could not reach NATS"),
        Event::LameDuckMode => tracing::info!("the NATS server is shutting down"),
        Event::Draining => {}
    }
}

fn options(config: &NatsConfig, node: NodeId) -> Result<ConnectOptions, StreamError> {
    let first_slow_try = usize::try_from(config.connect_retries).unwrap_or(usize::MAX);
    let reconnect_wait = config.reconnect_wait;
    let mut options = ConnectOptions::new()
        .name(format!("harmonylite-node-{node}"))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_DEADLINE)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .max_reconnects(None)
        .reconnect_delay_callback(move |attempt| {
            reconnect_delay(attempt, first_slow_try, reconnect_wait)
        });
    if !config.user_name.is_empty() {
        options = options.user_and_password(
            config.user_name.clone(),
            config.user_password.expose().to_owned(),
        );
    } else if let Some(Login { user, password }) = config.url_login() {
        let (user, password) = (user.expose().to_owned(), password.expose().to_owned());
        // A user without a password is a token, as in NATS's own clients.
        options = if password.is_empty() {
            options.token(user)
        } else {
            options.user_and_password(user, password)
        };
    }
    if let Some(path) = &config.seed_file {
        options = options.nkey(read_seed(path)?);
    }
    if let Some(path) = &config.creds_file {
        let text = read("nats.creds_file", path)?;
        options = options
            .credentials(&text)
            .map_err(|_| StreamError::CredentialFile {
                key: "nats.creds_file",
                path: path.clone(),
                // The library's error could quote the file; this one cannot.
                source: std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    "it does not hold a user JWT and its nkey seed",
                ),
            })?;
    }
    if let Some(path) = &config.ca_file {
        read("nats.ca_file", path)?;
        // Whoever names a CA wants TLS: never fall back to plain text because a server does not ask for it.
        options = options
            .add_root_certificates(path.clone())
            .require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (&config.cert_file, &config.key_file) {
        read("nats.cert_file", certificate)?;
        read("nats.key_file", key)?;
        options = options
            .add_client_certificate(certificate.clone(), key.clone())
            .require_tls(true);
    }
    Ok(options)
}

/// The wait before a try to reconnect: doubling from 50 ms to `reconnect_wait`, and, once `connect_retries` tries have failed,
/// on to 15 s. The very first connection is tried at once.
fn reconnect_delay(attempt: usize, first_slow_try: usize, reconnect_wait: Duration) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doubled = |start: Duration, times: usize| {
        start.saturating_mul(1_u32 << u32::try_from(times).unwrap_or(20).min(20))
    };
    if attempt <= first_slow_try.max(1) {
        doubled(FIRST_RECONNECT_WAIT, attempt - 2).min(reconnect_wait)
    } else {
        doubled(reconnect_wait, attempt - first_slow_try.max(1) - 1).min(LONGEST_RECONNECT_WAIT)
    }
}

fn read(key: &'static str, path: &Path) -> Result<String, StreamError> {
    std::fs::read_to_string(path).map_err(|source| StreamError::CredentialFile {
        key,
        path: path.to_path_buf(),
        source,
    })
}

/// The user seed in a seed file: its first word that looks like one, so that comments and decoration do no harm.
fn read_seed(path: &Path) -> Result<String, StreamError> {
    const KEY: &str = "nats.seed_file";
    read(KEY, path)?
        .split_whitespace()
        .find(|word| word.starts_with("SU") && word.len() == 58)
        .map(str::to_owned)
        .ok_or_else(|| StreamError::CredentialFile {
            key: KEY,
            path: path.to_path_buf(),
            source: std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "it does not hold a user nkey seed (58 characters that begin with SU)",
            ),
        })
}

/// A URL without its user part.
fn redact(url: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() {
        rest.to_owned()
    } else {
        format!("{scheme}://{rest}")
    }
}

fn redact_all(urls: &[String]) -> String {
    urls.iter()
        .map(|url| redact(url))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_url_is_shown_with_its_user_part() {
        assert_eq!(redact("nats://user:p@ss@host:4222/"), "nats://host:4222/");
        assert_eq!(redact("token@host"), "host");
        assert_eq!(redact("tls://host:1"), "tls://host:1");
    }

    #[test]
    fn reconnecting_starts_quickly_and_slows_down_without_end() {
        let delays: Vec<u64> = (1..40)
            .map(|attempt| reconnect_delay(attempt, 5, Duration::from_secs(2)).as_millis() as u64)
            .collect();
        assert_eq!(delays[..5], [0, 50, 100, 200, 400]);
        assert_eq!(delays[5..9], [2000, 4000, 8000, 15000]);
        assert_eq!(delays[38], 15000);
        assert!(
            delays
                .iter()
                .zip(&delays[1..])
                .all(|(before, after)| before <= after)
        );
    }

    #[test]
    fn a_seed_is_found_among_decoration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        let seed = format!("SU{}", "A".repeat(56));
        std::fs::write(&path, format!("# user\n-----\n{seed}\n-----\n")).unwrap();
        assert_eq!(read_seed(&path).unwrap(), seed);
        std::fs::write(&path, "SUTOOSHORT").unwrap();
        let error = read_seed(&path).unwrap_err().to_string();
        assert!(!error.contains("SUTOOSHORT"), "{error}");
    }
}
