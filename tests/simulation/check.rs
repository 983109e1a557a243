//! What must be true after a step, and at rest.

use crate::Out;
use crate::model::{State, show};
use crate::node::{Node, Pending, View};
use crate::schema::TableSpec;

/// A node shows the fold of the stream up to its position with its own pending changes on top, and nothing else.
pub fn is_fold_and_pending(
    specs: &[TableSpec],
    fold: &State,
    view: &View,
    tidying: bool,
    entered: bool,
) -> Out<()> {
    for (t, spec) in specs.iter().enumerate() {
        let (local, fold, pending) = (&view.state.tables[t], &fold.tables[t], &view.pending[t]);
        let keys = local.keys().chain(fold.keys()).chain(pending.keys());
        for key in keys {
            let (l, f, p) = (local.get(key), fold.get(key), pending.get(key).map(|p| p.0));
            let good = match p {
                None => l == f,
                // What was given up to a row that displaced it stays in the log until the scan finds it gone.
                // One that is gone is sent as a delete: its own delete may have left the log with a late batch of a former life.
                // An own delete that a new history does not know is entered in the log as a row that is gone.
                Some(Pending::Whole) => {
                    l.is_some() || f.is_none() || !spec.uniques.is_empty() || entered
                }
                Some(Pending::Delete) => l.is_none(),
                Some(Pending::Cells(mask)) => match (l, f) {
                    (Some(l), Some(f)) => {
                        let offset = usize::from(spec.key.is_empty());
                        l.iter().zip(f).enumerate().all(|(i, (a, b))| {
                            a == b || (i >= offset && mask >> (i - offset) & 1 == 1)
                        })
                    }
                    // Cells that the scan found without a row are taken out of the log by the next write.
                    (None, None) => tidying || !spec.uniques.is_empty(),
                    _ => false,
                },
            };
            if !good {
                return Err(format!(
                    "table {}, key {}: here {}, fold {}, pending {p:?}",
                    spec.name,
                    show(key),
                    l.map_or("none".into(), |r| show(r)),
                    f.map_or("none".into(), |r| show(r)),
                ));
            }
        }
    }
    Ok(())
}

/// What was pending before messages were applied and still is has kept its value.
pub fn pending_did_not_move(specs: &[TableSpec], before: &View, after: &View) -> Out<()> {
    for (t, spec) in specs.iter().enumerate() {
        for (key, (p, flies)) in &after.pending[t] {
            let (was, is) = (
                before.state.tables[t].get(key),
                after.state.tables[t].get(key),
            );
            let good = match p {
                Pending::Whole => was == is || (!spec.uniques.is_empty() && !flies),
                Pending::Delete => is.is_none(),
                // What was unsent and whole may have been given up, and a late batch of a former life may have brought an older row back.
                Pending::Cells(_)
                    if !spec.uniques.is_empty()
                        && matches!(before.pending[t].get(key), Some((Pending::Whole, false))) =>
                {
                    true
                }
                Pending::Cells(mask) => match (was, is) {
                    (Some(a), Some(b)) => {
                        let offset = usize::from(spec.key.is_empty());
                        (0..64)
                            .filter(|c| mask >> c & 1 == 1)
                            .all(|c| a[c + offset] == b[c + offset])
                    }
                    _ => true,
                },
            };
            if !good {
                return Err(format!(
                    "table {}, key {}: pending {p:?} was {} and is now {}",
                    spec.name,
                    show(key),
                    was.map_or("none".into(), |r| show(r)),
                    is.map_or("none".into(), |r| show(r)),
                ));
            }
        }
    }
    Ok(())
}

/// What a batch on its way carries stays visible until its echo. `own`: echoes were among what was applied; only what is on its way still is
/// looked at then.
pub fn in_flight_stayed(specs: &[TableSpec], before: &View, after: &View, own: bool) -> Out<()> {
    for (t, spec) in specs.iter().enumerate() {
        for (key, (p, flies)) in &before.pending[t] {
            let (was, is) = (
                before.state.tables[t].get(key),
                after.state.tables[t].get(key),
            );
            // A column has come, and the row is to be sent again with it: till then it gives in to others like any that is not sent.
            if after.pending[t].get(key) == Some(&(Pending::Whole, false)) {
                continue;
            }
            let left = after.pending[t].get(key).filter(|p| p.1).map(|p| p.0);
            let p = &match left {
                Some(left) if own => left,
                None if own => continue,
                _ => *p,
            };
            let good = !flies
                || was.is_none()
                || match p {
                    Pending::Whole => was == is,
                    Pending::Delete => true,
                    Pending::Cells(_) => is.is_some(),
                };
            // What of them changed and must not have, `pending_did_not_move` looks at.
            if !good {
                return Err(format!(
                    "table {}, key {}: in flight {p:?} was {} and is now {}",
                    spec.name,
                    show(key),
                    was.map_or("none".into(), |r| show(r)),
                    is.map_or("none".into(), |r| show(r)),
                ));
            }
        }
    }
    Ok(())
}

/// A restore shows nothing older of what is pending before and after it.
pub fn restored_rows_kept(specs: &[TableSpec], before: &View, after: &View) -> Out<()> {
    for (t, spec) in specs.iter().enumerate() {
        for (key, (p, _)) in &after.pending[t] {
            let Some((was_pending, _)) = before.pending[t].get(key) else {
                continue;
            };
            let (was, is) = (
                before.state.tables[t].get(key),
                after.state.tables[t].get(key),
            );
            let offset = usize::from(spec.key.is_empty());
            let same = |mask: u64| match (was, is) {
                (Some(a), Some(b)) => (0..64)
                    .filter(|c| mask >> c & 1 == 1 && c + offset < a.len())
                    .all(|c| a[c + offset] == b[c + offset]),
                _ => false,
            };
            let good = match (p, was_pending) {
                (Pending::Whole, _) => was == is,
                // It may be a row that has lost to one of ours.
                (Pending::Delete, _) => is.is_none(),
                (Pending::Cells(mask), _) => same(*mask),
            };
            if !good {
                return Err(format!(
                    "table {}, key {}: pending {p:?} was {} and is now {}",
                    spec.name,
                    show(key),
                    was.map_or("none".into(), |r| show(r)),
                    is.map_or("none".into(), |r| show(r)),
                ));
            }
        }
    }
    Ok(())
}

/// Two states are equal to the bit.
pub fn equal(specs: &[TableSpec], a: &State, b: &State) -> Out<()> {
    for (t, spec) in specs.iter().enumerate() {
        for key in a.tables[t].keys().chain(b.tables[t].keys()) {
            let (x, y) = (a.tables[t].get(key), b.tables[t].get(key));
            if x != y {
                return Err(format!(
                    "table {}, key {}: {} here, {} in the fold",
                    spec.name,
                    show(key),
                    x.map_or("none".into(), |r| show(r)),
                    y.map_or("none".into(), |r| show(r)),
                ));
            }
        }
    }
    Ok(())
}

/// Nothing of ours is left over: what change logs hold is marked as done.
pub fn nothing_left(node: &Node) -> Out<()> {
    let count = |sql: &str| -> Out<i64> {
        node.app
            .prepare_cached(sql)
            .and_then(|mut q| q.query_row([], |r| r.get(0)))
            .map_err(|e| format!("{sql}: {e}"))
    };
    let tables: Vec<String> = node
        .app
        .prepare_cached(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '__harmonylite__*'",
        )
        .and_then(|mut q| q.query_map([], |r| r.get(0))?.collect())
        .map_err(|e| e.to_string())?;
    for table in tables {
        // An upsert leaves its note; notes of earlier statements go with the next.
        let (most, which) = if table.ends_with("_change_log") {
            (0, " WHERE type <> 3")
        } else if table.ends_with("_notes") {
            (16, "")
        } else if table.ends_with("_former_values") {
            (0, "")
        } else {
            continue;
        };
        let n = count(&format!("SELECT count(*) FROM \"{table}\"{which}"))?;
        if n > most {
            return Err(format!("table {table} holds {n} rows"));
        }
    }
    if !node.sending.is_empty() {
        return Err(format!("{} batches are kept", node.sending.len()));
    }
    Ok(())
}
