//! What can go wrong with a store, by kind: gone, passing, or for a person to mend.
//!
//! Invariants: whether to try again is decided here and by `match`, never by text; an error for a person says what to do; no
//! variant holds a URL with its login, a password, a key or a token.

use std::error::Error;
use std::sync::Arc;

/// A cause from a library, kept whole.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A request to a snapshot store that did not succeed, after all tries.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store answers, and holds no such object.
    #[error("{store} holds no {key}")]
    Missing {
        /// The store.
        store: Arc<str>,
        /// The object.
        key: String,
    },
    /// It may succeed later with nothing changed by a person: no connection, no answer, an overloaded server.
    #[error("{store}: {what} failed: {source}")]
    Passing {
        /// The store.
        store: Arc<str>,
        /// What was wanted.
        what: String,
        /// Why it failed the last time.
        source: Cause,
    },
    /// It will fail until somebody does what `remedy` says.
    #[error("{store}: {what} failed: {source}; {remedy}")]
    Permanent {
        /// The store.
        store: Arc<str>,
        /// What was wanted.
        what: String,
        /// Why.
        source: Cause,
        /// What to do about it.
        remedy: String,
    },
    /// The object is longer than it may be. Trying again cannot help.
    #[error("{store}: {key} is longer than {most} bytes")]
    TooLong {
        /// The store.
        store: Arc<str>,
        /// The object.
        key: String,
        /// What it may have, in bytes.
        most: u64,
    },
    /// The configured store is not part of this program.
    #[error(
        "snapshot.store = \"{store}\" is not part of this build of harmonylite; build it with the Cargo feature {feature}, or choose another store"
    )]
    LeftOut {
        /// The store's word in the configuration.
        store: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// The configuration of the store cannot be used.
    #[error("{key} {problem}; {remedy}")]
    Configuration {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl StoreError {
    /// Whether the same request may succeed later with nothing changed by a person.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Passing { .. })
    }

    /// Whether the store says that there is no such object.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// One try that failed, as a backend reports it.
#[derive(Debug)]
pub(super) enum Fault {
    /// No such object.
    Missing,
    /// Trying again may help.
    Passing(Cause),
    /// Longer than it may be.
    TooLong { most: u64 },
    /// Trying again cannot help.
    Permanent { source: Cause, remedy: String },
}

impl Fault {
    pub(super) fn passing(source: impl Into<Cause>) -> Self {
        Self::Passing(source.into())
    }

    pub(super) fn permanent(source: impl Into<Cause>, remedy: impl Into<String>) -> Self {
        Self::Permanent {
            source: source.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn named(self, store: &Arc<str>, what: &str, key: &str) -> StoreError {
        let (store, what) = (store.clone(), what.to_owned());
        match self {
            Self::Missing => StoreError::Missing {
                store,
                key: key.to_owned(),
            },
            Self::TooLong { most } => StoreError::TooLong {
                store,
                key: key.to_owned(),
                most,
            },
            Self::Passing(source) => StoreError::Passing {
                store,
                what,
                source,
            },
            Self::Permanent { source, remedy } => StoreError::Permanent {
                store,
                what,
                source,
                remedy,
            },
        }
    }
}

/// Faults of files on this machine: the snapshot that is sent, the copy that is fetched, and the folder store.
pub(super) fn local(error: std::io::Error, path: &std::path::Path) -> Fault {
    use std::io::ErrorKind as Kind;
    let path = path.display();
    let remedy = match error.kind() {
        Kind::NotFound => format!("there is no {path}"),
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => {
            format!("let the daemon's user read and write {path}")
        }
        Kind::StorageFull | Kind::QuotaExceeded => format!("make room on the disk of {path}"),
        Kind::NotADirectory | Kind::IsADirectory => {
            format!("{path} is not what it should be: a file, in a folder")
        }
        _ => return Fault::passing(Described(format!("{path}: {error}"), error)),
    };
    Fault::permanent(error, remedy)
}

/// A cause with its own cause, where the outer one's text says more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Described(pub(super) String, #[source] pub(super) std::io::Error);

/// The first cause of type `T` in the chain below `error`, also where libraries hide causes in I/O errors.
#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
pub(super) fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        next = match cause.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => None,
        }
        .or_else(|| cause.source());
    }
    None
}

/// The whole chain in one line: libraries like to say only "dispatch failure" at the top.
#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let inner = cause.to_string();
        if !text.ends_with(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        next = cause.source();
    }
    text
}

/// What a person should do about a TLS error; `None` when there is none in the chain, or none that a person can mend.
#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
pub(super) fn tls_remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match find::<rustls::Error>(error)? {
        rustls::Error::InvalidCertificate(_) => Some(
            "check that the server's certificate is valid, names this host, and that this machine trusts its issuer",
        ),
        rustls::Error::InvalidMessage(_) => {
            Some("check that this port speaks HTTPS, or use http:// or use_ssl = false")
        }
        rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_) => {
            Some("check that the server offers TLS 1.2 or 1.3 and needs no client certificate")
        }
        _ => None,
    }
}
