//! One point of a series: a cluster of a given shape, and rows a second on it; beside it, where SQLite itself may be what changes, on a database that nobody replicates.

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
    /// Whether the same writes on plain SQLite are measured too.
    plain: bool,
}

/// Rows a second, one a round.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates {
    /// From end to end.
    pub(super) ours: Series,
    /// Of the same writes without replication, where they were measured.
    pub(super) plain: Series,
}

impl Measure {
    const fn of(work: Work) -> Self {
        Self {
            nodes: 2,
            sections: String::new(),
            work,
            plain: false,
        }
    }

    const fn beside_plain(mut self) -> Self {
        self.plain = true;
        self
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
        Self::insert(1, width).beside_plain()
    }

    pub(super) const fn tables(tables: u64) -> Self {
        Self::insert(tables, WIDTH).beside_plain()
    }

    pub(super) fn database(megabytes: u64) -> Self {
        Self {
            sections: "[snapshot]\nenabled = false\n".to_owned(),
            ..Self::of(Work::Update { megabytes }).beside_plain()
        }
    }

    pub(super) const fn backlog(rows: u64) -> Self {
        Self::of(Work::CatchUp { rows })
    }

    /// Rows a second, and the broker's version.
    pub(super) fn run(&self, bench: &Bench, what: &str) -> Done<(Rates, String)> {
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
        let folder = bench.folder()?;
        let alone = if self.plain {
            let app = App::open(&folder.path().join("plain.db"), &bench.stop)?;
            prepare(&app)?;
            Some(app)
        } else {
            None
        };
        let amount = Amount::Time(bench.options.duration);
        let mut rates = Rates::default();
        let (mut random, mut random_alone) = (Random::default(), Random::default());
        for round in 0..bench.options.rounds {
            bench.round(what, round);
            if let Some(alone) = &alone {
                let started = Instant::now();
                let rows = write(alone, amount, work, &mut random_alone)?;
                rates
                    .plain
                    .push(rows as f64 / started.elapsed().as_secs_f64());
            }
            rates.ours.push(match work {
                Work::CatchUp { rows } => {
                    let rows = i64::try_from(rows).unwrap_or(1);
                    let from = cluster.next_id()?;
                    let [_, all] = catch_up::once(&mut cluster, from, rows)?;
                    rows as f64 / all
                }
                _ => end_to_end(&mut cluster, amount, work, &mut random)?,
            });
        }
        bench.progress.say(&format!("{what}: comparing the nodes"));
        cluster.compare()?;
        Ok((rates, cluster.broker.version()))
    }
}

/// Rows a second from the first commit until the last node has the last row.
fn end_to_end(cluster: &mut Cluster, amount: Amount, work: Work, random: &mut Random) -> Done<f64> {
    let app = cluster.first()?;
    let started = Instant::now();
    let rows = write(app, amount, work, random)?;
    let marker = app.highest("probes")? + 1;
    app.conn
        .execute("INSERT INTO probes VALUES(?1, 0)", [marker])?;
    cluster.wait("probes", &[marker])?;
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

/// Writes; returns how many rows.
fn write(app: &App, amount: Amount, work: Work, random: &mut Random) -> Done<i64> {
    let written = match work {
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
        }
        Work::Update { .. } => {
            let there = app.integer("SELECT max(id) FROM bodies")?.max(1);
            app.transactions(amount, SIZE, |_| {
                let id = i64::try_from(random.next() >> 1).unwrap_or(0) % there + 1;
                let sql = "UPDATE bodies SET n = n + 1 WHERE id = ?1";
                app.conn.prepare_cached(sql)?.execute([id])?;
                Ok(())
            })?
        }
        Work::CatchUp { .. } => return Ok(0),
    };
    Ok(written.rows)
}

/// The same numbers in each run, and fast enough not to be what is measured (xorshift64).
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

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
