//! Writes that meet: all nodes come to the same end, and what lost is kept.

use crate::harness::wait::Done;
use crate::harness::{Cluster, eventually, tables};

const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
    CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
";

/// Values of the conflict journals of all nodes.
fn losers(cluster: &Cluster, table: &str, column: &str) -> Vec<String> {
    let mut found = Vec::new();
    for node in &cluster.nodes {
        let sql = format!(
            "SELECT CAST(losing_value AS TEXT) FROM __harmonylite__conflicts WHERE table_name = '{table}' AND column_name = '{column}'"
        );
        for row in tables::rows(&node.app(), &sql) {
            if let [tables::Cell::Text(text)] = &row[..] {
                found.push(String::from_utf8(text.clone()).unwrap());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn two_inserts_under_one_key() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    cluster.concurrently(&[
        "INSERT INTO t VALUES(1, 'one', 'x')",
        "INSERT INTO t VALUES(1, 'two', 'y')",
    ]);
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 1);
    let winner = cluster[2]
        .app()
        .query_row("SELECT a || b FROM t", [], |row| row.get::<_, String>(0))
        .unwrap();
    let loser = match winner.as_str() {
        "onex" => "two",
        "twoy" => "one",
        other => panic!("a row that nobody wrote: {other}"),
    };
    assert!(
        losers(&cluster, "t", "a").contains(&loser.to_owned()),
        "{:?}",
        losers(&cluster, "t", "a")
    );
}

#[test]
fn equal_writes_on_two_nodes_are_no_conflict() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'old', 'old'), (2, 'old', 'old'); INSERT INTO u VALUES(1, 'a@x.example', 'old')");
    let same = "INSERT INTO t VALUES(3, 'both', NULL); UPDATE t SET a = 'both' WHERE id = 1; UPDATE u SET email = 'b@x.example'";
    cluster.concurrently(&[
        format!("{same}; UPDATE t SET a = 'same', b = 'one' WHERE id = 2"),
        format!("{same}; UPDATE t SET a = 'same', b = 'two' WHERE id = 2"),
    ]);
    cluster.converge();
    assert!(losers(&cluster, "t", "a").is_empty());
    assert!(losers(&cluster, "u", "email").is_empty());
    assert_eq!(losers(&cluster, "t", "b").len(), 1);
    let all = "SELECT count(*) FROM __harmonylite__conflicts";
    assert_eq!(cluster[0].integer(all) + cluster[1].integer(all), 1);
}

#[test]
fn two_updates_of_one_cell_and_of_different_cells() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'old', 'old'), (2, 'old', 'old'), (3, 'old', 'old')");
    cluster.concurrently(&[
        "UPDATE t SET a = 'one' WHERE id = 1; UPDATE t SET a = 'a' WHERE id = 2",
        "UPDATE t SET a = 'two' WHERE id = 1; UPDATE t SET b = 'b' WHERE id = 2",
        "DELETE FROM t WHERE id = 3",
    ]);
    cluster.converge();
    // The later in the stream wins; the other is kept.
    let winner = cluster[0]
        .app()
        .query_row("SELECT a FROM t WHERE id = 1", [], |row| {
            row.get::<_, String>(0)
        })
        .unwrap();
    let loser = if winner == "one" { "two" } else { "one" };
    assert!(["one", "two"].contains(&winner.as_str()));
    assert!(
        losers(&cluster, "t", "a").contains(&loser.to_owned()),
        "{:?}",
        losers(&cluster, "t", "a")
    );
    // Different columns of one row: both stay.
    assert_eq!(
        cluster[2].integer("SELECT count(*) FROM t WHERE id = 2 AND a = 'a' AND b = 'b'"),
        1
    );
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t WHERE id = 3"), 0);
}

#[test]
fn two_columns_of_one_row_while_the_broker_is_paused() {
    for shards in [1, 4] {
        let cluster = Cluster::new(2, shards, SCHEMA);
        cluster[0].sql("INSERT INTO t VALUES(1, 'old', 'old')");
        cluster.converge();
        cluster.server.pause();
        cluster[0].sql("UPDATE t SET a = 'one' WHERE id = 1");
        cluster[1].sql("UPDATE t SET b = 'two' WHERE id = 1");
        // Both are on their way before either hears of the other.
        std::thread::sleep(std::time::Duration::from_millis(200));
        cluster.server.resume();
        cluster.converge();
        assert_eq!(
            cluster[0].integer("SELECT count(*) FROM t WHERE a = 'one' AND b = 'two'"),
            1
        );
    }
}

#[test]
fn an_update_and_a_delete_of_one_row() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'old', 'old'), (2, 'old', 'old')");
    cluster.concurrently(&[
        "UPDATE t SET a = 'changed' WHERE id = 1; DELETE FROM t WHERE id = 2",
        "DELETE FROM t WHERE id = 1; UPDATE t SET b = 'changed' WHERE id = 2",
    ]);
    let dump = cluster.converge();
    // A cell update of a row that is gone is nothing, in whichever order they come.
    assert_eq!(dump["t"].len(), 0);
    eventually("the lost updates are kept", || {
        losers(&cluster, "t", "a").contains(&"changed".to_owned())
            || losers(&cluster, "t", "b").contains(&"changed".to_owned())
    });
}

#[test]
fn rows_that_collide_on_a_unique_index() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    cluster.concurrently(&[
        "INSERT INTO u VALUES(1, 'same', 'one')",
        "INSERT INTO u VALUES(2, 'same', 'two'), (20, 'two', 'x')",
        "INSERT INTO u VALUES(3, 'same', 'three')",
    ]);
    let dump = cluster.converge();
    assert_eq!(
        dump["u"].len(),
        2,
        "one of three, and the one that meets nobody: {dump:?}"
    );
    let kept = losers(&cluster, "u", "name");
    let winner = cluster[0]
        .app()
        .query_row("SELECT name FROM u WHERE email = 'same'", [], |row| {
            row.get::<_, String>(0)
        })
        .unwrap();
    for name in ["one", "two", "three"] {
        assert_eq!(
            kept.iter().any(|k| k == name),
            name != winner,
            "{winner} won, kept: {kept:?}"
        );
    }
}

/// One app moves a UNIQUE value from row to row; `others` is what the apps of the other nodes do meanwhile.
fn hand_on(others_do: impl Fn(u64, u64) -> String + Sync) -> Cluster {
    const ROUNDS: i64 = 400;
    let cluster = Cluster::new(3, 1, SCHEMA);
    let done = Done::default();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let (first, others) = cluster.nodes.split_first().unwrap();
        for node in others {
            let (done, others_do) = (&done, &others_do);
            // Batches of others between the first node's: its echoes come into a database that has moved on.
            scope.spawn(move || {
                let app = node.app();
                let mut n = 0_u64;
                while !done.is_said() {
                    n += 1;
                    app.execute_batch(&others_do(node.id, n)).unwrap();
                }
            });
        }
        let app = first.app();
        app.execute_batch("INSERT INTO u VALUES(0, 'handed on', 'owner 0')")
            .unwrap();
        let owner = |expected: i64| {
            let found = tables::rows(&app, "SELECT id FROM u WHERE email = 'handed on'");
            assert_eq!(
                found,
                [[tables::Cell::Integer(expected)]],
                "in round {expected}"
            );
        };
        for n in 1..=ROUNDS {
            owner(n - 1);
            let step = match n % 3 {
                0 => format!(
                    "INSERT INTO u VALUES({n}, 'mine', 'x'); UPDATE OR REPLACE u SET email = 'handed on' WHERE id = {n}"
                ),
                1 => format!(
                    "DELETE FROM u WHERE email = 'handed on'; INSERT INTO u VALUES({n}, 'handed on', 'x')"
                ),
                _ => format!(
                    "UPDATE u SET email = 'former {n}' WHERE email = 'handed on'; INSERT INTO u VALUES({n}, 'handed on', 'x')"
                ),
            };
            app.execute_batch(&step).unwrap();
            owner(n);
        }
        first.wait_published();
        owner(ROUNDS);
        done.say();
    });
    let dump = cluster.converge();
    assert_eq!(
        cluster[1].integer("SELECT id FROM u WHERE email = 'handed on'"),
        ROUNDS
    );
    assert!(dump["u"].len() as i64 > ROUNDS / 4);
    cluster
}

#[test]
fn a_unique_value_that_one_app_hands_from_row_to_row_is_never_lost() {
    let cluster = hand_on(|node, n| {
        format!(
            "INSERT OR REPLACE INTO t VALUES({}, {n}, 'busy')",
            node * 100 + n % 10
        )
    });
    // One app wrote this table: there was nothing to lose to.
    for node in &cluster.nodes {
        assert_eq!(
            node.integer("SELECT count(*) FROM __harmonylite__conflicts WHERE table_name = 'u'"),
            0,
            "node {}",
            node.id
        );
    }
}

#[test]
fn a_unique_value_is_handed_on_while_others_change_other_columns_of_its_rows() {
    hand_on(|node, n| {
        format!("UPDATE u SET name = 'node {node}, {n}' WHERE id > (SELECT max(id) - 3 FROM u)")
    });
}
