//! Installs capture and keeps it current: compares the objects that should be there with those that are, and mends the difference in
//! one transaction.
//!
//! Invariants: a table's change log and its triggers appear together; a change of columns begins a new generation. Rows that are there when the first capture
//! is installed are taken to be equal on all nodes. In the database of a cluster any other rows that were written without capture make their table
//! one that is not certain ([`unsure`]), which is then compared with the fold; elsewhere a table that appears later has all its rows logged.

use std::collections::HashMap;

use rusqlite::Connection;
use xxhash_rust::xxh3::Xxh3;

use super::known::{
    KnownTable, StoredObject, bears_trigger, has_lost_triggers, newest_app_trigger, purposes,
    read_known, read_objects, write_known,
};
use super::{layout, renames, triggers};
use crate::change::table::Table;
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::{quote, quote_list};
use crate::sqlite::introspect::{OWN_PREFIX, Schema, read_schema};
use crate::state::node;
use crate::state::unsure::{self, Reason};

/// A table whose changes are captured.
#[derive(Debug, Clone)]
pub struct CapturedTable {
    /// The table.
    pub table: Table,
    /// The generation of its triggers: rows logged by an older one travel whole.
    pub generation: i64,
    /// Its change log, quoted.
    pub log: String,
    /// Its notes, quoted, if it has UNIQUE indexes.
    pub notes: Option<String>,
    /// Its former UNIQUE values, if they are kept.
    pub former: Option<FormerValues>,
}

/// Where the UNIQUE values are that rows had before the app changed them: by the id of the change.
#[derive(Debug, Clone)]
pub struct FormerValues {
    /// The table, quoted.
    pub table: String,
    /// Positions of the columns that are kept.
    pub columns: Vec<usize>,
    /// Reads them, by a change's id.
    pub select: String,
}

impl FormerValues {
    fn of(table: &Table) -> Option<Self> {
        let columns = triggers::former_columns(table);
        let names: Vec<String> = columns
            .iter()
            .filter_map(|c| table.columns.get(*c))
            .map(|c| quote(&layout::key_column(&c.name)))
            .collect();
        let kept = quote(&layout::former_values(&table.name));
        (!columns.is_empty()).then(|| Self {
            select: format!("SELECT {} FROM {kept} WHERE id = ?1", names.join(", ")),
            table: kept,
            columns,
        })
    }
}

/// What is captured.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    /// SQLite's schema version after the installation.
    pub schema_version: i64,
    /// The captured tables.
    pub tables: Vec<CapturedTable>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Tables that are not captured, with the reason.
    pub refused: Vec<(String, String)>,
    /// Whether anything had to be made or dropped.
    pub changed: bool,
}

impl Captured {
    /// A hash of what replication knows of the schema: equal on nodes whose tables, columns, keys and UNIQUE indexes are.
    #[must_use]
    pub fn schema_hash(&self) -> String {
        let mut hash = Xxh3::new();
        for t in &self.tables {
            let columns = describe(t.table.columns.iter().map(|c| c.name.as_str()));
            let line = format!(
                "{}({columns}) key({}) unique({})\n",
                quote(&t.table.name),
                describe(t.table.key_names()),
                t.table.unique_definitions().join("; ")
            );
            hash.update(line.as_bytes());
        }
        format!("{:016x}", hash.digest())
    }

    /// The captured table of this name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&CapturedTable> {
        self.tables
            .iter()
            .find(|t| t.table.name.eq_ignore_ascii_case(name))
    }
}

/// Which tables are wanted.
pub type TableFilter<'a> = &'a dyn Fn(&str) -> bool;

/// The tables as they would be captured, without capturing them: `publish = false` still applies what others write.
///
/// # Errors
/// SQLite's.
pub fn describe_only(conn: &Connection, wanted: TableFilter<'_>) -> Result<Captured, SqliteError> {
    let schema = read_schema(conn)?;
    let tables = schema
        .tables
        .into_iter()
        .filter(|t| wanted(&t.name))
        .map(|table| CapturedTable {
            generation: 0,
            log: String::new(),
            notes: None,
            former: None,
            table,
        })
        .collect();
    Ok(Captured {
        schema_version: crate::sqlite::connection::schema_version(conn)?,
        tables,
        warnings: schema.warnings,
        refused: schema.refused,
        changed: false,
    })
}

/// Makes capture current. Call it inside a write transaction, after the state tables exist. `first`: nothing was ever captured here.
///
/// # Errors
/// SQLite's.
pub fn refresh(
    conn: &Connection,
    wanted: TableFilter<'_>,
    first: bool,
) -> Result<Captured, SqliteError> {
    let schema: Schema = read_schema(conn)?;
    let tables: Vec<Table> = schema
        .tables
        .into_iter()
        .filter(|t| wanted(&t.name))
        .collect();
    let bare = read_objects(conn)?;
    let mut warnings = schema.warnings;
    warnings.append(&mut renames::follow(conn, &tables)?);
    let known = read_known(conn)?;
    let there = read_objects(conn)?;
    let of_a_cluster = node::cluster(conn)?.is_some();
    let mut out = Captured {
        warnings,
        refused: schema.refused,
        ..Captured::default()
    };
    let mut desired: Vec<(triggers::Object, bool)> = Vec::new();
    let mut fill: Vec<String> = Vec::new();
    for table in &tables {
        let columns = describe(table.columns.iter().map(|c| c.name.as_str()));
        let key = describe(table.key_names());
        let before = known.get(&table.name.to_ascii_lowercase());
        let generation = match before {
            Some(k) if k.columns == columns && k.key == key => k.generation,
            Some(k) => k.generation + 1,
            None => 1,
        };
        let ours = triggers::triggers(table, generation);
        let now = KnownTable {
            generation,
            columns,
            key,
            triggers: purposes(table, &ours),
        };
        let log_there = there.contains_key(&layout::change_log(&table.name).to_ascii_lowercase());
        let lost = before.is_some_and(|b| has_lost_triggers(&bare, table, b));
        let rekeyed =
            before.is_some_and(|b| b.key != now.key) && log_there && !bears_trigger(&bare, table);
        let gap = lost || (before.is_none() && first && of_a_cluster);
        if gap && !rekeyed {
            unsure::mark(conn, &table.name, Reason::Gap)?;
        }
        if lost {
            out.warnings.push(format!(
                "the triggers on table \"{}\" were gone (a rebuilt table, or dropped by hand): what was written without them is looked for",
                table.name
            ));
        }
        if rekeyed {
            // Key values of the old log cannot be read as the new key's: log every row anew, whole.
            out.warnings.push(format!(
                "table \"{}\" has a new primary key: all its rows are sent again",
                table.name
            ));
            drop_log(conn, table, &there)?;
            fill.push(triggers::log_all_rows(table, generation));
        } else if before.is_none() && !first {
            if of_a_cluster && has_rows(conn, table)? {
                unsure::mark(conn, &table.name, Reason::New)?;
            } else if !of_a_cluster {
                fill.push(triggers::log_all_rows(table, generation));
            }
        } else if before.is_some_and(|b| b.generation != generation)
            && log_there
            && !planted!(NotSentAgain)
            && !planted!(GenerationForgotten)
        {
            fill.push(triggers::log_pending_again(table, generation));
        }
        if before != Some(&now) {
            write_known(conn, &table.name, &now)?;
        }
        desired.extend(triggers::tables(table).into_iter().map(|o| (o, false)));
        // Newer triggers fire first: when the app has made one since, ours are made anew.
        let oldest_of_ours = ours
            .iter()
            .filter_map(|o| there.get(&o.name.to_ascii_lowercase()))
            .map(|t| t.rowid)
            .min();
        let renew = oldest_of_ours.is_some_and(|ours| {
            newest_app_trigger(&there, &table.name).is_some_and(|app| app > ours)
        });
        desired.extend(ours.into_iter().map(|o| (o, renew)));
        out.tables.push(CapturedTable {
            generation,
            log: quote(&layout::change_log(&table.name)),
            former: FormerValues::of(table),
            notes: (!table.uniques.is_empty()).then(|| quote(&layout::notes(&table.name))),
            table: table.clone(),
        });
    }
    for gone in unsure::read(conn)?
        .iter()
        .filter(|u| !tables.iter().any(|t| t.name.eq_ignore_ascii_case(&u.table)))
    {
        unsure::clear(conn, gone)?;
    }
    let refs: Vec<&Table> = tables.iter().collect();
    desired.extend(triggers::views(&refs).into_iter().map(|o| (o, false)));
    out.changed = mend(conn, &desired)?;
    for sql in fill {
        conn.execute_batch(&sql)
            .doing("log the rows of a new table")?;
    }
    out.schema_version = crate::sqlite::connection::schema_version(conn)?;
    Ok(out)
}

/// Drops what should not be there (or is another), then makes what is missing, in order.
fn mend(conn: &Connection, desired: &[(triggers::Object, bool)]) -> Result<bool, SqliteError> {
    let there = read_objects(conn)?;
    let wanted: HashMap<String, (&triggers::Object, bool)> = desired
        .iter()
        .map(|(o, renew)| (o.name.to_ascii_lowercase(), (o, *renew)))
        .collect();
    let mut changed = false;
    for (name, object) in &there {
        if !object.ours || is_state_table(name) {
            continue;
        }
        // A change log without a table stays: its rows may still have to be sent, or the table may be back in a moment. Reconciliation tidies it.
        // Former values are an aid only, and must fit the triggers.
        let stays = object.kind == "table" && !name.ends_with(layout::FORMER_VALUES);
        let keep = wanted.get(name).is_some_and(|(o, renew)| {
            !renew
                && o.kind == object.kind
                && o.on.eq_ignore_ascii_case(&object.on)
                && (stays || o.sql == object.sql)
        });
        if keep || stays {
            continue;
        }
        let drop = format!(
            "DROP {} IF EXISTS {}",
            object.kind.to_ascii_uppercase(),
            quote(&object.name)
        );
        conn.execute_batch(&drop)
            .doing_with(|| format!("drop {} {}", object.kind, object.name))?;
        changed = true;
    }
    let left = read_objects(conn)?;
    for (object, _) in desired {
        if !left.contains_key(&object.name.to_ascii_lowercase()) {
            conn.execute_batch(&object.sql)
                .doing_with(|| format!("create {} {}", object.kind, object.name))?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Pending rows of the change log when its layout no longer fits the table.
fn drop_log(
    conn: &Connection,
    table: &Table,
    there: &HashMap<String, StoredObject>,
) -> Result<(), SqliteError> {
    for name in [
        layout::change_log(&table.name),
        layout::notes(&table.name),
        // Its ids are those of the log, which begin anew.
        layout::former_values(&table.name),
    ] {
        if there.contains_key(&name.to_ascii_lowercase()) {
            // The triggers and views that name it go first; the mending makes them again.
            for object in there.values().filter(|o| {
                o.ours
                    && (o.kind == "view" || o.on.eq_ignore_ascii_case(&table.name))
                    && o.kind != "table"
            }) {
                conn.execute_batch(&format!(
                    "DROP {} IF EXISTS {}",
                    object.kind.to_ascii_uppercase(),
                    quote(&object.name)
                ))
                .doing("drop the triggers of a table whose key has changed")?;
            }
            conn.execute_batch(&format!("DROP TABLE {}", quote(&name)))
                .doing("drop a change log whose table has a new key")?;
        }
    }
    Ok(())
}

/// A name list in a form that tells `a,b` from `"a,b"`.
fn describe<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    quote_list(names)
}

fn is_state_table(lower_name: &str) -> bool {
    [
        "node",
        "publishers",
        "covered",
        "tables",
        "conflicts",
        "dead_letters",
        "skips",
        "unsure",
    ]
    .iter()
    .any(|t| lower_name == format!("{OWN_PREFIX}{t}"))
}

fn has_rows(conn: &Connection, table: &Table) -> Result<bool, SqliteError> {
    let sql = format!("SELECT EXISTS(SELECT 1 FROM {})", quote(&table.name));
    conn.query_row(&sql, [], |r| r.get(0))
        .doing_with(|| format!("look for rows of table \"{}\"", table.name))
}
