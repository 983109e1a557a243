//! Change log → batch: in one read transaction the new change-log rows, reduced per key, then the present values of what is left.
//!
//! Invariants: log and values are of one snapshot, and where the batch ends before its end no row is concerned that was changed since ([`super::cut`]), so a batch is the difference
//! between two committed states and never half a transaction; deletes come first; what the batch covers it carries, and nothing else is pending on its account.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Statement};

use super::commit_points::CommitPoint;
use super::cut::Cutter;
use super::former_deletes::FormerDeletes;
use super::in_flight::InFlight;
use super::reduce::{Part, log_key, log_row, read_log_sql, reduce};
use crate::capture::{Captured, CapturedTable};
use crate::change::operation::{ChangeKind, Reduced};
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::change::value::Value;
use crate::codec::batch::{Batch, BatchWriter};
use crate::codec::commit::{CommitRecord, TableDefinition};
use crate::codec::covers::TableCovers;
use crate::planted::planted;
use crate::sqlite::connection::rollback;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;
use crate::state::{StateError, node};

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The schema is not the one that capture was made for: capture is to be made current first.
    #[error("the schema has changed")]
    SchemaChanged,
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The state tables cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The spool failed.
    #[error("could not put a large batch aside: {0}")]
    Spool(#[from] std::io::Error),
}

/// Whose batch it will be.
#[derive(Debug, Clone, Copy)]
pub struct Publisher {
    /// The node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The batch's number.
    pub batch: BatchNumber,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// The batch, if there is anything to send.
    pub batch: Option<Batch>,
    /// Rows that cannot be sent because a part of their key is NULL, by table.
    pub null_keys: HashMap<String, u64>,
    /// Change-log rows that were read.
    pub log_rows: u64,
    /// Where it has ended, if more is pending behind.
    pub cut: Option<CommitPoint>,
}

/// Scans, unless too many batches are in flight. `reader` must be outside of a transaction.
///
/// # Errors
/// See [`ScanError`]; the in-flight state is then as before.
pub fn scan(
    reader: &Connection,
    captured: &Arc<Captured>,
    in_flight: &mut InFlight,
    publisher: Publisher,
    writer: BatchWriter,
    cutter: &mut Cutter,
) -> Result<Scanned, ScanError> {
    if in_flight.is_full() {
        return Ok(Scanned::default());
    }
    // Those that are noted from now on may be of commits that the scan does not see.
    let noted = cutter.points().take();
    if let Err(e) = reader.execute_batch("BEGIN") {
        rollback(reader);
        return Err(e).doing("begin to read the change log")?;
    }
    let scanned = scan_snapshot(
        reader,
        captured,
        in_flight,
        publisher,
        writer,
        (cutter, noted),
    );
    // Nothing was written: whatever happened inside, the snapshot is let go of, and what was decided holds.
    if !planted!(SnapshotLeftOpen) || scanned.is_ok() {
        rollback(reader);
    }
    scanned
}

/// A table with new change-log rows: those of `(from, to]`.
pub(super) struct Range<'a> {
    pub table: &'a CapturedTable,
    pub from: i64,
    pub to: i64,
}

fn scan_snapshot(
    reader: &Connection,
    captured: &Arc<Captured>,
    in_flight: &mut InFlight,
    publisher: Publisher,
    mut writer: BatchWriter,
    (cutter, noted): (&mut Cutter, VecDeque<CommitPoint>),
) -> Result<Scanned, ScanError> {
    let Some(newest) = CommitPoint::in_snapshot(reader, captured)? else {
        return Err(ScanError::SchemaChanged);
    };
    let end = cutter.cut(reader, captured, in_flight, noted, newest)?;
    let ranges = new_rows(captured, in_flight, &end.point);
    if ranges.is_empty() {
        cutter.scanned(end, 0, 0);
        return Ok(Scanned::default());
    }
    let base = node::read(reader)?.map_or(Sequence(0), |n| n.position.folded);
    let mut out = Scanned {
        cut: end.more.then(|| end.point.clone()),
        ..Scanned::default()
    };
    let mut tables = Vec::new();
    let mut covers = Vec::new();
    let mut forgotten: Vec<(String, i64)> = Vec::new();
    // Behind the tables that the covers name, which are as many as there are ranges.
    let mut former = FormerDeletes::after(ranges.len());
    for range in &ranges {
        former.scan(reader, range, in_flight, &mut writer)?;
        let index = u32::try_from(tables.len()).unwrap_or(u32::MAX);
        let gone = scan_range(reader, range, index, in_flight, &mut writer, &mut out)?;
        let covered = cover(reader, range, index, in_flight, &gone, &mut out)?;
        tables.push(TableDefinition::of(&range.table.table));
        covers.push(covered);
        forgotten.extend(
            gone.into_iter()
                .map(|id| (range.table.table.name.clone(), id)),
        );
    }
    tables.extend(former.tables);
    let any = covers.iter().any(|c| !c.stamps.is_empty());
    if any {
        let record = CommitRecord {
            node: publisher.node,
            incarnation: publisher.incarnation,
            batch: publisher.batch,
            base,
            tables,
            rows: Vec::new(),
            covers: Vec::new(),
            sections: Vec::new(),
            row_count: writer.row_count(),
            scanned_at: now_micros(),
        };
        out.batch = Some(writer.finish(record, &covers)?);
        in_flight.batches.push_back(publisher.batch);
    }
    for range in &ranges {
        in_flight.set_watermark(
            &range.table.table.name,
            range.to,
            any.then_some(publisher.batch),
        );
    }
    in_flight.forgotten.append(&mut forgotten);
    let size = out.batch.as_ref();
    let size = size.map_or((0, 0), |b| (b.record.row_count, b.raw_bytes));
    cutter.scanned(end, size.0, size.1);
    Ok(out)
}

/// What is new in each table up to a point.
fn new_rows<'a>(captured: &'a Captured, in_flight: &InFlight, end: &CommitPoint) -> Vec<Range<'a>> {
    let range = |(place, table): (usize, &'a CapturedTable)| {
        let from = in_flight.watermark(&table.table.name);
        let to = end.id(place);
        (to > from).then_some(Range { table, from, to })
    };
    captured
        .tables
        .iter()
        .enumerate()
        .filter_map(range)
        .collect()
}

/// Writes the rows of one table; returns the ids of cell changes whose row is gone, which no batch carries.
fn scan_range(
    reader: &Connection,
    range: &Range<'_>,
    index: u32,
    in_flight: &InFlight,
    writer: &mut BatchWriter,
    out: &mut Scanned,
) -> Result<Vec<i64>, ScanError> {
    let table = range.table;
    let doing = || format!("read changed rows of table \"{}\"", table.table.name);
    let parts = Part::count((range.to - range.from).cast_unsigned());
    let mut gone = Vec::new();
    for part in (0..parts).map(|i| Part {
        index: i,
        of: parts,
    }) {
        let keys = reduce(reader, table, range.from, range.to, in_flight, part)?;
        let mut gone_keys = std::collections::HashSet::new();
        {
            let mut log = reader
                .prepare_cached(&read_log_sql(table))
                .doing_with(doing)?;
            let mut values = reader
                .prepare_cached(&row_sql::select_whole(&table.table))
                .doing_with(doing)?;
            let mut rows = log.query([range.from, range.to]).doing_with(doing)?;
            while let Some(row) = rows.next().doing_with(doing)? {
                let Some(change) = log_row(row, table).doing_with(doing)? else {
                    continue;
                };
                let key = log_key(row, table).doing_with(doing)?;
                let hash = super::reduce::hash_key(table, key.iter().copied());
                // The last row of its key speaks for all of them.
                let Some(state) = keys.get(&hash).filter(|s| s.last == change.id) else {
                    continue;
                };
                if key.iter().any(Value::is_null) {
                    // One under a former key is sent as such.
                    if change.kind == ChangeKind::Delete && !table.former_logged.is_empty() {
                        continue;
                    }
                    *out.null_keys.entry(table.table.name.clone()).or_default() += 1;
                    continue;
                }
                if !write_row(table, index, state.reduced, &key, &mut values, writer)?
                    && !planted!(CellsWithoutRow)
                {
                    gone_keys.insert(hash);
                }
            }
        }
        if !gone_keys.is_empty() {
            let mut log = reader
                .prepare_cached(&read_log_sql(table))
                .doing_with(doing)?;
            let mut rows = log.query([range.from, range.to]).doing_with(doing)?;
            while let Some(row) = rows.next().doing_with(doing)? {
                let Some(change) = log_row(row, table).doing_with(doing)? else {
                    continue;
                };
                let carried = change.kind == ChangeKind::Done
                    || in_flight.is_ahead(&table.table.name, change.id, change.stamp);
                if !carried
                    && gone_keys.contains(&super::reduce::hash_key(
                        table,
                        log_key(row, table).doing_with(doing)?,
                    ))
                {
                    gone.push(change.id);
                }
            }
        }
    }
    gone.sort_unstable();
    Ok(gone)
}

/// Writes one row's operation; `false` where cells have no row to be of.
fn write_row(
    table: &CapturedTable,
    index: u32,
    reduced: Reduced,
    key: &[Value<'_>],
    values: &mut Statement<'_>,
    writer: &mut BatchWriter,
) -> Result<bool, ScanError> {
    let doing = || format!("read a row of table \"{}\"", table.table.name);
    if reduced == Reduced::Delete {
        writer.delete(&table.table.name, index, key)?;
        return Ok(true);
    }
    for (i, v) in key.iter().enumerate() {
        values.raw_bind_parameter(i + 1, *v).doing_with(doing)?;
    }
    let mut rows = values.raw_query();
    let Some(row) = rows.next().doing_with(doing)? else {
        // Logged whole and gone now: displaced by what came in, or given up. That is a delete, on all nodes.
        if reduced == Reduced::Whole && !planted!(GoneIsNothing) {
            writer.delete(&table.table.name, index, key)?;
        }
        return Ok(reduced == Reduced::Whole);
    };
    match reduced {
        Reduced::Cells(mask) => {
            if mask.is_empty() {
                // Triggers of this generation see every column: an update that changed none has nothing to say.
                return Ok(true);
            }
            // Values of a whole row begin with the rowid, where that is the key.
            let first = table.table.key_len()
                * usize::from(matches!(
                    table.table.key,
                    crate::change::table::TableKey::Rowid(_)
                ));
            let cells: Vec<Value<'_>> = mask
                .columns()
                .map(|c| row.get_ref(first + c).map(from_sql))
                .collect::<Result<_, _>>()
                .doing_with(doing)?;
            writer.cells(&table.table.name, index, mask, key, &cells)?;
        }
        Reduced::Whole | Reduced::Delete => {
            let count = row.as_ref().column_count();
            let whole: smallvec::SmallVec<[Value<'_>; 16]> = (0..count)
                .map(|c| row.get_ref(c).map(from_sql))
                .collect::<Result<_, _>>()
                .doing_with(doing)?;
            writer.whole(&table.table.name, index, &whole)?;
        }
    }
    Ok(true)
}

/// The covered rows: all of the range but those that are done, carried by others, or forgotten.
fn cover(
    reader: &Connection,
    range: &Range<'_>,
    index: u32,
    in_flight: &InFlight,
    gone: &[i64],
    out: &mut Scanned,
) -> Result<TableCovers, SqliteError> {
    let table = range.table;
    let doing = || format!("read the change log of table \"{}\"", table.table.name);
    let mut covers = TableCovers {
        table: index,
        ..TableCovers::default()
    };
    let mut stmt = reader
        .prepare_cached(&format!(
            "SELECT id, type, stamp FROM {} WHERE id > ?1 AND id <= ?2 ORDER BY id",
            table.log
        ))
        .doing_with(doing)?;
    let mut rows = stmt.query([range.from, range.to]).doing_with(doing)?;
    while let Some(row) = rows.next().doing_with(doing)? {
        let id: i64 = row.get(0).doing_with(doing)?;
        let kind: i64 = row.get(1).doing_with(doing)?;
        let stamp = row.get::<_, i64>(2).doing_with(doing)? as u32;
        out.log_rows += 1;
        if kind != ChangeKind::Done.code()
            && !in_flight.is_ahead(&table.table.name, id, stamp)
            && gone.binary_search(&id).is_err()
        {
            covers.push(id, stamp);
        }
    }
    Ok(covers)
}

fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
