//! Takes the secrets of the configuration out of whatever text they may have got into: a second fence, behind that none should be there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::config::{Config, PeerUrl, Secret, secrets_among};

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
        let mut scrub = Self::default();
        scrub.add(parts);
        scrub
    }

    /// Those that the process of the daemon was given by its service manager, and this one was not.
    pub fn add_of_daemon(&mut self, pid: u32) {
        let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let set: Vec<&[u8]> = bytes.split(|b| *b == 0).collect();
        let given = secrets_among(|name| {
            let mut values = set
                .iter()
                .filter_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            values.next().map(|v| OsStr::from_bytes(v).to_owned())
        });
        let separated = |c: char| c == ',' || c.is_whitespace();
        for text in given {
            if text.contains("://") {
                self.add(text.split(separated).flat_map(parts_of));
            } else {
                self.add([text]);
            }
        }
    }

    fn add(&mut self, secrets: impl IntoIterator<Item = String>) {
        let long = secrets.into_iter().filter(|s| s.len() >= SHORTEST);
        self.0.extend(long);
        // The longest first: one may be part of another.
        self.0.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        self.0.dedup();
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
    use std::io::{Read as _, Write as _};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn secrets_that_only_the_daemon_was_given_are_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("snapshot.s3.secret"), "of-the-manager\n").unwrap();
        let mut daemon = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env("HARMONYLITE_NATS_USER_PASSWORD", "of-the-unit")
            .env(
                "HARMONYLITE_NATS_URLS",
                "nats://a:4222,nats://in-the-url@b:4222",
            )
            .env("CREDENTIALS_DIRECTORY", folder.path())
            .spawn()
            .unwrap();
        // What answers has its environment.
        daemon.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        let mut said = [0];
        daemon
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut said)
            .unwrap();
        let mut scrub = Scrub::of(&Config::with_defaults("a.db", 1));
        scrub.add_of_daemon(daemon.id());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        for secret in ["of-the-manager", "of-the-unit", "in-the-url"] {
            assert_eq!(scrub.clean(format!("a {secret} b")), "a (secret) b");
        }
        assert_eq!(scrub.clean("nats://a:4222".to_owned()), "nats://a:4222");
    }

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
