//! A node's own writes never flicker.

use crate::harness::wait::Done;
use crate::harness::{Cluster, app};

#[test]
fn a_counter_never_goes_backwards_while_others_write() {
    const INCREMENTS: i64 = 1000;
    let cluster = Cluster::new(
        3,
        1,
        "CREATE TABLE counters(id INTEGER PRIMARY KEY, n INTEGER, seen_by_two INTEGER, seen_by_three INTEGER);
         CREATE TABLE other(id INTEGER PRIMARY KEY, v);
         INSERT INTO counters VALUES(1, 0, 0, 0)",
    );
    let done = Done::default();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let (first, others) = cluster.nodes.split_first().unwrap();
        for (node, column) in others.iter().zip(["seen_by_two", "seen_by_three"]) {
            let done = &done;
            scope.spawn(move || {
                let app = node.app();
                let mut round = 0;
                while !done.is_said() {
                    round += 1;
                    app.execute_batch(&format!(
                        "UPDATE counters SET {column} = {column} + 1 WHERE id = 1;
                         INSERT OR REPLACE INTO other VALUES({id}, {round})",
                        id = node.id * 1000 + round % 50
                    ))
                    .unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
        }
        let watcher = scope.spawn(|| {
            let conn = app::look(&first.database()).unwrap();
            let (mut highest, mut looks) = (0, 0_u64);
            while !done.is_said() {
                let now = app::integer(&conn, "SELECT n FROM counters");
                assert!(
                    now >= highest,
                    "the counter went from {highest} back to {now}"
                );
                highest = now;
                looks += 1;
            }
            looks
        });
        let app = first.app();
        for expected in 1..=INCREMENTS {
            // Read, then written, as apps do: what is lost in between would show.
            let now: i64 = app
                .query_row(
                    "UPDATE counters SET n = n + 1 WHERE id = 1 RETURNING n",
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(now, expected);
        }
        cluster[0].wait_published();
        done.say();
        assert!(watcher.join().unwrap() > 0);
    });
    cluster.converge();
    for node in &cluster.nodes {
        assert_eq!(node.integer("SELECT n FROM counters"), INCREMENTS);
        // Other columns of the same row keep what others wrote (cells, not rows).
        assert!(node.integer("SELECT min(seen_by_two, seen_by_three) FROM counters") > 0);
    }
}
