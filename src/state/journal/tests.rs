use super::*;
use crate::state::ddl;

fn limits() -> JournalsConfig {
    JournalsConfig {
        max_conflicts: 10,
        max_conflict_age: Duration::from_secs(3600),
        max_dead_letters: 4,
        max_dead_letter_age: Duration::from_secs(3600),
        max_dead_letter_bytes: 100,
    }
}

fn database() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    ddl::migrate(&conn).unwrap();
    conn
}

/// A conflict of so many columns at this position.
fn conflict(conn: &Connection, position: u64, columns: usize) {
    for n in 0..columns {
        let entry = Conflict {
            table: "t",
            key: "1",
            column: &format!("c{n}"),
            losing_value: Value::Integer(7),
            losing_node: Some(NodeId(2)),
            winning_node: NodeId(1),
            position: Sequence(position),
            reason: "updated-here",
        };
        record_conflict(conn, &entry).unwrap();
    }
}

fn count(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |r| r.get(0)).unwrap()
}

#[test]
fn the_oldest_conflicts_go_whole() {
    let conn = database();
    for position in 1..=5 {
        conflict(&conn, position, 3);
        bound_conflicts(&conn, &limits()).unwrap();
        assert!(count(&conn, "SELECT count(*) FROM __harmonylite__conflicts") <= 10);
    }
    // 15 values: the bound cuts the second conflict in two, so it goes whole.
    assert_eq!(
        count(&conn, "SELECT min(position) FROM __harmonylite__conflicts"),
        3
    );
    assert_eq!(
        count(&conn, "SELECT count(*) FROM __harmonylite__conflicts"),
        9
    );
    // Nothing is over: nothing goes.
    tidy(&conn, &limits()).unwrap();
    assert_eq!(
        count(&conn, "SELECT count(*) FROM __harmonylite__conflicts"),
        9
    );
}

#[test]
fn old_entries_go_and_young_ones_stay() {
    let conn = database();
    conflict(&conn, 1, 2);
    conflict(&conn, 2, 2);
    record_dead_letter(&conn, ShardId::ORDER, Sequence(3), "a", b"x").unwrap();
    record_dead_letter(&conn, ShardId::ORDER, Sequence(4), "b", b"y").unwrap();
    let old = rfc3339(OffsetDateTime::now_utc() - Duration::from_secs(7200));
    conn.execute(
        "UPDATE __harmonylite__conflicts SET time = ?1 WHERE position = 1",
        [&old],
    )
    .unwrap();
    conn.execute(
        "UPDATE __harmonylite__dead_letters SET time = ?1 WHERE sequence = 3",
        [&old],
    )
    .unwrap();
    tidy(&conn, &limits()).unwrap();
    assert_eq!(
        count(&conn, "SELECT min(position) FROM __harmonylite__conflicts"),
        2
    );
    assert_eq!(dead_letters(&conn).unwrap(), 1);
}

#[test]
fn dead_letters_are_bounded_in_number_and_in_bytes() {
    let conn = database();
    for n in 1..=9 {
        record_dead_letter(&conn, ShardId::ORDER, Sequence(n), "r", b"four").unwrap();
        bound_dead_letters(&conn, &limits()).unwrap();
        assert!(dead_letters(&conn).unwrap() <= 4);
    }
    assert_eq!(
        count(
            &conn,
            "SELECT min(sequence) FROM __harmonylite__dead_letters"
        ),
        6
    );
    record_dead_letter(&conn, ShardId::ORDER, Sequence(10), "r", &[0; 93]).unwrap();
    bound_dead_letters(&conn, &limits()).unwrap();
    assert_eq!(
        count(
            &conn,
            "SELECT min(sequence) FROM __harmonylite__dead_letters"
        ),
        9
    );
}
