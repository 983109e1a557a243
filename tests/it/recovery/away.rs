//! Nodes that were away for longer than the streams are kept.

use super::trim_past;
use crate::harness::app::integer;
use crate::harness::cable::Cable;
use crate::snapshots::{TRIMMED, insert, prepared, start};

#[test]
fn a_node_that_was_cut_off_past_retention_while_it_ran_begins_anew_by_itself() {
    let mut cluster = prepared(3, TRIMMED);
    let cable = Cable::to(cluster.server.port());
    let direct = cluster.server.url();
    cluster[2].sections = cluster[2].sections.replace(&direct, &cable.url());
    start(&mut cluster);
    for node in &cluster.nodes {
        insert(node, 20, 10);
    }
    cluster.converge();
    cable.cut();
    insert(&cluster[2], 33, 10);
    trim_past(&cluster, &[0, 1], 2);
    insert(&cluster[2], 3, 10);
    assert_eq!(cluster[2].pending(), 36);
    // The app goes on while it is restored.
    let app = cluster[2].app();
    app.execute("INSERT INTO events(node, n) VALUES(3, -1)", [])
        .unwrap();
    cable.mend();
    cluster[2].wait_log("beginning anew");
    cluster[2].wait_log("restored from the snapshot");
    app.execute("INSERT INTO events(node, n) VALUES(3, -2)", [])
        .unwrap();
    let dump = cluster.converge();
    let of = |node: u64| {
        integer(
            &app,
            &format!("SELECT count(*) FROM events WHERE node = {node}"),
        )
    };
    assert_eq!(of(3), 20 + 33 + 3 + 2);
    assert_eq!(of(1) + of(2) + of(3), dump["events"].len() as i64);
    cluster.assert_running();
    insert(&cluster[2], 3, 10);
    cluster.converge();
}
