//! Addresses to listen on, as the Go program writes them: `HOST:PORT`, `:PORT` (all interfaces), `[::1]:PORT`.
//!
//! Invariant: parsing asks no resolver; a host name is only checked for its form.

use std::fmt;
use std::net::IpAddr;

/// What is wrong with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// No colon, or nothing after it.
    #[error("it has no port")]
    NoPort,
    /// The port is no number, or none that a listener can have.
    #[error("its port is not a number from 1 to 65535 (or -1 for any free one)")]
    BadPort,
    /// Neither an IP address nor a host name.
    #[error("its host is neither an IP address nor a host name")]
    BadHost,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// IP address (IPv6 without brackets) or host name; empty: all interfaces.
    pub host: String,
    /// TCP port; `None`: any free one (written `-1` or `0`).
    pub port: Option<u16>,
}

impl ListenAddress {
    /// Parses `HOST:PORT`; the host may be missing, the port may be `-1`.
    ///
    /// # Errors
    /// The first [`AddressProblem`] found.
    pub fn parse(text: &str) -> Result<Self, AddressProblem> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressProblem::NoPort)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
                .ok_or(AddressProblem::BadHost)?,
            None => host,
        };
        if !is_host(host) || (host.contains(':') && !text.starts_with('[')) {
            return Err(AddressProblem::BadHost);
        }
        let port = match port {
            "" => return Err(AddressProblem::NoPort),
            "-1" | "0" => None,
            digits => Some(digits.parse().map_err(|_| AddressProblem::BadPort)?),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Whether two listeners would ask for the same port of the same interface.
    pub fn collides_with(&self, other: &Self) -> bool {
        let same_port = self.port.is_some() && self.port == other.port;
        let same_host = self.host.eq_ignore_ascii_case(&other.host);
        same_port && (same_host || self.is_everywhere() || other.is_everywhere())
    }

    fn is_everywhere(&self) -> bool {
        self.host.is_empty()
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":-1"),
        }
    }
}

/// Whether `host` is empty, an IP address, or has the form of a host name.
fn is_host(host: &str) -> bool {
    host.is_empty()
        || host.parse::<IpAddr>().is_ok()
        || (host.len() <= 253
            && host.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_go_forms_are_read_and_written_back() {
        for text in [
            ":3010",
            "0.0.0.0:8090",
            "[::1]:80",
            "node-1.lan:4222",
            ":-1",
        ] {
            assert_eq!(ListenAddress::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ListenAddress::parse("127.0.0.1:0").unwrap().port, None);
    }

    #[test]
    fn faults_are_told_apart() {
        for (text, problem) in [
            ("localhost", AddressProblem::NoPort),
            ("localhost:", AddressProblem::NoPort),
            ("localhost:http", AddressProblem::BadPort),
            (":65536", AddressProblem::BadPort),
            (":-2", AddressProblem::BadPort),
            ("two words:80", AddressProblem::BadHost),
            ("::1:80", AddressProblem::BadHost),
            ("[::1:80", AddressProblem::BadHost),
            ("http://host:80", AddressProblem::BadHost),
        ] {
            assert_eq!(ListenAddress::parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn only_the_same_port_of_the_same_interface_collides() {
        let at = |text: &str| ListenAddress::parse(text).unwrap();
        assert!(at(":80").collides_with(&at("127.0.0.1:80")));
        assert!(at("[::]:80").collides_with(&at("127.0.0.1:80")));
        assert!(at("LOCALHOST:80").collides_with(&at("localhost:80")));
        assert!(!at("127.0.0.1:80").collides_with(&at("127.0.0.2:80")));
        assert!(!at(":80").collides_with(&at(":81")));
        assert!(!at(":-1").collides_with(&at(":-1")));
    }
}
