//! An app that brings SQLite 3.35: the cases again, written by it. The triggers, the view and the state tables that are in its database parse and work there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::case::{self, Case};
use super::{shown, wide};
use crate::harness::tables::Dump;
use crate::harness::{Cluster, app};

const VERSION: &str = "3.35.4";

/// Not what this version of SQLite lacks, nor statements that must fail; and the widest table would make each start of that app slow.
fn runs_there(case: &Case) -> bool {
    case.name != "columns_2000"
        && !case.schema.contains("STRICT")
        && case.steps.iter().all(|step| step.fails.is_none())
}

fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/get-sqlite335");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{} does not run: {error}", script.display()));
    assert!(output.status.success(), "no SQLite {VERSION}, see above");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// What the old SQLite prints for this SQL.
fn old_app(program: &Path, database: &Path, sql: &str) -> String {
    let mut process = Command::new(program)
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let settings = "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON;\n";
    input.write_all(settings.as_bytes()).unwrap();
    input.write_all(sql.as_bytes()).unwrap();
    drop(input);
    let output = process.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "SQLite {VERSION}: {}: {}",
        String::from_utf8_lossy(&output.stderr),
        sql.chars().take(2000).collect::<String>()
    );
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

#[test]
fn an_app_with_sqlite_3_35() {
    let program = program();
    let mut cases = case::all();
    cases.extend(wide::cases());
    cases.retain(runs_there);
    assert!(cases.len() > 70, "{}", cases.len());
    let schema: String = cases.iter().map(|case| case.schema.as_str()).collect();
    let mut cluster = Cluster::prepared(2, "");
    for node in &mut cluster.nodes {
        let version = old_app(&program, &node.database(), "SELECT sqlite_version();");
        assert_eq!(version, VERSION);
        old_app(
            &program,
            &node.database(),
            &format!("PRAGMA journal_mode = WAL; {schema}"),
        );
        node.start();
    }
    let groups: Vec<_> = cases.iter().map(Case::groups).collect();
    for round in 0..groups.iter().map(Vec::len).max().unwrap() {
        for group in groups.iter().filter_map(|groups| groups.get(round)) {
            let sql: String = group.iter().map(|step| step.sql.as_str()).collect();
            old_app(&program, &cluster[group[0].node - 1].database(), &sql);
        }
        let mut dumps: Vec<Dump> = cluster.nodes.iter().map(|node| node.dump()).collect();
        let mut expected = Dump::new();
        // What nobody wrote in this round is equal already.
        for table in dumps[0].keys().cloned().collect::<Vec<_>>() {
            let writer = writer_of(&cases, &table, round);
            let rows = dumps[writer].remove(&table).unwrap();
            expected.insert(table, rows);
        }
        cluster.converge_to(&expected);
    }
    for case in &cases {
        for (query, rows) in &case.holds {
            let conn = app::look(&cluster[1].database()).unwrap();
            assert_eq!(&shown(&conn, query), rows, "case {}: {query}", case.name);
        }
    }
    for node in &mut cluster.nodes {
        let pending =
            "SELECT count(*) FROM __harmonylite___global_change_log; PRAGMA integrity_check;";
        assert_eq!(old_app(&program, &node.database(), pending), "0\nok");
        let cleaned = node.run(&["-cleanup"]);
        assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
        node.wait_end();
        let ours = "SELECT count(*) FROM sqlite_master WHERE name GLOB '__harmonylite__*'; PRAGMA integrity_check;";
        assert_eq!(old_app(&program, &node.database(), ours), "0\nok");
    }
}

#[test]
fn an_app_with_sqlite_3_35_drops_and_renames_columns() {
    let program = program();
    let mut cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT, c, d UNIQUE, e)",
    );
    for node in &cluster.nodes {
        let id = node.id;
        // All in one go, so that most of it happens under triggers of before.
        let sql = format!(
            "INSERT INTO t VALUES({id}, 1, 'b', 1, 'd{id}', 'e'); ALTER TABLE t DROP COLUMN b; UPDATE t SET c = {id} WHERE id = {id};
             ALTER TABLE t RENAME COLUMN a TO aa; UPDATE t SET aa = c + 1, d = 'dd{id}' WHERE id = {id}; ALTER TABLE t DROP COLUMN e; INSERT OR REPLACE INTO t VALUES({id} + 10, 0, 0, 'dd{id}');
             INSERT INTO t VALUES({id}, 5, 6, 'd{id}');"
        );
        old_app(&program, &node.database(), &sql);
    }
    let rows = cluster.converge();
    assert_eq!(rows["t"].len(), 4);
    assert_eq!(
        shown(
            &cluster[0].app(),
            "SELECT id, aa, c, d FROM t ORDER BY id LIMIT 3"
        ),
        "1|5|6|'d1';2|5|6|'d2';11|0|0|'dd1'"
    );
    cluster.assert_running();
}

/// The place in the cluster of the node whose app writes to a table in a round.
fn writer_of(cases: &[Case], table: &str, round: usize) -> usize {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    let is_there = "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
    let owner = cases.iter().find(|case| {
        conn.execute_batch(&case.schema).unwrap();
        conn.query_row(is_there, [table], |row| row.get(0)).unwrap()
    });
    let groups = owner.expect("each table is of a case").groups();
    groups.get(round).map_or(0, |group| group[0].node - 1)
}
