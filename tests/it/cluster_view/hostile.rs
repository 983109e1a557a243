//! Other programs on the broker say what they like under the keys that nodes announce themselves with.

use super::{SCHEMA, json, of, refused, status};
use crate::harness::Cluster;
use crate::harness::jetstream::Outsider;

const SNAPSHOTS: &str = "harmonylite-changes-snapshots";
const LEASES: &str = "harmonylite-changes-leases";

#[test]
fn what_other_nodes_say_of_themselves_is_shown_bounded_and_without_control_characters() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    cluster[0].start_replicating();
    let outsider = Outsider::new(&cluster.server.url());
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\r\nnode 1: all is well";
    let long = "h".repeat(100_000);
    let said = |position: u64, host: &str, sentences: Vec<&str>| {
        serde_json::json!({
            "position": position, "counter": 1, "nonce": 1,
            "about": {
                "state": "unhealthy", "host": host, "version": host, "schema": host, "address": host,
                "reasons": sentences, "misses": (0..50_000).collect::<Vec<u64>>(),
                "pending": u64::MAX, "shards": u64::MAX, "offsets": {"1": u64::MAX},
            },
        })
        .to_string()
    };
    outsider.put(SNAPSHOTS, "at-2", &said(u64::MAX, evil, vec![evil; 20]));
    outsider.put(SNAPSHOTS, "at-3", &said(0, &long, vec![&long]));
    outsider.put(
        SNAPSHOTS,
        &format!("at-{}", u64::MAX),
        &said(1, "h", vec![]),
    );
    for (key, value) in [("at-0", "{}"), ("at-4", "[[["), ("at-x", "{}")] {
        outsider.put(SNAPSHOTS, key, value);
    }
    let nobody = serde_json::json!({
        "database": evil, "nonce": "", "host": evil, "boot_id": "", "pid_namespace": "", "pid": 1, "process_start": 1, "version": evil,
    });
    outsider.put(LEASES, "node-5", &nobody.to_string());
    let forget = cluster[0].run(&["nodes", "forget", "5"]);
    refused(&forget, 75, &["holds its id"]);
    // A lease that a later version writes in another way is one too.
    outsider.put(LEASES, "node-4", "of a later version");
    let later = cluster[0].run(&["nodes", "forget", "4"]);
    refused(&later, 75, &["another version"]);

    let shown = status(&cluster[0]);
    assert_eq!(of(&shown, 2)["position"], u64::MAX);
    assert_eq!(of(&shown, 4)["state"], "running");
    assert!(
        of(&shown, 3)["host"]
            .as_str()
            .is_some_and(|h| h.len() == 300)
    );
    assert!(shown.to_string().len() < 200_000);
    let table = cluster[0].run(&["status"]);
    refused(&table, 1, &["node 3: hhh"]);
    let streams = cluster[0].run(&["streams"]);
    json(&cluster[0].run(&["streams", "--json"]));
    let list = cluster[0].run(&["nodes"]);
    assert!(
        list.said.lines().all(|l| l.chars().count() <= 80),
        "{}",
        list.said
    );
    for said in [forget.said, table.said, streams.said, list.said] {
        let control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(control), "{said:?}");
        assert!(!said.contains("\nnode 1: all is well"), "{said}");
    }
    assert!(!cluster[0].log().contains("panicked"));
}
