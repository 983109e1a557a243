//! Installs capture and keeps it current: compares the objects that should be there with those that are, and mends the difference in
//! one transaction.
//!
//! Invariants: a table's change log and its triggers appear together; a change of columns begins a new generation. Rows that are there when the first capture
//! is installed are taken to be equal on all nodes. In the database of a cluster any other rows that were written without capture make their table
//! one that is not certain ([`unsure`]), which is then compared with the fold; elsewhere a table that appears later has all its rows logged.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;

use super::captured::{Captured, CapturedTable, FormerValues, describe};
use super::carry_over::Change;
use super::formerly::{Formerly, names_in, renamed_columns};
use super::known::{
    Borne, KnownTable, StoredObject, has_known, newest_app_trigger, purposes, read_known,
    read_objects, write_known,
};
use super::{layout, renames, triggers};
use crate::change::operation::ChangeKind;
use crate::change::table::Table;
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{Schema, read_schema};
use crate::state::node;
use crate::state::unsure::{self, Reason};

/// Tables that were captured here, are in the schema no more, and were not renamed: by all names that they had.
fn dropped(known: &HashMap<String, KnownTable>, schema: &Schema) -> BTreeSet<String> {
    let is_here = |name: &str| {
        schema
            .tables
            .iter()
            .map(|t| &t.name)
            .chain(schema.refused.iter().map(|(t, _)| t))
            .any(|t| t.eq_ignore_ascii_case(name))
    };
    known
        .iter()
        .filter(|(name, _)| !is_here(name))
        .flat_map(|(name, known)| std::iter::once(name.as_str()).chain(known.formerly.tables()))
        .filter(|name| !is_here(name))
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Which tables are wanted.
pub type TableFilter<'a> = &'a dyn Fn(&str) -> bool;

/// The tables as they would be captured, without capturing them: `publish = false` still applies what others write.
///
/// # Errors
/// SQLite's.
pub fn describe_only(conn: &Connection, wanted: TableFilter<'_>) -> Result<Captured, SqliteError> {
    let schema = read_schema(conn)?;
    // Of a time when it published.
    let known = if has_known(conn)? {
        read_known(conn)?
    } else {
        HashMap::new()
    };
    let dropped = dropped(&known, &schema);
    let (refused, warnings) = schema.concerns(wanted);
    let tables = schema
        .tables
        .into_iter()
        .filter(|t| wanted(&t.name))
        .map(|table| CapturedTable {
            generation: 0,
            log: String::new(),
            notes: None,
            former: None,
            formerly: known
                .get(&table.name.to_ascii_lowercase())
                .map(|k| k.formerly.clone())
                .unwrap_or_default(),
            fires: Vec::new(),
            turn: 0,
            table,
        })
        .collect();
    Ok(Captured {
        schema_version: crate::sqlite::connection::schema_version(conn)?,
        tables,
        warnings,
        refused,
        dropped,
        virtual_tables: schema.virtual_tables,
        ..Captured::default()
    })
}

/// Of each table, whether its capture is as it should be, and how many changes are pending in its change log; `None` where it has none.
///
/// # Errors
/// SQLite's.
pub fn look_at<'t>(
    conn: &Connection,
    tables: impl IntoIterator<Item = &'t Table>,
) -> Result<Vec<Option<(bool, u64)>>, SqliteError> {
    let there = read_objects(conn)?;
    // Of a database that was never replicated nothing is known.
    let known = if has_known(conn)? {
        read_known(conn)?
    } else {
        HashMap::new()
    };
    let tables = tables.into_iter();
    tables
        .map(|table| look_at_one(conn, table, &there, &known))
        .collect()
}

fn look_at_one(
    conn: &Connection,
    table: &Table,
    there: &HashMap<String, StoredObject>,
    known: &HashMap<String, KnownTable>,
) -> Result<Option<(bool, u64)>, SqliteError> {
    if !there.contains_key(&layout::change_log(&table.name).to_ascii_lowercase()) {
        return Ok(None);
    }
    let generation = known
        .get(&table.name.to_ascii_lowercase())
        .map_or(0, |k| k.generation);
    let current = triggers::triggers(table, generation).iter().all(|o| {
        there
            .get(&o.name.to_ascii_lowercase())
            .is_some_and(|t| t.sql == o.sql)
    });
    let pending = format!(
        "SELECT count(*) FROM {} WHERE type <> {}",
        quote(&layout::change_log(&table.name)),
        ChangeKind::Done.code()
    );
    let pending: i64 = conn
        .query_row(&pending, [], |r| r.get(0))
        .doing_with(|| format!("count the pending changes of table \"{}\"", table.name))?;
    Ok(Some((current, pending.cast_unsigned())))
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
    let (refused, mut warnings) = schema.concerns(wanted);
    let taken: BTreeSet<String> = schema
        .tables
        .iter()
        .map(|t| &t.name)
        .chain(schema.refused.iter().map(|(t, _)| t))
        .map(|t| t.to_ascii_lowercase())
        .collect();
    let (tables, left_out): (Vec<Table>, Vec<Table>) =
        schema.tables.iter().cloned().partition(|t| wanted(&t.name));
    let known_before = read_known(conn)?;
    let bare = read_objects(conn)?;
    let renamed_tables = renames::follow(conn, &tables)?;
    warnings.extend(renamed_tables.iter().map(|(before, now)| {
        format!("table \"{before}\" is now called \"{now}\": what was pending of it is sent under the new name")
    }));
    let known = read_known(conn)?;
    let there = read_objects(conn)?;
    let of_a_cluster = node::cluster(conn)?.is_some();
    // Tables that were renamed just now: their triggers still have these names.
    let followed: Vec<&str> = known_before
        .keys()
        .filter(|name| !known.contains_key(*name))
        .map(String::as_str)
        .collect();
    let mut out = Captured {
        warnings,
        dropped: dropped(&known, &schema),
        refused,
        virtual_tables: schema.virtual_tables,
        renamed: renamed_tables,
        ..Captured::default()
    };
    let mut desired: Vec<(triggers::Object, bool)> = Vec::new();
    let mut fill: Vec<String> = Vec::new();
    for table in &tables {
        let columns = describe(table.columns.iter().map(|c| c.name.as_str()));
        let key = describe(table.key_names());
        let before = known.get(&table.name.to_ascii_lowercase());
        let generation = match before {
            // What older triggers logged as cells may be of columns under a UNIQUE index by now, which travel whole.
            Some(k)
                if k.columns == columns
                    && k.key == key
                    && !k.formerly.has_other_uniques(&table.unique_definitions()) =>
            {
                k.generation
            }
            Some(k) => k.generation + 1,
            None => 1,
        };
        let ours = triggers::triggers(table, generation);
        let columns_before = before.map_or_else(Vec::new, |k| names_in(&k.columns));
        let borne = Borne {
            there: &bare,
            table,
            followed: &followed,
        };
        let renamed = renamed_columns(&borne);
        let made_anew = before.is_some_and(|b| b.key != key) && !borne.bears_any();
        let mut formerly = before
            .map_or_else(Formerly::default, |k| k.formerly.clone())
            .after(
                table,
                &columns_before,
                &before.map_or_else(Vec::new, |k| names_in(&k.key)),
                renamed.as_deref(),
                made_anew,
            );
        // A name that another table has now means that one.
        formerly.forget_tables(|name| taken.contains(&name.to_ascii_lowercase()));
        let now = KnownTable {
            generation,
            columns,
            key,
            triggers: purposes(table, &ours),
            formerly,
        };
        let log_there = there.contains_key(&layout::change_log(&table.name).to_ascii_lowercase());
        let included = before.is_some_and(KnownTable::was_left_out);
        let lost = !included && before.is_some_and(|b| borne.has_lost(b));
        let rekeyed = made_anew && log_there;
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
        if rekeyed || !log_there {
            out.new_logs.push(table.name.clone());
        }
        if included {
            out.warnings.push(if of_a_cluster {
                unsure::mark(conn, &table.name, Reason::Included)?;
                format!(
                    "table \"{}\" was left out until now: it becomes what the cluster has, and rows that only this node has are published",
                    table.name
                )
            } else {
                format!(
                    "table \"{}\" was left out until now: its rows are taken to be equal on all nodes; run harmonylite verify",
                    table.name
                )
            });
            if rekeyed {
                drop_log(conn, table, &there)?;
            }
        } else if rekeyed {
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
            let change = Change {
                table,
                before: &columns_before,
                now: renamed.as_deref(),
                aged: before.map_or(0, |b| b.generation),
                generation,
            };
            fill.extend(change.sql());
        }
        let back = before.map_or_else(Vec::new, |b| b.formerly.dropped_and_back(table));
        if of_a_cluster && !gap && !rekeyed && !back.is_empty() {
            // What others wrote to it meanwhile was passed over here.
            unsure::mark(conn, &table.name, Reason::Included)?;
            out.warnings.push(format!(
                "column {} of table \"{}\" was dropped here and is back: the table becomes what the cluster has",
                describe(back.into_iter()),
                table.name
            ));
        }
        if before != Some(&now) {
            write_known(conn, &table.name, &now)?;
        }
        let formerly = now.formerly;
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
            fires: Vec::new(),
            turn: 0,
            notes: (!table.uniques.is_empty()).then(|| quote(&layout::notes(&table.name))),
            formerly,
            table: table.clone(),
        });
    }
    for table in &left_out {
        let before = known.get(&table.name.to_ascii_lowercase());
        if !before.is_some_and(KnownTable::was_left_out) {
            write_known(conn, &table.name, &KnownTable::left_out(before))?;
        }
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
        if !object.ours {
            continue;
        }
        // Tables of the state stay. A change log without a table too: its rows may still have to be sent, or the table may be back in a moment. Reconciliation tidies it.
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

fn has_rows(conn: &Connection, table: &Table) -> Result<bool, SqliteError> {
    let sql = format!("SELECT EXISTS(SELECT 1 FROM {})", quote(&table.name));
    conn.query_row(&sql, [], |r| r.get(0))
        .doing_with(|| format!("look for rows of table \"{}\"", table.name))
}
