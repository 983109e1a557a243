//! Full-text and spatial search on a node finds what was written on another.

use std::time::{Duration, Instant};

use super::{EXTERNAL, same_everywhere, sound, write};
use crate::harness::{Cluster, tables};

/// Each kind of index over one table, kept up by triggers.
const EVERY_KIND: &str = "
    CREATE TABLE places(id INTEGER PRIMARY KEY, name TEXT UNIQUE, note TEXT, x REAL, y REAL);
    CREATE VIRTUAL TABLE own USING fts5(name, note);
    CREATE VIRTUAL TABLE bare USING fts5(note, content='');
    CREATE VIRTUAL TABLE forgetful USING fts5(note, content='', contentless_delete=1);
    CREATE VIRTUAL TABLE old USING fts4(content='places', name, note);
    CREATE VIRTUAL TABLE old_own USING fts4(note);
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
    CREATE TRIGGER p_bu BEFORE UPDATE ON places BEGIN DELETE FROM old WHERE docid = old.id; END;
    CREATE TRIGGER p_bd BEFORE DELETE ON places BEGIN DELETE FROM old WHERE docid = old.id; END;
    CREATE TRIGGER p_ai AFTER INSERT ON places BEGIN
        INSERT INTO own(rowid, name, note) VALUES(new.id, new.name, new.note);
        INSERT INTO bare(rowid, note) VALUES(new.id, new.note);
        INSERT INTO forgetful(rowid, note) VALUES(new.id, new.note);
        INSERT INTO old(docid, name, note) VALUES(new.id, new.name, new.note);
        INSERT OR REPLACE INTO old_own(docid, note) VALUES(new.id, new.note);
        INSERT INTO boxes VALUES(new.id, new.x - 1, new.x + 1, new.y - 1, new.y + 1);
    END;
    CREATE TRIGGER p_ad AFTER DELETE ON places BEGIN
        DELETE FROM own WHERE rowid = old.id;
        INSERT INTO bare(bare, rowid, note) VALUES('delete', old.id, old.note);
        DELETE FROM forgetful WHERE rowid = old.id;
        DELETE FROM old_own WHERE docid = old.id;
        DELETE FROM boxes WHERE id = old.id;
    END;
    CREATE TRIGGER p_au AFTER UPDATE OF id, name, note, x, y ON places WHEN old.id IS new.id BEGIN
        UPDATE own SET name = new.name, note = new.note WHERE rowid = old.id;
        INSERT INTO bare(bare, rowid, note) VALUES('delete', old.id, old.note);
        INSERT INTO bare(rowid, note) VALUES(new.id, new.note);
        REPLACE INTO forgetful(rowid, note) VALUES(new.id, new.note);
        INSERT INTO old(docid, name, note) VALUES(new.id, new.name, new.note);
        UPDATE old_own SET note = new.note WHERE docid = old.id;
        UPDATE boxes SET x0 = new.x - 1, x1 = new.x + 1, y0 = new.y - 1, y1 = new.y + 1 WHERE id = new.id;
    END;
";

#[test]
fn what_was_written_elsewhere_is_found() {
    let mut cluster = Cluster::new(2, 1, EXTERNAL);
    cluster[0].sql(
        "INSERT INTO docs(id, title, body) VALUES(1, 'first', 'quick brown fox'), (2, 'second', 'lazy dog'), (3, 'third', 'sleeping cat')",
    );
    cluster.converge();
    write(
        &cluster[1],
        "UPDATE docs SET body = 'slow red fox' WHERE id = 1; DELETE FROM docs WHERE id = 2; UPDATE docs SET id = 30 WHERE id = 3;
         INSERT OR REPLACE INTO docs(id, title) VALUES(1, 'replaced'); UPDATE docs SET views = 7",
    );
    cluster.converge();
    sound(&cluster, "ft");
    for node in &cluster.nodes {
        for (words, id) in [("cat", 30), ("replaced", 1)] {
            let sql = format!("SELECT rowid FROM ft('{words}')");
            assert_eq!(node.integer(&sql), id);
        }
        let gone = "SELECT count(*) FROM ft('fox OR dog OR first')";
        assert_eq!(node.integer(gone), 0);
        assert!(!node.log().contains("fires where the application writes"));
    }
    cluster.assert_running();
}

#[test]
fn every_kind_of_index_follows() {
    let mut cluster = Cluster::new(3, 2, EVERY_KIND);
    cluster.concurrently(&[
        "INSERT INTO places VALUES(1, 'a', 'river bank', 0, 0), (2, 'b', 'old bridge', 5, 5), (3, 'c', 'mill', 9, 9)",
        "INSERT INTO places VALUES(2, 'x', 'new bridge', 50, 50), (4, 'c', 'wind mill', 20, 20)",
        "INSERT INTO places VALUES(1, 'y', 'steep bank', 70, 70), (5, 'b', 'ferry', 30, 30)",
    ]);
    cluster.converge();
    cluster.concurrently(&[
        "UPDATE places SET note = 'sand bank' WHERE id = 1; DELETE FROM places WHERE id = 4",
        "UPDATE places SET x = 80 WHERE id = 1; UPDATE places SET name = 'z', note = 'ford' WHERE id IN (SELECT max(id) FROM places)",
        "UPDATE places SET note = 'gone' WHERE id = 4; INSERT INTO places VALUES(6, 'z', 'harbour', 1, 1)",
    ]);
    cluster.converge();
    for index in ["own", "bare", "forgetful", "old", "old_own"] {
        for node in &cluster.nodes {
            let checked = node.app().execute_batch(&format!(
                "INSERT INTO {index}({index}) VALUES('integrity-check')"
            ));
            assert!(checked.is_ok(), "node {}, {index}: {checked:?}", node.id);
        }
        let hits: Vec<String> = [
            "bank", "bridge", "mill", "sand", "harbour", "ferry", "ford", "steep",
        ]
        .iter()
        .map(|word| format!("SELECT '{word}', rowid FROM {index} WHERE {index} MATCH '{word}'"))
        .collect();
        let found = same_everywhere(&cluster, &hits.join(" UNION ALL "));
        // What the table itself says of the same words.
        let expected: Vec<String> = [
            "bank", "bridge", "mill", "sand", "harbour", "ferry", "ford", "steep",
        ]
        .iter()
        .map(|word| format!("SELECT '{word}', id FROM places WHERE note LIKE '%{word}%'"))
        .collect();
        assert_eq!(
            found,
            tables::rows(&cluster[0].app(), &expected.join(" UNION ALL ")),
            "{index}"
        );
    }
    same_everywhere(&cluster, "SELECT * FROM own");
    let boxes = same_everywhere(&cluster, "SELECT id, x0 + 1, y0 + 1 FROM boxes");
    let places = tables::rows(&cluster[0].app(), "SELECT id, x, y FROM places");
    assert_eq!(boxes, places);
    for node in &cluster.nodes {
        assert_eq!(
            tables::rows(&node.app(), "SELECT rtreecheck('boxes') <> 'ok'"),
            [[tables::Cell::Integer(0)]]
        );
    }
    cluster.assert_running();
}

/// Numbers that are the same in each run, a series a node.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn statement(r: &mut Numbers, node: u64, n: u64) -> String {
    let (id, other, slug) = (r.below(12), r.below(12), r.below(8));
    match r.below(7) {
        0 => format!("DELETE FROM docs WHERE id = {id}"),
        1 => format!(
            "INSERT OR REPLACE INTO docs VALUES({id}, 's{slug}', 'title n{node}', 'body w{n} of n{node}', {n})"
        ),
        2 => format!(
            "INSERT OR IGNORE INTO docs VALUES({id}, 's{slug}', 'title', 'made by n{node}', 0)"
        ),
        3 => format!("UPDATE docs SET body = 'word w{n} from n{node}' WHERE id = {id}"),
        4 => format!("UPDATE docs SET title = 'n{node} title', views = views + 1 WHERE id = {id}"),
        5 => format!("UPDATE OR REPLACE docs SET slug = 's{slug}' WHERE id = {id}"),
        _ => format!("UPDATE OR REPLACE docs SET id = {other} WHERE id = {id}"),
    }
}

#[test]
fn an_index_survives_a_fight_over_its_rows_and_kills() {
    const FIGHT: Duration = Duration::from_secs(15);
    let mut cluster = Cluster::new(3, 1, EXTERNAL);
    let (kept, killed) = cluster.nodes.split_at_mut(2);
    std::thread::scope(|scope| {
        let until = Instant::now() + FIGHT;
        for node in kept.iter() {
            scope.spawn(move || {
                let app = node.app();
                app.execute_batch("PRAGMA recursive_triggers = ON").unwrap();
                let mut r = Numbers(0x9e37_79b9_7f4a_7c15 ^ node.id);
                let mut n = 0;
                while Instant::now() < until {
                    n += 1;
                    app.execute_batch(&statement(&mut r, node.id, n)).unwrap();
                }
                assert!(n > 100, "node {} hardly wrote: {n}", node.id);
            });
        }
        let mut r = Numbers(7);
        let mut n = 0;
        while Instant::now() < until {
            for _ in 0..50 {
                n += 1;
                write(&killed[0], &statement(&mut r, 3, n));
            }
            killed[0].kill();
            killed[0].start();
        }
    });
    let dump = cluster.converge();
    assert!(!dump["docs"].is_empty());
    sound(&cluster, "ft");
    same_everywhere(&cluster, "SELECT rowid FROM ft('n1 OR n2 OR n3')");
    let lost: i64 = cluster
        .nodes
        .iter()
        .map(|n| n.integer("SELECT count(*) FROM __harmonylite__conflicts"))
        .sum();
    assert!(lost > 0, "nobody lost anything");
    cluster.assert_running();
}

#[test]
fn triggers_that_come_and_go_while_the_daemon_runs_are_followed() {
    let mut cluster = Cluster::new(2, 1, EXTERNAL);
    cluster[0].sql("INSERT INTO docs(id, body) VALUES(1, 'before')");
    cluster.converge();
    // Another index, on one node alone.
    cluster[1].sql(
        "BEGIN; CREATE VIRTUAL TABLE \"more ft\" USING fts5(body); INSERT INTO \"more ft\"(rowid, body) SELECT id, body FROM docs;
         CREATE TRIGGER \"more \"\"ai\" AFTER INSERT ON docs BEGIN INSERT INTO \"more ft\"(rowid, body) VALUES(new.id, new.body); END; COMMIT",
    );
    cluster[0].sql("INSERT INTO docs(id, body) VALUES(2, 'between')");
    cluster.converge();
    let more = |word: &str| format!("SELECT count(*) FROM \"more ft\"('{word}')");
    assert_eq!(cluster[1].integer(&more("before OR between")), 2);
    // Dropped, with its trigger left behind: that cannot fire any more, and holds nothing up.
    cluster[1].sql("DROP TABLE \"more ft\"");
    cluster[0].sql("INSERT INTO docs(id, body) VALUES(3, 'later')");
    cluster[1].wait_log("\"more \"ai\" on \"docs\" cannot be fired here");
    cluster.nodes[1].sql("DROP TRIGGER \"more \"\"ai\"");
    cluster.converge();
    sound(&cluster, "ft");
    cluster.assert_running();
}

/// An index over two tables: the triggers read one of them.
const JOINED: &str = "
    CREATE TABLE books(id INTEGER PRIMARY KEY, title TEXT, writer INTEGER);
    CREATE TABLE writers(id INTEGER PRIMARY KEY, name TEXT);
    CREATE VIRTUAL TABLE ft USING fts5(title, writer, content='');
    CREATE TRIGGER b_ai AFTER INSERT ON books BEGIN
        INSERT INTO ft(rowid, title, writer) VALUES(new.id, new.title, (SELECT name FROM writers WHERE id = new.writer)); END;
    CREATE TRIGGER b_ad AFTER DELETE ON books BEGIN
        INSERT INTO ft(ft, rowid, title, writer) VALUES('delete', old.id, old.title, (SELECT name FROM writers WHERE id = old.writer)); END;
    CREATE TRIGGER b_au AFTER UPDATE ON books BEGIN
        INSERT INTO ft(ft, rowid, title, writer) VALUES('delete', old.id, old.title, (SELECT name FROM writers WHERE id = old.writer));
        INSERT INTO ft(rowid, title, writer) VALUES(new.id, new.title, (SELECT name FROM writers WHERE id = new.writer)); END;
";

#[test]
fn triggers_that_read_other_tables_find_what_came_with_the_row() {
    let mut cluster = Cluster::new(2, 1, JOINED);
    // In a batch, tables stand in another order than the app wrote them.
    cluster[0].sql("BEGIN; INSERT INTO writers VALUES(1, 'austen'), (2, 'borges'); INSERT INTO books VALUES(1, 'emma', 1), (2, 'ficciones', 2), (3, 'aleph', 2); COMMIT");
    cluster.converge();
    assert_eq!(
        same_everywhere(&cluster, "SELECT rowid FROM ft('austen OR borges')").len(),
        3
    );
    cluster[1].sql("BEGIN; DELETE FROM books WHERE id = 1; DELETE FROM writers WHERE id = 1; INSERT INTO writers VALUES(3, 'calvino'); UPDATE books SET writer = 3 WHERE id = 3; COMMIT");
    cluster.converge();
    assert_eq!(
        same_everywhere(&cluster, "SELECT rowid FROM ft('borges OR calvino')").len(),
        2
    );
    for node in &cluster.nodes {
        for (words, count) in [("austen OR emma", 0), ("borges", 1), ("calvino", 1)] {
            let sql = format!("SELECT count(*) FROM ft('{words}')");
            assert_eq!(node.integer(&sql), count, "node {}: {words}", node.id);
        }
    }
    cluster.assert_running();
}
