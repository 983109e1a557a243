//! Making the shards' streams, and comparing those that exist with what we would have made.
//!
//! Invariant: a stream that exists is changed only when `update_existing` says so, and then only in the settings that we care
//! about: what an operator set besides (placement, compression, republishing) stays.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};

use super::api;
use super::broker::Broker;
use super::error::StreamError;
use crate::change::position::ShardId;
use crate::config::ReplicationLogConfig;

/// Order and duplicates are the readers' business, no message carries an id, and the default window of two minutes would
/// make the server keep track for nothing. This is the smallest that it accepts.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

impl Broker {
    /// Makes the streams of shards 1 to `config.shards`, as far as they do not exist. Returns sentences for the operator: one
    /// for each existing stream whose settings differ (changed instead when `config.update_existing`), and one for a server so old that
    /// its full streams do not push back.
    /// With `drop_oldest` a full stream drops its oldest messages instead of refusing new ones.
    ///
    /// # Errors
    /// [`StreamError::CreateStream`] or [`StreamError::SubjectTaken`], which both begin "Failed to create stream";
    /// [`StreamError::is_transient`] says whether to try again.
    pub async fn ensure_streams(
        &self,
        config: &ReplicationLogConfig,
        drop_oldest: bool,
    ) -> Result<Vec<String>, StreamError> {
        let mut notices = Vec::new();
        if !drop_oldest
            && !self.client().is_server_compatible(2, 10, 5)
            && let Some(version) = self.server_version()
        {
            notices.push(format!(
                "nats-server {version} drops the oldest message of a full stream although it is told to refuse the new one \
                 (corrected in 2.10.5); upgrade it, or keep replication_log.max_bytes far above what is ever needed"
            ));
        }
        for shard in (1..=config.shards).map(ShardId) {
            let wanted = self.wanted(shard, config, drop_oldest);
            self.ensure_stream(&wanted, config.update_existing, &mut notices)
                .await
                .map_err(|error| match error {
                    error @ StreamError::SubjectTaken { .. } => error,
                    source => StreamError::CreateStream {
                        stream: wanted.name.clone(),
                        source: Box::new(source),
                    },
                })?;
        }
        Ok(notices)
    }

    pub(super) fn wanted(
        &self,
        shard: ShardId,
        config: &ReplicationLogConfig,
        drop_oldest: bool,
    ) -> Config {
        Config {
            name: self.stream_name(shard),
            subjects: vec![self.subject(shard)],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: config.replicas,
            discard: if drop_oldest {
                DiscardPolicy::Old
            } else {
                DiscardPolicy::New
            },
            max_bytes: i64::try_from(config.max_bytes).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: -1,
            // Age alone must never remove what no snapshot covers (the leader trims by age, see the snapshot schedule).
            max_age: Duration::ZERO,
            duplicate_window: DUPLICATE_WINDOW,
            allow_direct: true,
            description: Some("HarmonyLite replication log".to_owned()),
            ..Config::default()
        }
    }

    async fn ensure_stream(
        &self,
        wanted: &Config,
        update_existing: bool,
        notices: &mut Vec<String>,
    ) -> Result<(), StreamError> {
        let existing = match self.info(&wanted.name).await {
            Ok(info) => info.config,
            Err(StreamError::StreamMissing { .. }) => {
                match self.create(wanted).await {
                    // Another node was faster, with settings of its own.
                    Err(StreamError::Refused {
                        code: api::STREAM_NAME_EXISTS,
                        ..
                    }) => self.info(&wanted.name).await?.config,
                    other => return other,
                }
            }
            Err(error) => return Err(error),
        };
        let differences = differences(&existing, wanted);
        if differences.is_empty() {
            return Ok(());
        }
        let differences = differences.join(", ");
        let name = &wanted.name;
        if update_existing {
            let subject = format!("STREAM.UPDATE.{name}");
            let updated = merged(existing, wanted);
            api::request::<_, Info>(self.context(), name, subject, &updated).await?;
            notices.push(format!("stream {name} was changed: {differences}"));
        } else {
            notices.push(format!(
                "stream {name} exists with other settings: {differences}; it is left as it is \
                 (replication_log.update_existing = true changes it)"
            ));
        }
        Ok(())
    }

    async fn create(&self, wanted: &Config) -> Result<(), StreamError> {
        let name = &wanted.name;
        let subject = format!("STREAM.CREATE.{name}");
        match api::request::<_, Info>(self.context(), name, subject, wanted).await {
            Ok(_) => Ok(()),
            Err(
                error @ StreamError::Refused {
                    code: api::SUBJECT_OVERLAP,
                    ..
                },
            ) => {
                let subject = wanted.subjects.first().cloned().unwrap_or_default();
                match self.context().stream_by_subject(subject.clone()).await {
                    Ok(holder) => Err(StreamError::SubjectTaken {
                        stream: name.clone(),
                        subject,
                        holder,
                    }),
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// The settings that we care about in which `existing` is not as `wanted`, for people.
pub(super) fn differences(existing: &Config, wanted: &Config) -> Vec<String> {
    let unlimited = |limit: i64| if limit <= 0 { -1 } else { limit };
    let mut found = Vec::new();
    let mut compare = |key: &str, existing: String, wanted: String| {
        if existing != wanted {
            found.push(format!("{key} is {existing}, not {wanted}"));
        }
    };
    compare(
        "subjects",
        format!("{:?}", existing.subjects),
        format!("{:?}", wanted.subjects),
    );
    compare(
        "retention",
        format!("{:?}", existing.retention),
        format!("{:?}", wanted.retention),
    );
    compare(
        "storage",
        format!("{:?}", existing.storage),
        format!("{:?}", wanted.storage),
    );
    compare(
        "replicas",
        existing.num_replicas.to_string(),
        wanted.num_replicas.to_string(),
    );
    compare(
        "discard",
        format!("{:?}", existing.discard),
        format!("{:?}", wanted.discard),
    );
    compare(
        "max_bytes",
        unlimited(existing.max_bytes).to_string(),
        unlimited(wanted.max_bytes).to_string(),
    );
    compare(
        "max_msgs",
        unlimited(existing.max_messages).to_string(),
        "-1".to_owned(),
    );
    compare(
        "max_msgs_per_subject",
        unlimited(existing.max_messages_per_subject).to_string(),
        "-1".to_owned(),
    );
    compare(
        "max_msg_size",
        unlimited(existing.max_message_size.into()).to_string(),
        "-1".to_owned(),
    );
    compare(
        "max_age",
        format!("{:?}", existing.max_age),
        format!("{:?}", wanted.max_age),
    );
    compare(
        "allow_direct",
        existing.allow_direct.to_string(),
        wanted.allow_direct.to_string(),
    );
    found
}

/// `existing` with the settings that we care about as in `wanted`.
fn merged(existing: Config, wanted: &Config) -> Config {
    Config {
        subjects: wanted.subjects.clone(),
        retention: wanted.retention,
        storage: wanted.storage,
        num_replicas: wanted.num_replicas,
        discard: wanted.discard,
        max_bytes: wanted.max_bytes,
        max_messages: wanted.max_messages,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_message_size: wanted.max_message_size,
        max_age: wanted.max_age,
        duplicate_window: wanted.duplicate_window,
        allow_direct: wanted.allow_direct,
        ..existing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_what_is_not_ours() {
        let existing = Config {
            name: "s".to_owned(),
            description: Some("the operator's words".to_owned()),
            max_bytes: 5,
            max_messages: 10,
            ..Config::default()
        };
        let wanted = Config {
            name: "s".to_owned(),
            max_bytes: 7,
            max_messages: -1,
            max_message_size: -1,
            allow_direct: true,
            ..Config::default()
        };
        let merged = merged(existing.clone(), &wanted);
        assert_eq!(merged.description, existing.description);
        assert!(differences(&merged, &wanted).is_empty());
        assert_eq!(
            differences(&existing, &wanted),
            [
                "max_bytes is 5, not 7",
                "max_msgs is 10, not -1",
                "allow_direct is false, not true"
            ]
        );
    }
}
