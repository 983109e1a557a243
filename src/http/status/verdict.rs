//! Healthy or not, and why.
//!
//! Unhealthy is what keeps this node's data from moving now: probes should take the node out, people should look.
//! What is kept aside while everything moves on (dead letters) is a warning, for restarting or replacing
//! the node would change nothing about it.

use std::time::Duration;

use super::{Component, View};
use crate::brakes::Part;

/// From when a loop's silence is a standstill. The longest step between two signs of life is one transaction
/// bounded in milliseconds, plus SQLite's wait for an app that holds the write lock; a minute is far above both.
pub const STALL: Duration = Duration::from_secs(60);

/// The judgement over one [`View`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Why the node is unhealthy; empty: it is healthy.
    pub reasons: Vec<String>,
    /// What people should look at although everything moves.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Whether nothing stands still.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Judges what is known.
#[must_use]
pub fn judge(view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    let reasons = &mut verdict.reasons;
    let because = |component, sentence: &str| match view.troubles.get(&component) {
        Some(trouble) => format!("{sentence}: {}", trouble.error),
        None => sentence.to_owned(),
    };

    if view.stopping {
        reasons.push("the daemon is stopping".to_owned());
    } else if !view.started {
        reasons.push("the daemon is starting".to_owned());
    }
    if !view.db_connected {
        reasons.push(because(Component::Database, "the database cannot be used"));
    }
    if !view.nats_connected {
        reasons.push(because(Component::Broker, "not connected to NATS"));
    }
    if view.publish && !view.cdc_installed {
        reasons.push(because(Component::Capture, "changes are not captured"));
    }
    if let Some(lacking) = &view.schema_paused {
        reasons.push(format!(
            "applying is paused by a schema difference: {lacking}"
        ));
    }
    if let Some(reason) = &view.apply_paused {
        reasons.push(format!("applying is paused: {reason}"));
    }
    match &view.partition {
        Some((true, sentence)) => reasons.push(sentence.clone()),
        Some((false, sentence)) => verdict.warnings.push(sentence.clone()),
        None => {}
    }
    if let Some(sentence) = view.brakes.publish.pause(Part::Publish) {
        reasons.push(sentence);
    }
    for (component, sentence) in [
        (Component::Publish, "publishing fails"),
        (Component::Apply, "applying fails"),
    ] {
        if view.troubles.contains_key(&component) {
            reasons.push(because(component, sentence));
        }
    }
    for (of, silent) in &view.loops {
        if *silent >= STALL {
            reasons.push(format!(
                "the {} loop has made no progress for {} s",
                of.name(),
                silent.as_secs()
            ));
        }
    }

    if let Some(trouble) = view.troubles.get(&Component::Snapshots) {
        // Data move on meanwhile; it is the streams that grow.
        verdict
            .warnings
            .push(format!("snapshots fail: {}", trouble.error));
    }
    for part in Part::ALL {
        verdict.warnings.extend(view.brakes.of(part).limit(part));
    }
    for sentence in [&view.unsure, &view.triggers].into_iter().flatten() {
        verdict.warnings.push(sentence.clone());
    }
    if view.dead_letters > 0 {
        verdict.warnings.push(format!(
            "{} changes could not be applied and are in the dead-letter journal",
            view.dead_letters
        ));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brakes::Set;
    use crate::change::position::NodeId;
    use crate::http::status::{Loop, Status};

    fn working() -> Status {
        let status = Status::new(NodeId(9), true, true);
        status.set_started();
        status.set_db_connected(true);
        status.set_nats_connected(true);
        status.set_capture(true, 3);
        status.progress(Loop::Publish);
        status.progress(Loop::Consume);
        status
    }

    /// The one reason that `change` gives a node that works.
    fn reason(change: impl FnOnce(&Status)) -> String {
        let status = working();
        change(&status);
        let mut reasons = judge(&status.view()).reasons;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.remove(0)
    }

    #[test]
    fn a_node_that_works_is_healthy_without_a_word() {
        assert_eq!(judge(&working().view()), Verdict::default());
    }

    #[test]
    fn a_node_is_unhealthy_until_it_has_started_and_when_it_stops() {
        let verdict = judge(&Status::new(NodeId(9), true, true).view());
        assert_eq!(verdict.reasons.len(), 4, "{verdict:?}");
        assert!(verdict.reasons[0].contains("starting"));
        assert!(reason(Status::set_stopping).contains("stopping"));
    }

    #[test]
    fn each_standstill_is_a_reason_that_says_why() {
        assert!(reason(|s| s.set_db_connected(false)).contains("database"));
        let broker = reason(|s| {
            s.set_nats_connected(false);
            s.failed(Component::Broker, "connection refused by 127.0.0.1:4222");
        });
        assert!(broker.contains("NATS") && broker.contains("127.0.0.1:4222"));
        assert!(reason(|s| s.set_capture(false, 0)).contains("captured"));
        let schema =
            reason(|s| s.set_schema_paused(Some("table orders lacks column vat".to_owned())));
        assert!(schema.contains("schema") && schema.contains("vat"));
        assert!(
            reason(|s| s.set_apply_paused(Some("message format 9".to_owned())))
                .contains("format 9")
        );
        assert!(
            reason(|s| s.failed(Component::Publish, "stream is full")).contains("stream is full")
        );
        assert!(reason(|s| s.failed(Component::Apply, "disk is full")).contains("disk is full"));
    }

    #[test]
    fn what_an_operator_holds_back_is_shown() {
        let mut set = Set::default();
        set.publish.paused_since = Some("2026-11-21T22:00:00Z".to_owned());
        let paused = set.clone();
        assert!(reason(|s| s.set_brakes(paused)).contains("resume publish"));
        set.publish.paused_since = None;
        set.apply.rows_per_second = std::num::NonZeroU64::new(500);
        let status = working();
        status.set_brakes(set);
        let verdict = judge(&status.view());
        assert!(verdict.is_healthy());
        assert!(verdict.warnings[0].contains("500 rows a second"));
    }

    #[test]
    fn a_trouble_that_stopped_nothing_yet_is_none() {
        let status = working();
        status.failed(Component::Broker, "one of three servers is away");
        status.failed(Component::Database, "busy, trying again");
        assert!(judge(&status.view()).is_healthy());
    }

    #[test]
    fn a_node_that_does_not_publish_needs_no_capture() {
        let status = Status::new(NodeId(9), false, true);
        status.set_started();
        status.set_db_connected(true);
        status.set_nats_connected(true);
        assert!(judge(&status.view()).is_healthy());
    }

    #[test]
    fn silence_of_a_running_loop_is_a_standstill() {
        let mut view = working().view();
        view.loops
            .insert(Loop::Consume, STALL - Duration::from_millis(1));
        assert!(judge(&view).is_healthy());
        view.loops.insert(Loop::Consume, STALL);
        let verdict = judge(&view);
        assert!(!verdict.is_healthy() && verdict.reasons[0].contains("consume"));
    }

    #[test]
    fn dead_letters_warn_and_do_not_take_the_node_out() {
        let status = working();
        status.set_dead_letters(2);
        status.set_triggers(Some("trigger \"ai\" fails".to_owned()));
        let verdict = judge(&status.view());
        assert!(verdict.is_healthy());
        assert!(verdict.warnings[0].contains("ai"));
        assert!(verdict.warnings[1].starts_with("2 changes"));
    }
}
