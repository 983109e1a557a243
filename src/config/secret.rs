//! Values that must never reach a log, an error or a metric.
//!
//! Invariant: neither `Debug` nor `Display` of a [`Secret`], nor `Debug` of a structure of this module that
//! holds URLs with logins, shows the hidden part. Code that must send it takes it through [`Secret::expose`], so
//! that a search for that name finds every place where a secret leaves.

use std::fmt;

use super::NatsConfig;

/// A value that must never reach a log, an error or a metric.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The hidden value, for the one place that sends it where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() {
            "(not set)"
        } else {
            "(secret)"
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL (or HOST:PORT) without its login and its parameters, fit for a log line.
pub(super) fn without_login(url: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .map_or((None, url), |(scheme, rest)| (Some(scheme), rest));
    // The last '@' is taken, so that an unencoded '@' in a password shows none of it; for the same reason
    // parameters are cut only after it.
    let (login, host) = rest
        .rsplit_once('@')
        .map_or((false, rest), |(_, host)| (true, host));
    let host = host.split(['?', '#']).next().unwrap_or_default();
    let hidden = if login { "(secret)@" } else { "" };
    scheme.map_or_else(
        || format!("{hidden}{host}"),
        |scheme| format!("{scheme}://{hidden}{host}"),
    )
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart by name, so that a new field cannot be forgotten here.
        let Self {
            urls,
            subject_prefix,
            stream_prefix,
            server_config,
            server_path,
            seed_file,
            creds_file,
            user_name,
            user_password,
            ca_file,
            cert_file,
            key_file,
            bind_address,
            connect_retries,
            reconnect_wait,
            cluster_addr,
            cluster_peers,
            leaf_servers,
        } = self;
        let urls: Vec<String> = urls.iter().map(|url| without_login(url)).collect();
        f.debug_struct("NatsConfig")
            .field("urls", &urls)
            .field("subject_prefix", subject_prefix)
            .field("stream_prefix", stream_prefix)
            .field("server_config", server_config)
            .field("server_path", server_path)
            .field("seed_file", seed_file)
            .field("creds_file", creds_file)
            .field("user_name", user_name)
            .field("user_password", user_password)
            .field("ca_file", ca_file)
            .field("cert_file", cert_file)
            .field("key_file", key_file)
            .field("bind_address", bind_address)
            .field("connect_retries", connect_retries)
            .field("reconnect_wait", reconnect_wait)
            .field("cluster_addr", cluster_addr)
            .field("cluster_peers", cluster_peers)
            .field("leaf_servers", leaf_servers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_whether_it_is_set() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "(secret) (secret)");
        assert_eq!(Secret::default().to_string(), "(not set)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_url_loses_its_login_and_parameters() {
        for (url, shown) in [
            ("nats://me:hunter2@host:4222", "nats://(secret)@host:4222"),
            ("me:hunter2@host:4222", "(secret)@host:4222"),
            ("nats://me:hun@ter2@host", "nats://(secret)@host"),
            ("https://host/path?secret=hunter2", "https://host/path"),
            ("nats://me:hun?ter2@host", "nats://(secret)@host"),
            ("nats://host:4222", "nats://host:4222"),
        ] {
            assert_eq!(without_login(url), shown);
        }
    }
}
