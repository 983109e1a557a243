//! Virtual tables of modules that this program does not have: an app's own extension.

use rusqlite::Connection;

use crate::harness::{Cluster, Node, tables};
use crate::snapshots::done;

/// As an extension would have left it: the table, and an ordinary one in which it keeps its data.
fn extend(node: &Node) {
    let app = node.app();
    app.execute_batch(
        "CREATE TABLE vec_docs_chunks(chunk_id INTEGER PRIMARY KEY, vectors BLOB); INSERT INTO vec_docs_chunks VALUES(1, x'00');
         PRAGMA writable_schema = ON;
         INSERT INTO sqlite_schema VALUES('table', 'vec_docs', 'vec_docs', 0, 'CREATE VIRTUAL TABLE vec_docs USING vec0(embedding float[4])');
         PRAGMA writable_schema = RESET;
         CREATE TRIGGER docs_vec AFTER INSERT ON docs WHEN 0 BEGIN INSERT INTO vec_docs(rowid, embedding) VALUES(new.id, new.body); END;",
    )
    .unwrap();
}

#[test]
fn they_hold_nothing_up() {
    let mut cluster = Cluster::prepared(
        3,
        "CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT); CREATE VIRTUAL TABLE ft USING fts5(body);
         CREATE TRIGGER docs_ft AFTER INSERT ON docs BEGIN INSERT INTO ft(rowid, body) VALUES(new.id, new.body); END;",
    );
    for node in &mut cluster.nodes[..2] {
        extend(node);
        node.start_replicating();
    }
    let log = cluster[0].log();
    assert!(
        log.contains("virtual table \"vec_docs\" is of module vec0")
            && log.contains("vec_docs_chunks"),
        "{log}"
    );
    // The app has the module, and so the trigger; here neither compiles.
    write_without_triggers(&cluster[0], "INSERT INTO docs VALUES(1, 'one')");
    let found = "SELECT count(*) FROM ft('one')";
    crate::harness::eventually("the row and its index are there", || {
        cluster[1].integer("SELECT count(*) FROM docs") == 1
    });
    assert_eq!(cluster[1].integer(found), 1);
    cluster[0].sql("UPDATE vec_docs_chunks SET vectors = x'ff'");
    // A snapshot has them, and a database that is filled from it.
    done(&cluster[0].run(&["snapshot", "save"]));
    for file in std::fs::read_dir(&cluster[2].folder).unwrap() {
        let path = file.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("app.db")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    cluster[2].start_replicating();
    assert!(cluster[2].log().contains("filled=true"));
    let chunks = "SELECT vectors FROM vec_docs_chunks";
    let of = |node: &Node| tables::rows(&Connection::open(node.database()).unwrap(), chunks);
    assert_eq!(of(&cluster[2]), of(&cluster[0]));
    assert_ne!(of(&cluster[1]), of(&cluster[0]));
    done(&cluster[1].run(&["verify"]));
    cluster.assert_running();
}

fn write_without_triggers(node: &Node, sql: &str) {
    let app = node.app();
    // The module's trigger does not compile in this test's SQLite either.
    app.execute_batch(&format!("BEGIN; DROP TRIGGER docs_vec; {sql}; COMMIT"))
        .unwrap();
}
