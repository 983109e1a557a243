//! The S3 client from the configuration, and what its errors mean.
//!
//! Invariant: keys come from the configuration, else from the SDK's own chain (environment, profile files, web identity, container
//! and instance roles); none is ever part of an error.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::error::{Fault, chain, find, tls_remedy};
use crate::config::S3Config;

/// What most servers call theirs, and where Amazon answers for buckets of other regions too.
const DEFAULT_REGION: &str = "us-east-1";
/// A healthy server answers in milliseconds; this covers lost packets.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Tries of one request within one of our tries: a part that broke is sent again, not the object.
const REQUEST_TRIES: u32 = 3;

/// The client. Only the credential chain may wait, each of its sources for a bounded time; with configured keys nothing does.
pub(super) async fn connect(config: &S3Config) -> Client {
    crate::stream::install_crypto_provider();
    let version = BehaviorVersion::v2026_01_12();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let region = given(&config.region).map(Region::new);
    let mut builder = if config.access_key.is_empty() {
        let chain = aws_config::defaults(version).region(
            aws_config::meta::region::RegionProviderChain::first_try(region)
                .or_default_provider()
                .or_else(Region::new(DEFAULT_REGION)),
        );
        Builder::from(&chain.load().await)
    } else {
        let keys = Credentials::new(
            config.access_key.expose(),
            config.secret.expose(),
            given(config.session_token.expose()),
            None,
            "snapshot.s3",
        );
        aws_sdk_s3::Config::builder()
            .behavior_version(version)
            .region(region.unwrap_or(Region::new(DEFAULT_REGION)))
            .credentials_provider(keys)
    };
    if let Some(endpoint) = given(&config.endpoint) {
        builder = builder.endpoint_url(match (endpoint.contains("://"), config.use_ssl) {
            (true, _) => endpoint,
            (false, true) => format!("https://{endpoint}"),
            (false, false) => format!("http://{endpoint}"),
        });
    }
    let settings = builder
        .force_path_style(config.force_path_style)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(RetryConfig::standard().with_max_attempts(REQUEST_TRIES))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_DEADLINE)
                .build(),
        );
    Client::from_conf(settings.build())
}

/// What an error of the SDK means.
pub(super) fn fault<E>(error: SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let code = error.code().unwrap_or_default();
    if matches!(code, "NoSuchKey" | "NoSuchUpload") {
        return Fault::Missing;
    }
    let text = match (code, error.message(), status) {
        ("", _, Some(status)) => format!("the server answers HTTP {status}"),
        ("", _, None) => chain(&error),
        (code, Some(message), _) => format!("{code}: {message}"),
        (code, None, _) => code.to_owned(),
    };
    let remedy = match (&error, code, status) {
        (_, "NoSuchBucket", _) => {
            "create the bucket, or correct snapshot.s3.bucket, endpoint or force_path_style"
        }
        (
            _,
            "InvalidAccessKeyId"
            | "NotSignedUp"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken",
            _,
        ) => "correct snapshot.s3.access_key, secret and session_token",
        (
            _,
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, _, Some(301)) => "set snapshot.s3.region to the bucket's region",
        (_, "RequestTimeTooSkewed", _) => "set this machine's clock right",
        (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded", _)
        | (_, _, Some(507)) => "make room in the store or raise the bucket's quota",
        (_, "NotImplemented", _) | (_, _, Some(501)) => {
            "use an S3 server that knows multipart uploads, or another kind of store"
        }
        (_, _, Some(429 | 500..))
        | (SdkError::TimeoutError(_) | SdkError::ResponseError(_), ..) => {
            return Fault::passing(text);
        }
        _ if find::<CredentialsError>(&error).is_some() => {
            "set snapshot.s3.access_key and secret, or give the SDK credentials (environment, profile or instance role)"
        }
        (SdkError::DispatchFailure(_), ..) => match tls_remedy(&error) {
            Some(remedy) => remedy,
            None => return Fault::passing(text),
        },
        (_, "AccessDenied" | "AllAccessDisabled", _) | (_, _, Some(401 | 403)) => {
            "allow these keys to list, read, write and delete in this bucket and path"
        }
        (SdkError::ConstructionFailure(_), ..) => "correct snapshot.s3.endpoint, bucket and path",
        (_, _, Some(404)) => {
            "check that snapshot.s3.endpoint is an S3 server and snapshot.s3.bucket exists"
        }
        _ => "check snapshot.s3 against the server's documentation",
    };
    Fault::permanent(text, remedy)
}
