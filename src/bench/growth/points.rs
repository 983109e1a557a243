//! One point of a series: a cluster of a given shape, and rows a second on it.

use std::time::Instant;

use crate::bench::Bench;
use crate::bench::app::{Amount, App};
use crate::bench::catch_up;
use crate::bench::cluster::{Cluster, Shape};
use crate::bench::error::Done;
use crate::bench::series::Series;
use crate::bench::snapshot::fill;

/// Rows a transaction.
const SIZE: i64 = 100;

/// Bytes of a row where its width is not what grows.
const WIDTH: u64 = 100;

/// Tables where several shards are to have rows.
const SPREAD: u64 = 8;

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Inserts of this width into this many tables in turn.
    Insert { tables: u64, width: u64 },
    /// Updates of random rows of a table of so many megabytes.
    Update { megabytes: u64 },
    /// A node that was away catches up with so many rows.
    CatchUp { rows: u64 },
}

/// How a point is measured.
#[derive(Debug, Clone)]
pub(super) struct Measure {
    nodes: u64,
    sections: String,
    work: Work,
}

impl Measure {
    const fn of(work: Work) -> Self {
        Self {
            nodes: 2,
            sections: String::new(),
            work,
        }
    }

    const fn insert(tables: u64, width: u64) -> Self {
        Self::of(Work::Insert { tables, width })
    }

    pub(super) fn nodes(nodes: u64) -> Self {
        let usual = Self::insert(1, WIDTH);
        Self { nodes, ..usual }
    }

    pub(super) fn shards(shards: u64) -> Self {
        Self {
            sections: format!("[replication_log]\nshards = {shards}\n"),
            ..Self::insert(SPREAD, WIDTH)
        }
    }

    pub(super) const fn width(width: u64) -> Self {
        Self::insert(1, width)
    }

    pub(super) const fn tables(tables: u64) -> Self {
        Self::insert(tables, WIDTH)
    }

    pub(super) fn database(megabytes: u64) -> Self {
        Self {
            sections: "[snapshot]\nenabled = false\n".to_owned(),
            ..Self::of(Work::Update { megabytes })
        }
    }

    pub(super) const fn backlog(rows: u64) -> Self {
        Self::of(Work::CatchUp { rows })
    }

    /// Rows a second, one a round, and the broker's version.
    pub(super) fn run(&self, bench: &Bench, what: &str) -> Done<(Series, String)> {
        bench.progress.say(&format!("{what}: starting the nodes"));
        let work = self.work;
        let prepare = |app: &App| -> Done<()> {
            match work {
                Work::Insert { tables, .. } => {
                    for table in 0..tables {
                        app.conn.execute_batch(&format!(
                            "CREATE TABLE growth_{table}(id INTEGER PRIMARY KEY, body TEXT)"
                        ))?;
                    }
                    Ok(())
                }
                Work::Update { megabytes } => fill(app, bench, megabytes),
                Work::CatchUp { .. } => Ok(()),
            }
        };
        let mut cluster = Cluster::start(
            bench,
            &Shape {
                nodes: usize::try_from(self.nodes).unwrap_or(2),
                sections: self.sections.clone(),
                prepare: &prepare,
            },
        )?;
        let mut values = Series::default();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..bench.options.rounds {
            bench.round(what, round);
            values.push(match work {
                Work::CatchUp { rows } => {
                    let rows = i64::try_from(rows).unwrap_or(1);
                    let from = cluster.next_id()?;
                    let [_, all] = catch_up::once(&mut cluster, from, rows)?;
                    rows as f64 / all
                }
                _ => written(bench, &mut cluster, work, &mut random)?,
            });
        }
        bench.progress.say(&format!("{what}: comparing the nodes"));
        cluster.compare()?;
        Ok((values, cluster.broker.version()))
    }
}

/// Rows a second from the first commit until the last node has the last row.
fn written(bench: &Bench, cluster: &mut Cluster, work: Work, random: &mut Random) -> Done<f64> {
    let app = cluster.first()?;
    let amount = Amount::Time(bench.options.duration);
    let started = Instant::now();
    let rows = match work {
        Work::Insert { tables, width } => {
            let tables = i64::try_from(tables).unwrap_or(1);
            let first = app.integer("SELECT coalesce(max(id), 0) + 1 FROM growth_0")?;
            let statements: Vec<String> = (0..tables)
                .map(|t| format!("INSERT INTO growth_{t} VALUES(?1, ?2)"))
                .collect();
            app.transactions(amount, SIZE, |i| {
                let table = usize::try_from(i / SIZE % tables).unwrap_or(0);
                let sql = statements.get(table).map_or("", String::as_str);
                // Rising in each table, whichever it is.
                let mut insert = app.conn.prepare_cached(sql)?;
                insert.execute((first + i, random.hex(width)))?;
                Ok(())
            })?
            .rows
        }
        Work::Update { .. } => {
            let there = app.integer("SELECT max(id) FROM bodies")?.max(1);
            app.transactions(amount, SIZE, |_| {
                let id = i64::try_from(random.next() >> 1).unwrap_or(0) % there + 1;
                let sql = "UPDATE bodies SET n = n + 1 WHERE id = ?1";
                app.conn.prepare_cached(sql)?.execute([id])?;
                Ok(())
            })?
            .rows
        }
        Work::CatchUp { .. } => 0,
    };
    let marker = app.highest("probes")? + 1;
    app.conn
        .execute("INSERT INTO probes VALUES(?1, 0)", [marker])?;
    cluster.wait("probes", &[marker])?;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// The same numbers in each run, and fast enough not to be what is measured (xorshift64).
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// So many hexadecimal digits.
    fn hex(&mut self, width: u64) -> String {
        let width = usize::try_from(width).unwrap_or(0);
        let mut text = String::with_capacity(width + 16);
        while text.len() < width {
            let mut digits = self.next();
            for _ in 0..16 {
                text.push(char::from_digit((digits & 15) as u32, 16).unwrap_or('0'));
                digits >>= 4;
            }
        }
        text.truncate(width);
        text
    }
}
