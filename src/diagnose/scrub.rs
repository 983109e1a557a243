//! Takes the secrets of the configuration out of whatever text they may have got into: a second fence, behind that none should be there.

use crate::config::{Config, PeerUrl, Secret};

/// Shorter ones would take ordinary words out of the text.
const SHORTEST: usize = 6;

/// The secrets.
#[derive(Default)]
pub struct Scrub(Vec<String>);

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrub({} secrets)", self.0.len())
    }
}

impl Scrub {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        let (nats, snapshot) = (&config.nats, &config.snapshot);
        let mut all: Vec<&str> = [
            &nats.user_password,
            &snapshot.s3.access_key,
            &snapshot.s3.secret,
            &snapshot.s3.session_token,
            &snapshot.webdav_url,
            &snapshot.sftp.url,
            &snapshot.sftp.passphrase,
        ]
        .map(Secret::expose)
        .to_vec();
        let peers = nats
            .cluster_peers
            .iter()
            .chain(nats.leaf_servers.iter().map(|l| &l.peer));
        for peer in peers {
            let (PeerUrl::Nats { login, .. } | PeerUrl::Dns { login, .. }) = peer;
            if let Some(login) = login {
                all.push(login.password.expose());
                // A user without a password is a token.
                all.extend(login.password.is_empty().then(|| login.user.expose()));
            }
        }
        let urls = nats.urls.iter().map(String::as_str);
        let urls = urls.chain([snapshot.webdav_url.expose(), snapshot.sftp.url.expose()]);
        let mut parts: Vec<String> = urls.flat_map(parts_of).collect();
        parts.extend(all.into_iter().map(str::to_owned));
        if let Some(login) = nats.url_login() {
            parts.push(login.password.expose().to_owned());
        }
        parts.retain(|secret| secret.len() >= SHORTEST);
        // The longest first: one may be part of another.
        parts.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        parts.dedup();
        Self(parts)
    }

    /// The text without them.
    pub fn clean(&self, text: String) -> String {
        self.0
            .iter()
            .fold(text, |text, secret| match text.contains(secret) {
                true => text.replace(secret, "(secret)"),
                false => text,
            })
    }
}

/// What is secret in a URL: a password or token before the host, as it is written, and a parameter `secret`.
fn parts_of(url: &str) -> Vec<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut out = Vec::new();
    if let Some((login, _)) = rest.rsplit_once('@') {
        out.push(
            login
                .split_once(':')
                .map_or(login, |(_, password)| password)
                .to_owned(),
        );
    }
    if let Some((_, rest)) = rest.split_once("secret=") {
        out.push(rest.split('&').next().unwrap_or_default().to_owned());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_wherever_they_are() {
        let mut config = Config::with_defaults("a.db", 1);
        config.nats.urls = vec![
            "nats://ada:p%40ssword@host:4222".to_owned(),
            "nats://t0ken-t0ken@host".to_owned(),
        ];
        config.snapshot.webdav_url = Secret::new("https://host/?login=me&secret=dav-secret&dir=/s");
        config.snapshot.s3.secret = Secret::new("hunter2-hunter2");
        let scrub = Scrub::of(&config);
        for secret in [
            "p%40ssword",
            "p@ssword",
            "t0ken-t0ken",
            "dav-secret",
            "hunter2-hunter2",
        ] {
            assert_eq!(scrub.clean(format!("a {secret} b")), "a (secret) b");
        }
        assert_eq!(scrub.clean("ada host me".to_owned()), "ada host me");
        assert!(!format!("{scrub:?}").contains("hunter2"));
    }
}
