//! `[snapshot]` and its stores. What is set for a store is checked even where another one is chosen; what a
//! store needs is asked for only where it is chosen.

use std::path::{Path, PathBuf};

use url::Url;

use super::checker::{Checker, DAY_MS, YEAR_MS, given};
use super::log::REPLICAS;
use crate::config::defaults::folder_of;
use crate::config::file::{Snapshot, SnapshotS3, SnapshotSftp};
use crate::config::names::is_stream_prefix;
use crate::config::peer_url::host;
use crate::config::{
    FaultKind, S3Config, Secret, SftpConfig, SnapshotConfig, SnapshotStore, UrlProblem,
};

const WEBDAV_EXAMPLE: &str = "https://HOST/PATH?dir=/snapshots&login=USER&secret=PASSWORD";
const SFTP_EXAMPLE: &str = "sftp://USER:PASSWORD@HOST:PORT/PATH";
const S3_EXAMPLE: &str = "HOST:PORT or https://HOST:PORT";

pub(super) fn snapshot(check: &mut Checker<'_>, file: Snapshot, config: &mut SnapshotConfig) {
    let Snapshot {
        enabled,
        interval,
        leader_ttl,
        store,
        nats,
        s3,
        webdav,
        sftp,
        file,
    } = file;
    check.set(enabled, &mut config.enabled);
    check.millis(
        "snapshot.interval",
        interval,
        0..=YEAR_MS,
        &mut config.interval,
    );
    // Below a second a lease ends while it is being renewed.
    check.millis(
        "snapshot.leader_ttl",
        leader_ttl,
        1_000..=DAY_MS,
        &mut config.leader_ttl,
    );
    check.word(
        "snapshot.store",
        store,
        &[
            ("nats", SnapshotStore::Nats),
            ("s3", SnapshotStore::S3),
            ("webdav", SnapshotStore::WebDav),
            ("sftp", SnapshotStore::Sftp),
            ("file", SnapshotStore::File),
        ],
        "\"nats\", \"s3\", \"webdav\", \"sftp\" or \"file\"",
        &mut config.store,
    );
    check.number(
        "snapshot.nats.replicas",
        nats.replicas,
        REPLICAS,
        &mut config.nats_replicas,
    );
    check.name(
        "snapshot.nats.bucket",
        given(nats.bucket),
        is_stream_prefix,
        "use letters, digits, - and _ only",
        &mut config.nats_bucket,
    );
    bucket(check, s3, &mut config.s3);
    let text = check.secret(
        ("snapshot.webdav.url", webdav.url),
        ("snapshot.webdav.url_file", webdav.url_file),
    );
    url(
        check,
        "snapshot.webdav.url",
        text,
        webdav_problem,
        WEBDAV_EXAMPLE,
        &mut config.webdav_url,
    );
    login(check, sftp, &mut config.sftp);
    if let Some(path) = given(file.path).map(PathBuf::from) {
        // Never created by us: a share that is not mounted must not be filled in below its mount point. It may be mounted later, and is waited for.
        if path.exists() {
            check.folder(check.source.origin("snapshot.file.path"), &path);
        }
        config.file_path = path;
    }
    if config.enabled {
        needs(check, config);
    }
}

/// A snapshot `latest.db` must never be put over an app's database of that name, nor be taken for one of its files.
pub(super) fn beside_database(check: &mut Checker<'_>, config: &SnapshotConfig, db_path: &Path) {
    let real = |folder: &Path| folder.canonicalize().ok();
    let folder = real(&config.file_path);
    if folder.is_some() && folder == real(folder_of(db_path)) {
        check.fault("snapshot.file.path", FaultKind::DatabaseFolder);
    }
}

/// What the chosen store cannot do without.
fn needs(check: &mut Checker<'_>, config: &SnapshotConfig) {
    let (key, is_set, remedy) = match config.store {
        SnapshotStore::Nats => return,
        SnapshotStore::S3 => (
            "snapshot.s3.bucket",
            !config.s3.bucket.is_empty(),
            "store = \"s3\" needs the bucket's name",
        ),
        SnapshotStore::WebDav => (
            "snapshot.webdav.url",
            !config.webdav_url.is_empty(),
            "store = \"webdav\" needs https://HOST/PATH?dir=/snapshots&login=USER&secret=PASSWORD",
        ),
        SnapshotStore::Sftp => (
            "snapshot.sftp.url",
            !config.sftp.url.is_empty(),
            "store = \"sftp\" needs sftp://USER:PASSWORD@HOST:PORT/PATH",
        ),
        SnapshotStore::File => (
            "snapshot.file.path",
            !config.file_path.as_os_str().is_empty(),
            "store = \"file\" needs the path of a folder",
        ),
    };
    if !is_set && !check.is_at_fault(key) {
        check.fault(key, FaultKind::Missing { remedy });
    }
}

fn login(check: &mut Checker<'_>, file: SnapshotSftp, config: &mut SftpConfig) {
    let SnapshotSftp {
        url: text,
        url_file,
        key_file,
        passphrase,
        passphrase_file,
        known_hosts,
        host_key,
    } = file;
    let text = check.secret(
        ("snapshot.sftp.url", text),
        ("snapshot.sftp.url_file", url_file),
    );
    url(
        check,
        "snapshot.sftp.url",
        text,
        sftp_problem,
        SFTP_EXAMPLE,
        &mut config.url,
    );
    check.secret_file("snapshot.sftp.key_file", key_file, &mut config.key_file);
    let passphrase = check.secret(
        ("snapshot.sftp.passphrase", passphrase),
        ("snapshot.sftp.passphrase_file", passphrase_file),
    );
    config.passphrase = Secret::new(passphrase.unwrap_or_default());
    check.readable(
        "snapshot.sftp.known_hosts",
        known_hosts,
        &mut config.known_hosts,
    );
    check.name(
        "snapshot.sftp.host_key",
        given(host_key),
        is_fingerprint,
        "give a fingerprint as `ssh-keygen -lf` shows it: SHA256: and 43 characters",
        &mut config.host_key,
    );
    if !config.passphrase.is_empty()
        && config.key_file.is_none()
        && !check.is_at_fault("snapshot.sftp.key_file")
    {
        let other = "snapshot.sftp.key_file";
        check.fault("snapshot.sftp.passphrase", FaultKind::Incomplete { other });
    }
}

fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix("SHA256:").is_some_and(|hash| {
        hash.len() == 43
            && hash
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
    })
}

fn bucket(check: &mut Checker<'_>, file: SnapshotS3, config: &mut S3Config) {
    let SnapshotS3 {
        endpoint,
        path,
        bucket,
        use_ssl,
        access_key,
        access_key_file,
        secret,
        secret_file,
        session_token,
        session_token_file,
        region,
        force_path_style,
    } = file;
    check.set(use_ssl, &mut config.use_ssl);
    if let Some(endpoint) = given(endpoint) {
        match endpoint_problem(&endpoint) {
            Some(problem) => {
                let (entry, example) = (None, S3_EXAMPLE);
                let kind = FaultKind::Url {
                    entry,
                    problem,
                    example,
                };
                check.fault("snapshot.s3.endpoint", kind);
            }
            None if config.use_ssl && endpoint.starts_with("http://") => {
                let other = "an endpoint that begins with http://";
                check.fault("snapshot.s3.use_ssl", FaultKind::Conflict { other });
            }
            None => {}
        }
        config.endpoint = endpoint;
    }
    check.set(path, &mut config.path);
    check.name(
        "snapshot.s3.bucket",
        given(bucket),
        is_bucket,
        "use 3 to 63 letters, digits, dots, - and _",
        &mut config.bucket,
    );
    check.set(region, &mut config.region);
    check.set(force_path_style, &mut config.force_path_style);
    for (given, in_file, target) in [
        (
            ("snapshot.s3.access_key", access_key),
            ("snapshot.s3.access_key_file", access_key_file),
            &mut config.access_key,
        ),
        (
            ("snapshot.s3.secret", secret),
            ("snapshot.s3.secret_file", secret_file),
            &mut config.secret,
        ),
        (
            ("snapshot.s3.session_token", session_token),
            ("snapshot.s3.session_token_file", session_token_file),
            &mut config.session_token,
        ),
    ] {
        *target = Secret::new(check.secret(given, in_file).unwrap_or_default());
    }
    let pairs = [
        (
            "snapshot.s3.access_key",
            &config.access_key,
            "snapshot.s3.secret",
            &config.secret,
        ),
        (
            "snapshot.s3.secret",
            &config.secret,
            "snapshot.s3.access_key",
            &config.access_key,
        ),
        (
            "snapshot.s3.session_token",
            &config.session_token,
            "snapshot.s3.access_key",
            &config.access_key,
        ),
    ];
    for (key, value, other, its_value) in pairs {
        if !value.is_empty() && its_value.is_empty() && !check.is_at_fault(other) {
            check.fault(key, FaultKind::Incomplete { other });
        }
    }
}

fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn url(
    check: &mut Checker<'_>,
    key: &str,
    value: Option<String>,
    problem: fn(&Url) -> Option<UrlProblem>,
    example: &'static str,
    target: &mut Secret,
) {
    let Some(text) = given(value) else { return };
    let problem = match Url::parse(&text) {
        Ok(url) => problem(&url),
        Err(_) => Some(UrlProblem::Malformed),
    };
    match problem {
        None => *target = Secret::new(text),
        Some(problem) => {
            let entry = None;
            check.fault(
                key,
                FaultKind::Url {
                    entry,
                    problem,
                    example,
                },
            );
        }
    }
}

fn webdav_problem(url: &Url) -> Option<UrlProblem> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some(UrlProblem::Scheme);
    }
    if let Err(problem) = host(url) {
        return Some(problem);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some(UrlProblem::Login);
    }
    url.query_pairs()
        .any(|(name, _)| !matches!(name.as_ref(), "dir" | "login" | "secret"))
        .then_some(UrlProblem::Parameter)
}

fn sftp_problem(url: &Url) -> Option<UrlProblem> {
    if url.scheme() != "sftp" {
        return Some(UrlProblem::Scheme);
    }
    if let Err(problem) = host(url) {
        return Some(problem);
    }
    if url.username().is_empty() {
        return Some(UrlProblem::NoUser);
    }
    (url.query().is_some() || url.fragment().is_some()).then_some(UrlProblem::Parameter)
}

fn endpoint_problem(endpoint: &str) -> Option<UrlProblem> {
    let url = if endpoint.contains("://") {
        Url::parse(endpoint)
    } else {
        Url::parse(&format!("https://{endpoint}"))
    };
    let Ok(url) = url else {
        return Some(UrlProblem::Malformed);
    };
    if !matches!(url.scheme(), "http" | "https") {
        Some(UrlProblem::Scheme)
    } else if !url.username().is_empty() || url.password().is_some() {
        Some(UrlProblem::Login)
    } else if url.query().is_some() || url.fragment().is_some() {
        Some(UrlProblem::Parameter)
    } else if !matches!(url.path(), "" | "/") {
        Some(UrlProblem::Path)
    } else {
        host(&url).err()
    }
}
