//! JetStream: what the account grants, what the streams are and hold, and where this node is in them.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Look;
use super::machine::bytes;
use super::problem::{Check, Problem};
use super::report::Notes;
use crate::change::position::ShardId;
use crate::config::Config;
use crate::history::standing::{self, Standing};
use crate::state::node::Position;
use crate::stream::{Account, Broker, Overview, StreamError};

/// Shards that are looked at one by one.
const MOST_SHARDS: u64 = 64;

/// Buckets of ours in KV and for objects: each is a stream to JetStream.
const BUCKETS: i64 = 6;

/// A stream that is filled further than this many hundredths takes nothing new until a snapshot has made room.
const SOFT: u64 = 80;

/// So many messages behind is worth a word.
const FAR: u64 = 1_000;

/// A clock that differs by more than this is worth a word. Seconds.
pub(super) const OFF: f64 = 2.0;

/// Looks. `position`: where the database says that this node is; `joined`: it has been part of a cluster.
pub async fn look(look: &Look, broker: &Broker, position: Option<Position>, joined: bool) {
    let (config, notes) = (&look.config, &look.notes);
    let log = &config.replication_log;
    let account = match broker.account().await {
        Ok(account) => account,
        Err(error) => return no_jetstream(&error, notes),
    };
    let (mut growth, mut missing, mut there) = (0_u64, 0_i64, Vec::new());
    for shard in (1..=log.shards.min(MOST_SHARDS)).map(ShardId) {
        let began = now();
        let overview = match broker.overview(shard).await {
            Ok(overview) => overview,
            Err(StreamError::StreamMissing { stream }) => {
                missing += 1;
                growth = growth.saturating_add(log.max_bytes);
                absent(broker, shard, &stream, joined, notes).await;
                continue;
            }
            Err(error) => {
                notes.problem(
                    Problem::NoJetStream,
                    error.to_string(),
                    "see that the servers of the NATS cluster that keep copies of the streams run and reach one another",
                );
                continue;
            }
        };
        if shard == ShardId::ORDER {
            clock(&overview, began, now(), notes);
        }
        growth = growth.saturating_add(log.max_bytes.saturating_sub(overview.state.bytes));
        stream(config, broker, shard, &overview, notes).await;
        there.push((shard, overview));
    }
    granted(&account, config, growth, missing, notes);
    if let Some((_, order)) = there.iter().find(|(shard, _)| *shard == ShardId::ORDER) {
        if !notes.has(Check::Streams) {
            let held: u64 = there.iter().map(|(_, o)| o.state.bytes).sum();
            let range = match order.state.messages {
                0 => "the first is empty".to_owned(),
                n => format!("{n} messages in the first, up to {}", order.state.last),
            };
            notes.ok(
                Check::Streams,
                format!(
                    "{}, set as configured; {range}; {} in all",
                    super::count(there.len(), "stream"),
                    bytes(held)
                ),
            );
        }
        place(config, broker, position, order, notes).await;
    } else {
        notes.note(
            Check::Clock,
            "not compared: only a stream tells the server's time, and there is none",
        );
        notes.note(Check::Position, "there is no order stream");
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}

fn no_jetstream(error: &StreamError, notes: &Notes) {
    let remedy = match error {
        StreamError::Refused { .. } => {
            "enable JetStream for this account in the server's configuration (accounts { … jetstream: enabled })"
        }
        StreamError::NoJetStream { .. } => {
            "enable JetStream: jetstream { store_dir: … } in the server's configuration; where it is enabled, see that this user may publish to $JS.API.>"
        }
        _ => {
            "see that the servers of the NATS cluster run and reach one another: JetStream needs most of them"
        }
    };
    notes.problem(Problem::NoJetStream, error.to_string(), remedy);
}

/// A stream that is not there.
async fn absent(broker: &Broker, shard: ShardId, stream: &str, joined: bool, notes: &Notes) {
    match broker.subject_holder(shard).await {
        Ok(Some(holder)) => notes.problem(
            Problem::SubjectTaken,
            format!("stream {stream} cannot be made: its subject {} belongs to stream {holder}", broker.subject(shard)),
            format!("remove that stream when nothing needs it any more (nats stream rm {holder}), or give this cluster another nats.subject_prefix"),
        ),
        // Another node may be configured for more shards; this one makes its own at the next start.
        _ if joined && shard == ShardId::ORDER => notes.problem(
            Problem::StreamGone,
            format!("stream {stream} is not there, and this database is part of a cluster"),
            "see that nats.urls and nats.stream_prefix are those of the cluster; if the stream was lost, start the nodes: they agree on a new history, and nothing of theirs is lost (docs/histories.md)",
        ),
        _ => notes.note(Check::Streams, format!("{stream} is not there yet: the first node makes it")),
    }
}

async fn stream(
    config: &Config,
    broker: &Broker,
    shard: ShardId,
    overview: &Overview,
    notes: &Notes,
) {
    let name = broker.stream_name(shard);
    let differs =
        broker.stream_differences(shard, &config.replication_log, !config.snapshot.enabled);
    if let Ok(differences) = differs.await
        && !differences.is_empty()
    {
        notes.problem(
            Problem::StreamDiffers,
            format!("{name} is not set as configured: {}", differences.join(", ")),
            "replication_log.update_existing = true, for one start, changes it; or configure what it has",
        );
    }
    held(&name, overview, notes);
}

/// What a stream's copies are, and how full it is.
fn held(name: &str, overview: &Overview, notes: &Notes) {
    for (servers, how) in [
        (&overview.offline, "is offline"),
        (&overview.behind, "is behind"),
    ] {
        for server in servers {
            notes.problem(
                Problem::CopyBehind,
                format!("the copy of {name} on NATS server {server} {how}"),
                "start that server, or see that the servers reach one another",
            );
        }
    }
    if let Some(limit) = overview.state.limit
        && overview.state.bytes.saturating_mul(100) >= limit.saturating_mul(SOFT)
    {
        notes.problem(
            Problem::StreamFull,
            format!("{name} holds {} of {} at most: nodes publish nothing new above {SOFT} %", bytes(overview.state.bytes), bytes(limit)),
            "see that snapshots are taken (below), which make room; harmonylite nodes forget a node that is gone for good; or raise replication_log.max_bytes",
        );
    }
}

/// What the account grants.
fn granted(account: &Account, config: &Config, growth: u64, missing: i64, notes: &Notes) {
    let replicas = config.replication_log.replicas;
    // Limits that are not told by copies count every copy.
    let copies = if account.tiers.is_empty() {
        replicas as u64
    } else {
        1
    };
    let needs = growth.saturating_mul(copies);
    let room = account.room(replicas);
    if let Some(room) = room.filter(|r| *r < needs) {
        notes.problem(
            Problem::AccountStorage,
            format!(
                "the account may store {} more, and the streams may grow by {}",
                bytes(room),
                bytes(needs)
            ),
            "raise the account's max_file (disk_storage), or lower replication_log.max_bytes",
        );
    }
    let wants = if missing > 0 { missing + BUCKETS } else { 0 };
    if let Some(left) = account.streams_left(replicas).filter(|left| *left < wants) {
        notes.problem(
            Problem::AccountStreams,
            format!("the account may have {left} more streams, and {wants} are to be made (each bucket is one)"),
            "raise the account's max_streams",
        );
    }
    let most = account.limits.max_consumers;
    if most > 0 && account.consumers >= most {
        notes.problem(
            Problem::AccountConsumers,
            format!(
                "the account has {} consumers of {most}, and each node needs one",
                account.consumers
            ),
            "raise the account's max_consumers",
        );
    }
    if !notes.has(Check::JetStream) {
        let room = room.map_or_else(
            || "no limit on what is stored".to_owned(),
            |r| format!("{} may be stored yet", bytes(r)),
        );
        notes.ok(Check::JetStream, format!("enabled, {room}"));
    }
}

/// This machine's clock beside the server's.
fn clock(overview: &Overview, began: f64, ended: f64, notes: &Notes) {
    let Some(server) = overview.now else {
        return notes.note(
            Check::Clock,
            "not compared: a server before 2.10 does not tell its time",
        );
    };
    #[allow(clippy::cast_precision_loss)] // seconds are enough
    let server = server as f64 / 1e9;
    // The answer was given somewhere between.
    let ahead = (began + ended) / 2.0 - server;
    let unsure = (ended - began) / 2.0;
    if ahead.abs() > OFF + unsure {
        let which = if ahead > 0.0 { "ahead of" } else { "behind" };
        notes.problem(
            Problem::ClockOff,
            format!("this machine's clock is {:.1} s {which} the NATS server's", ahead.abs()),
            "let both follow an NTP server (timedatectl set-ntp true): no change is lost, but lags in seconds, certificates and the age of snapshots go by clocks",
        );
    } else {
        notes.ok(
            Check::Clock,
            format!("within {:.1} s of the NATS server's", ahead.abs().max(0.1)),
        );
    }
}

/// Where this node is.
async fn place(
    config: &Config,
    broker: &Broker,
    position: Option<Position>,
    order: &Overview,
    notes: &Notes,
) {
    let Some(position) = position else {
        return notes.note(Check::Position, "this node has folded nothing yet");
    };
    if !config.replicate {
        return notes.note(
            Check::Position,
            format!(
                "replicate is false: nothing is applied beyond {}",
                position.sequence
            ),
        );
    }
    match standing::look(broker, position).await {
        Ok(Standing::Holds) => {
            let behind = order.state.last.0.saturating_sub(position.sequence.0);
            if behind >= FAR {
                notes.problem(
                    Problem::Lag,
                    format!("this node is at {}, {behind} messages behind the end of the stream ({})", position.sequence, order.state.last),
                    "let it catch up; if the number grows, health says what holds it back, and harmonylite status how fast the others are",
                );
            } else {
                notes.ok(Check::Position, format!("{} of {}", position.sequence, order.state.last));
            }
        }
        Ok(Standing::Trimmed(why)) => snapshot_needed(broker, why, order, notes).await,
        Ok(Standing::Broken(why)) => notes.problem(
            Problem::HistoryBroken,
            why,
            "let the nodes run: they agree on a new history by themselves (docs/histories.md); see that nats.urls and nats.stream_prefix are those of the cluster",
        ),
        Err(error) => notes.note(Check::Position, format!("not compared with the stream: {error}")),
    }
}

async fn snapshot_needed(broker: &Broker, why: String, order: &Overview, notes: &Notes) {
    let newest = super::snapshots::verified(broker).await.ok().flatten();
    match newest.filter(|m| m.sequence.saturating_add(1) >= order.state.first.0) {
        Some(m) => notes.problem(
            Problem::NeedsSnapshot,
            format!("{why}; the newest one covers {}", m.sequence),
            "start harmonylite, or let it run: it restores that snapshot by itself and keeps what is pending here",
        ),
        None => notes.problem(
            Problem::NoWayBack,
            format!("{why}, and there is none that reaches the stream"),
            "harmonylite snapshot save on a node that is up to date (harmonylite status shows which), then start this one",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::position::Sequence;
    use crate::stream::StreamState;

    fn names(notes: &Notes) -> Vec<&'static str> {
        notes
            .all()
            .iter()
            .filter_map(|f| f.problem.map(Problem::name))
            .collect()
    }

    #[test]
    fn what_the_account_grants_is_compared_with_what_is_needed() {
        let config = Config::with_defaults("a.db", 1);
        let judged = |text: &str, growth, missing| {
            let notes = Notes::default();
            granted(
                &serde_json::from_str(text).unwrap(),
                &config,
                growth,
                missing,
                &notes,
            );
            names(&notes)
        };
        assert!(
            judged(
                r#"{"limits":{"max_storage":-1,"max_streams":-1,"max_consumers":-1}}"#,
                1 << 30,
                1
            )
            .is_empty()
        );
        let bound = r#"{"storage":10,"streams":3,"consumers":2,"limits":{"max_storage":20,"max_streams":9,"max_consumers":2}}"#;
        assert_eq!(
            judged(bound, 11, 1),
            ["account-storage", "account-streams", "account-consumers"]
        );
        assert_eq!(judged(bound, 10, 0), ["account-consumers"]);
    }

    fn overview(now: Option<u64>) -> Overview {
        Overview {
            state: StreamState {
                first: Sequence(1),
                last: Sequence(0),
                messages: 0,
                bytes: 79,
                created: 0,
                limit: Some(100),
            },
            oldest: 0,
            newest: 0,
            now,
            replicas: 3,
            leader: None,
            offline: Vec::new(),
            behind: Vec::new(),
        }
    }

    #[test]
    fn copies_and_room_of_a_stream_are_judged() {
        let judged = |change: fn(&mut Overview)| {
            let notes = Notes::default();
            let mut overview = overview(None);
            change(&mut overview);
            held("s", &overview, &notes);
            names(&notes)
        };
        assert!(judged(|_| {}).is_empty());
        assert_eq!(judged(|o| o.state.bytes = 80), ["stream-full"]);
        assert_eq!(judged(|o| o.offline.push("a".to_owned())), ["copy-behind"]);
        assert_eq!(judged(|o| o.behind.push("a".to_owned())), ["copy-behind"]);
    }

    #[test]
    fn clocks_are_compared_as_finely_as_the_way_allows() {
        let at = |server: u64, began, ended| {
            let notes = Notes::default();
            let overview = overview(Some(server * 1_000_000_000));
            clock(&overview, began, ended, &notes);
            names(&notes)
        };
        assert!(at(100, 100.0, 100.1).is_empty());
        assert_eq!(at(100, 103.0, 103.1), ["clock-off"]);
        assert_eq!(at(103, 100.0, 100.1), ["clock-off"]);
        // The answer may have been given at its end.
        assert!(at(103, 100.0, 103.0).is_empty());
    }
}
