//! Secrets from outside the configuration file: systemd credentials and environment variables, each under a name that follows from its key.
//!
//! Invariants: only the names listed here are asked for; what is read is bounded, one line of text, and never quoted. Who gives a secret from outside does so on
//! purpose, so it goes before the file's, and a notice says so.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{Fault, FaultKind, Origin, nearest};

/// What can be given from outside as text.
const TEXTS: [&str; 10] = [
    "cluster_peers",
    "leaf_servers",
    "nats.urls",
    "nats.user_password",
    "snapshot.s3.access_key",
    "snapshot.s3.secret",
    "snapshot.s3.session_token",
    "snapshot.sftp.passphrase",
    "snapshot.sftp.url",
    "snapshot.webdav.url",
];

/// What a systemd credential can stand for as a file.
const FILES: [&str; 7] = [
    "nats.ca_file",
    "nats.cert_file",
    "nats.creds_file",
    "nats.key_file",
    "nats.seed_file",
    "snapshot.sftp.key_file",
    "snapshot.sftp.known_hosts",
];

/// No secret is longer; what is, is another file.
const LONGEST: u64 = 64 << 10;

/// Where systemd puts a service's credentials, by its own variable.
const FOLDER: &str = "CREDENTIALS_DIRECTORY";

/// What the process was given beside its arguments. No `Debug`: some of it is secret.
pub(super) struct Outside {
    credentials: Option<PathBuf>,
    /// By key.
    variables: Vec<(&'static str, OsString)>,
}

/// A secret, and where it came from.
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Outside {
    /// What this process was given.
    pub(super) fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        Self {
            credentials: set(FOLDER).map(PathBuf::from),
            variables: TEXTS
                .into_iter()
                .filter_map(|key| Some((key, set(&variable_of(key))?)))
                .collect(),
        }
    }

    /// The credential of this name, where there is one.
    pub(super) fn credential(&self, key: &str) -> Option<PathBuf> {
        let path = self.credentials.as_ref()?.join(key);
        // Also one that leads nowhere: that is a fault to be told of.
        path.symlink_metadata().is_ok().then_some(path)
    }

    /// The secret that is given from outside for `key`; a credential goes before a variable.
    pub(super) fn text(&self, key: &str) -> Option<Result<Given, Fault>> {
        if let Some(path) = self.credential(key) {
            let origin = Origin::Credential(key.to_owned());
            let read = read_secret(&path);
            return Some(given(origin, read));
        }
        let (_, value) = self.variables.iter().find(|(of, _)| *of == key)?;
        let text = value.clone().into_string();
        let read = text.map_err(|_| NOT_TEXT).and_then(one_line);
        let read = read.map_err(|problem| FaultKind::Secret { problem });
        Some(given(Origin::Variable(variable_of(key)), read))
    }

    /// Credentials that stand for nothing, each with the name that was most likely meant.
    pub(super) fn unknown(&self) -> Vec<String> {
        let Some(entries) = self.credentials.as_ref().and_then(|f| f.read_dir().ok()) else {
            return Vec::new();
        };
        let known = || TEXTS.into_iter().chain(FILES);
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !known().any(|key| key == name))
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| match nearest(&name, known()) {
                Some(key) => format!("the systemd credential {name} is without effect: did you mean {key}?"),
                None => format!("the systemd credential {name} is without effect: no key of that name can be given so"),
            })
            .collect()
    }
}

/// The secrets among the variables of a process, and in the credentials that systemd has given it: as far as this user may read them.
#[must_use]
pub fn secrets_among(variable: impl Fn(&str) -> Option<OsString>) -> Vec<String> {
    let outside = Outside::of(variable);
    let mut out = Vec::new();
    for key in TEXTS {
        let credential = outside.credential(key).map(|path| read_secret(&path));
        out.extend(credential.and_then(Result::ok));
        let variables = outside.variables.iter();
        let set = variables.filter(|(of, _)| *of == key);
        out.extend(set.filter_map(|(_, value)| value.clone().into_string().ok()));
    }
    out
}

fn given(origin: Origin, read: Result<String, FaultKind>) -> Result<Given, Fault> {
    match read {
        Ok(text) => Ok(Given { text, origin }),
        Err(kind) => Err(Fault { origin, kind }),
    }
}

/// The environment variable of a key.
fn variable_of(key: &str) -> String {
    format!("HARMONYLITE_{}", key.replace('.', "_").to_ascii_uppercase())
}

const NOT_TEXT: &str = "is not UTF-8 text";

/// The secret in a file of its own.
pub(super) fn read_secret(path: &Path) -> Result<String, FaultKind> {
    let mut bytes = Vec::new();
    let mut read = || {
        // Asked before opening: opening a named pipe would wait for its writer.
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)
    };
    if let Err(source) = read() {
        let path = path.to_owned();
        return Err(FaultKind::Unreadable { path, source });
    }
    let problem = if bytes.len() as u64 > LONGEST {
        "is longer than 65536 bytes"
    } else {
        match String::from_utf8(bytes)
            .map_err(|_| NOT_TEXT)
            .and_then(one_line)
        {
            Ok(text) => return Ok(text),
            Err(problem) => problem,
        }
    };
    Err(FaultKind::Secret { problem })
}

/// Editors end the last line; that is no part of a secret.
fn one_line(mut text: String) -> Result<String, &'static str> {
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    text.truncate(line.len());
    if text.is_empty() {
        Err("is empty")
    } else if text.chars().any(char::is_control) {
        Err("has more than one line, or control characters")
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(folder: Option<&Path>, variables: &[(&str, &str)]) -> Outside {
        Outside::of(|name| {
            if name == FOLDER {
                return folder.map(OsString::from);
            }
            let found = variables.iter().find(|(of, _)| *of == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn text(outside: &Outside, key: &str) -> Option<Result<String, String>> {
        outside
            .text(key)
            .map(|given| given.map(|g| g.text).map_err(|fault| fault.to_string()))
    }

    #[test]
    fn a_credential_goes_before_a_variable() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("nats.user_password"), "of systemd\r\n").unwrap();
        let variables = [
            ("HARMONYLITE_NATS_USER_PASSWORD", "of the environment"),
            ("HARMONYLITE_SNAPSHOT_S3_SECRET", "s3"),
            ("HARMONYLITE_NATS_SEED_FILE", "not a text"),
            ("HARMONYLITE_SNAPSHOT_SFTP_URL", ""),
        ];
        let both = outside(Some(folder.path()), &variables);
        assert_eq!(
            text(&both, "nats.user_password"),
            Some(Ok("of systemd".into()))
        );
        assert_eq!(text(&both, "snapshot.s3.secret"), Some(Ok("s3".into())));
        assert_eq!(text(&both, "snapshot.sftp.url"), None);
        assert_eq!(text(&both, "nats.seed_file"), None);
        let one = outside(None, &variables);
        assert_eq!(
            text(&one, "nats.user_password"),
            Some(Ok("of the environment".into()))
        );
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let outside = outside(
            Some(folder.path()),
            &[("HARMONYLITE_NATS_URLS", "hunter2\nhunter2")],
        );
        let path = folder.path().join("nats.user_password");
        for (bytes, words) in [
            (&b"hunter2\nhunter2\n"[..], "has more than one line"),
            (b"\n", "is empty"),
            (b"hunter2\xff", "is not UTF-8"),
            (&[b'x'; 70_000], "is longer than"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let sentence = text(&outside, "nats.user_password").unwrap().unwrap_err();
            assert!(
                sentence.starts_with("the systemd credential nats.user_password "),
                "{sentence}"
            );
            assert!(
                sentence.contains(words) && !sentence.contains("hunter2"),
                "{sentence}"
            );
        }
        let sentence = text(&outside, "nats.urls").unwrap().unwrap_err();
        assert!(
            sentence.starts_with("the environment variable HARMONYLITE_NATS_URLS "),
            "{sentence}"
        );
    }

    #[test]
    fn a_credential_that_stands_for_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nats.user_pasword", "nats.seed_file", "zzz"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let unknown = outside(Some(folder.path()), &[]).unknown();
        assert_eq!(unknown.len(), 2, "{unknown:?}");
        assert!(
            unknown[0].contains("did you mean nats.user_password?"),
            "{unknown:?}"
        );
        assert!(unknown[1].contains("zzz"), "{unknown:?}");
    }
}
