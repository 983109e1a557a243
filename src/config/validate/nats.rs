//! `[nats]` and the cluster flags.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::checker::Checker;
use crate::config::file::Nats;
use crate::config::names::{is_stream_prefix, is_subject_prefix};
use crate::config::peer_url::host;
use crate::config::{FaultKind, NatsConfig, Origin, Overrides, Secret, UrlProblem};

pub(super) fn nats(
    check: &mut Checker<'_>,
    file: Nats,
    overrides: &Overrides,
    config: &mut NatsConfig,
) {
    let Nats {
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
        reconnect_wait_seconds,
    } = file;
    servers(check, urls, config);
    check.name(
        "nats.subject_prefix",
        subject_prefix,
        is_subject_prefix,
        "use words joined by dots, without blanks, * and >, and no $ in front",
        &mut config.subject_prefix,
    );
    check.name(
        "nats.stream_prefix",
        stream_prefix,
        is_stream_prefix,
        "use letters, digits, - and _ only, since bucket names follow it",
        &mut config.stream_prefix,
    );
    check.readable(
        "nats.server_config",
        server_config,
        &mut config.server_config,
    );
    program(check, server_path, &mut config.server_path);
    check.readable("nats.seed_file", seed_file, &mut config.seed_file);
    check.readable("nats.creds_file", creds_file, &mut config.creds_file);
    config.user_name = user_name.unwrap_or_default();
    config.user_password = Secret::new(user_password.unwrap_or_default());
    check.readable("nats.ca_file", ca_file, &mut config.ca_file);
    check.readable("nats.cert_file", cert_file, &mut config.cert_file);
    check.readable("nats.key_file", key_file, &mut config.key_file);
    login(check, config);
    check.address("nats.bind_address", bind_address, &mut config.bind_address);
    check.number(
        "nats.connect_retries",
        connect_retries,
        0..=i64::from(u32::MAX),
        &mut config.connect_retries,
    );
    // An hour: past that a broker that is back would not be noticed on the day.
    let mut seconds = config.reconnect_wait.as_secs();
    check.number(
        "nats.reconnect_wait_seconds",
        reconnect_wait_seconds,
        1..=3_600,
        &mut seconds,
    );
    config.reconnect_wait = Duration::from_secs(seconds);

    config.cluster_peers.clone_from(&overrides.cluster_peers);
    config.leaf_servers.clone_from(&overrides.leaf_servers);
    if let Some(address) = &overrides.cluster_addr {
        if address.port.is_none_or(|port| port == u16::MAX) {
            check.fault_at(Origin::Flag("-cluster-addr"), FaultKind::ClusterPort);
        }
        config.cluster_addr = Some(address.to_string());
    }
}

fn servers(check: &mut Checker<'_>, urls: Option<Vec<String>>, config: &mut NatsConfig) {
    let urls = urls.unwrap_or_default();
    for (n, url) in urls.iter().enumerate() {
        if let Some(problem) = server_problem(url) {
            let kind = FaultKind::Url {
                entry: Some(n + 1),
                problem,
                example: "nats://HOST:PORT or tls://HOST:PORT",
            };
            check.fault("nats.urls", kind);
        }
    }
    config.urls = urls;
}

/// HOST:PORT alone stands for `nats://HOST:PORT`; without a port it is 4222.
fn server_problem(text: &str) -> Option<UrlProblem> {
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("nats://{text}"))
    };
    let Ok(url) = url else {
        return Some(UrlProblem::Malformed);
    };
    if !matches!(url.scheme(), "nats" | "tls") {
        Some(UrlProblem::Scheme)
    } else if let Err(problem) = host(&url) {
        Some(problem)
    } else if url.port() == Some(0) {
        Some(UrlProblem::NoPort)
    } else if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        Some(UrlProblem::Path)
    } else if url.query().is_some() {
        Some(UrlProblem::Parameter)
    } else {
        None
    }
}

fn program(check: &mut Checker<'_>, value: Option<String>, target: &mut Option<PathBuf>) {
    let key = "nats.server_path";
    check.readable(key, value, target);
    let Some(path) = target.as_ref() else { return };
    let executable = path
        .metadata()
        .is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    if !executable {
        let path = path.clone();
        check.fault(key, FaultKind::NotExecutable { path });
    }
}

/// One way to log in, and each with all that it needs.
fn login(check: &mut Checker<'_>, config: &NatsConfig) {
    let user = !config.user_name.is_empty();
    let ways = [
        (
            "nats.creds_file",
            config.creds_file.is_some(),
            "nats.user_name",
            user,
        ),
        (
            "nats.seed_file",
            config.seed_file.is_some(),
            "nats.user_name",
            user,
        ),
        (
            "nats.creds_file",
            config.creds_file.is_some(),
            "nats.seed_file",
            config.seed_file.is_some(),
        ),
    ];
    for (key, is_set, other, other_is_set) in ways {
        if is_set && other_is_set {
            check.fault(key, FaultKind::Conflict { other });
        }
    }
    let password = !config.user_password.is_empty();
    let halves = [
        (
            "nats.cert_file",
            config.cert_file.is_some(),
            "nats.key_file",
            config.key_file.is_some(),
        ),
        (
            "nats.key_file",
            config.key_file.is_some(),
            "nats.cert_file",
            config.cert_file.is_some(),
        ),
        ("nats.user_password", password, "nats.user_name", user),
    ];
    for (key, is_set, other, other_is_set) in halves {
        if is_set && !other_is_set && !check.is_at_fault(other) {
            check.fault(key, FaultKind::Incomplete { other });
        }
    }
}
