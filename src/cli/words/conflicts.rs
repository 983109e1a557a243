//! `harmonylite conflicts ...`: what lost to another write.

use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Done, Verb, Word};
use crate::change::literal::sql_literal;
use crate::change::value::{OwnedValue, Value};
use crate::cli::commands::journal_fault;
use crate::cli::flags::{flag, switch};
use crate::cli::table;
use crate::config::Config;
use crate::engine::Fatal;
use crate::journals::conflicts::{self, Conflict, Filter};
use crate::journals::{JournalError, open_to_read};

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
];

pub(super) fn run(command: Conflicts, config: &Config) -> Result<Done, Fatal> {
    let done = match command {
        Conflicts::List {
            table,
            since,
            limit,
            json,
        } => {
            let since = since.map(|age| {
                (OffsetDateTime::now_utc() - age)
                    .format(&Rfc3339)
                    .unwrap_or_default()
            });
            let filter = Filter {
                table,
                since,
                limit,
            };
            list(config, &filter, json)
        }
        Conflicts::Show { id, json } => show(config, id, json),
    };
    done.map_err(|e| journal_fault(&e))
}

fn list(config: &Config, filter: &Filter, json: bool) -> Result<Done, JournalError> {
    let conn = open_to_read(&config.db_path)?;
    let found = conflicts::list(&conn, filter)?;
    if json {
        let all: Vec<Json> = found.iter().map(|c| head(c, &columns(c))).collect();
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
                c.time.chars().take(19).collect(),
                c.table.clone(),
                c.key.clone(),
                columns(c).join(", "),
                c.reason.clone(),
            ]
        })
        .collect();
    Ok(Done::ok(table::render(
        &["ID", "TIME", "TABLE", "KEY", "COLUMNS", "REASON"],
        &rows,
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
        let mut whole = head(&c, &columns(&c));
        let values: serde_json::Map<String, Json> = c
            .cells
            .iter()
            .map(|(name, value)| (name.clone(), json_value(value)))
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
    for (name, value) in &c.cells {
        let value = table::escaped(&sql_literal(&value.as_value()));
        text.push_str(&format!("  {} = {value}\n", table::escaped(name)));
    }
    Ok(Done::ok(text))
}

fn columns(c: &Conflict) -> Vec<String> {
    c.cells.iter().map(|(name, _)| name.clone()).collect()
}

fn head(c: &Conflict, columns: &[String]) -> Json {
    json!({
        "id": c.id, "time": c.time, "table": c.table, "key": c.key, "columns": columns, "reason": c.reason,
        "losing_node": c.losing_node, "winning_node": c.winning_node, "position": c.position,
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
