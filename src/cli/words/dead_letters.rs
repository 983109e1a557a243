//! `harmonylite dead-letters ...`: messages that no node can read.

use serde_json::{Value as Json, json};

use super::purge::{self, Purge};
use super::{Done, Verb, Word};
use crate::cli::commands::journal_fault;
use crate::cli::exit::ExitCode;
use crate::cli::flags::{flag, switch};
use crate::cli::table;
use crate::codec::commit::CommitRecord;
use crate::config::Config;
use crate::engine::Fatal;
use crate::journals::conflicts::RestoreError;
use crate::journals::dead_letters::{self, DeadLetter, Reading, RetryError, read_again};
use crate::journals::{JournalError, in_transaction, open_as_app, open_to_read};

/// What can be asked of the dead-letter journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetters {
    /// Show what is in it.
    List {
        /// At most so many.
        limit: usize,
        /// As JSON.
        json: bool,
    },
    /// Show one with its bytes.
    Show {
        /// Its number.
        id: i64,
        /// As JSON.
        json: bool,
    },
    /// Write its rows, if it can be read now.
    Retry {
        /// Its number.
        id: i64,
    },
    /// Clear some away.
    Purge(Purge),
}

/// How many a list shows if nothing else is said.
const LIMIT: usize = 100;
/// Bytes of a message that `show` dumps: a header and the first names in it.
const DUMPED: usize = 256;
const AN_ID: &str = "a number of dead-letters list";

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "dead-letters",
        verb: Some("list"),
        operands: "",
        options: &[
            flag("limit", "N", "at most so many (100)"),
            switch("json", "for programs"),
        ],
        about: "show the messages that no node can read, the newest first",
        more: "",
        parse: |given| {
            given.no_operands()?;
            Ok(Word::DeadLetters(DeadLetters::List {
                limit: given.parsed("limit", "a number")?.unwrap_or(LIMIT),
                json: given.switch("json")?,
            }))
        },
    },
    Verb {
        group: "dead-letters",
        verb: Some("show"),
        operands: "ID",
        options: &[switch("json", "for programs, with all its bytes")],
        about: "show one of them: what it is, and its first bytes",
        more: "",
        parse: |given| {
            given.at_most(1)?;
            Ok(Word::DeadLetters(DeadLetters::Show {
                id: given.operand(0, "an ID", AN_ID)?,
                json: given.switch("json")?,
            }))
        },
    },
    Verb {
        group: "dead-letters",
        verb: Some("retry"),
        operands: "ID",
        options: &[],
        about: "write its rows as a change of this node, if it can be read now",
        more: "Every node gets them at the same place of the stream, so all stay equal. Later writes to the same rows lose.",
        parse: |given| {
            given.at_most(1)?;
            Ok(Word::DeadLetters(DeadLetters::Retry {
                id: given.operand(0, "an ID", AN_ID)?,
            }))
        },
    },
    Verb {
        group: "dead-letters",
        verb: Some("purge"),
        operands: "[ID...]",
        options: purge::OPTIONS,
        about: "clear dead letters out of the journal",
        more: "",
        parse: |given| Ok(Word::DeadLetters(DeadLetters::Purge(Purge::parse(given)?))),
    },
];

pub(super) fn run(command: DeadLetters, config: &Config) -> Result<Done, Fatal> {
    let done = match command {
        DeadLetters::List { limit, json } => list(config, limit, json),
        DeadLetters::Show { id, json } => show(config, id, json),
        DeadLetters::Retry { id } => return retry(config, id),
        DeadLetters::Purge(purge) => clear(config, purge),
    };
    done.map_err(|e| journal_fault(&e))
}

fn list(config: &Config, limit: usize, json: bool) -> Result<Done, JournalError> {
    let found = dead_letters::list(&open_to_read(&config.db_path)?, limit)?;
    if json {
        let all: Vec<Json> = found.iter().map(head).collect();
        return Ok(Done::json(&all));
    }
    if found.is_empty() {
        return Ok(Done::ok("no dead letters"));
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|l| {
            vec![
                l.id.to_string(),
                table::moment(&l.time),
                l.shard.to_string(),
                l.sequence.to_string(),
                l.length.to_string(),
                l.reason.clone(),
            ]
        })
        .collect();
    Ok(Done::ok(table::render(
        &["ID", "TIME", "SHARD", "MESSAGE", "BYTES", "REASON"],
        &rows,
        5,
    )))
}

fn show(config: &Config, id: i64, json: bool) -> Result<Done, JournalError> {
    let (letter, bytes) = dead_letters::find(&open_to_read(&config.db_path)?, id)?;
    let (record, now) = match read_again(&letter, &bytes) {
        Reading::Batch(batch) => (
            Some(batch.record),
            "can be read: dead-letters retry writes its rows".to_owned(),
        ),
        Reading::Record(record, why) => (Some(*record), why),
        Reading::Nothing(why) => (None, why),
    };
    if json {
        let mut whole = head(&letter);
        if let Some(map) = whole.as_object_mut() {
            map.insert("now".to_owned(), json!(now));
            map.insert(
                "batch".to_owned(),
                record.as_ref().map_or(Json::Null, batch),
            );
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            map.insert("bytes".to_owned(), json!(hex));
        }
        return Ok(Done::json(&whole));
    }
    let mut text = format!(
        "dead letter {}: message {} of shard {}, {} bytes, since {}\nreason: {}\nnow: {}\n",
        letter.id,
        letter.sequence,
        letter.shard,
        letter.length,
        letter.time,
        table::escaped(&letter.reason),
        table::escaped(&now),
    );
    if let Some(record) = &record {
        let tables: Vec<&str> = record.tables.iter().map(|t| t.name.as_str()).collect();
        text.push_str(&format!(
            "batch {} of node {}, incarnation {}: {} row operations on {}\n",
            record.batch,
            record.node,
            record.incarnation,
            record.row_count,
            table::escaped(&tables.join(", "))
        ));
    }
    text.push('\n');
    text.push_str(&dump(bytes.get(..DUMPED).unwrap_or(&bytes)));
    if bytes.len() > DUMPED {
        text.push_str(&format!(
            "... {} more; --json shows all\n",
            bytes.len() - DUMPED
        ));
    }
    Ok(Done::ok(text))
}

fn retry(config: &Config, id: i64) -> Result<Done, Fatal> {
    let done = open_as_app(&config.db_path)
        .map_err(RetryError::from)
        .and_then(|conn| dead_letters::retry(&conn, id))
        .map_err(|e| match &e {
            RetryError::Row(RestoreError::Journal(journal)) => journal_fault(journal),
            _ => Fatal::new(ExitCode::Failed, e),
        })?;
    Ok(Done::ok(format!(
        "wrote {} as a change of this node; {} of rows that are not here came to nothing; dead letter {id} is done with",
        table::count(done.rows, "row"),
        table::count(done.absent, "change")
    )))
}

fn clear(config: &Config, purge: Purge) -> Result<Done, JournalError> {
    let conn = open_as_app(&config.db_path)?;
    let which = purge.which();
    let gone = in_transaction(&conn, || dead_letters::purge(&conn, &which))?;
    Ok(Done::ok(format!(
        "purged {}",
        table::count(gone, "dead letter")
    )))
}

fn head(l: &DeadLetter) -> Json {
    json!({
        "id": l.id, "time": l.time, "shard": l.shard, "sequence": l.sequence, "length": l.length, "reason": l.reason,
    })
}

fn batch(record: &CommitRecord) -> Json {
    let tables: Vec<&str> = record.tables.iter().map(|t| t.name.as_str()).collect();
    json!({
        "node": record.node.to_string(), "incarnation": record.incarnation.to_string(), "batch": record.batch.0,
        "rows": record.row_count, "tables": tables,
    })
}

/// Sixteen bytes a line, with the letters that they are.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        let letters: String = line
            .iter()
            .map(|b| {
                if b.is_ascii_graphic() || *b == b' ' {
                    char::from(*b)
                } else {
                    '.'
                }
            })
            .collect();
        text.push_str(&format!(
            "  {:06x}  {:<47}  {letters}\n",
            n * 16,
            hex.join(" ")
        ));
    }
    text
}
