//! `[prometheus]`, `[health_check]`, and that no two listeners ask for one port.

use super::checker::Checker;
use crate::config::file::{HealthCheck, Prometheus};
use crate::config::names::is_metric_prefix;
use crate::config::{
    Config, FaultKind, HealthCheckConfig, ListenAddress, Origin, PrometheusConfig,
};

pub(super) fn prometheus(check: &mut Checker<'_>, file: Prometheus, config: &mut PrometheusConfig) {
    let Prometheus {
        enable,
        bind,
        namespace,
        subsystem,
    } = file;
    check.set(enable, &mut config.enable);
    check.address("prometheus.bind", bind, &mut config.bind);
    let rule = "use letters, digits and _ only, no digit in front, as Prometheus asks";
    check.name(
        "prometheus.namespace",
        namespace,
        is_metric_prefix,
        rule,
        &mut config.namespace,
    );
    check.name(
        "prometheus.subsystem",
        subsystem,
        is_metric_prefix,
        rule,
        &mut config.subsystem,
    );
}

pub(super) fn health_check(
    check: &mut Checker<'_>,
    file: HealthCheck,
    config: &mut HealthCheckConfig,
) {
    let HealthCheck {
        enable,
        bind,
        path,
        detailed,
        ready_lag_messages,
        min_free_bytes,
    } = file;
    check.set(enable, &mut config.enable);
    check.address("health_check.bind", bind, &mut config.bind);
    check.name(
        "health_check.path",
        path,
        is_http_path,
        "begin it with / and use no blanks, ?, # or braces",
        &mut config.path,
    );
    check.set(detailed, &mut config.detailed);
    check.number(
        "health_check.ready_lag_messages",
        ready_lag_messages,
        0..=i64::MAX,
        &mut config.ready_lag_messages,
    );
    check.number(
        "health_check.min_free_bytes",
        min_free_bytes,
        0..=i64::MAX,
        &mut config.min_free_bytes,
    );
}

fn is_http_path(text: &str) -> bool {
    // Braces would be a pattern to the HTTP router.
    text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#{}".contains(&byte))
}

/// Compares what will be listened on; free ports (`-1`) collide with nothing.
pub(super) fn collisions(check: &mut Checker<'_>, config: &Config) {
    let mut listeners: Vec<(Origin, ListenAddress, bool)> = Vec::new();
    let keys = [
        (
            "nats.bind_address",
            config.nats.urls.is_empty(),
            &config.nats.bind_address,
        ),
        (
            "prometheus.bind",
            config.prometheus.enable,
            &config.prometheus.bind,
        ),
        (
            "health_check.bind",
            config.health_check.enable,
            &config.health_check.bind,
        ),
    ];
    for (key, listens, bind) in keys {
        if listens && let Ok(address) = ListenAddress::parse(bind) {
            // Metrics and health share one listener where they have the same address.
            let shares = key != "nats.bind_address";
            listeners.push((check.source.origin(key), address, shares));
        }
    }
    let cluster = config
        .nats
        .cluster_addr
        .as_deref()
        .map(ListenAddress::parse);
    if let (true, Some(Ok(routes))) = (config.nats.urls.is_empty(), cluster) {
        let leaf = ListenAddress {
            host: routes.host.clone(),
            port: routes.port.and_then(|port| port.checked_add(1)),
        };
        listeners.push((Origin::Flag("-cluster-addr"), routes, false));
        listeners.push((
            Origin::Flag("-cluster-addr (leaf nodes, the next port up)"),
            leaf,
            false,
        ));
    }
    for (n, (origin, address, shares)) in listeners.iter().enumerate() {
        for (other, its_address, it_shares) in listeners.iter().take(n) {
            if *shares && *it_shares && address == its_address {
                continue;
            }
            if let (true, Some(port)) = (address.collides_with(its_address), address.port) {
                let other = match other {
                    Origin::Key {
                        key,
                        line: Some(line),
                    } => format!("{key} (line {line})"),
                    other => other.to_string(),
                };
                check.fault_at(origin.clone(), FaultKind::SamePort { other, port });
            }
        }
    }
}
