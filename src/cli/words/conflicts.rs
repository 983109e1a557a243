//! `harmonylite conflicts ...`: what lost to another write.

use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use super::purge::{self, Purge};
use super::{Done, Verb, Word};
use crate::change::literal::sql_literal;
use crate::change::value::{OwnedValue, Value};
use crate::cli::commands::journal_fault;
use crate::cli::exit::ExitCode;
use crate::cli::flags::{flag, switch};
use crate::cli::table;
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::control::lock;
use crate::engine::Fatal;
use crate::journals::conflicts::{self, Conflict, Filter, How, RestoreError};
use crate::journals::{JournalError, Which, in_transaction, open_as_app, open_to_read};
use crate::state::journal::rfc3339;

/// What can be asked of the conflict journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflicts {
    /// Show what is in it.
    List {
        /// Of this table only.
        table: Option<String>,
        /// No older than this.
        since: Option<std::time::Duration>,
        /// At most so many.
        limit: usize,
        /// As JSON.
        json: bool,
    },
    /// Show one with its values.
    Show {
        /// Its number.
        id: i64,
        /// As JSON.
        json: bool,
    },
    /// Write one back.
    Restore {
        /// Its number.
        id: i64,
        /// In which way.
        how: How,
    },
    /// Clear some away.
    Purge(Purge),
}

/// How many conflicts a list shows if nothing else is said: a few screens.
const LIMIT: usize = 100;

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "conflicts",
        verb: Some("list"),
        operands: "",
        options: &[
            flag("table", "NAME", "of this table only"),
            flag("since", "TIME", "no older than 90s, 15m, 12h or 30d"),
            flag("limit", "N", "at most so many (100)"),
            switch("json", "for programs"),
        ],
        about: "show what lost to another write, the newest first",
        more: "The list shows which columns of which row lost, and why; conflicts show ID shows the values.",
        parse: |given| {
            given.no_operands()?;
            Ok(Word::Conflicts(Conflicts::List {
                table: given.text("table")?,
                since: given.age("since")?,
                limit: given.parsed("limit", "a number")?.unwrap_or(LIMIT),
                json: given.switch("json")?,
            }))
        },
    },
    Verb {
        group: "conflicts",
        verb: Some("show"),
        operands: "ID",
        options: &[switch("json", "for programs")],
        about: "show one conflict with the values that lost",
        more: "",
        parse: |given| {
            given.at_most(1)?;
            Ok(Word::Conflicts(Conflicts::Show {
                id: given.operand(0, "an ID", "a number of conflicts list")?,
                json: given.switch("json")?,
            }))
        },
    },
    Verb {
        group: "conflicts",
        verb: Some("restore"),
        operands: "ID",
        options: &[
            flag("column", "NAMES", "these columns only, with commas between"),
            switch(
                "as-new-row",
                "insert a row of its own instead of writing into the old one",
            ),
            flag(
                "key",
                "VALUES",
                "the new row's key, with commas between, where SQLite chooses none; bytes as x'00ff'",
            ),
        ],
        about: "write what lost back, as a change like one of the app's",
        more: "The row as it is now loses to what is written back, on every node. Nothing is written where another row\n\
               holds a UNIQUE value of it.",
        parse: |given| {
            given.at_most(1)?;
            let names = |flag| -> Result<Vec<String>, UsageError> {
                let text = given.text(flag)?.unwrap_or_default();
                let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
                Ok(parts.map(str::to_owned).collect())
            };
            let how = How {
                columns: names("column")?,
                as_new_row: given.switch("as-new-row")?,
                key: names("key")?,
            };
            if !how.key.is_empty() && !how.as_new_row {
                return Err(UsageError::Combination {
                    command: "conflicts restore",
                    rule: "--key goes with --as-new-row",
                });
            }
            Ok(Word::Conflicts(Conflicts::Restore {
                id: given.operand(0, "an ID", "a number of conflicts list")?,
                how,
            }))
        },
    },
    Verb {
        group: "conflicts",
        verb: Some("purge"),
        operands: "[ID...]",
        options: purge::OPTIONS,
        about: "clear conflicts out of the journal",
        more: "What is purged cannot be restored any more.",
        parse: |given| Ok(Word::Conflicts(Conflicts::Purge(Purge::parse(given)?))),
    },
];

pub(super) fn run(command: Conflicts, config: &Config) -> Result<Done, Fatal> {
    let done = match command {
        Conflicts::List {
            table,
            since,
            limit,
            json,
        } => {
            let since = since.map(|age| rfc3339(OffsetDateTime::now_utc() - age));
            let filter = Filter {
                table,
                since,
                limit,
            };
            list(config, &filter, json)
        }
        Conflicts::Show { id, json } => show(config, id, json),
        Conflicts::Restore { id, how } => return restore(config, id, &how),
        Conflicts::Purge(purge) => clear(config, &purge.which()),
    };
    done.map_err(|e| journal_fault(&e))
}

fn restore(config: &Config, id: i64, how: &How) -> Result<Done, Fatal> {
    let done = open_as_app(&config.db_path)
        .map_err(RestoreError::from)
        .and_then(|conn| conflicts::restore(&conn, id, how))
        .map_err(|e| match &e {
            RestoreError::Journal(journal) => journal_fault(journal),
            _ => Fatal::new(ExitCode::Failed, e),
        })?;
    let mut text = format!(
        "{} the row with key {} of table {}:\n",
        if done.is_new { "inserted" } else { "updated" },
        table::escaped(&done.key),
        table::escaped(&done.table)
    );
    for (column, value) in &done.values {
        text.push_str(&line(column, value, None));
    }
    if lock::holder(&config.db_path).is_ok_and(|h| h.is_none()) {
        text.push_str("no daemon runs here: other nodes get it when one does\n");
    }
    Ok(Done::ok(text))
}

fn clear(config: &Config, which: &Which) -> Result<Done, JournalError> {
    let conn = open_as_app(&config.db_path)?;
    let gone = in_transaction(&conn, || conflicts::purge(&conn, which))?;
    Ok(Done::ok(format!(
        "purged {} from the conflict journal",
        table::count(gone, "value")
    )))
}

fn list(config: &Config, filter: &Filter, json: bool) -> Result<Done, JournalError> {
    let conn = open_to_read(&config.db_path)?;
    let found = conflicts::list(&conn, filter)?;
    if json {
        let all: Vec<Json> = found.iter().map(head).collect();
        return Ok(Done::json(&all));
    }
    if found.is_empty() {
        return Ok(Done::ok("no conflicts"));
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|c| {
            vec![
                c.id.to_string(),
                table::moment(&c.time),
                c.table.clone(),
                c.key.clone(),
                c.columns().join(", "),
                c.reason.clone(),
                match c
                    .cells
                    .iter()
                    .filter(|cell| cell.restored.is_some())
                    .count()
                {
                    0 => String::new(),
                    n if n == c.cells.len() => "yes".to_owned(),
                    _ => "part".to_owned(),
                },
            ]
        })
        .collect();
    Ok(Done::ok(table::render(
        &["ID", "TIME", "TABLE", "KEY", "COLUMNS", "REASON", "BACK"],
        &rows,
        2,
    )))
}

fn show(config: &Config, id: i64, json: bool) -> Result<Done, JournalError> {
    let conn = open_to_read(&config.db_path)?;
    let c = conflicts::find(&conn, id)?.ok_or(JournalError::Unknown {
        kind: "conflict",
        id,
        remedy: "conflicts list shows their ids",
    })?;
    if json {
        let mut whole = head(&c);
        let values: serde_json::Map<String, Json> = c
            .cells
            .iter()
            .map(|cell| (cell.column.clone(), json_value(&cell.value)))
            .collect();
        if let Some(map) = whole.as_object_mut() {
            map.insert("values".to_owned(), Json::Object(values));
        }
        return Ok(Done::json(&whole));
    }
    let node = |id: &str| match id {
        "" => "not known".to_owned(),
        id => format!("node {id}"),
    };
    let mut text = format!(
        "conflict {}: {} of table {}, key {}\nnoticed {} at message {}\nlost: {}\nwon: {}\n\n",
        c.id,
        c.reason,
        table::escaped(&c.table),
        table::escaped(&c.key),
        c.time,
        c.position,
        node(&c.losing_node),
        node(&c.winning_node),
    );
    for cell in &c.cells {
        text.push_str(&line(&cell.column, &cell.value, cell.restored.as_deref()));
    }
    Ok(Done::ok(text))
}

/// A value that lost, as a line.
fn line(column: &str, value: &OwnedValue, restored: Option<&str>) -> String {
    let value = table::escaped(&sql_literal(&value.as_value()));
    let restored = restored.map_or(String::new(), |time| format!("   (restored {time})"));
    format!("  {} = {value}{restored}\n", table::escaped(column))
}

fn head(c: &Conflict) -> Json {
    json!({
        "id": c.id, "time": c.time, "table": c.table, "key": c.key, "columns": c.columns(), "reason": c.reason,
        "losing_node": c.losing_node, "winning_node": c.winning_node, "position": c.position, "restored": c.is_restored(),
    })
}

/// A value as JSON; what JSON has no form for is an object that names its kind, bytes in hexadecimal.
fn json_value(value: &OwnedValue) -> Json {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match value.as_value() {
        Value::Null => Json::Null,
        Value::Integer(i) => json!(i),
        Value::Real(r) if r.is_finite() => json!(r),
        Value::Real(r) => json!({ "real": r.to_string() }),
        Value::Text(t) => match std::str::from_utf8(t) {
            Ok(text) => json!(text),
            Err(_) => json!({ "text": hex(t) }),
        },
        Value::Blob(b) => json!({ "blob": hex(b) }),
    }
}
