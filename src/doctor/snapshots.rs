//! The snapshot store and the newest snapshot.
//!
//! Invariant: nothing but the probe object is written, and it is removed again, also when reading it back fails; by a later run, where this one is cut off.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Look;
use super::database::Known;
use super::machine::bytes;
use super::problem::{Check, Problem};
use super::report::Notes;
use crate::config::{Config, SnapshotStore as Kind};
use crate::snapshot::catalog::{Catalog, CatalogError, Listed};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::verified::{Verified, age};
use crate::store::{self, Key, Limits, SnapshotStore, StoreError};
use crate::stream::{Broker, KvError};

/// One try and a bit: an operator waits.
const LIMITS: Limits = Limits {
    tries: 2,
    first_wait: Duration::from_millis(250),
    longest_wait: Duration::from_millis(250),
    stall: Duration::from_secs(4),
};

/// A snapshot that is so many intervals old was to be taken long ago.
const INTERVALS: u32 = 3;

/// What a snapshot may take, on top.
const PATIENCE: Duration = Duration::from_secs(600);

/// The newest snapshot that was read back whole, as NATS knows.
pub(super) async fn verified(broker: &Broker) -> Result<Option<Manifest>, KvError> {
    let name = format!("{}-snapshots", broker.bucket_prefix());
    let Some(kv) = broker.existing_bucket(&name).await? else {
        return Ok(None);
    };
    let (verified, _) = Verified::read(&kv).await?;
    Ok(verified.0.into_iter().next())
}

/// Looks.
pub async fn look(look: &Look, broker: Option<Broker>, known: &Known) {
    let (config, notes) = (&look.config, &look.notes);
    if !config.snapshot.enabled {
        // A notice of the configuration warns of it.
        return notes.note(
            Check::Store,
            "snapshot.enabled is false: none are taken or restored",
        );
    }
    let of_nats = config.snapshot.store == Kind::Nats;
    match (&broker, of_nats) {
        (None, true) => {
            return notes.note(
                Check::Store,
                "it is in NATS, to which there is no connection",
            );
        }
        (Some(broker), true) => {
            let bucket = bucket(config, broker);
            match broker.has_objects(&bucket).await {
                Ok(true) => {}
                Ok(false) => {
                    return notes.note(
                        Check::Store,
                        format!(
                            "the bucket {bucket} is not there yet: the first snapshot makes it"
                        ),
                    );
                }
                Err(error) => {
                    return notes.problem(
                        Problem::StoreFails,
                        error.to_string(),
                        "see what is said of NATS above",
                    );
                }
            }
        }
        _ => {}
    }
    let opened = store::open_with(&config.snapshot, broker.clone(), LIMITS);
    let store: Arc<dyn SnapshotStore> = match opened {
        Ok(store) => Arc::from(store),
        Err(error) => return fails("open", &error, notes),
    };
    let catalog = match &known.cluster {
        Some(cluster) => Catalog::new(Arc::clone(&store), cluster),
        None => Catalog::of_any(Arc::clone(&store)),
    };
    let listed = match catalog.list().await {
        Ok(listed) => listed,
        Err(CatalogError::Store(error)) => return fails("list", &error, notes),
        Err(error) => {
            return notes.problem(
                Problem::StoreFails,
                error.to_string(),
                "harmonylite snapshot list shows what is there",
            );
        }
    };
    if look.options.probe && !probe(&*store, config, notes).await {
        return;
    }
    let how = if look.options.probe {
        "writes, reads and removes"
    } else {
        "lists (--no-probe)"
    };
    notes.ok(Check::Store, format!("{}: {how}", store.name()));
    newest(config, broker.as_ref(), &listed, notes).await;
}

/// The bucket of the NATS store.
fn bucket(config: &Config, broker: &Broker) -> String {
    match &*config.snapshot.nats_bucket {
        "" => format!("{}-snapshot-store", broker.bucket_prefix()),
        named => named.to_owned(),
    }
}

fn fails(step: &str, error: &StoreError, notes: &Notes) {
    let remedy = match error {
        StoreError::Permanent { .. }
        | StoreError::Configuration { .. }
        | StoreError::LeftOut { .. } => {
            "do as the sentence says; docs/snapshots.md has the keys of each store"
        }
        _ => {
            "see that the store runs and can be reached from here; the daemon tries again by itself"
        }
    };
    notes.problem(Problem::StoreFails, format!("{step}: {error}"), remedy);
}

/// What the names of probe objects begin with.
const PROBE: &str = "doctor-probe-";

/// No run takes so long: a probe object that is older was left by one that was cut off.
const LEFT: Duration = Duration::from_secs(3600);

/// Removes the probe objects of runs that were cut off. What it cannot remove, the probe of this run tells of.
async fn sweep(store: &dyn SnapshotStore) {
    let old = |at: SystemTime| at.elapsed().is_ok_and(|age| age >= LEFT);
    for object in store.list().await.unwrap_or_default() {
        if object.key.as_str().starts_with(PROBE) && object.modified.is_none_or(old) {
            let _ = store.delete(&object.key).await;
        }
    }
}

/// Writes an object, reads it back, removes it. Whether all that works.
async fn probe(store: &dyn SnapshotStore, config: &Config, notes: &Notes) -> bool {
    sweep(store).await;
    let name = format!("{PROBE}{}-{:08x}", config.node_id, rand::random::<u32>());
    let Ok(key) = Key::new(name) else {
        return false;
    };
    let written = Bytes::from_static(b"harmonylite doctor\n");
    if let Err(error) = store.put_small(&key, written.clone()).await {
        fails("write", &error, notes);
        return false;
    }
    let read = store.get_small(&key).await;
    let removed = store.delete(&key).await;
    let wrong = match (read, removed) {
        (Ok(Some(read)), Ok(())) if read == written => return true,
        (Err(error), _) => return failed("read", &error, notes),
        (_, Err(error)) => return failed("remove", &error, notes),
        (Ok(Some(_)), _) => "it gives back other bytes than were written",
        (Ok(None), _) => "it does not have what was written a moment before",
    };
    notes.problem(
        Problem::StoreFails,
        format!("{}: {wrong}", store.name()),
        "see that nothing stands between this machine and the store (a cache, a proxy, a store that is not consistent)",
    );
    false
}

fn failed(step: &str, error: &StoreError, notes: &Notes) -> bool {
    fails(step, error, notes);
    false
}

/// How old the newest is.
async fn newest(config: &Config, broker: Option<&Broker>, listed: &[Listed], notes: &Notes) {
    let verified = match broker {
        Some(broker) => verified(broker).await.ok().flatten(),
        None => None,
    };
    let Some(newest) = verified
        .as_ref()
        .or_else(|| listed.iter().find_map(|l| l.manifest.as_ref().ok()))
    else {
        return notes.problem(
            Problem::NoSnapshot,
            "there is no snapshot in the store: a node that falls behind could not be brought back",
            "harmonylite snapshot save takes one; a daemon that runs takes the first by itself",
        );
    };
    let in_store = listed
        .iter()
        .any(|l| l.manifest.as_ref().is_ok_and(|m| m.file == newest.file));
    if !in_store {
        return notes.problem(
            Problem::NoSnapshot,
            format!("NATS knows {} as the newest verified snapshot, and the store does not hold it", newest.file),
            "harmonylite snapshot save takes another; see that all nodes are configured for the same store",
        );
    }
    let old = age(newest);
    let interval = config.snapshot.interval;
    let text = format!(
        "covers position {}, {} old, {}",
        newest.sequence,
        span(old),
        bytes(newest.size)
    );
    if !interval.is_zero() && old > interval.saturating_mul(INTERVALS).saturating_add(PATIENCE) {
        notes.problem(
            Problem::SnapshotOld,
            format!("{text}: one is to be taken every {}", span(interval)),
            "harmonylite snapshot save takes one or says why it cannot; harmonylite status names the node that takes them",
        );
    } else {
        notes.ok(Check::Snapshot, text);
    }
}

/// A time for people.
fn span(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}
