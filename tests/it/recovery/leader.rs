//! A leader that dies while its snapshot waits for its own changes to come back: others take over, and nobody hears of what was in it alone.

use std::time::{Duration, Instant};

use super::{beside, stored_in};
use crate::harness::jetstream::Outsider;
use crate::harness::node::folder;
use crate::harness::{Node, eventually};
use crate::snapshots::{TRIMMED, done, insert, left_behind, list, newest, position, prepared};

#[test]
fn a_leader_killed_while_its_snapshot_waits_for_its_own_writes_is_followed_by_another() {
    let store = folder();
    let section = stored_in(store.path()).replace(
        "[snapshot]\n",
        "[snapshot]\ninterval = 100\nleader_ttl = 2000\n",
    );
    let mut cluster = prepared(2, &section);
    cluster[0].start_replicating();
    cluster[0].wait_log("this node takes the cluster's snapshots");
    cluster[1].start_replicating();
    insert(&cluster[0], 20, 1000);
    insert(&cluster[1], 20, 1000);
    cluster.converge();
    // What it wrote cannot come back while the app holds the lock: the copy is whole, and waits. It is begun only where this node has folded something since
    // the last one, and its turn may have come already.
    let app = cluster[0].app();
    let copies = |node: &Node| {
        let mut copies = beside(node, "-snapshot-");
        // In rollback mode: the copy is finished.
        copies.retain(|name| {
            let header = std::fs::read(node.folder.join(name)).unwrap_or_default();
            header.get(18..20) == Some(&[1, 1])
        });
        copies.len()
    };
    let mut rows = 40;
    eventually("the copy waits for what is in it to come back", || {
        let folded = position(&cluster[0]);
        insert(&cluster[1], 1, 1000);
        eventually("it is folded", || position(&cluster[0]) > folded);
        app.execute_batch("INSERT INTO events(node, n) VALUES(1, 1); BEGIN IMMEDIATE")
            .unwrap();
        rows += 2;
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && copies(&cluster[0]) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Long enough to be uploaded, if it did not wait.
        std::thread::sleep(Duration::from_millis(300));
        let waits = copies(&cluster[0]) == 1;
        if !waits {
            app.execute_batch("COMMIT").unwrap();
        }
        waits
    });
    let before = list(&cluster[1]);
    cluster[0].kill();
    drop(app);
    // In the copy there were rows that may never be published: it is no snapshot, and the one before is.
    assert_eq!(list(&cluster[1]), before);
    done(&cluster[1].run(&["snapshot", "verify"]));

    cluster[1].wait_log("this node takes the cluster's snapshots");
    insert(&cluster[1], 5, 1000);
    cluster[1].wait_published();
    done(&cluster[1].run(&["snapshot", "save"]));
    let mut third = Node::bare(3, &cluster.server.url());
    third.sections.clone_from(&cluster[1].sections);
    third.start_replicating();
    eventually("a new node has what was published", || {
        third.dump() == cluster[1].dump()
    });

    cluster[0].start_replicating();
    assert_eq!(left_behind(&cluster[0]), [""; 0]);
    cluster.nodes.push(third);
    let all = cluster.converge();
    // What was published before the kill was in the stream; the rest comes now. None is there twice.
    assert_eq!(all["events"].len(), rows + 5);
    cluster.assert_running();
}

#[test]
fn who_was_stopped_while_it_took_one_holds_up_no_leader_for_long() {
    // The lease of the leader is shorter than what it has to wait for.
    let mut cluster = prepared(1, TRIMMED);
    cluster[0].start_replicating();
    cluster[0].wait_log("this node takes the cluster's snapshots");
    Outsider::new(&cluster.server.url()).put(
        "harmonylite-changes-snapshots",
        "taking",
        r#"{"node":9,"nonce":1}"#,
    );
    let before = newest(&cluster[0]);
    insert(&cluster[0], 5, 10);
    cluster[0].wait_published();
    eventually("a snapshot is taken all the same", || {
        newest(&cluster[0]) > before
    });
}

#[test]
fn a_snapshot_that_nobody_has_verified_holds_up_no_other() {
    let mut cluster = prepared(1, TRIMMED);
    cluster[0].start_replicating();
    insert(&cluster[0], 5, 10);
    cluster[0].wait_published();
    eventually("what was written is in a snapshot", || {
        newest(&cluster[0]) == position(&cluster[0])
    });
    cluster[0].stop();
    // As if it had been killed between the upload and the note. Nothing is written from now on, as where a stream is full.
    let outsider = Outsider::new(&cluster.server.url());
    outsider.put("harmonylite-changes-snapshots", "verified", "[]");
    cluster[0].start_replicating();
    eventually("there is one that streams may be trimmed by", || {
        outsider.value("harmonylite-changes-snapshots", "verified") != "[]"
    });
}
