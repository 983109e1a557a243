//! A connection to an SSH server: host key checked, logged in.
//!
//! Invariants: nothing is sent to a server whose key is not trusted; every step has a deadline; errors hold no password.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Config, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Disconnect, Preferred};
use url::Url;

use super::error::{Fault, StoreError};
use super::host_key::{Trust, Untrusted};
use crate::config::{Secret, SftpConfig};

/// For the connection and the host key, and for the login: servers delay logins by some seconds on purpose.
const DEADLINE: Duration = Duration::from_secs(20);
/// A server that is silent for three of these is gone.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Who logs in where, and how.
pub(super) struct Login {
    pub(super) host: String,
    pub(super) port: u16,
    user: String,
    password: Option<Secret>,
    config: SftpConfig,
    trust: Trust,
}

impl Login {
    pub(super) fn new(config: &SftpConfig, url: &Url) -> Result<Self, StoreError> {
        let decoded = |text: &str| {
            let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
            text.into_owned()
        };
        let host = url.host_str().unwrap_or_default();
        let user = decoded(url.username());
        if host.is_empty() || user.is_empty() {
            return Err(StoreError::Configuration {
                key: "snapshot.sftp.url",
                problem: "has no user or no host".to_owned(),
                remedy: "write it as sftp://USER:PASSWORD@HOST:PORT/PATH",
            });
        }
        Ok(Self {
            // An IPv6 address is written in brackets in a URL only.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(22),
            user,
            password: url.password().map(|text| Secret::new(decoded(text))),
            trust: Trust::new(config),
            config: config.clone(),
        })
    }

    /// Connects and logs in.
    pub(super) async fn open(&self) -> Result<Handle<Checked>, Fault> {
        let refusal = Arc::new(Mutex::new(None));
        let handler = Checked {
            host: self.host.clone(),
            port: self.port,
            trust: self.trust.clone(),
            refusal: refusal.clone(),
        };
        let connect = russh::client::connect(self.settings(), (&*self.host, self.port), handler);
        let connected = within("connecting", connect).await?;
        let refused = refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(untrusted) = refused {
            let remedy = Untrusted::remedy(&untrusted, &self.host, self.port);
            return Err(Fault::permanent(untrusted, remedy));
        }
        let mut session = connected.map_err(broken)?;
        within("logging in", self.log_in(&mut session)).await??;
        Ok(session)
    }

    fn settings(&self) -> Arc<Config> {
        let mut preferred = Preferred::default();
        let listed = self.trust.algorithms(&self.host, self.port);
        if !listed.is_empty() {
            let keys = preferred.key.iter().filter(|key| listed.contains(key));
            preferred.key = Cow::Owned(keys.cloned().collect());
        }
        Arc::new(Config {
            preferred,
            keepalive_interval: Some(KEEPALIVE),
            nodelay: true,
            ..Config::default()
        })
    }

    async fn log_in(&self, session: &mut Handle<Checked>) -> Result<(), Fault> {
        let tried = if let Some(file) = &self.config.key_file {
            let phrase = self.config.passphrase.expose();
            let phrase = (!phrase.is_empty()).then_some(phrase);
            let key = russh::keys::load_secret_key(file, phrase).map_err(|error| {
                let text = format!("{}: {error}", file.display());
                Fault::permanent(text, "correct snapshot.sftp.key_file and passphrase; RSA keys are not supported, make one with `ssh-keygen -t ed25519`")
            })?;
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
            let answer = session.authenticate_publickey(&*self.user, key).await;
            if answer.map_err(broken)?.success() {
                return Ok(());
            }
            "the key of snapshot.sftp.key_file"
        } else if self.password.is_none() {
            if self.ask_agent(session).await? {
                return Ok(());
            }
            "every key of the SSH agent"
        } else {
            "the password of snapshot.sftp.url"
        };
        if let Some(password) = &self.password {
            let answer = session.authenticate_password(&*self.user, password.expose());
            if answer.await.map_err(broken)?.success() {
                return Ok(());
            }
        }
        let bye = session.disconnect(Disconnect::ByApplication, "", "").await;
        if let Err(error) = bye {
            tracing::debug!(%error, "could not take leave of the SSH server");
        }
        Err(Fault::permanent(
            format!("the server refuses {tried} for user {}", self.user),
            "correct the user, password or key_file of [snapshot.sftp] (special characters of a password as %XX), or allow the login on the server",
        ))
    }

    async fn ask_agent(&self, session: &mut Handle<Checked>) -> Result<bool, Fault> {
        let no_agent = |error: russh::keys::Error| {
            Fault::permanent(
                format!("there is no SSH agent to ask: {error}"),
                "set snapshot.sftp.key_file, or a password in snapshot.sftp.url, or start the daemon with SSH_AUTH_SOCK",
            )
        };
        let mut agent = AgentClient::connect_env().await.map_err(no_agent)?;
        for identity in agent.request_identities().await.map_err(no_agent)? {
            let AgentIdentity::PublicKey { key, .. } = identity else {
                continue;
            };
            let answer = session
                .authenticate_publickey_with(&*self.user, key, None, &mut agent)
                .await;
            match answer {
                Ok(AuthResult::Success) => return Ok(true),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the SSH agent could not sign"),
            }
        }
        Ok(false)
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> Result<T, Fault> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.map_err(|_| Fault::passing(format!("{what} took longer than {} s", DEADLINE.as_secs())))
}

/// What an error of the SSH connection means.
pub(super) fn broken(error: russh::Error) -> Fault {
    match error {
        russh::Error::NoCommonAlgo { .. } => Fault::permanent(
            error,
            "let the server offer an ed25519 or ECDSA host key and current ciphers; one that is listed in known_hosts",
        ),
        other => Fault::passing(other),
    }
}

/// Checks the host key.
pub(super) struct Checked {
    host: String,
    port: u16,
    trust: Trust,
    refusal: Arc<Mutex<Option<Untrusted>>>,
}

impl Handler for Checked {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let checked = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.trust.check(&self.host, self.port, key)
            }
            PublicKeyOrCertificate::Certificate(_) => Err(Untrusted::Certificate),
        };
        let trusted = checked.is_ok();
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = checked.err();
        Ok(trusted)
    }
}
