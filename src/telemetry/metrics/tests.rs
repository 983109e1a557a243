//! What a scrape must show.

use super::*;
use crate::change::position::ShardId;

fn config(namespace: &str, subsystem: &str) -> PrometheusConfig {
    PrometheusConfig {
        enable: true,
        bind: String::new(),
        namespace: namespace.to_owned(),
        subsystem: subsystem.to_owned(),
    }
}

fn metrics() -> Metrics {
    Metrics::new(&config("harmonylite", ""), NodeId(42)).unwrap()
}

fn has(text: &str, line: &str) {
    assert!(
        text.lines().any(|l| l == line),
        "no line {line:?} in\n{text}"
    );
}

#[test]
fn names_of_the_go_program_exist_with_their_type_and_label() {
    let text = metrics().render().unwrap();
    has(&text, "# TYPE harmonylite_published counter");
    has(&text, "# TYPE harmonylite_pending_publish gauge");
    has(&text, "# TYPE harmonylite_schema_mismatch_paused gauge");
    has(&text, "# TYPE harmonylite_snapshot_age gauge");
    has(&text, "# TYPE harmonylite_count_changes histogram");
    has(&text, "# TYPE harmonylite_scan_changes histogram");
    has(&text, r#"harmonylite_published{node_id="42"} 0"#);
    has(&text, r#"harmonylite_snapshot_age{node_id="42"} NaN"#);
}

#[test]
fn instruments_show_what_was_counted() {
    let metrics = metrics();
    metrics.rows_published.inc_by(3);
    metrics.published_bytes_sent.inc_by(10);
    metrics.ignored_gap.inc();
    metrics.position.set(ShardId(2), 99);
    metrics.conflicts.inc("unique");
    metrics.apply_transaction.observe(0.0002);
    let depth = metrics.queues.queue("prefetch", 256).unwrap();
    depth.set(5);
    let text = metrics.render().unwrap();
    has(&text, r#"harmonylite_published{node_id="42"} 3"#);
    has(&text, r#"harmonylite_rows_published_total{node_id="42"} 3"#);
    has(
        &text,
        r#"harmonylite_published_bytes_total{form="sent",node_id="42"} 10"#,
    );
    has(
        &text,
        r#"harmonylite_ignored_messages_total{node_id="42",reason="gap"} 1"#,
    );
    has(
        &text,
        r#"harmonylite_ignored_messages_total{node_id="42",reason="duplicate"} 0"#,
    );
    has(&text, r#"harmonylite_position{node_id="42",shard="2"} 99"#);
    has(
        &text,
        r#"harmonylite_conflicts_total{node_id="42",reason="unique"} 1"#,
    );
    has(
        &text,
        r#"harmonylite_queue_depth{node_id="42",queue="prefetch"} 5"#,
    );
    has(
        &text,
        r#"harmonylite_queue_limit{node_id="42",queue="prefetch"} 256"#,
    );
    has(
        &text,
        r#"harmonylite_apply_transaction_seconds_bucket{node_id="42",le="0.0001"} 0"#,
    );
    has(
        &text,
        r#"harmonylite_apply_transaction_seconds_bucket{node_id="42",le="0.00025"} 1"#,
    );
}

#[test]
fn a_pause_raises_one_flag_and_its_end_takes_it_to_zero() {
    let metrics = metrics();
    metrics.apply_paused.set(Some("schema"));
    metrics.apply_paused.set(Some("history"));
    let text = metrics.render().unwrap();
    has(
        &text,
        r#"harmonylite_apply_paused{node_id="42",reason="schema"} 0"#,
    );
    has(
        &text,
        r#"harmonylite_apply_paused{node_id="42",reason="history"} 1"#,
    );
    metrics.apply_paused.set(None);
    let text = metrics.render().unwrap();
    has(
        &text,
        r#"harmonylite_apply_paused{node_id="42",reason="history"} 0"#,
    );
}

#[test]
fn the_process_is_measured_at_the_scrape() {
    let metrics = metrics();
    let value = |name: &str| -> f64 {
        let text = metrics.render().unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{name}{{")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1_000_000.0);
    let before = value("process_open_fds");
    let held: Vec<_> = (0..20)
        .map(|_| std::fs::File::open("/dev/null").unwrap())
        .collect();
    // Other tests open and close files at the same time, but not this many fewer.
    assert!(value("process_open_fds") > before - 10.0, "{}", held.len());
    let cpu = value("process_cpu_seconds_total");
    let mut x = 0_u64;
    while value("process_cpu_seconds_total") <= cpu {
        x = x.wrapping_mul(31).wrapping_add(7);
    }
    assert!(value("process_cpu_seconds_total") > cpu, "{x}");
}

#[test]
fn prefix_follows_the_configuration_and_a_bad_one_is_named() {
    let text = Metrics::new(&config("app", "replica"), NodeId(1))
        .unwrap()
        .render()
        .unwrap();
    has(&text, r#"app_replica_published{node_id="1"} 0"#);
    let error = Metrics::new(&config("har mony", ""), NodeId(1))
        .err()
        .unwrap();
    assert!(error.to_string().contains("har mony"), "{error}");
}
