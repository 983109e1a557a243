//! A node that has dropped a UNIQUE index on expressions or with a WHERE clause, and others that still write under it.

use harmonylite::replica::group::Stopped;

use super::migrate;
use crate::support::engine::{Node, stream};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, c TEXT, live);
    CREATE UNIQUE INDEX p ON t(lower(c)) WHERE live = 1;";

#[test]
fn what_is_written_under_it_displaces_what_the_index_held_and_nothing_else() {
    let mut nodes: Vec<Node> = (1..=3).map(|id| Node::new(id, SCHEMA)).collect();
    // By the words alone, rows 1 and 2 stand in the way of row 11 alike; the index held one of them.
    nodes[0]
        .write("INSERT INTO t VALUES(1, 'word', 1), (2, 'WORD', 0), (3, 'other', 1), (4, NULL, 1)");
    let first = nodes[0].scan();
    nodes[1].write("INSERT INTO t VALUES(11, 'Word', 1), (12, 'OTHER', 0), (13, NULL, 1)");
    let second = nodes[1].scan();
    migrate(&mut nodes[2], "DROP INDEX p");
    let all = stream(&[&first, &second]);
    let rows = "SELECT id || ':' || ifnull(c, '-') || ':' || live FROM t ORDER BY id";
    for (n, node) in nodes.iter_mut().enumerate() {
        let applied = node.apply(&all);
        assert_eq!((applied.consumed, &applied.stopped), (2, &Stopped::No));
        assert_eq!(
            node.read(rows),
            "2:WORD:0,3:other:1,4:-:1,11:Word:1,12:OTHER:0,13:-:1",
            "node {}",
            n + 1
        );
    }
}

#[test]
fn one_whose_columns_have_other_names_by_now_is_waited_for() {
    let (mut here, mut there) = (Node::new(1, SCHEMA), Node::new(2, SCHEMA));
    there.write("INSERT INTO t VALUES(1, 'word', 1)");
    let theirs = there.scan();
    migrate(&mut here, "DROP INDEX p");
    migrate(&mut here, "ALTER TABLE t RENAME COLUMN live TO was");
    let applied = here.apply(&stream(&[&theirs]));
    assert!(matches!(applied.stopped, Stopped::Schema(_)));
}
