//! Why a server does not let us in, and what the operator should change: the key of the configuration, never what it holds.

use async_nats::{ConnectError, ConnectErrorKind};
use rustls::{AlertDescription, CertificateError};

use crate::config::NatsConfig;

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The login.
    Login,
    /// The server's certificate is of no authority that is trusted.
    Authority,
    /// The server's certificate is of another name.
    Name,
    /// The server's certificate is not valid now.
    Time,
    /// Our certificate: the server wants one, or another.
    Certificate,
    /// TLS in some other way.
    Tls,
}

impl Refusal {
    /// What an attempt to connect failed for; `None`: for no refusal, but for a server that cannot be reached.
    pub(super) fn of(error: &ConnectError) -> Option<Self> {
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                return Some(Self::Login);
            }
            _ => {}
        }
        // TLS 1.3 tells of our certificate only after the handshake, as an error of reading.
        let tls = chain(error).find_map(of_tls);
        tls.or((error.kind() == ConnectErrorKind::Tls).then_some(Self::Tls))
    }

    /// The same, of what the client says while it reconnects by itself: only the kind, as text.
    pub(super) fn of_kind(text: &str) -> Option<Self> {
        let is = |kind: ConnectErrorKind| text == kind.to_string();
        if is(ConnectErrorKind::Authentication) || is(ConnectErrorKind::AuthorizationViolation) {
            Some(Self::Login)
        } else {
            is(ConnectErrorKind::Tls).then_some(Self::Tls)
        }
    }

    /// What to do about it, with this configuration.
    #[must_use]
    pub fn remedy(self, config: &NatsConfig) -> &'static str {
        let has_certificate = config.cert_file.is_some();
        match self {
            Self::Login if config.creds_file.is_some() => {
                "the server does not accept the credentials that nats.creds_file names: give those of a user that it knows and that have not expired"
            }
            Self::Login if config.seed_file.is_some() => {
                "the server does not know the nkey that nats.seed_file names: give the seed of a user that it knows, or add the public key to its users"
            }
            Self::Login if !config.user_name.is_empty() => {
                "the server does not accept nats.user_name with nats.user_password: correct them, or the server's users"
            }
            Self::Login if config.urls.iter().any(|url| url.contains('@')) => {
                "the server does not accept the login in nats.urls: correct it, or the server's users"
            }
            // Servers can map certificates to users.
            Self::Login if has_certificate => {
                "the server has no user for the certificate that nats.cert_file names: add one, or set nats.user_name, nats.seed_file or nats.creds_file"
            }
            Self::Login => {
                "the server wants a login: set nats.user_name and nats.user_password, nats.seed_file, or nats.creds_file"
            }
            Self::Authority if config.ca_file.is_some() => {
                "the server's certificate is not signed by the authority that nats.ca_file names: give the file of the one that has signed it"
            }
            Self::Authority => {
                "the server's certificate is signed by no authority that this system trusts: name the file of the one that has signed it in nats.ca_file"
            }
            Self::Name => {
                "the server's certificate is of another name: write in nats.urls one that it holds, or give the server a certificate of this one"
            }
            Self::Time => {
                "the server's certificate has expired or is not valid yet: renew it, or set this machine's clock"
            }
            Self::Certificate if has_certificate => {
                "the server does not accept the certificate that nats.cert_file names: give one that is signed by the authority which the server trusts"
            }
            Self::Certificate => {
                "the server wants a client certificate: set nats.cert_file and nats.key_file"
            }
            Self::Tls => {
                "check nats.ca_file, nats.cert_file and nats.key_file, and that nats.urls names a server that speaks TLS"
            }
        }
    }
}

fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e rustls::Error> {
    std::iter::successors(Some(error), |error| {
        match error.downcast_ref::<std::io::Error>() {
            // Its source is what its inner error has as source, not that error.
            Some(io) => io
                .get_ref()
                .map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        }
    })
    .filter_map(|error| error.downcast_ref())
}

fn of_tls(error: &rustls::Error) -> Option<Refusal> {
    use rustls::Error;
    Some(match error {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Refusal::Authority,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Refusal::Name,
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Refusal::Time,
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => Refusal::Certificate,
        _ => Refusal::Tls,
    })
}
