//! What one step of a comparison does with the snapshot. Plain synchronous code; lists go out in pages that fit a message.

use std::collections::HashSet;
use std::time::Duration;

use super::comparison::{Comparison, failed};
use super::digest::{self, Reading, RowHash, ScanError, bucket_of, row_hash};
use super::pages::{page_of, push_key, take_key};
use super::snapshot::Snapshot;
use super::values;
use crate::capture::CapturedTable;
use crate::change::operation::ChangeKind;
use crate::change::value::Value;
use crate::changelog::marks::Marks;
use crate::changelog::reduce::{log_key, log_row, read_log_sql};
use crate::peers::protocol::{Command, Outcome, TableFacts};
use crate::replica::resend::RowsOf;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::introspect::read_schema;

/// Rows with pending changes that one node may have, and that all nodes may have together: more than a busy app makes in seconds.
pub const MOST_PENDING: usize = 100_000;

/// Bytes of the list of rows of one question.
pub const MOST_LISTED: usize = 32 << 20;

/// Rows that are sent again at once.
pub const MOST_RESENT: usize = 100_000;

/// How often a node looks whether what it sent again has come back.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a row hash as it travels.
pub const HASH_BYTES: usize = 16;

/// Writes to the live database, which a snapshot cannot.
pub trait Resender: Send {
    /// Logs these rows whole, so that they are sent again.
    ///
    /// # Errors
    /// Why not, in one sentence.
    fn resend(&self, rows: &[RowsOf]) -> Result<Marks, String>;

    /// Whether all up to the marks has come back from the stream.
    ///
    /// # Errors
    /// Why that cannot be told.
    fn is_back(&self, marks: &mut Marks) -> Result<bool, String>;
}

/// Examines a snapshot.
pub struct Examiner {
    snapshot: Option<Snapshot>,
    /// GLOB of the tables that are compared, in lower case.
    tables: Option<String>,
    page: usize,
    resender: Box<dyn Resender>,
    apart: HashSet<RowHash>,
    pending: Vec<u8>,
    listed: Vec<u8>,
    gathered: Vec<RowsOf>,
}

impl Examiner {
    /// Without a snapshot yet.
    pub fn new(tables: Option<String>, page: usize, resender: Box<dyn Resender>) -> Self {
        Self {
            snapshot: None,
            tables: tables.map(|t| t.to_ascii_lowercase()),
            page,
            resender,
            apart: HashSet::new(),
            pending: Vec::new(),
            listed: Vec::new(),
            gathered: Vec::new(),
        }
    }

    /// The snapshot is there.
    pub fn hold(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Does one step.
    pub fn examine(&mut self, command: Command, comparison: &Comparison) -> Outcome {
        let done = match command {
            Command::Reach => Err("the snapshot is there already".to_owned()),
            Command::Tables { from } => self.tables(from),
            Command::Pending { from } => self.pending(from),
            Command::SetApart { rows } => self.set_apart(&rows),
            Command::Digest { table, columns } => self.digest(&table, &columns, comparison),
            Command::Rows {
                table,
                columns,
                buckets,
                from,
            } => self.rows(&table, &columns, &buckets, from, comparison),
            Command::Gather { table, keys } => self.gather(table, &keys),
            Command::Resend => self.resend(comparison),
        };
        done.unwrap_or_else(failed)
    }

    fn snapshot(&self) -> Result<&Snapshot, String> {
        self.snapshot
            .as_ref()
            .ok_or_else(|| "there is no snapshot yet".to_owned())
    }

    fn is_wanted(&self, snapshot: &Snapshot, table: &str) -> Result<bool, SqliteError> {
        let Some(glob) = &self.tables else {
            return Ok(true);
        };
        snapshot
            .conn
            .prepare_cached("SELECT ?1 GLOB ?2")
            .and_then(|mut s| s.query_row([&table.to_ascii_lowercase(), glob], |r| r.get(0)))
            .doing("match a table's name")
    }

    fn tables(&self, from: u64) -> Result<Outcome, String> {
        let snapshot = self.snapshot()?;
        let schema = read_schema(&snapshot.conn).map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        for table in &schema.tables {
            let captured = snapshot.captured.table(&table.name).is_some();
            all.push(TableFacts {
                name: table.name.clone(),
                left_out: (!captured)
                    .then(|| "[replication] include and exclude leave it out there".to_owned()),
                columns: table.columns.iter().map(|c| c.name.clone()).collect(),
                key: digest::key_text(table),
            });
        }
        all.extend(schema.refused.into_iter().map(|(name, reason)| TableFacts {
            name,
            left_out: Some(reason),
            columns: Vec::new(),
            key: Vec::new(),
        }));
        let (mut tables, mut bytes, mut more) = (Vec::new(), 0, false);
        for (index, facts) in (0_u64..).zip(all) {
            if index < from
                || !self
                    .is_wanted(snapshot, &facts.name)
                    .map_err(|e| e.to_string())?
            {
                // Tables that are not wanted keep their number, so that a page begins where the last one ended.
                continue;
            }
            let size: usize = facts
                .columns
                .iter()
                .chain(&facts.key)
                .chain([&facts.name])
                .chain(&facts.left_out)
                .map(|s| s.len() + 9)
                .sum();
            if bytes > 0 && bytes + size > self.page {
                more = true;
                break;
            }
            bytes += size;
            tables.push((index, facts));
        }
        // The place of the last one is told by how many stand before it.
        let next = tables.last().map_or(from, |(index, _)| index + 1);
        Ok(Outcome::Tables {
            tables: tables.into_iter().map(|(_, facts)| facts).collect(),
            next: more.then_some(next),
        })
    }

    fn pending(&mut self, from: u64) -> Result<Outcome, String> {
        if from == 0 {
            let found = self.read_pending()?;
            if found.len() > MOST_PENDING {
                return Err(format!(
                    "more than {MOST_PENDING} rows wait there to be published: verify again when they are (harmonylite wait)"
                ));
            }
            self.pending = found.iter().flat_map(|h| h.to_le_bytes()).collect();
        }
        let (rows, more) = page_of(&self.pending, from, self.page / HASH_BYTES * HASH_BYTES);
        Ok(Outcome::Pending { rows, more })
    }

    fn read_pending(&self) -> Result<HashSet<RowHash>, String> {
        let snapshot = self.snapshot()?;
        let mut found = HashSet::new();
        for table in snapshot
            .captured
            .tables
            .iter()
            .filter(|t| !t.log.is_empty())
        {
            if !self
                .is_wanted(snapshot, &table.table.name)
                .map_err(|e| e.to_string())?
            {
                continue;
            }
            read_log(snapshot, table, &mut found).map_err(|e| e.to_string())?;
            if found.len() > MOST_PENDING {
                break;
            }
        }
        Ok(found)
    }

    fn set_apart(&mut self, rows: &[u8]) -> Result<Outcome, String> {
        let (hashes, rest) = rows.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() {
            return Err("the rows to be set apart are cut off".to_owned());
        }
        self.apart
            .extend(hashes.iter().map(|h| RowHash::from_le_bytes(*h)));
        if self.apart.len() > MOST_PENDING {
            return Err(format!("more than {MOST_PENDING} rows are set apart"));
        }
        Ok(Outcome::SetApart)
    }

    fn digest(
        &self,
        table: &str,
        columns: &[String],
        comparison: &Comparison,
    ) -> Result<Outcome, String> {
        let snapshot = self.snapshot()?;
        let buckets = digest::digest(
            &self.reading(snapshot, comparison, &|| comparison.is_over()),
            &captured(snapshot, table)?.table,
            columns,
        )
        .map_err(|e| e.to_string())?;
        Ok(Outcome::Digest {
            rows: buckets.iter().map(|b| b.rows).sum(),
            buckets: digest::encode(&buckets),
        })
    }

    fn rows(
        &mut self,
        table: &str,
        columns: &[String],
        buckets: &[u64],
        from: u64,
        comparison: &Comparison,
    ) -> Result<Outcome, String> {
        if from == 0 {
            let wanted: HashSet<usize> = buckets
                .iter()
                .filter_map(|b| usize::try_from(*b).ok())
                .collect();
            let snapshot = self.snapshot()?;
            let mut listed = Vec::new();
            digest::scan(
                &self.reading(snapshot, comparison, &|| comparison.is_over()),
                &captured(snapshot, table)?.table,
                columns,
                |row| {
                    if wanted.contains(&bucket_of(row.hash)) {
                        listed.extend_from_slice(&row.hash.to_le_bytes());
                        listed.extend_from_slice(&row.digest.to_le_bytes());
                        push_key(&mut listed, &values::encode(row.key.iter().copied()));
                        if listed.len() > MOST_LISTED {
                            return Err(ScanError::TooMany {
                                table: table.to_owned(),
                            });
                        }
                    }
                    Ok(())
                },
            )
            .map_err(|e| e.to_string())?;
            self.listed = listed;
        }
        let (list, more) = page_of(&self.listed, from, self.page);
        if !more {
            self.listed = Vec::new();
        }
        Ok(Outcome::Rows { list, more })
    }

    fn gather(&mut self, table: String, keys: &[u8]) -> Result<Outcome, String> {
        let cut = || "the keys of the rows to be sent again are cut off".to_owned();
        let mut rest = keys;
        let mut decoded = Vec::new();
        while !rest.is_empty() {
            let key = take_key(&mut rest).ok_or_else(cut)?;
            decoded.push(values::decode(key).ok_or_else(cut)?);
        }
        let all: usize = self.gathered.iter().map(|(_, keys)| keys.len()).sum();
        if all + decoded.len() > MOST_RESENT {
            return Err(format!("more than {MOST_RESENT} rows are to be sent again"));
        }
        self.gathered.push((table, decoded));
        Ok(Outcome::Gathered)
    }

    fn resend(&mut self, comparison: &Comparison) -> Result<Outcome, String> {
        let gathered = std::mem::take(&mut self.gathered);
        let mut marks = self.resender.resend(&gathered)?;
        while !self.resender.is_back(&mut marks)? {
            if comparison.is_over() {
                return Err(ScanError::Over.to_string());
            }
            std::thread::sleep(LOOK);
        }
        Ok(Outcome::Resent {
            rows: gathered.iter().map(|(_, keys)| keys.len() as u64).sum(),
        })
    }

    fn reading<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        comparison: &'a Comparison,
        over: &'a dyn Fn() -> bool,
    ) -> Reading<'a> {
        Reading {
            conn: &snapshot.conn,
            apart: &self.apart,
            progress: comparison.counter(),
            over,
        }
    }
}

fn captured<'a>(snapshot: &'a Snapshot, table: &str) -> Result<&'a CapturedTable, String> {
    snapshot
        .captured
        .table(table)
        .ok_or_else(|| format!("table \"{table}\" is not replicated there"))
}

/// The rows of one change log, whole or not, done with or to be forgotten: all that may differ from the fold.
fn read_log(
    snapshot: &Snapshot,
    table: &CapturedTable,
    found: &mut HashSet<RowHash>,
) -> Result<(), SqliteError> {
    let doing = || format!("read what is pending of table \"{}\"", table.table.name);
    let mut statement = snapshot
        .conn
        .prepare_cached(&read_log_sql(table))
        .doing_with(doing)?;
    let mut rows = statement.query([i64::MIN, i64::MAX]).doing_with(doing)?;
    while let Some(row) = rows.next().doing_with(doing)? {
        let done = log_row(row, table)
            .doing_with(doing)?
            .is_some_and(|change| change.kind == ChangeKind::Done);
        if done {
            continue;
        }
        let key = log_key(row, table).doing_with(doing)?;
        if !key.iter().any(Value::is_null) {
            found.insert(row_hash(&table.table, key.iter().copied()));
        }
        if found.len() > MOST_PENDING {
            break;
        }
    }
    Ok(())
}
