//! `-schema-status`, `-schema-status-cluster` and the registry that the latter reads.

use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node};

const SCHEMA: &str = "CREATE TABLE orders(id INTEGER PRIMARY KEY, code TEXT UNIQUE, total); CREATE TABLE notes(body TEXT); CREATE VIRTUAL TABLE words USING fts5(body);";

#[test]
fn a_node_shows_its_schema_with_and_without_a_daemon() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let bare = cluster[0].run(&["-schema-status"]);
    assert_eq!(bare.code, Some(0), "{}", bare.said);
    assert!(bare.said.contains("no daemon answers"), "{}", bare.said);
    assert!(
        bare.said.contains("orders") && bare.said.contains("none"),
        "{}",
        bare.said
    );
    cluster[0].start_replicating();
    let shown = cluster[0].run(&["schema"]);
    assert_eq!(shown.code, Some(0), "{}", shown.said);
    for text in [
        "2 replicated tables",
        "orders  3",
        "current",
        "nothing waits",
        "rowid",
    ] {
        assert!(shown.said.contains(text), "{text}: {}", shown.said);
    }
    cluster[0].stop();
    cluster[0].sql("ALTER TABLE orders ADD COLUMN vat; INSERT INTO orders VALUES(1, 'a', 2, 3)");
    let shown = cluster[0].run(&["-schema-status"]);
    assert!(
        shown.said.contains("outdated") && shown.said.contains("1 change pending"),
        "{}",
        shown.said
    );
    let json = cluster[0].run(&["schema", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.said).unwrap();
    assert_eq!(json["tables"][1]["name"], "orders");
    assert_eq!(json["tables"][1]["columns"][3], "vat");
    assert_eq!(json["pending"], 1);
    let nowhere = Node::bare(9, "nats://127.0.0.1:1");
    let refused = nowhere.run(&["-schema-status"]);
    assert_eq!(refused.code, Some(69), "{}", refused.said);
    assert!(!nowhere.database().exists());
}

#[test]
fn the_cluster_shows_who_differs_in_what_and_who_waits() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    cluster.converge();
    let equal = eventually_ok("all have entered their schema", || {
        let shown = cluster[0].run(&["-schema-status-cluster"]);
        let all = shown.said.matches("equal").count() == 3;
        if all { Ok(shown) } else { Err(shown.said) }
    });
    assert_eq!(equal.code, Some(0), "{}", equal.said);
    cluster[0].sql("ALTER TABLE orders ADD COLUMN vat; CREATE TABLE more(id INTEGER PRIMARY KEY); INSERT INTO orders(id, vat) VALUES(1, 2)");
    cluster[1].wait_log("applying is paused");
    let json = eventually_ok("the registry says who waits", || {
        let shown = cluster[0].run(&["schema", "--cluster", "--json"]);
        let json: serde_json::Value =
            serde_json::from_str(&shown.said).map_err(|_| shown.said.clone())?;
        let waits = json["nodes"][1]["waits_for"].is_string();
        // The first says what it has had as soon as it has looked at its own change.
        let changed = json["nodes"][0]["previous_hash"] != "";
        if waits && changed && shown.code == Some(1) {
            Ok(json)
        } else {
            Err(shown.said)
        }
    });
    assert_eq!(json["equal"], false);
    let before = json["nodes"][0]["previous_hash"].clone();
    assert_eq!(json["nodes"][2]["schema_hash"], before);
    let shown = cluster[0].run(&["-schema-status-cluster"]);
    for text in [
        "node 2 lacks column \"vat\" of table \"orders\"",
        "node 3 lacks table \"more\"",
        "node 2 waits: ",
        "run the same ALTER TABLE",
    ] {
        assert!(shown.said.contains(text), "{text}: {}", shown.said);
    }
    let waiting = cluster[1].run(&["-schema-status"]);
    assert_eq!(waiting.code, Some(1), "{}", waiting.said);
    assert!(waiting.said.contains("applying WAITS"), "{}", waiting.said);
    // Started anew it knows what was before; one that is gone is shown as such.
    cluster[0].stop();
    cluster[0].start_replicating();
    cluster[2].stop();
    eventually_ok("the past is kept, the gone are named", || {
        let shown = cluster[0].run(&["schema", "--cluster", "--json"]);
        let json: serde_json::Value =
            serde_json::from_str(&shown.said).map_err(|_| shown.said.clone())?;
        let node = &json["nodes"];
        if node[0]["previous_hash"] == before
            && node[0]["running"] == true
            && node[2]["running"] == false
        {
            Ok(())
        } else {
            Err(shown.said)
        }
    });
    assert!(
        cluster[0]
            .run(&["-schema-status-cluster"])
            .said
            .contains("gone")
    );
    cluster.server.kill();
    let refused = cluster[0].run(&["-schema-status-cluster"]);
    assert_eq!(refused.code, Some(69), "{}", refused.said);
    assert!(refused.said.contains("connect"), "{}", refused.said);
}
