//! Which keys can change while the daemon runs, and the configuration as it is now.
//!
//! Invariants: every key of the file is in one list, with whether it can change (a test compares it with the file's structures); what cannot keeps its value of the
//! start until the process ends, whatever the file says meanwhile; readers see one configuration or the next, never a mixture.

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;

/// One key of the file.
struct Key {
    name: &'static str,
    same: fn(&Config, &Config) -> bool,
    /// Takes it over from the new configuration, if that can be done now.
    take: Option<fn(&mut Config, &Config)>,
}

macro_rules! key {
    (live $name:literal $($field:ident).+) => {
        Key {
            take: Some(|to, from| to.$($field).+.clone_from(&from.$($field).+)),
            ..key!(fixed $name $($field).+)
        }
    };
    (fixed $name:literal $($field:ident).+) => {
        Key {
            name: $name,
            same: |one, other| one.$($field).+ == other.$($field).+,
            take: None,
        }
    };
}

/// Every key. One whose value a file of its own may give (`secret_file`) is here once.
const KEYS: &[Key] = &[
    key!(fixed "db_path" db_path),
    key!(fixed "seq_map_path" seq_map_path),
    key!(fixed "node_id" node_id),
    key!(fixed "publish" publish),
    key!(fixed "replicate" replicate),
    key!(fixed "scan_max_changes" scan_max_changes),
    key!(live "cleanup_interval" cleanup_interval),
    key!(live "sleep_timeout" sleep_timeout),
    key!(fixed "polling_interval" polling_interval),
    key!(fixed "replication_log.shards" replication_log.shards),
    key!(live "replication_log.max_entries" replication_log.max_entries),
    key!(fixed "replication_log.max_bytes" replication_log.max_bytes),
    key!(live "replication_log.max_age" replication_log.max_age),
    // What a publisher may take for kept rests on it.
    key!(fixed "replication_log.silent_after" replication_log.silent_after),
    key!(fixed "replication_log.kept_max_bytes" replication_log.kept_max_bytes),
    key!(fixed "replication_log.replicas" replication_log.replicas),
    key!(live "replication_log.compress" replication_log.compress),
    key!(live "replication_log.compress_min_bytes" replication_log.compress_min_bytes),
    key!(fixed "replication_log.update_existing" replication_log.update_existing),
    key!(fixed "replication.include" replication.include),
    key!(fixed "replication.exclude" replication.exclude),
    key!(fixed "replication.fire_triggers" replication.fire_triggers),
    key!(live "journals.max_conflicts" journals.max_conflicts),
    key!(live "journals.max_conflict_age" journals.max_conflict_age),
    key!(live "journals.max_dead_letters" journals.max_dead_letters),
    key!(live "journals.max_dead_letter_age" journals.max_dead_letter_age),
    key!(live "journals.max_dead_letter_bytes" journals.max_dead_letter_bytes),
    key!(fixed "snapshot.enabled" snapshot.enabled),
    key!(live "snapshot.interval" snapshot.interval),
    key!(fixed "snapshot.leader_ttl" snapshot.leader_ttl),
    key!(fixed "snapshot.store" snapshot.store),
    key!(fixed "snapshot.nats.replicas" snapshot.nats_replicas),
    key!(fixed "snapshot.nats.bucket" snapshot.nats_bucket),
    key!(fixed "snapshot.s3.endpoint" snapshot.s3.endpoint),
    key!(fixed "snapshot.s3.path" snapshot.s3.path),
    key!(fixed "snapshot.s3.bucket" snapshot.s3.bucket),
    key!(fixed "snapshot.s3.use_ssl" snapshot.s3.use_ssl),
    key!(fixed "snapshot.s3.access_key" snapshot.s3.access_key),
    key!(fixed "snapshot.s3.secret" snapshot.s3.secret),
    key!(fixed "snapshot.s3.session_token" snapshot.s3.session_token),
    key!(fixed "snapshot.s3.region" snapshot.s3.region),
    key!(fixed "snapshot.s3.force_path_style" snapshot.s3.force_path_style),
    key!(fixed "snapshot.webdav.url" snapshot.webdav_url),
    key!(fixed "snapshot.sftp.url" snapshot.sftp.url),
    key!(fixed "snapshot.sftp.key_file" snapshot.sftp.key_file),
    key!(fixed "snapshot.sftp.passphrase" snapshot.sftp.passphrase),
    key!(fixed "snapshot.sftp.known_hosts" snapshot.sftp.known_hosts),
    key!(fixed "snapshot.sftp.host_key" snapshot.sftp.host_key),
    key!(fixed "snapshot.file.path" snapshot.file_path),
    key!(fixed "nats.urls" nats.urls),
    key!(fixed "nats.subject_prefix" nats.subject_prefix),
    key!(fixed "nats.stream_prefix" nats.stream_prefix),
    key!(fixed "nats.server_config" nats.server_config),
    key!(fixed "nats.server_path" nats.server_path),
    key!(fixed "nats.seed_file" nats.seed_file),
    key!(fixed "nats.creds_file" nats.creds_file),
    key!(fixed "nats.user_name" nats.user_name),
    key!(fixed "nats.user_password" nats.user_password),
    key!(fixed "nats.ca_file" nats.ca_file),
    key!(fixed "nats.cert_file" nats.cert_file),
    key!(fixed "nats.key_file" nats.key_file),
    key!(fixed "nats.bind_address" nats.bind_address),
    key!(fixed "nats.connect_retries" nats.connect_retries),
    key!(fixed "nats.reconnect_wait_seconds" nats.reconnect_wait),
    key!(live "logging.verbose" logging.verbose),
    key!(live "logging.format" logging.format),
    key!(live "logging.file" logging.file),
    key!(live "logging.repeat_interval" logging.repeat_interval),
    key!(fixed "prometheus.enable" prometheus.enable),
    key!(fixed "prometheus.bind" prometheus.bind),
    key!(fixed "prometheus.namespace" prometheus.namespace),
    key!(fixed "prometheus.subsystem" prometheus.subsystem),
    key!(fixed "health_check.enable" health_check.enable),
    key!(fixed "health_check.bind" health_check.bind),
    key!(fixed "health_check.path" health_check.path),
    key!(fixed "health_check.detailed" health_check.detailed),
    key!(fixed "health_check.ready_lag_messages" health_check.ready_lag_messages),
    key!(fixed "health_check.min_free_bytes" health_check.min_free_bytes),
];

/// What a new configuration changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that are in force with their new value.
    pub applied: Vec<&'static str>,
    /// Keys that differ from what is in force, and need a restart.
    pub waiting: Vec<&'static str>,
}

/// The configuration as it is now; clones share it.
#[derive(Debug, Clone)]
pub struct Settings(Arc<RwLock<Arc<Config>>>);

impl Settings {
    /// Those of the start.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// As they are now.
    #[must_use]
    pub fn now(&self) -> Arc<Config> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&now)
    }

    /// Takes over what can be changed now.
    pub fn change(&self, new: &Config) -> Changes {
        let mut now = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Config::clone(&now);
        let mut changes = Changes::default();
        for key in KEYS.iter().filter(|key| !(key.same)(&now, new)) {
            match key.take {
                Some(take) => {
                    take(&mut next, new);
                    changes.applied.push(key.name);
                }
                None => changes.waiting.push(key.name),
            }
        }
        *now = Arc::new(next);
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::config::file::KnownKeys;

    fn names(live: bool) -> BTreeSet<String> {
        let keys = KEYS.iter().filter(|key| key.take.is_some() == live);
        keys.map(|key| key.name.to_owned()).collect()
    }

    #[test]
    fn every_key_of_the_file_is_listed() {
        let listed: BTreeSet<String> = names(true).union(&names(false)).cloned().collect();
        assert_eq!(listed.len(), KEYS.len());
        let known = KnownKeys::list().keys.into_iter();
        // The file of a secret stands for the secret.
        let known: BTreeSet<String> = known
            .filter(|name| {
                !name
                    .strip_suffix("_file")
                    .is_some_and(|base| listed.contains(base))
            })
            .collect();
        assert_eq!(known, listed);
    }

    #[test]
    fn the_documentation_says_which_can_change() {
        let documentation = include_str!("../../docs/configuration.md");
        let (_, section) = documentation
            .split_once("\n## Changing it at run time\n")
            .unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        let shown: BTreeSet<String> = rows
            .filter_map(|row| row.split_once('`').map(|(name, _)| name.to_owned()))
            .collect();
        assert_eq!(shown, names(true));
    }

    #[test]
    fn what_can_change_does_and_the_rest_keeps_its_value() {
        let start = Config::with_defaults("/a/app.db", 1);
        let settings = Settings::new(start.clone());
        let mut new = start.clone();
        assert_eq!(settings.change(&new), Changes::default());
        new.replication_log.shards = 4;
        new.replication_log.compress = false;
        new.cleanup_interval = Duration::from_secs(9);
        new.nats.user_password = crate::config::Secret::new("another".to_owned());
        let changes = settings.change(&new);
        assert_eq!(
            changes.applied,
            ["cleanup_interval", "replication_log.compress"]
        );
        assert_eq!(
            changes.waiting,
            ["replication_log.shards", "nats.user_password"]
        );
        let now = settings.now();
        assert_eq!(now.replication_log.shards, 1);
        assert!(!now.replication_log.compress);
        assert_eq!(now.nats.user_password, start.nats.user_password);
        // What waits is said each time, what is in force no more.
        let again = settings.change(&new);
        assert!(again.applied.is_empty() && again.waiting.len() == 2);
        // Set back: nothing waits.
        assert_eq!(settings.change(&start).waiting, [""; 0]);
    }
}
