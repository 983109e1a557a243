//! Batches that were made under a key that a table here had before: which row they mean, and as what they are written under the key here.
//!
//! Invariants: a batch under a former key counts for every node alike, whatever key its own table has by now; only where the columns of both keys are in the batch and here. Where they are
//! not, nothing tells which row is meant, and the rows are passed over: the node that wrote them sends them again with its own change of the key.

use crate::change::table::{Table, TableKey, UniqueIndex};
use crate::codec::commit::TableDefinition;

/// The former key of a batch's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerKey {
    /// Positions of its columns among those of the table here.
    pub columns: Vec<usize>,
    /// Their positions in a whole row of the message, without what is not here.
    pub at: Vec<usize>,
}

/// A batch's definition under the key of the table here. `places`: where each of its columns is here; `index`: the UNIQUE index that a definition is of, if it is on plain columns.
/// `None`: not all columns of both keys are in the batch and here.
#[must_use]
pub fn under_key_here(
    table: &Table,
    definition: &TableDefinition,
    places: &[Option<usize>],
    index: &dyn Fn(&str) -> Option<UniqueIndex>,
) -> Option<(TableDefinition, FormerKey)> {
    let TableKey::Columns(key) = &table.key else {
        return None;
    };
    let place = |at: &u64| {
        Some((
            usize::try_from(*at).ok()?,
            (*places.get(usize::try_from(*at).ok()?)?)?,
        ))
    };
    let former: Vec<(usize, usize)> = definition.key.iter().map(place).collect::<Option<_>>()?;
    if former.is_empty() {
        return None;
    }
    let key: Vec<usize> = key.iter().map(|(c, _)| *c).collect();
    let now = key
        .iter()
        .map(|c| places.iter().position(|p| *p == Some(*c)).map(|i| i as u64))
        .collect::<Option<Vec<u64>>>()?;
    let columns: Vec<usize> = former.iter().map(|(_, c)| *c).collect();
    // Its UNIQUE index on what is the key here is no index, and its key is one where there is one on these columns.
    let mut uniques: Vec<String> = definition
        .uniques
        .iter()
        .filter(|u| !index(u).is_some_and(|i| is_on(&i, &key)))
        .cloned()
        .collect();
    let as_index = table
        .uniques
        .iter()
        .filter(|u| u.is_plain() && is_on(u, &columns));
    uniques.extend(as_index.map(UniqueIndex::definition));
    uniques.sort_unstable();
    uniques.dedup();
    let kept_before = |at: usize| places.iter().take(at).flatten().count();
    let at = former.iter().map(|(at, _)| kept_before(*at)).collect();
    let definition = TableDefinition {
        key: now,
        uniques,
        ..definition.clone()
    };
    Some((definition, FormerKey { columns, at }))
}

fn is_on(index: &UniqueIndex, columns: &[usize]) -> bool {
    let mut on: Vec<usize> = index.terms.iter().filter_map(|t| t.column).collect();
    let mut wanted = columns.to_vec();
    on.sort_unstable();
    wanted.sort_unstable();
    on == wanted
}
