//! Healthy or not, and why.
//!
//! Unhealthy is what keeps this node's data from moving now: probes should take the node out, people should look.
//! What is kept aside while everything moves on (dead letters) is a warning, for restarting or replacing
//! the node would change nothing about it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Component, Loop, View};
use crate::brakes::Part;

/// From when a loop's silence is a standstill. The longest step between two signs of life is one transaction
/// bounded in milliseconds, plus SQLite's wait for an app that holds the write lock; a minute is far above both.
pub const STALL: Duration = Duration::from_secs(60);

/// From when a trouble that may pass by itself (a locked database, an election in the broker) is one to act on.
const LASTS: Duration = Duration::from_secs(10);

/// How a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The configuration leaves it out.
    Off,
    /// It works.
    Ok,
    /// People should look, although everything moves.
    Warning,
    /// It keeps this node's data from moving.
    Failing,
}

/// A component's state, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// How it is.
    pub state: State,
    /// Why it is not well, or off.
    pub reasons: Vec<String>,
}

/// The judgement over one [`View`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Why the node is unhealthy; empty: it is healthy.
    pub reasons: Vec<String>,
    /// What people should look at although everything moves.
    pub warnings: Vec<String>,
    /// By component; one for each shard's consumer is called `consumer_<shard>`.
    pub components: BTreeMap<String, Condition>,
}

impl Verdict {
    /// Whether nothing stands still.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Why this node should not be asked by users now; empty: it may be. `limit`: messages that it may lack; 0: any number.
    #[must_use]
    pub fn not_ready(&self, view: &View, limit: u64) -> Vec<String> {
        let mut reasons = self.reasons.clone();
        if limit > 0 && view.replicate {
            match view.lag_messages {
                Some(lag) if lag <= limit => {}
                Some(lag) => reasons.push(format!(
                    "this node lacks {lag} messages of the stream, and is ready from {limit} on (health_check.ready_lag_messages)"
                )),
                None => reasons.push(
                    "it is not known yet how far this node is behind the stream".to_owned(),
                ),
            }
        }
        reasons
    }

    /// Why this process should be restarted; empty: it should not be. A broker or a disk that is away is no reason, for the next process would meet the same.
    #[must_use]
    pub fn stuck(&self, view: &View) -> Vec<String> {
        view.loops
            .iter()
            .filter_map(|(of, silent)| stands_still(*of, *silent))
            .collect()
    }

    fn condition(&mut self, name: &str) -> &mut Condition {
        self.components.entry(name.to_owned()).or_insert(Condition {
            state: State::Ok,
            reasons: Vec::new(),
        })
    }

    fn is(&mut self, name: &str, state: State, sentence: String) {
        let condition = self.condition(name);
        condition.state = condition.state.max(state);
        condition.reasons.push(sentence.clone());
        match state {
            State::Failing => self.reasons.push(sentence),
            State::Warning => self.warnings.push(sentence),
            State::Ok | State::Off => {}
        }
    }

    fn fails(&mut self, name: &str, sentence: impl Into<String>) {
        self.is(name, State::Failing, sentence.into());
    }

    fn warns(&mut self, name: &str, sentence: impl Into<String>) {
        self.is(name, State::Warning, sentence.into());
    }

    fn off(&mut self, name: &str, why: &str) {
        let condition = self.condition(name);
        condition.state = State::Off;
        condition.reasons = vec![why.to_owned()];
    }
}

/// Judges what is known.
#[must_use]
pub fn judge(view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    for name in [
        "daemon",
        "database",
        "disk",
        "capture",
        "schema",
        "publish",
        "apply",
        "broker",
        "jetstream",
        "peers",
        "snapshots",
        "snapshot_store",
        "dead_letters",
        "app_triggers",
        "log",
    ] {
        verdict.condition(name);
    }
    if view.stopping {
        verdict.fails("daemon", "the daemon is stopping");
    } else if !view.started {
        verdict.fails("daemon", "the daemon is starting");
    }
    machine(view, &mut verdict);
    broker(view, &mut verdict);
    capture(view, &mut verdict);
    loops(view, &mut verdict);
    kept_aside(view, &mut verdict);
    verdict
}

/// What a component's trouble says of why.
fn because(view: &View, component: Component, sentence: &str) -> String {
    match view.troubles.get(&component) {
        Some(trouble) => format!("{sentence}: {}", trouble.error),
        None => sentence.to_owned(),
    }
}

/// Whether a component's trouble has lasted.
fn lasts(view: &View, component: Component) -> bool {
    let trouble = view.troubles.get(&component);
    // A clock that was set back makes it no older.
    trouble.is_some_and(|t| t.since.elapsed().is_ok_and(|age| age >= LASTS))
}

/// The database and its disk.
fn machine(view: &View, verdict: &mut Verdict) {
    if !view.db_connected || lasts(view, Component::Database) {
        let sentence = because(view, Component::Database, "the database cannot be used");
        verdict.fails("database", sentence);
    } else if let Some(error) = &view.database_error {
        verdict.fails("database", format!("the database cannot be used: {error}"));
    }
    if let Some(disk) = view.disk
        && disk.free < disk.limit
    {
        verdict.fails(
            "disk",
            format!(
                "the disk of the database has {} MiB free, less than {} MiB (health_check.min_free_bytes): make room",
                disk.free >> 20,
                disk.limit >> 20
            ),
        );
    }
}

/// The broker, its streams, what is read of them, and the other nodes.
fn broker(view: &View, verdict: &mut Verdict) {
    if !view.nats_connected {
        verdict.fails(
            "broker",
            because(view, Component::Broker, "not connected to NATS"),
        );
    }
    for (shard, sentence) in &view.consumers {
        let name = format!("consumer_{shard}");
        match sentence {
            // Without a connection nothing is read: one reason is enough.
            Some(sentence) if view.nats_connected => verdict.fails(&name, sentence.clone()),
            _ => {
                verdict.condition(&name);
            }
        }
    }
    match &view.partition {
        Some(seen) if seen.kind == "jetstream" => {
            verdict.fails("jetstream", seen.sentence.clone());
        }
        Some(seen) if seen.cut_off => verdict.fails("peers", seen.sentence.clone()),
        Some(seen) => verdict.warns("peers", seen.sentence.clone()),
        None => {}
    }
    if view.nats_connected && lasts(view, Component::JetStream) {
        let sentence = because(view, Component::JetStream, "the streams do not answer");
        verdict.fails("jetstream", sentence);
    }
}

/// Capture and schema.
fn capture(view: &View, verdict: &mut Verdict) {
    if !view.publish {
        verdict.off("capture", "publish = false");
    } else if !view.cdc_installed {
        let sentence = because(view, Component::Capture, "changes are not captured");
        verdict.fails("capture", sentence);
    } else if lasts(view, Component::Capture) {
        let sentence = "a change of the schema is not captured yet";
        verdict.warns("capture", because(view, Component::Capture, sentence));
    }
    if let Some(sentence) = &view.unsure {
        verdict.warns("capture", sentence.clone());
    }
    if let Some(lacking) = &view.schema_paused {
        verdict.fails(
            "schema",
            format!("applying is paused by a schema difference: {lacking}"),
        );
    }
}

/// The two loops and what holds them back.
fn loops(view: &View, verdict: &mut Verdict) {
    if !view.publish {
        verdict.off("publish", "publish = false");
    }
    if !view.replicate {
        verdict.off("apply", "replicate = false");
    }
    if let Some(reason) = &view.apply_paused {
        verdict.fails("apply", format!("applying is paused: {reason}"));
    }
    if let Some(sentence) = view.brakes.publish.pause(Part::Publish) {
        verdict.fails("publish", sentence);
    }
    for (name, component, sentence) in [
        ("publish", Component::Publish, "publishing fails"),
        ("apply", Component::Apply, "applying fails"),
    ] {
        if view.troubles.contains_key(&component) {
            verdict.fails(name, because(view, component, sentence));
        }
    }
    for (of, silent) in &view.loops {
        if let Some(sentence) = stands_still(*of, *silent) {
            let name = match of {
                Loop::Publish => "publish",
                Loop::Consume => "apply",
            };
            verdict.fails(name, sentence);
        }
    }
    for part in Part::ALL {
        if let Some(sentence) = view.brakes.of(part).limit(part) {
            verdict.warns(part.word(), sentence);
        }
    }
}

/// Whether a loop stands still.
fn stands_still(of: Loop, silent: Duration) -> Option<String> {
    (silent >= STALL).then(|| {
        format!(
            "the {} loop has made no progress for {} s",
            of.name(),
            silent.as_secs()
        )
    })
}

/// What is kept aside while data move on; it is the streams or the journals that grow.
fn kept_aside(view: &View, verdict: &mut Verdict) {
    if let Some(trouble) = view.troubles.get(&Component::Logs) {
        verdict.warns("log", trouble.error.clone());
    }
    for (name, component, sentence) in [
        ("snapshots", Component::Snapshots, "snapshots fail"),
        (
            "snapshot_store",
            Component::SnapshotStore,
            "the snapshot store cannot be used",
        ),
    ] {
        if !view.snapshots {
            verdict.off(name, "snapshot.enabled = false");
        } else if view.troubles.contains_key(&component) {
            verdict.warns(name, because(view, component, sentence));
        }
    }
    if let Some(sentence) = &view.triggers {
        verdict.warns("app_triggers", sentence.clone());
    }
    if view.dead_letters > 0 {
        verdict.warns(
            "dead_letters",
            format!(
                "{} changes could not be applied and are in the dead-letter journal",
                view.dead_letters
            ),
        );
    }
}

#[cfg(test)]
mod tests;
