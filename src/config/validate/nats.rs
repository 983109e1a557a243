//! `[nats]` and the cluster flags.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::checker::Checker;
use crate::config::file::Nats;
use crate::config::names::{is_stream_prefix, is_subject_prefix};
use crate::config::peer_url::host;
use crate::config::{
    FaultKind, LeafUrl, NatsConfig, Origin, Overrides, PeerUrl, Secret, UrlProblem,
};

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
        user_password_file,
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
    check.secret_file("nats.seed_file", seed_file, &mut config.seed_file);
    check.secret_file("nats.creds_file", creds_file, &mut config.creds_file);
    config.user_name = user_name.unwrap_or_default();
    let password = check.secret(
        ("nats.user_password", user_password),
        ("nats.user_password_file", user_password_file),
    );
    config.user_password = Secret::new(password.unwrap_or_default());
    check.readable("nats.ca_file", ca_file, &mut config.ca_file);
    check.readable("nats.cert_file", cert_file, &mut config.cert_file);
    check.secret_file("nats.key_file", key_file, &mut config.key_file);
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

    config.cluster_peers = peers(
        check,
        ("cluster_peers", "-cluster-peers"),
        &overrides.cluster_peers,
        (PeerUrl::parse, PeerUrl::has_login),
        "nats://host:port/ or dns://host:port/?min=N&interval_ms=N",
    );
    config.leaf_servers = peers(
        check,
        ("leaf_servers", "-leaf-servers"),
        &overrides.leaf_servers,
        (LeafUrl::parse, |leaf| leaf.peer.has_login()),
        "nats://host:port/?hub=true or dns://host:port/?min=N&interval_ms=N",
    );
    if let Some(address) = &overrides.cluster_addr {
        if address.port.is_none_or(|port| port == u16::MAX) {
            check.fault_at(Origin::Flag("-cluster-addr"), FaultKind::ClusterPort);
        }
        config.cluster_addr = Some(address.to_string());
    }
}

fn servers(check: &mut Checker<'_>, urls: Option<Vec<String>>, config: &mut NatsConfig) {
    let urls = urls.unwrap_or_default();
    let urls = match check.outside("nats.urls", !urls.is_empty()) {
        Some(text) => listed(text.as_deref()).map(str::to_owned).collect(),
        None => {
            let login = urls.iter().any(|url| url.contains('@'));
            check
                .secrets
                .extend(login.then(|| "a login in nats.urls".to_owned()));
            urls
        }
    };
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

/// A list of URLs as text: commas or blanks between them.
fn listed(text: Option<&str>) -> impl Iterator<Item = &str> {
    let entries = text.unwrap_or_default().split([',', ' ']);
    entries.filter(|entry| !entry.is_empty())
}

type Read<T> = (fn(&str) -> Result<T, UrlProblem>, fn(&T) -> bool);

/// What a flag says, or what is given from outside in its place.
fn peers<T: Clone>(
    check: &mut Checker<'_>,
    (key, flag): (&'static str, &'static str),
    said: &[T],
    (parse, has_login): Read<T>,
    example: &'static str,
) -> Vec<T> {
    let Some(text) = check.outside(key, false) else {
        if said.iter().any(has_login) {
            check.notices.push(format!(
                "{flag} holds a login, and every user of this machine may read the arguments of a process: give it as the systemd credential {key} or in the environment as HARMONYLITE_{}",
                key.to_ascii_uppercase()
            ));
        }
        return said.to_vec();
    };
    if !said.is_empty() {
        check.notices.push(format!(
            "{flag} is without effect, since {key} is given as a systemd credential or in the environment"
        ));
    }
    let mut peers = Vec::new();
    for (n, url) in listed(text.as_deref()).enumerate() {
        match parse(url) {
            Ok(peer) => peers.push(peer),
            Err(problem) => {
                let entry = Some(n + 1);
                let kind = FaultKind::Url {
                    entry,
                    problem,
                    example,
                };
                check.fault(key, kind);
            }
        }
    }
    peers
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
