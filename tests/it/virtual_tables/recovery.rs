//! Restores, joins and repairs: an index follows the rows that they change.

use super::{EXTERNAL, same_everywhere, sound, write};
use crate::harness::{Cluster, eventually};
use crate::snapshots::done;

#[test]
fn a_node_that_restores_and_nodes_that_join_find_everything() {
    let mut cluster = Cluster::prepared(4, EXTERNAL);
    for node in &mut cluster.nodes[..2] {
        node.start_replicating();
    }
    cluster[0].sql(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 200)
         INSERT INTO docs(id, slug, title, body) SELECT n, 's' || n, 'title', 'word' || n FROM c",
    );
    cluster[0].wait_published();
    eventually("the second has all", || {
        cluster[1].integer("SELECT count(*) FROM docs") == 200
    });
    cluster[1].stop();
    write(
        &cluster[0],
        "UPDATE docs SET body = 'changed' || id WHERE id <= 50; DELETE FROM docs WHERE id > 150; UPDATE docs SET slug = 'handed' WHERE id = 60;
         UPDATE docs SET slug = 's60' WHERE id = 61; UPDATE docs SET id = 1000 WHERE id = 70",
    );
    cluster[0].wait_published();
    done(&cluster[0].run(&["snapshot", "save"]));
    // One restores onto the rows that it has, with a change of its own; one joins with an index that knows other rows; one has nothing.
    std::fs::remove_file(cluster[1].sequence_map()).unwrap();
    cluster[1].sql("UPDATE docs SET title = 'mine' WHERE id = 1");
    cluster[1].start_replicating();
    assert!(
        cluster[1].log().contains("restored from the snapshot"),
        "{}",
        cluster[1].log()
    );
    cluster[2].sql("INSERT INTO docs(id, body) VALUES(1, 'stranger'), (500, 'leaves')");
    cluster[2].start_replicating();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", cluster[3].database().display()));
    }
    cluster[3].start_replicating();
    assert!(cluster[3].log().contains("filled=true"));
    cluster.converge();
    sound(&cluster, "ft");
    for (words, count) in [
        ("changed1", 1),
        ("mine", 1),
        ("word100", 1),
        ("word1 OR word160 OR stranger OR leaves", 0),
        ("title", 149),
    ] {
        for node in &cluster.nodes {
            let found = node.integer(&format!("SELECT count(*) FROM ft('{words}')"));
            assert_eq!(found, count, "node {}: {words}", node.id);
        }
    }
    write(&cluster[3], "UPDATE docs SET body = 'after' WHERE id = 5");
    cluster.converge();
    sound(&cluster, "ft");
    same_everywhere(&cluster, "SELECT rowid FROM ft('after')");
    cluster.assert_running();
}

#[test]
fn what_is_folded_again_or_repaired_is_found() {
    let mut cluster = Cluster::new(2, 1, EXTERNAL);
    cluster[0].sql("INSERT INTO docs(id, slug, body) VALUES(1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three')");
    write(
        &cluster[0],
        "UPDATE docs SET body = 'second' WHERE id = 2; DELETE FROM docs WHERE id = 3",
    );
    cluster.converge();
    // A row that was changed behind everybody's back, its index with it.
    let app = cluster[1].app();
    app.set_db_config(
        rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
        false,
    )
    .unwrap();
    app.execute_batch(
        "INSERT INTO ft(ft, rowid, title, body) SELECT 'delete', id, title, body FROM docs WHERE id = 1; UPDATE docs SET body = 'astray' WHERE id = 1;
         INSERT INTO ft(rowid, title, body) SELECT id, title, body FROM docs WHERE id = 1",
    )
    .unwrap();
    assert_eq!(
        cluster[0].run(&["verify", "--repair", "--from", "1"]).code,
        Some(0)
    );
    cluster.converge();
    sound(&cluster, "ft");
    assert_eq!(cluster[1].integer("SELECT count(*) FROM ft('one')"), 1);
    assert_eq!(cluster[1].integer("SELECT count(*) FROM ft('astray')"), 0);
    done(&cluster[1].run(&["replay", "1", "1-"]));
    sound(&cluster, "ft");
    cluster.converge();
    cluster.assert_running();
}
