//! Reads the application's schema: which tables there are, and what replication needs to know of each.
//!
//! Invariants: virtual tables, their shadow tables, views, `sqlite_*` and our own tables are never among them; a
//! table that cannot be replicated is named with its reason, never dropped in silence.

use std::collections::HashMap;

use rusqlite::Connection;

use super::concerns::{self, Trial};
use super::error::{Doing, SqliteError};
use super::ident::quote;
use super::index_sql;
use super::virtual_tables::{VirtualTable, virtual_tables};
use crate::change::key::Collation;
use crate::change::table::{Affinity, Column, IndexTerm, Table, TableKey, UniqueIndex};

/// What every object of ours begins with.
pub const OWN_PREFIX: &str = "__harmonylite__";

/// How names of tables begin that a snapshot holds for other nodes than its taker.
pub const ABSENT_PREFIX: &str = "__harmonylite__absent_";

/// The schema at one version.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// SQLite's schema version that this was read at.
    pub version: i64,
    /// Tables that can be replicated, by name.
    pub tables: Vec<Table>,
    /// Tables that cannot, with the reason.
    pub refused: Vec<(String, String)>,
    /// Things that work but that the operator should know, by table.
    pub warnings: Vec<(String, String)>,
    /// Virtual tables, none of which is replicated.
    pub virtual_tables: Vec<VirtualTable>,
}

impl Schema {
    /// What is to be said of the tables that are wanted: why which are not replicated, and warnings. A table that no snapshot can hold concerns the others too, wanted or not.
    pub fn concerns(&self, wanted: &dyn Fn(&str) -> bool) -> (Vec<(String, String)>, Vec<String>) {
        let refused = self.refused.iter();
        let warnings = self.warnings.iter();
        (
            refused
                .filter(|(table, reason)| wanted(table) || concerns::blocks_snapshots(reason))
                .cloned()
                .collect(),
            warnings
                .filter(|(table, _)| wanted(table))
                .map(|(_, warning)| warning.clone())
                .collect(),
        )
    }

    /// The table of this name; SQLite's names ignore the case of ASCII letters.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables
            .iter()
            .find(|t| t.name.eq_ignore_ascii_case(name))
    }
}

/// What was found out about tables, by the text of their definitions: a table whose text is the same is the same, and is not looked at again.
#[derive(Debug, Default)]
pub struct Familiar {
    tables: HashMap<String, Found>,
    examined: u64,
}

/// What was found out about one table.
#[derive(Debug)]
struct Found {
    definitions: Vec<Definition>,
    outcome: Result<Table, String>,
    warnings: Vec<(String, String)>,
}

impl Familiar {
    /// How many tables were looked at, each time that their definitions were others.
    #[must_use]
    pub const fn examined(&self) -> u64 {
        self.examined
    }
}

/// A statement of the schema: the name of the table or index that it makes, and its text.
type Definition = (String, String);

/// The statements that make each table and its indexes, the table's first, by its name in lower case.
fn read_definitions(conn: &Connection) -> Result<HashMap<String, Vec<Definition>>, SqliteError> {
    let mut stmt = conn
        .prepare_cached("SELECT lower(tbl_name), name, sql FROM main.sqlite_schema WHERE type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC")
        .doing("read the schema")?;
    let mut rows = stmt.query([]).doing("read the schema")?;
    let mut out: HashMap<String, Vec<Definition>> = HashMap::new();
    while let Some(row) = rows.next().doing("read the schema")? {
        let definition = row
            .get(1)
            .and_then(|name| row.get(2).map(|sql| (name, sql)))
            .doing("read the schema")?;
        out.entry(row.get(0).doing("read the schema")?)
            .or_default()
            .push(definition);
    }
    Ok(out)
}

/// Reads the schema of `main`. Call it inside a transaction when it must fit other reads.
///
/// # Errors
/// SQLite's.
pub fn read_schema(conn: &Connection) -> Result<Schema, SqliteError> {
    read_schema_again(conn, &mut Familiar::default())
}

/// As [`read_schema`], where most tables were looked at before.
///
/// # Errors
/// SQLite's.
pub fn read_schema_again(
    conn: &Connection,
    familiar: &mut Familiar,
) -> Result<Schema, SqliteError> {
    let version = super::connection::schema_version(conn)?;
    let mut schema = Schema {
        version,
        virtual_tables: virtual_tables(conn)?,
        ..Schema::default()
    };
    let mut owned: Vec<(String, String)> = Vec::new();
    let mut stmt = conn
        .prepare_cached("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name")
        .doing("list the tables")?;
    let names: Vec<(String, bool, bool)> = stmt
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .and_then(Iterator::collect)
        .doing("list the tables")?;
    let mut definitions = read_definitions(conn)?;
    let mut before = std::mem::take(&mut familiar.tables);
    let mut trial = None;
    for (name, without_rowid, strict) in names {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("sqlite_") {
            continue;
        }
        if lower.starts_with(OWN_PREFIX) {
            if let Some(reason) = concerns::taken_name(&name) {
                schema.refused.push((name, reason));
            }
            continue;
        }
        // SQLite knows the tables that a virtual one keeps its data in only where it knows the module.
        let owner = schema
            .virtual_tables
            .iter()
            .find(|v| !v.known && v.may_own(&name));
        if let Some(owner) = owner {
            owned.push((owner.name.clone(), name));
            continue;
        }
        let definitions = definitions.remove(&lower).unwrap_or_default();
        let found = match before.remove(&name) {
            Some(found) if found.definitions == definitions => found,
            _ => {
                familiar.examined += 1;
                let how = HowMade {
                    without_rowid,
                    strict,
                    definitions: &definitions,
                };
                let mut warnings = Vec::new();
                let mut outcome = read_table(conn, &name, how, &mut warnings)?;
                if let Ok(table) = &outcome {
                    let trial = match &mut trial {
                        Some(trial) => trial,
                        none => none.insert(Trial::new()?),
                    };
                    let texts = definitions.iter().map(|(_, sql)| sql.as_str());
                    if let Some(reason) = trial.refuses(table, texts)? {
                        warnings.clear();
                        outcome = Err(reason);
                    }
                }
                Found {
                    definitions,
                    outcome,
                    warnings,
                }
            }
        };
        match &found.outcome {
            Ok(table) => schema.tables.push(table.clone()),
            Err(reason) => schema.refused.push((name.clone(), reason.clone())),
        }
        schema.warnings.extend(found.warnings.iter().cloned());
        familiar.tables.insert(name, found);
    }
    for owner in schema.virtual_tables.iter().filter(|v| !v.known) {
        let tables: Vec<&str> = owned
            .iter()
            .filter(|(of, _)| *of == owner.name)
            .map(|(_, table)| table.as_str())
            .collect();
        if !tables.is_empty() {
            schema.warnings.push((owner.name.clone(), format!(
                "virtual table \"{}\" is of module {}, which this program does not have: tables whose names begin with its own are taken for its data and not replicated ({}); rename one that is not",
                owner.name,
                owner.module,
                tables.join(", ")
            )));
        }
    }
    Ok(schema)
}

/// Whether `main` has a table of this name, be it the app's or ours.
///
/// # Errors
/// SQLite's.
pub fn has_table(conn: &Connection, name: &str) -> Result<bool, SqliteError> {
    conn.prepare_cached("SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE)")
        .and_then(|mut s| s.query_row([name], |r| r.get(0)))
        .doing_with(|| format!("look for table \"{name}\""))
}

struct RawColumn {
    name: String,
    declared: String,
    not_null: bool,
    default: Option<String>,
    key_place: i64,
    generated: bool,
}

/// How a table was made.
#[derive(Clone, Copy)]
struct HowMade<'a> {
    without_rowid: bool,
    strict: bool,
    definitions: &'a [Definition],
}

fn read_table(
    conn: &Connection,
    name: &str,
    how: HowMade<'_>,
    warnings: &mut Vec<(String, String)>,
) -> Result<Result<Table, String>, SqliteError> {
    let raw = read_columns(conn, name)?;
    let stored: Vec<&RawColumn> = raw.iter().filter(|c| !c.generated).collect();
    let columns: Vec<Column> = stored
        .iter()
        .map(|c| Column {
            name: c.name.clone(),
            affinity: Affinity::of_declared(&c.declared, how.strict),
            not_null: c.not_null,
            default: c.default.clone(),
        })
        .collect();
    let position = |column: &str| {
        columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(column))
    };
    let mut key_columns: Vec<(i64, usize)> = stored
        .iter()
        .enumerate()
        .filter(|(_, c)| c.key_place > 0)
        .map(|(i, c)| (c.key_place, i))
        .collect();
    key_columns.sort_unstable();

    let mut uniques = Vec::new();
    let mut key_index: Option<Vec<(Option<String>, String)>> = None;
    for index in read_indexes(conn, name, how.definitions)? {
        if !index.unique {
            continue;
        }
        let terms = read_index_terms(conn, &index.name)?;
        if index.origin == "pk" {
            key_index = Some(terms);
            continue;
        }
        let text = index.sql.as_deref().and_then(index_sql::parse);
        if index.sql.is_some() && text.as_ref().is_none_or(|t| t.terms.len() != terms.len()) {
            return Ok(Err(format!(
                "its UNIQUE index \"{}\" has a definition that we cannot read",
                index.name
            )));
        }
        let terms = terms
            .into_iter()
            .enumerate()
            .map(|(i, (column, collation))| {
                let written = text.as_ref().and_then(|t| t.terms.get(i)).cloned();
                let stored = column.as_deref().and_then(position);
                let sql = match (&column, written) {
                    (Some(c), _) => quote(c),
                    (None, Some(w)) => format!("({w})"),
                    (None, None) => String::new(),
                };
                IndexTerm {
                    column: stored,
                    sql,
                    collation,
                }
            })
            .collect();
        uniques.push(UniqueIndex {
            name: index.name,
            terms,
            predicate: text.and_then(|t| t.predicate),
        });
    }

    let integer_key = !key_columns.is_empty() && key_index.is_none() && !how.without_rowid;
    let key = if key_columns.is_empty() {
        let hidden = |n: &str| raw.iter().any(|c| c.name.eq_ignore_ascii_case(n));
        match ["rowid", "_rowid_", "oid"].into_iter().find(|n| !hidden(n)) {
            Some(rowid) => {
                warnings.push((name.to_owned(), format!(
                    "table \"{name}\" has no primary key: its rows are known by their rowid, which a plain VACUUM may change and which two nodes choose alike; give it a primary key"
                )));
                TableKey::Rowid(rowid)
            }
            None => return Ok(Err("it has no primary key, and columns named rowid, _rowid_ and oid hide its rowid; give it a primary key".to_owned())),
        }
    } else {
        let mut key = Vec::new();
        for (_, column) in key_columns {
            let collation = match &key_index {
                None => "BINARY",
                Some(terms) => {
                    let c = columns.get(column).map_or("", |c| c.name.as_str());
                    terms
                        .iter()
                        .find(|(n, _)| n.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(c)))
                        .map_or("BINARY", |(_, coll)| coll.as_str())
                }
            };
            match Collation::from_name(collation) {
                Some(c) => key.push((column, c)),
                None => {
                    return Ok(Err(concerns::lacking(&format!(
                        "its primary key uses the collation \"{collation}\""
                    ))));
                }
            }
        }
        TableKey::Columns(key)
    };
    for index in &uniques {
        if let Some(t) = index
            .terms
            .iter()
            .find(|t| Collation::from_name(&t.collation).is_none())
        {
            return Ok(Err(concerns::lacking(&format!(
                "its UNIQUE index \"{}\" uses the collation \"{}\"",
                index.name, t.collation
            ))));
        }
    }
    Ok(Ok(Table {
        name: name.to_owned(),
        columns,
        key,
        integer_key,
        uniques,
    }))
}

fn read_columns(conn: &Connection, table: &str) -> Result<Vec<RawColumn>, SqliteError> {
    let mut stmt = conn
        .prepare_cached("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")
        .doing("list the columns")?;
    stmt.query_map([table], |r| {
        let hidden: i64 = r.get(5)?;
        Ok(RawColumn {
            name: r.get(0)?,
            declared: r.get(1)?,
            not_null: r.get(2)?,
            default: r.get(3)?,
            key_place: r.get(4)?,
            generated: hidden != 0,
        })
    })
    .and_then(Iterator::collect)
    .doing_with(|| format!("list the columns of table \"{table}\""))
}

struct RawIndex {
    name: String,
    unique: bool,
    origin: String,
    sql: Option<String>,
}

fn read_indexes(
    conn: &Connection,
    table: &str,
    definitions: &[Definition],
) -> Result<Vec<RawIndex>, SqliteError> {
    let mut stmt = conn
        .prepare_cached(
            "SELECT name, \"unique\", origin FROM pragma_index_list(?1, 'main') ORDER BY name",
        )
        .doing("list the indexes")?;
    stmt.query_map([table], |r| {
        let name: String = r.get(0)?;
        // The first is the table's own.
        let made = definitions.iter().skip(1).find(|(n, _)| *n == name);
        Ok(RawIndex {
            sql: made.map(|(_, sql)| sql.clone()),
            name,
            unique: r.get(1)?,
            origin: r.get(2)?,
        })
    })
    .and_then(Iterator::collect)
    .doing_with(|| format!("list the indexes of table \"{table}\""))
}

/// Each key term's column name (none for an expression) and collation.
fn read_index_terms(
    conn: &Connection,
    index: &str,
) -> Result<Vec<(Option<String>, String)>, SqliteError> {
    let mut stmt = conn
        .prepare_cached(
            "SELECT name, coll FROM pragma_index_xinfo(?1, 'main') WHERE key = 1 ORDER BY seqno",
        )
        .doing("read an index")?;
    stmt.query_map([index], |r| Ok((r.get(0)?, r.get(1)?)))
        .and_then(Iterator::collect)
        .doing_with(|| format!("read the index \"{index}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(sql: &str) -> Schema {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        read_schema(&conn).unwrap()
    }

    #[test]
    fn keys() {
        let s = schema(
            "CREATE TABLE a(id INTEGER PRIMARY KEY, x); CREATE TABLE b(k TEXT PRIMARY KEY COLLATE NOCASE, x) WITHOUT ROWID;
             CREATE TABLE c(x, y, PRIMARY KEY(y, x)); CREATE TABLE d(x); CREATE TABLE e(rowid, _rowid_, oid);
             CREATE TABLE f(id INTEGER PRIMARY KEY DESC); CREATE VIEW v AS SELECT 1; CREATE TABLE __harmonylite__x(a);
             CREATE VIRTUAL TABLE ft USING fts5(body);",
        );
        let names: Vec<&str> = s.tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "f"]);
        assert!(s.table("A").unwrap().integer_key);
        assert_eq!(
            s.table("b").unwrap().key,
            TableKey::Columns(vec![(0, Collation::NoCase)])
        );
        assert_eq!(
            s.table("c").unwrap().key,
            TableKey::Columns(vec![(1, Collation::Binary), (0, Collation::Binary)])
        );
        assert_eq!(s.table("d").unwrap().key, TableKey::Rowid("rowid"));
        assert!(!s.table("f").unwrap().integer_key);
        let refused: Vec<&str> = s.refused.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(refused, ["__harmonylite__x", "e"]);
        let (refused, warnings) = s.concerns(&|table| table == "d");
        assert_eq!((refused.len(), warnings.len()), (0, 1));
    }

    #[test]
    fn our_own_tables_are_nobody_elses() {
        let conn = Connection::open_in_memory().unwrap();
        crate::state::ddl::migrate(&conn).unwrap();
        conn.execute_batch("CREATE TABLE t(id TEXT PRIMARY KEY, u UNIQUE)")
            .unwrap();
        crate::capture::install::refresh(&conn, &|_| true, true).unwrap();
        assert_eq!(read_schema(&conn).unwrap().refused, []);
    }

    #[test]
    fn data_of_virtual_tables_is_not_replicated_whoever_knows_their_modules() {
        let s = schema(
            "CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE \"Vec_chunks\"(id INTEGER PRIMARY KEY); CREATE TABLE vector(id INTEGER PRIMARY KEY);
             CREATE VIRTUAL TABLE ft USING fts5(body); CREATE VIRTUAL TABLE f4 USING fts4(body); CREATE VIRTUAL TABLE r USING rtree(id, a, b);
             PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema VALUES('table', 'vec', 'vec', 0, 'CREATE VIRTUAL TABLE vec USING vec0(embedding float[4])');
             PRAGMA writable_schema = RESET;",
        );
        let names: Vec<&str> = s.tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["t", "vector"]);
        assert_eq!(s.virtual_tables.len(), 4);
        assert!(s.refused.is_empty());
        let [(_, warning)] = &s.warnings[..] else {
            panic!("{:?}", s.warnings)
        };
        assert!(
            warning.contains("\"vec\"")
                && warning.contains("vec0")
                && warning.contains("Vec_chunks")
        );
    }

    #[test]
    fn uniques_and_generated_columns() {
        let s = schema(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, g AS (a || 'x') STORED, b, c);
             CREATE UNIQUE INDEX p ON t(b COLLATE NOCASE, c) WHERE b > 0; CREATE UNIQUE INDEX e ON t(lower(c)); CREATE INDEX n ON t(b);
             CREATE UNIQUE INDEX gi ON t(g);",
        );
        let t = s.table("t").unwrap();
        assert_eq!(
            t.columns
                .iter()
                .map(|c| c.name.as_str())
                .collect::<Vec<_>>(),
            ["id", "a", "b", "c"]
        );
        assert_eq!(
            t.unique_definitions(),
            [
                "(\"a\" COLLATE BINARY)",
                "(\"b\" COLLATE NOCASE, \"c\" COLLATE BINARY) WHERE b > 0",
                "(\"g\" COLLATE BINARY)",
                "((lower(c)) COLLATE BINARY)"
            ]
        );
        assert_eq!(t.unique_columns(), [0, 1, 2, 3]);
    }
}
