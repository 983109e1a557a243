//! Which host key of an SSH server is trusted: one that is pinned, or those of known_hosts files.
//!
//! Invariant: a key that is not listed is refused, always; nothing is ever learned by connecting.

use std::path::PathBuf;

use russh::keys::{Algorithm, HashAlg, PublicKey, known_hosts};

use crate::config::SftpConfig;

/// What is trusted.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// The key with this fingerprint, `SHA256:...`.
    Pinned(String),
    /// The keys that these files list for the host.
    Listed(Vec<PathBuf>),
}

/// A host key that is not trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untrusted {
    #[error("the server's host key is {shown}, which no known_hosts file lists")]
    Unknown { shown: String },
    #[error("the server's host key is {shown}, but {} lists another in line {line}", file.display())]
    Changed {
        shown: String,
        file: PathBuf,
        line: usize,
    },
    #[error("the server's host key is {shown}, but snapshot.sftp.host_key is {pinned}")]
    NotPinned { shown: String, pinned: String },
    #[error("{} cannot be used: {source}", file.display())]
    File {
        file: PathBuf,
        source: russh::keys::Error,
    },
    #[error("the server shows a certificate, which was not asked for")]
    Certificate,
}

impl Untrusted {
    pub(super) fn remedy(&self, host: &str, port: u16) -> String {
        match self {
            Self::Unknown { .. } => format!(
                "check the fingerprint with the server's administrator, then set snapshot.sftp.host_key to it, or add the key to known_hosts (`ssh-keyscan -p {port} {host}`)"
            ),
            Self::Changed { .. } => "if the server's administrator has changed the key, replace that line; if not, somebody is between this machine and the server".to_owned(),
            Self::NotPinned { .. } => "if the server's administrator has changed the key, correct snapshot.sftp.host_key; if not, somebody is between this machine and the server".to_owned(),
            Self::File { .. } => "correct the file, or set snapshot.sftp.known_hosts or host_key".to_owned(),
            Self::Certificate => "check that snapshot.sftp.url names the right server".to_owned(),
        }
    }
}

impl Trust {
    pub(super) fn new(config: &SftpConfig) -> Self {
        if !config.host_key.is_empty() {
            return Self::Pinned(config.host_key.clone());
        }
        Self::Listed(config.known_hosts.as_ref().map_or_else(
            || {
                let users = std::env::home_dir().map(|home| home.join(".ssh/known_hosts"));
                let systems = PathBuf::from("/etc/ssh/ssh_known_hosts");
                users.into_iter().chain([systems]).collect()
            },
            |file| vec![file.clone()],
        ))
    }

    /// Whether the server at `host` may have this key.
    pub(super) fn check(&self, host: &str, port: u16, key: &PublicKey) -> Result<(), Untrusted> {
        let shown = key.fingerprint(HashAlg::Sha256).to_string();
        let files = match self {
            Self::Pinned(pinned) if *pinned == shown => return Ok(()),
            Self::Pinned(pinned) => {
                let pinned = pinned.clone();
                return Err(Untrusted::NotPinned { shown, pinned });
            }
            Self::Listed(files) => files,
        };
        let mut known = false;
        for file in files {
            match known_hosts::check_known_hosts_path(host, port, key, file) {
                Ok(here) => known |= here,
                Err(russh::keys::Error::KeyChanged { line }) => {
                    let file = file.clone();
                    return Err(Untrusted::Changed { shown, file, line });
                }
                Err(source) => {
                    let file = file.clone();
                    return Err(Untrusted::File { file, source });
                }
            }
        }
        if known {
            Ok(())
        } else {
            Err(Untrusted::Unknown { shown })
        }
    }

    /// The kinds of keys that are listed for the host, so that the server shows one of these; empty: any will do.
    pub(super) fn algorithms(&self, host: &str, port: u16) -> Vec<Algorithm> {
        let Self::Listed(files) = self else {
            return Vec::new();
        };
        let listed = |file| known_hosts::known_host_keys_path(host, port, file).unwrap_or_default();
        let keys = files.iter().flat_map(listed);
        keys.map(|(_, key)| key.algorithm()).collect()
    }
}
