//! Peers of the managed server: `-cluster-peers` and `-leaf-servers`.
//!
//! Forms: `nats://host:port/`, and `dns://host:port/?min=N&interval_ms=N` for all addresses of a name; leaf
//! servers also `?hub=true`. Either may carry a login before the host.
//!
//! Invariant: no error and no `Debug` or `Display` shows a login or the text that failed to parse.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use url::Url;

use super::{NatsConfig, Secret};

/// `min` of a `dns://` peer that names none: with fewer than two addresses there is nobody else to find.
const DNS_MIN: u32 = 2;
/// `interval_ms` of a `dns://` peer that names none: a new pod's address shows up within a second.
const DNS_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds of `interval_ms`: not a busy loop, and not so rare that a peer is missed for hours.
const DNS_INTERVAL_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;
/// More peers than any cluster of this kind has.
const DNS_MIN_MOST: u32 = 1_000;

/// What is wrong with a URL. The URL itself is never shown: it may hold a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    /// Not a URL at all.
    #[error("it cannot be parsed (percent-encode special characters of a login)")]
    Malformed,
    /// A scheme that is not one of those in the example.
    #[error("its scheme is not supported")]
    Scheme,
    /// No host.
    #[error("it has no host")]
    NoHost,
    /// No port, or port 0.
    #[error("it has no port")]
    NoPort,
    /// No user name before the host.
    #[error("it has no user name")]
    NoUser,
    /// A login where none belongs.
    #[error("it holds a login, which has keys of its own")]
    Login,
    /// A path where none belongs.
    #[error("it has a path, which has no meaning here")]
    Path,
    /// A parameter that is not one of those in the example.
    #[error("it has an unknown parameter (percent-encode & and = inside values)")]
    Parameter,
    /// `min` is no number or out of range.
    #[error("its min is not a number from 0 to 1000")]
    Min,
    /// `interval_ms` is no number or out of range.
    #[error("its interval_ms is not a number from 10 to 3600000")]
    Interval,
    /// `hub` is neither `true` nor `false`.
    #[error("its hub is neither true nor false")]
    Hub,
}

/// A user name and password inside a URL, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name (or token, when there is no password): kept secret too.
    pub user: Secret,
    /// Password; empty: none.
    pub password: Secret,
}

/// Where to find one peer, or all peers behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerUrl {
    /// One server.
    Nats {
        /// Host name or IP address (IPv6 in brackets).
        host: String,
        /// TCP port.
        port: u16,
        /// What the peer asks for, if anything.
        login: Option<Login>,
    },
    /// Every A and AAAA record of a name.
    Dns {
        /// Name to resolve.
        host: String,
        /// TCP port of every server found.
        port: u16,
        /// Addresses to wait for.
        min: u32,
        /// Time between two look-ups.
        interval: Duration,
        /// What the peers ask for, if anything.
        login: Option<Login>,
    },
}

/// A leaf-node remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafUrl {
    /// Where the remote is.
    pub peer: PeerUrl,
    /// Whether this node acts as the hub of the two.
    pub hub: bool,
}

impl PeerUrl {
    /// Parses one entry of `-cluster-peers`.
    ///
    /// # Errors
    /// The first [`UrlProblem`] found.
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        let (peer, rest) = split(text, &["nats", "nats-route"])?;
        if rest.is_empty() {
            Ok(peer)
        } else {
            Err(UrlProblem::Parameter)
        }
    }

    /// Whether it holds a login.
    #[must_use]
    pub fn has_login(&self) -> bool {
        let (Self::Nats { login, .. } | Self::Dns { login, .. }) = self;
        login.is_some()
    }

    /// The `nats://` URL of the server at `address` (this peer's host, or one address of its name; IPv6 without
    /// brackets), with the login: only for the server's own configuration.
    pub fn server_url(&self, address: &str) -> Secret {
        let (Self::Nats { port, login, .. } | Self::Dns { port, login, .. }) = self;
        let host = if address.contains(':') && !address.starts_with('[') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let login = login.as_ref().map_or_else(String::new, |login| {
            let user = encode(login.user.expose());
            if login.password.is_empty() {
                format!("{user}@")
            } else {
                format!("{user}:{}@", encode(login.password.expose()))
            }
        });
        Secret::new(format!("nats://{login}{host}:{port}"))
    }
}

impl LeafUrl {
    /// Parses one entry of `-leaf-servers`.
    ///
    /// # Errors
    /// The first [`UrlProblem`] found.
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        let (peer, mut rest) = split(text, &["nats", "nats-leaf"])?;
        let hub = match rest.remove("hub").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(UrlProblem::Hub),
        };
        if rest.is_empty() {
            Ok(Self { peer, hub })
        } else {
            Err(UrlProblem::Parameter)
        }
    }
}

/// A peer and the parameters that it did not use.
fn split(text: &str, direct: &[&str]) -> Result<(PeerUrl, BTreeMap<String, String>), UrlProblem> {
    let url = Url::parse(text).map_err(|_| UrlProblem::Malformed)?;
    let dns = url.scheme() == "dns";
    if !dns && !direct.contains(&url.scheme()) {
        return Err(UrlProblem::Scheme);
    }
    let host = host(&url)?;
    let port = url
        .port()
        .filter(|port| *port != 0)
        .ok_or(UrlProblem::NoPort)?;
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(UrlProblem::Path);
    }
    let mut parameters: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let login = login(&url)?;
    if !dns {
        return Ok((PeerUrl::Nats { host, port, login }, parameters));
    }
    let min = match parameters.remove("min") {
        None => DNS_MIN,
        Some(text) => text
            .parse()
            .ok()
            .filter(|min| *min <= DNS_MIN_MOST)
            .ok_or(UrlProblem::Min)?,
    };
    let interval = match parameters.remove("interval_ms") {
        None => DNS_INTERVAL,
        Some(text) => text
            .parse()
            .ok()
            .filter(|ms| DNS_INTERVAL_MS.contains(ms))
            .map(Duration::from_millis)
            .ok_or(UrlProblem::Interval)?,
    };
    let peer = PeerUrl::Dns {
        host,
        port,
        min,
        interval,
        login,
    };
    Ok((peer, parameters))
}

/// The host of `url`, in the form that an address has.
pub(super) fn host(url: &Url) -> Result<String, UrlProblem> {
    match url.host_str() {
        None | Some("") => Err(UrlProblem::NoHost),
        // The parser of schemes that it does not know lets nearly anything stand as a host.
        Some(host) => super::ListenAddress::parse(&format!("{host}:1"))
            .map(|_| host.to_owned())
            .map_err(|_| UrlProblem::Malformed),
    }
}

impl NatsConfig {
    /// The login in `urls`: the first one, for all of them.
    #[must_use]
    pub fn url_login(&self) -> Option<Login> {
        self.urls.iter().find_map(|text| {
            let url = if text.contains("://") {
                Url::parse(text)
            } else {
                Url::parse(&format!("nats://{text}"))
            };
            login(&url.ok()?).ok()?
        })
    }
}

fn login(url: &Url) -> Result<Option<Login>, UrlProblem> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    Ok(Some(Login {
        user: Secret::new(decode(url.username())?),
        password: Secret::new(decode(url.password().unwrap_or_default())?),
    }))
}

/// Undoes percent-encoding; bytes that are not UTF-8 afterwards are no login that a server knows.
fn decode(text: &str) -> Result<String, UrlProblem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UrlProblem::Malformed);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| UrlProblem::Malformed)?);
    }
    String::from_utf8(bytes).map_err(|_| UrlProblem::Malformed)
}

/// Percent-encodes everything that a login in a URL may not hold as it is.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats { host, port, .. } => write!(f, "nats://{host}:{port}/"),
            Self::Dns {
                host,
                port,
                min,
                interval,
                ..
            } => write!(
                f,
                "dns://{host}:{port}/?min={min}&interval_ms={}",
                interval.as_millis()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(
            PeerUrl::parse("nats://127.0.0.1:4222/"),
            Ok(PeerUrl::Nats {
                host: "127.0.0.1".into(),
                port: 4222,
                login: None
            })
        );
        assert_eq!(
            PeerUrl::parse("dns://nodes.local:6222/?min=3&interval_ms=500"),
            Ok(PeerUrl::Dns {
                host: "nodes.local".into(),
                port: 6222,
                min: 3,
                interval: Duration::from_millis(500),
                login: None
            })
        );
        let plain = PeerUrl::parse("dns://nodes.local:6222").unwrap();
        assert_eq!(
            plain.to_string(),
            "dns://nodes.local:6222/?min=2&interval_ms=1000"
        );
    }

    #[test]
    fn a_leaf_server_may_be_a_hub() {
        assert!(LeafUrl::parse("nats://h:7422/?hub=true").unwrap().hub);
        assert!(!LeafUrl::parse("dns://h:7422/?min=1").unwrap().hub);
        assert!(LeafUrl::parse("dns://h:7422/?min=1&hub=true").unwrap().hub);
        assert_eq!(
            LeafUrl::parse("nats://h:7422/?hub=yes"),
            Err(UrlProblem::Hub)
        );
    }

    #[test]
    fn each_fault_has_its_name() {
        for (text, problem) in [
            ("host:4222", UrlProblem::Scheme),
            ("http://host:4222", UrlProblem::Scheme),
            ("host", UrlProblem::Malformed),
            ("nats://host", UrlProblem::NoPort),
            ("nats://host:0", UrlProblem::NoPort),
            ("nats://host:99999", UrlProblem::Malformed),
            ("nats://ho st:4222", UrlProblem::Malformed),
            ("nats://:4222", UrlProblem::Malformed),
            ("nats:///x", UrlProblem::NoHost),
            ("nats://host:4222/path", UrlProblem::Path),
            ("nats://host:4222/?min=1", UrlProblem::Parameter),
            ("nats://host:4222/?hub=true", UrlProblem::Parameter),
            ("dns://host:4222/?min=-1", UrlProblem::Min),
            ("dns://host:4222/?interval_ms=0", UrlProblem::Interval),
            ("nats://me:%zz@host:1", UrlProblem::Malformed),
        ] {
            assert_eq!(PeerUrl::parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn a_login_is_kept_and_never_shown() {
        let peer = PeerUrl::parse("nats://me:hun%40ter2@host:4222").unwrap();
        assert!(!format!("{peer} {peer:?}").contains("ter2"));
        assert_eq!(
            peer.server_url("host").expose(),
            "nats://me:hun%40ter2@host:4222"
        );
        assert_eq!(
            peer.server_url("::1").expose(),
            "nats://me:hun%40ter2@[::1]:4222"
        );
    }
}
