//! Which triggers are copied, in memory.

use super::*;

/// The copies' names and the warnings, where the tables that begin with "r" are replicated.
fn copies(conn: &mut Connection, named: &[&str]) -> (Vec<String>, Vec<String>) {
    let tables = crate::sqlite::virtual_tables::virtual_tables(conn).unwrap();
    let named: Vec<String> = named.iter().map(|n| (*n).to_owned()).collect();
    drop_copies(conn).unwrap();
    let made = make_copies(
        conn,
        Surroundings {
            replicated: &|t| t.starts_with('r'),
            virtual_tables: &tables,
            named: &named,
            before: &[],
        },
    )
    .unwrap();
    let there: Vec<String> = conn
        .prepare("SELECT name FROM temp.sqlite_schema WHERE type = 'trigger' ORDER BY rowid")
        .unwrap()
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut names: Vec<String> = made.copies.iter().map(|c| c.name.clone()).collect();
    names.sort();
    let mut sorted = there;
    sorted.sort();
    assert_eq!(names, sorted, "what is known is what is there");
    (names, made.warnings)
}

fn open(schema: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    switch_off(&conn);
    conn.execute_batch(
        "CREATE TABLE r(id INTEGER PRIMARY KEY, a, b); CREATE TABLE r2(id INTEGER PRIMARY KEY, a); CREATE TABLE log(id INTEGER PRIMARY KEY, what UNIQUE);
         CREATE VIRTUAL TABLE ft USING fts5(a); CREATE VIEW v AS SELECT a FROM r;",
    )
    .unwrap();
    conn.execute_batch(schema).unwrap();
    conn
}

/// As our connections are: only TEMP triggers fire.
fn switch_off(conn: &Connection) {
    use rusqlite::config::DbConfig;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
        .unwrap();
}

fn of(schema: &str) -> (Vec<String>, Vec<String>) {
    copies(&mut open(schema), &[])
}

#[test]
fn an_index_is_kept_up_on_every_node() {
    let (names, warnings) = of(
        "CREATE TRIGGER ai AFTER INSERT ON r BEGIN INSERT INTO ft(rowid, a) VALUES(new.id, new.a); END;
         CREATE TRIGGER \"a \"\"d\" AFTER DELETE ON r BEGIN INSERT INTO ft(ft, rowid, a) VALUES('delete', old.id, old.a); END;
         CREATE TRIGGER au AFTER UPDATE OF a ON r WHEN old.a IS NOT new.a BEGIN UPDATE ft SET a = new.a WHERE rowid = new.id; END;",
    );
    assert_eq!(names, ["a \"d", "ai", "au"]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn what_travels_as_rows_is_not_done_twice() {
    let (names, warnings) = of(
        "CREATE TRIGGER counts AFTER INSERT ON r BEGIN UPDATE r2 SET a = a + 1; END;
         CREATE TRIGGER own AFTER UPDATE ON r BEGIN UPDATE r SET b = 1 WHERE id = new.id; END;
         CREATE TRIGGER checks BEFORE INSERT ON r BEGIN SELECT RAISE(ABORT, 'no') WHERE new.a IS NULL; END;
         CREATE TRIGGER fed AFTER INSERT ON r BEGIN INSERT INTO ft(a) VALUES(new.a); END;",
    );
    assert_eq!(names, ["fed"]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_mixed_trigger_does_not_fire_unless_it_is_named_and_then_in_part() {
    let schema = "CREATE TRIGGER mixed AFTER INSERT ON r BEGIN INSERT INTO r2(a) VALUES(new.a); INSERT INTO ft(rowid, a) VALUES(new.id, new.a); END;";
    let (names, warnings) = of(schema);
    assert!(names.is_empty());
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("\"mixed\"") && warning.contains("(r2)") && warning.contains("(ft)"));

    let mut conn = open(schema);
    let (names, warnings) = copies(&mut conn, &["MIXED"]);
    assert_eq!((names, warnings), (vec!["mixed".to_owned()], Vec::new()));
    conn.execute_batch("INSERT INTO r VALUES(7, 'word', 0)")
        .unwrap();
    let counts: (i64, i64) = conn
        .query_row(
            "SELECT (SELECT count(*) FROM r2), (SELECT rowid FROM ft('word'))",
            [],
            |r| Ok((r.get(0)?, r.get(1)?)),
        )
        .unwrap();
    assert_eq!(counts, (0, 7));
}

#[test]
fn named_triggers_that_are_none_or_have_nothing_to_do_here_are_told() {
    let mut conn = open(
        "CREATE TRIGGER counts AFTER INSERT ON r BEGIN UPDATE r2 SET a = a + 1; INSERT INTO r2(a) SELECT a FROM ft; END;
         CREATE TRIGGER fed AFTER INSERT ON r BEGIN INSERT INTO ft(a) VALUES(new.a); END;",
    );
    let (names, warnings) = copies(&mut conn, &["gone", "counts", "fed"]);
    assert_eq!(names, ["fed"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("\"gone\"") && warnings[1].contains("\"counts\""));
}

#[test]
fn what_cannot_be_copied_is_told_and_the_others_are_copied() {
    let (names, warnings) = of(
        "CREATE TRIGGER stems AFTER INSERT ON r BEGIN INSERT INTO ft(a) VALUES(stem(new.a)); END;
         CREATE TRIGGER stamps AFTER INSERT ON r BEGIN UPDATE r SET b = my_now() WHERE id = new.id; END;
         CREATE TRIGGER fed AFTER INSERT ON r BEGIN INSERT INTO log(what) VALUES(new.a); END;",
    );
    assert_eq!(names, ["fed"]);
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("\"stems\"") && warning.contains("no such function: stem"));
}

#[test]
fn triggers_of_triggers_and_views_are_judged_each_for_itself() {
    let (names, warnings) = of(
        "CREATE TRIGGER logs AFTER INSERT ON r BEGIN INSERT OR REPLACE INTO log(what) VALUES(new.a); END;
         CREATE TRIGGER indexes AFTER INSERT ON log BEGIN INSERT INTO ft(a) VALUES(new.what); END;
         CREATE TRIGGER counts AFTER INSERT ON log BEGIN UPDATE r2 SET a = a + 1; END;
         CREATE TRIGGER through AFTER DELETE ON r BEGIN INSERT INTO v(a) VALUES(old.a); END;
         CREATE TRIGGER instead INSTEAD OF INSERT ON v BEGIN INSERT INTO ft(a) VALUES(new.a); END;",
    );
    assert_eq!(names, ["indexes", "instead", "logs", "through"]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_virtual_table_that_no_trigger_fills_is_told() {
    let (_, warnings) = of("CREATE VIRTUAL TABLE words USING fts5vocab(ft, row)");
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(warning.contains("\"ft\" (fts5)"));
}

#[test]
fn copies_of_tables_that_are_gone_do_not_come_back_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.db");
    let app = Connection::open(&path).unwrap();
    let schema = "CREATE TABLE r(id INTEGER PRIMARY KEY, a); CREATE TABLE log(what);";
    app.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; {schema} CREATE TRIGGER t AFTER INSERT ON r BEGIN INSERT INTO log VALUES(new.a); END;"
    ))
    .unwrap();
    let mut conn = Connection::open(&path).unwrap();
    switch_off(&conn);
    assert_eq!(copies(&mut conn, &[]).0, ["t"]);
    app.execute_batch("DROP TABLE r").unwrap();
    assert!(copies(&mut conn, &[]).0.is_empty());
    app.execute_batch("CREATE TABLE r(id INTEGER PRIMARY KEY, a)")
        .unwrap();
    assert!(copies(&mut conn, &[]).0.is_empty());
    conn.execute_batch("INSERT INTO r VALUES(1, 2)").unwrap();
    let logged: i64 = conn
        .query_row("SELECT count(*) FROM log", [], |r| r.get(0))
        .unwrap();
    assert_eq!(logged, 0);
}

#[test]
fn copies_go_back_with_their_transaction() {
    let mut conn = open(
        "CREATE TRIGGER logs AFTER INSERT ON r BEGIN INSERT INTO log(what) VALUES(new.a); END;",
    );
    copies(&mut conn, &[]);
    conn.execute_batch("BEGIN IMMEDIATE; DROP TRIGGER main.logs")
        .unwrap();
    assert!(copies(&mut conn, &[]).0.is_empty());
    conn.execute_batch("ROLLBACK").unwrap();
    let there: i64 = conn
        .query_row(
            "SELECT count(*) FROM temp.sqlite_schema WHERE type = 'trigger'",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(there, 1);
}

#[test]
fn what_cannot_be_compiled_around_a_trigger_harms_no_other() {
    let (names, warnings) = of(
        "CREATE VIEW broken AS SELECT my_function(a) AS a FROM r;
         CREATE TRIGGER on_broken INSTEAD OF UPDATE ON broken BEGIN INSERT INTO ft(a) VALUES(new.a); END;
         CREATE TRIGGER to_broken AFTER INSERT ON r BEGIN UPDATE broken SET a = 1; END;
         CREATE TABLE r3(id INTEGER PRIMARY KEY, at DEFAULT (my_function()), b AS (id + 1));
         CREATE TRIGGER fed AFTER INSERT ON r3 BEGIN INSERT INTO ft(a) VALUES(new.b); END;",
    );
    assert_eq!(names, ["fed"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("\"to_broken\"")));
}

#[test]
fn tables_that_triggers_read_come_first_and_circles_end() {
    use crate::capture::install::describe_only;
    use std::fmt::Write as _;

    let mut schema = String::from("CREATE TABLE log(what); ");
    // Each of twenty reads all others; the last two only read on.
    let tables: Vec<String> = (0..20).map(|n| format!("a{n}")).collect();
    for table in &tables {
        write!(
            schema,
            "CREATE TABLE {table}(id INTEGER PRIMARY KEY); CREATE TRIGGER t_{table} AFTER INSERT ON {table} BEGIN "
        )
        .unwrap();
        for other in &tables {
            write!(schema, "INSERT INTO log SELECT max(id) FROM {other}; ").unwrap();
        }
        schema.push_str("END; ");
    }
    schema.push_str(
        "CREATE TABLE x(id INTEGER PRIMARY KEY); CREATE TABLE y(id INTEGER PRIMARY KEY); CREATE TABLE z(id INTEGER PRIMARY KEY);
         CREATE TRIGGER t_x AFTER INSERT ON x BEGIN INSERT INTO log SELECT max(id) FROM y; END;
         CREATE TRIGGER t_y AFTER INSERT ON y BEGIN INSERT INTO log SELECT max(id) FROM z; END;",
    );
    let mut conn = Connection::open_in_memory().unwrap();
    switch_off(&conn);
    conn.execute_batch(&schema).unwrap();
    let mut captured = describe_only(&conn, &|t| t != "log", &mut Default::default()).unwrap();
    let made = make_copies(
        &mut conn,
        Surroundings {
            replicated: &|t| t != "log",
            virtual_tables: &[],
            named: &[],
            before: &[],
        },
    )
    .unwrap();
    assert_eq!(made.copies.len(), 22);
    captured.set_triggers(made);
    let turn = |name: &str| captured.table(name).unwrap().turn;
    assert_eq!((turn("z"), turn("y"), turn("x")), (0, 1, 2));
    assert_eq!(turn("a0"), turn("a19"));
}

#[test]
fn a_copy_that_is_switched_off_is_there_all_the_same() {
    let mut conn = open(
        "CREATE TRIGGER \"x 'y\" AFTER INSERT ON r WHEN new.a OR new.b -- either\nBEGIN INSERT INTO log(what) VALUES(new.id); END;
         CREATE TRIGGER z AFTER INSERT ON r BEGIN INSERT INTO log(what) VALUES('z' || new.id); END;",
    );
    let made = make_copies(
        &mut conn,
        Surroundings {
            replicated: &|t| t.starts_with('r'),
            virtual_tables: &[],
            named: &[],
            before: &[],
        },
    )
    .unwrap();
    let version = |conn: &Connection| -> i64 {
        conn.query_row("PRAGMA temp.schema_version", [], |r| r.get(0))
            .unwrap()
    };
    let before = version(&conn);
    let insert = |id: i64, a: i64| {
        conn.execute("INSERT INTO r VALUES(?1, ?2, 0)", [id, a])
            .unwrap();
    };
    insert(1, 1);
    insert(2, 0);
    made.copies[0].switch(&conn, false).unwrap();
    insert(3, 1);
    made.copies[0].switch(&conn, true).unwrap();
    insert(4, 1);
    let mut logged: Vec<String> = conn
        .prepare("SELECT what FROM log")
        .unwrap()
        .query_map([], |r| {
            r.get_ref(0).map(|v| match v {
                rusqlite::types::ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
                other => format!("{other:?}"),
            })
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    logged.sort();
    assert_eq!(logged, ["Integer(1)", "Integer(4)", "z1", "z2", "z3", "z4"]);
    assert_eq!(version(&conn), before, "no statement is compiled anew");
}
