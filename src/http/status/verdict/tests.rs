//! Each reason, one at a time.

use super::*;
use crate::brakes::Set;
use crate::change::position::{NodeId, ShardId};
use crate::http::status::{Disk, Partition, Status, Trouble};
use std::time::SystemTime;

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
    let verdict = judge(&working().view());
    assert!(verdict.is_healthy() && verdict.warnings.is_empty());
    assert!(
        verdict
            .components
            .values()
            .all(|part| part.state == State::Ok && part.reasons.is_empty())
    );
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
    let schema = reason(|s| s.set_schema_paused(Some("table orders lacks column vat".to_owned())));
    assert!(schema.contains("schema") && schema.contains("vat"));
    assert!(
        reason(|s| s.set_apply_paused(Some("message format 9".to_owned()))).contains("format 9")
    );
    assert!(reason(|s| s.failed(Component::Publish, "stream is full")).contains("stream is full"));
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

#[test]
fn a_consumer_a_disk_and_a_partition_are_judged_by_name() {
    let failing = |name: &str, change: &dyn Fn(&Status)| {
        let status = working();
        change(&status);
        let verdict = judge(&status.view());
        assert_eq!(
            verdict.reasons, verdict.components[name].reasons,
            "{verdict:?}"
        );
        assert_eq!(verdict.components[name].state, State::Failing);
    };
    failing("consumer_1", &|s| {
        s.set_consumer(ShardId(1), Some("nothing came".to_owned()));
    });
    failing("disk", &|s| {
        s.set_disk(Some(Disk { free: 9, limit: 10 }));
    });
    failing("database", &|s| {
        s.set_database_error(Some("I/O".to_owned()))
    });
    for (kind, name) in [("jetstream", "jetstream"), ("isolated", "peers")] {
        failing(name, &|s| {
            s.set_partition(Some(Partition {
                kind,
                cut_off: true,
                sentence: "cut off".to_owned(),
            }));
        });
    }
    let status = working();
    status.set_disk(Some(Disk { free: 0, limit: 0 }));
    status.set_consumer(ShardId(1), None);
    assert!(judge(&status.view()).is_healthy());
}

#[test]
fn a_trouble_that_may_pass_is_one_when_it_lasts() {
    let mut view = working().view();
    for component in [Component::Database, Component::JetStream] {
        let since = SystemTime::now() - LASTS;
        let error = "busy".to_owned();
        view.troubles.insert(component, Trouble { error, since });
        let verdict = judge(&view);
        assert!(!verdict.is_healthy() && verdict.reasons[0].ends_with("busy"));
        view.troubles.clear();
    }
}

#[test]
fn a_node_far_behind_is_healthy_and_not_ready() {
    let status = working();
    let lacks = |messages: Option<u64>, limit: u64| {
        status.set_lag(messages);
        let view = status.view();
        let verdict = judge(&view);
        assert!(verdict.is_healthy());
        verdict.not_ready(&view, limit)
    };
    assert!(lacks(Some(100), 100).is_empty());
    assert!(lacks(Some(101), 100)[0].contains("101"));
    assert!(lacks(None, 100)[0].contains("not known"));
    assert!(lacks(Some(101), 0).is_empty());
}
