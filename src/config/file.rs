//! The configuration file as it is written: one structure a section, one optional field a key.
//!
//! Invariant: these structures are the one list of keys. A key that is not here is unknown; an empty string
//! stands for a key that is not set. Values are as typed: ranges and meaning are checked in `validate`. No
//! `Debug` here, since some of the fields are secrets.

use serde::{Deserialize, Serialize};

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default, Deserialize, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name { $(pub(super) $field: $type,)* }
    };
}

section!(
    /// Root.
    FileConfig {
        db_path: Option<String>,
        seq_map_path: Option<String>,
        node_id: Option<i64>,
        publish: Option<bool>,
        replicate: Option<bool>,
        scan_max_changes: Option<i64>,
        cleanup_interval: Option<i64>,
        sleep_timeout: Option<i64>,
        polling_interval: Option<i64>,
        replication_log: ReplicationLog,
        replication: Replication,
        journals: Journals,
        snapshot: Snapshot,
        nats: Nats,
        logging: Logging,
        prometheus: Prometheus,
        health_check: HealthCheck,
    }
);

section!(
    /// `[replication_log]`
    ReplicationLog {
        shards: Option<i64>,
        max_entries: Option<i64>,
        max_bytes: Option<i64>,
        max_age: Option<i64>,
        silent_after: Option<i64>,
        kept_max_bytes: Option<i64>,
        replicas: Option<i64>,
        compress: Option<bool>,
        compress_min_bytes: Option<i64>,
        update_existing: Option<bool>,
    }
);

section!(
    /// `[replication]`
    Replication {
        include: Option<Vec<String>>,
        exclude: Option<Vec<String>>,
        fire_triggers: Option<Vec<String>>,
    }
);

section!(
    /// `[journals]`
    Journals {
        max_conflicts: Option<i64>,
        max_conflict_age: Option<i64>,
        max_dead_letters: Option<i64>,
        max_dead_letter_age: Option<i64>,
        max_dead_letter_bytes: Option<i64>,
    }
);

section!(
    /// `[snapshot]`
    Snapshot {
        enabled: Option<bool>,
        interval: Option<i64>,
        leader_ttl: Option<i64>,
        store: Option<String>,
        nats: SnapshotNats,
        s3: SnapshotS3,
        webdav: SnapshotWebDav,
        sftp: SnapshotSftp,
        file: SnapshotFile,
    }
);

section!(
    /// `[snapshot.nats]`
    SnapshotNats {
        replicas: Option<i64>,
        bucket: Option<String>,
    }
);

section!(
    /// `[snapshot.s3]`
    SnapshotS3 {
        endpoint: Option<String>,
        path: Option<String>,
        bucket: Option<String>,
        use_ssl: Option<bool>,
        access_key: Option<String>,
        access_key_file: Option<String>,
        secret: Option<String>,
        secret_file: Option<String>,
        session_token: Option<String>,
        session_token_file: Option<String>,
        region: Option<String>,
        force_path_style: Option<bool>,
    }
);

section!(
    /// `[snapshot.webdav]`
    SnapshotWebDav {
        url: Option<String>,
        url_file: Option<String>,
    }
);

section!(
    /// `[snapshot.sftp]`
    SnapshotSftp {
        url: Option<String>,
        url_file: Option<String>,
        key_file: Option<String>,
        passphrase: Option<String>,
        passphrase_file: Option<String>,
        known_hosts: Option<String>,
        host_key: Option<String>,
    }
);

section!(
    /// `[snapshot.file]`
    SnapshotFile { path: Option<String>, }
);

section!(
    /// `[nats]`
    Nats {
        urls: Option<Vec<String>>,
        subject_prefix: Option<String>,
        stream_prefix: Option<String>,
        server_config: Option<String>,
        server_path: Option<String>,
        seed_file: Option<String>,
        creds_file: Option<String>,
        user_name: Option<String>,
        user_password: Option<String>,
        user_password_file: Option<String>,
        ca_file: Option<String>,
        cert_file: Option<String>,
        key_file: Option<String>,
        bind_address: Option<String>,
        connect_retries: Option<i64>,
        reconnect_wait_seconds: Option<i64>,
    }
);

section!(
    /// `[logging]`
    Logging {
        verbose: Option<bool>,
        format: Option<String>,
        file: Option<String>,
        repeat_interval: Option<i64>,
    }
);

section!(
    /// `[prometheus]`
    Prometheus {
        enable: Option<bool>,
        bind: Option<String>,
        namespace: Option<String>,
        subsystem: Option<String>,
    }
);

section!(
    /// `[health_check]`
    HealthCheck {
        enable: Option<bool>,
        bind: Option<String>,
        path: Option<String>,
        detailed: Option<bool>,
        ready_lag_messages: Option<i64>,
        min_free_bytes: Option<i64>,
    }
);

/// Everything that may stand in a file, by dotted path.
#[derive(Default)]
pub(super) struct KnownKeys {
    /// Keys, as in `nats.urls`.
    pub(super) keys: Vec<String>,
    /// Sections, as in `snapshot.s3`.
    pub(super) sections: Vec<String>,
}

impl KnownKeys {
    /// Reads the list off the structures: a field that is not set serializes as null, a section as an object.
    pub(super) fn list() -> Self {
        let mut known = Self::default();
        // Plain structures of options serialize without fail; if ever not, nothing is known and the tests
        // that go through this list fail.
        let root = serde_json::to_value(FileConfig::default()).unwrap_or_default();
        known.add("", &root);
        known
    }

    fn add(&mut self, prefix: &str, value: &serde_json::Value) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let path = format!("{prefix}{name}");
            if inner.is_object() {
                self.add(&format!("{path}."), inner);
                self.sections.push(path);
            } else {
                self.keys.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reaches_the_innermost_sections() {
        let known = KnownKeys::list();
        for key in [
            "db_path",
            "nats.urls",
            "snapshot.s3.region",
            "snapshot.file.path",
        ] {
            assert!(known.keys.iter().any(|known| known == key), "{key}");
        }
        assert!(
            known
                .sections
                .iter()
                .any(|known| known == "snapshot.webdav")
        );
    }

    #[test]
    fn the_example_and_the_documentation_hold_every_key_with_the_same_default() {
        let example = include_str!("../../config.example.toml");
        let documentation = include_str!("../../docs/configuration.md");
        let mut section = String::new();
        let mut shown = Vec::new();
        for line in example.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = format!("{}.", name.trim_end_matches(']'));
            }
            // The one key whose default depends on the machine is commented out.
            let line = line
                .strip_prefix("# ")
                .filter(|line| line.starts_with("node_id = "))
                .unwrap_or(line);
            let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
            else {
                continue;
            };
            let key = format!("{section}{key}");
            let default = match key.as_str() {
                "db_path" => "required".to_owned(),
                "node_id" => "from the machine".to_owned(),
                _ => format!("`{value}`"),
            };
            let row = format!("| `{key}` | {default} | ");
            assert!(
                documentation.contains(&row),
                "docs/configuration.md lacks: {row}"
            );
            shown.push(key);
        }
        shown.sort();
        let mut known = KnownKeys::list().keys;
        known.sort();
        assert_eq!(shown, known);
    }
}
