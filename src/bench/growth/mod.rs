//! `harmonylite bench growth`: how the rate from end to end changes with nodes, shards, row width, tables, the database's size and the backlog.
//!
//! Each point is a cluster of its own that is measured for some seconds, several times; the nodes' tables are compared before its figures count.

mod curve;
mod lines;
mod page;
mod points;

use serde_json::{Value, json};

use super::Bench;
use super::error::Done;
use super::machine::{load, machine, now, versions};
use super::{Options, known};
use crate::runtime::Shutdown;
use curve::Curve;
use points::Measure;

/// One of the series.
struct Study {
    name: &'static str,
    /// Of the file.
    file: &'static str,
    /// What grows, for the chart's axis and the sentence.
    x: &'static str,
    /// How it is measured.
    how: &'static str,
    /// Its points: what grows, and how that is measured.
    points: fn(&Options) -> Vec<(u64, Measure)>,
}

/// All series, in the order in which they run.
const STUDIES: [Study; 6] = [
    Study {
        name: "nodes",
        file: "nodes.svg",
        x: "nodes",
        how: "Every node on this one machine: what is measured is the machine, shared by more and more daemons that all apply all rows.",
        points: |_| (2..=5).map(|n| (n, Measure::nodes(n))).collect(),
    },
    Study {
        name: "shards",
        file: "shards.svg",
        x: "shards",
        how: "Eight tables, written in turn, so that every shard has rows to carry; one broker.",
        points: |_| [1, 2, 4, 8].map(|n| (n, Measure::shards(n))).into(),
    },
    Study {
        name: "row width",
        file: "row-width.svg",
        x: "bytes a row",
        how: "One column of text of this width, which compresses as random hexadecimal digits do.",
        points: |_| {
            [16, 100, 1_000, 10_000]
                .map(|n| (n, Measure::width(n)))
                .into()
        },
    },
    Study {
        name: "tables",
        file: "tables.svg",
        x: "tables",
        how: "Each transaction writes to one table, the next transaction to the next one.",
        points: |_| [1, 10, 100, 1_000].map(|n| (n, Measure::tables(n))).into(),
    },
    Study {
        name: "database size",
        file: "database-size.svg",
        x: "MB of database",
        how: "Updates of random rows of a table of this size. Snapshots are off, so that founding does not copy it.",
        points: |options| {
            let sizes = parts(options.database_mb, &[64, 16, 4, 1]);
            sizes.map(|n| (n, Measure::database(n))).collect()
        },
    },
    Study {
        name: "backlog",
        file: "backlog.svg",
        x: "rows of backlog",
        how: "A node that was away has this many rows to catch up with; from the start of its process until it has all.",
        points: |options| {
            let most = u64::try_from(options.rows).unwrap_or(1);
            let sizes = parts(most, &[100, 10, 1]);
            sizes.map(|n| (n, Measure::backlog(n))).collect()
        },
    },
];

/// A size divided by each of these; at least one, and none twice.
fn parts(most: u64, by: &[u64]) -> impl Iterator<Item = u64> + use<> {
    let mut sizes: Vec<u64> = by.iter().map(|by| (most / by).max(1)).collect();
    sizes.dedup();
    sizes.into_iter()
}

/// What was found.
pub struct Growth {
    curves: Vec<Curve>,
    json: Value,
}

/// Measures all series, or those whose name has one of the words.
///
/// # Errors
/// What kept it from it; what was started has ended by then.
pub fn run(options: Options, stop: Shutdown) -> Done<Growth> {
    known(&options.only, &STUDIES.map(|s| s.name))?;
    let bench = Bench::unchecked(options, stop);
    let curves = curves(&bench);
    bench.progress.done();
    let (curves, server, machine) = curves?;
    let json = json!({
        "at": now(),
        "machine": machine,
        "load_after": load(),
        "versions": versions(&server),
        "options": {
            "rounds": bench.options.rounds,
            "duration_seconds": bench.options.duration.as_secs_f64(),
            "rows": bench.options.rows,
            "database_mb": bench.options.database_mb,
        },
        "series": curves.iter().map(Curve::json).collect::<Vec<_>>(),
    });
    Ok(Growth { curves, json })
}

fn curves(bench: &Bench) -> Done<(Vec<Curve>, String, Value)> {
    let folder = bench.options.folder.clone();
    let machine = machine(&folder.unwrap_or_else(std::env::temp_dir));
    let (mut curves, mut server) = (Vec::new(), String::new());
    for study in &STUDIES {
        if !bench.wants(study.name) {
            continue;
        }
        let mut curve = Curve::new(study.name, study.file, study.x, study.how);
        for (at, measure) in (study.points)(&bench.options) {
            let what = format!("{} {}", curve::count(at), study.x);
            let (rates, version) = measure.run(bench, &what)?;
            curve.add(at, rates);
            server = version;
        }
        curves.push(curve);
    }
    Ok((curves, server, machine))
}

impl Growth {
    /// The figures.
    #[must_use]
    pub const fn json(&self) -> &Value {
        &self.json
    }

    /// The charts with their files' names.
    #[must_use]
    pub fn charts(&self) -> Vec<(&'static str, String)> {
        let charts = self.curves.iter();
        charts.map(|c| (c.file, lines::chart(c))).collect()
    }

    /// The page that shows them.
    #[must_use]
    pub fn page(&self) -> String {
        page::markdown(&self.curves, &self.json)
    }

    /// One sentence a series.
    #[must_use]
    pub fn text(&self) -> String {
        let sentences = self.curves.iter().map(Curve::sentence);
        sentences.map(|s| format!("{s}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_and_none_is_nothing_or_there_twice() {
        let of = |most| parts(most, &[64, 16, 4, 1]).collect::<Vec<_>>();
        assert_eq!(of(1024), [16, 64, 256, 1024]);
        assert_eq!(of(8), [1, 2, 8]);
        assert_eq!(of(1), [1]);
    }
}
