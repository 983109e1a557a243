//! Batches that end before the end of the change log: points are noted at random moments, and goals are small.

use std::collections::{HashMap, HashSet};

use harmonylite::changelog::commit_points::CommitPoint;
use rusqlite::Connection;

use crate::Out;
use crate::model::{Val, show};
use crate::node::val;
use crate::rng::Rng;
use crate::schema::TableSpec;
use crate::world::World;

impl World {
    /// After a commit of a node's application: now and then a point is noted.
    pub fn note_point(&mut self, n: usize) -> Out<()> {
        let node = &mut self.nodes[n];
        let (Some(replica), Some(reader)) = (&node.replica, &node.reader) else {
            return Ok(());
        };
        let noted = self.cuts.as_mut().is_some_and(|r| r.chance(900));
        if noted
            && let Some(point) =
                CommitPoint::now(reader, replica.captured()).map_err(|e| e.to_string())?
        {
            node.cutter.points().note(point);
            self.count("commit point noted");
        }
        Ok(())
    }

    /// The next scan of this node takes about so many rows, if it can.
    pub fn set_goal(&mut self, n: usize, cuts: bool) {
        let goal = match &mut self.cuts {
            Some(r) if cuts => *r.pick(&[1, 1, 1, 2, 3, 5, 20]),
            _ => u64::MAX,
        };
        self.nodes[n].cutter.set_goal(goal);
    }
}

/// A batch may end at a point only if no row that it carries is changed again behind: it has its value of now. `from`: what was scanned before.
pub fn check(
    reader: &Connection,
    specs: &[TableSpec],
    from: &HashMap<&'static str, i64>,
    point: &CommitPoint,
) -> Out<()> {
    for spec in specs {
        let keys: Vec<String> = spec
            .key_names()
            .iter()
            .map(|k| format!("val_{k}"))
            .collect();
        let mut stmt = reader
            .prepare_cached(&format!(
                "SELECT id, {} FROM __harmonylite__{}_change_log WHERE id > ?1 AND type <> 3",
                keys.join(", "),
                spec.name
            ))
            .map_err(|e| e.to_string())?;
        let (mut up_to, mut behind) = (HashSet::new(), HashSet::new());
        let from = from.get(spec.name).copied().unwrap_or(0);
        let mut rows = stmt.query([from]).map_err(|e| e.to_string())?;
        while let Some(row) = rows.next().map_err(|e| e.to_string())? {
            let key: Vec<Val> = (1..=keys.len())
                .map(|i| row.get_ref(i).map(val))
                .collect::<Result<_, _>>()
                .map_err(|e| e.to_string())?;
            let id: i64 = row.get(0).map_err(|e| e.to_string())?;
            let side = if id <= point.id_of(spec.name) {
                &mut up_to
            } else {
                &mut behind
            };
            side.insert(spec.normal(&key));
        }
        if let Some(key) = up_to.intersection(&behind).next() {
            return Err(format!(
                "a batch ends where a row that it carries is changed again: table {}, key {}",
                spec.name,
                show(key)
            ));
        }
    }
    Ok(())
}

/// Whether a seed cuts its batches: what else it does is the same.
pub fn of(seed: u64) -> Option<Rng> {
    let mut r = Rng::of(seed, 5);
    r.chance(500).then_some(r)
}

/// The ids of a point, by table.
pub fn ids(specs: &[TableSpec], point: &CommitPoint) -> HashMap<&'static str, i64> {
    let ids = specs.iter().map(|s| (s.name, point.id_of(s.name)));
    ids.collect()
}
