//! What a configuration that is right still deserves to be told: keys whose feature is not built yet, keys that
//! have no effect in this combination, and choices that cost safety.
//!
//! Invariant: no key that the user set is silently without effect.

use super::defaults;
use super::node_id::Machine;
use super::parse::Source;
use super::{Config, Overrides, SnapshotStore};

impl Config {
    /// Sentences about choices that are allowed but cost something, whoever made them.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |text: &str| warnings.push(text.to_owned());
        match (self.publish, self.replicate) {
            (false, false) => warn(
                "publish and replicate are both false: this node neither sends its changes nor applies those of others",
            ),
            (false, true) => warn(
                "publish is false: changes made on this node are not captured until it is true again",
            ),
            (true, false) => warn(
                "replicate is false: changes of other nodes wait in the stream and are not applied here until it is true again",
            ),
            (true, true) => {}
        }
        if !self.snapshot.enabled {
            warn(
                "snapshot.enabled is false: a node that falls behind the stream cannot be brought back, and a full stream drops its oldest changes",
            );
        }
        let s3 = &self.snapshot.s3;
        if self.snapshot.enabled
            && self.snapshot.store == SnapshotStore::S3
            && !s3.use_ssl
            && !s3.endpoint.is_empty()
            && !s3.endpoint.starts_with("https://")
        {
            warn("snapshot.s3.use_ssl is false: snapshots travel to the S3 endpoint unencrypted");
        }
        let nats = &self.nats;
        let alone = nats.cluster_addr.is_none() && nats.server_config.is_none();
        if nats.urls.is_empty() && alone {
            if self.replication_log.replicas > 1 {
                warn(
                    "replication_log.replicas is more than 1 but the managed NATS server stands alone: give -cluster-addr and -cluster-peers, or set it to 1",
                );
            }
            if !nats.cluster_peers.is_empty() {
                warn(
                    "-cluster-peers has no effect without -cluster-addr: a server without a cluster port makes no routes",
                );
            }
        }
        warnings
    }
}

/// Everything to tell about a configuration loaded from `source` and `overrides`.
pub(super) fn notices(
    config: &Config,
    source: &Source,
    overrides: &Overrides,
    asked: Option<&Machine>,
) -> Vec<String> {
    let mut notices = not_built(config, source, overrides);
    notices.extend(without_effect(config, source));
    if let Some(Machine::HostName(name)) = asked {
        notices.push(format!(
            "node_id is not set and this machine has no machine id: {} was derived from the host name {name:?}; set node_id if host names are not unique or change",
            config.node_id
        ));
    }
    notices.extend(config.warnings());
    let folder = &config.snapshot.file_path;
    if config.snapshot.enabled && config.snapshot.store == SnapshotStore::File && !folder.exists() {
        notices.push(format!(
            "the folder for snapshots {} is not there: make it, mount it, or correct snapshot.file.path; until then no snapshot is taken or restored",
            folder.display()
        ));
    }
    notices
}

fn not_built(config: &Config, source: &Source, overrides: &Overrides) -> Vec<String> {
    let mut notices = Vec::new();
    let key = "scan_max_changes";
    // Its default says what the program does; another value would be expected to change something.
    if config.scan_max_changes != defaults::SCAN_MAX_CHANGES
        && let Some(line) = source.line(key)
    {
        notices.push(format!(
            "{}: checked but without effect, since reading the change log in steps of a set size (a scan is bounded by memory instead) is not built yet in this version",
            with_lines(&[(key, line)])
        ));
    }
    if overrides.pprof.is_some() && !cfg!(feature = "profiling") {
        notices.push(
            "-pprof: this harmonylite was built without profiles of processor time; memory and threads are shown"
                .to_owned(),
        );
    }
    notices
}

/// With external servers there is no managed one to configure.
fn without_effect(config: &Config, source: &Source) -> Vec<String> {
    let nats = &config.nats;
    if nats.urls.is_empty() {
        return Vec::new();
    }
    let flags = [
        ("-cluster-addr", nats.cluster_addr.is_some()),
        ("-cluster-peers", !nats.cluster_peers.is_empty()),
        ("-leaf-servers", !nats.leaf_servers.is_empty()),
    ];
    let keys = [
        ("nats.server_config", nats.server_config.is_some()),
        ("nats.server_path", nats.server_path.is_some()),
        (
            "nats.bind_address",
            nats.bind_address != Config::with_defaults("", 1).nats.bind_address,
        ),
    ];
    let keys = keys
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(key, _)| match source.line(key) {
            Some(line) => with_lines(&[(key, line)]),
            None => key.to_owned(),
        });
    flags
        .into_iter()
        .filter(|(_, is_set)| *is_set)
        .map(|(flag, _)| flag.to_owned())
        .chain(keys)
        .map(|name| {
            format!("{name}: without effect, since nats.urls names external servers and none is managed here")
        })
        .collect()
}

fn with_lines(keys: &[(&str, usize)]) -> String {
    keys.iter()
        .map(|(key, line)| format!("{key} (line {line})"))
        .collect::<Vec<_>>()
        .join(", ")
}
