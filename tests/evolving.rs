//! Schemas that change on one node after the other, each at its own time, with batches of before, between and after in the stream and applications that write all the while.
//! Replicas on real files, without a broker; one seed decides the order of everything. `SEED=n` runs one, `SEEDS=n` as many, from `FIRST=n` on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "evolving/anew.rs"]
mod anew;
mod support;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body};
use harmonylite::change::position::Sequence;
use harmonylite::replica::copy;
use harmonylite::replica::group::Stopped;
use harmonylite::replica::restore::{Adopted, RestoreOptions};
use harmonylite::state::unsure::Reason;
use support::engine::Node;

const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT);
    CREATE TABLE p(id INTEGER PRIMARY KEY, n INTEGER, m INTEGER);
    CREATE TABLE k(x INTEGER, y INTEGER, PRIMARY KEY(x, y));
    CREATE TABLE w(id INTEGER PRIMARY KEY, v);
    INSERT INTO p VALUES(0, 0, 0), (1, 0, 0), (2, 0, 0);";

/// What every node does, in this order, at a time of its own.
const MIGRATIONS: [&str; 9] = [
    // As a careful migration does: what the index would refuse goes first.
    "DELETE FROM t WHERE id NOT IN (SELECT max(id) FROM t GROUP BY a); CREATE UNIQUE INDEX t_a ON t(a)",
    "ALTER TABLE p ADD COLUMN c INTEGER NOT NULL DEFAULT 0; ALTER TABLE t ADD COLUMN e TEXT NOT NULL DEFAULT 'x'",
    "ALTER TABLE t RENAME COLUMN b TO b2; ALTER TABLE k RENAME COLUMN x TO x2",
    "ALTER TABLE p RENAME TO q; ALTER TABLE w RENAME TO w2",
    "ALTER TABLE t ADD COLUMN d TEXT; CREATE TABLE u(id INTEGER PRIMARY KEY, v UNIQUE)",
    "ALTER TABLE t DROP COLUMN d; ALTER TABLE q RENAME COLUMN m TO mm",
    "DROP TABLE u; DROP TABLE w2; DROP INDEX t_a",
    "DELETE FROM t WHERE id NOT IN (SELECT max(id) FROM t GROUP BY b2); CREATE UNIQUE INDEX t_b ON t(b2)",
    "DROP INDEX t_b; DELETE FROM t WHERE id NOT IN (SELECT max(id) FROM t GROUP BY a, b2); CREATE UNIQUE INDEX t_ab ON t(a, b2)",
];

/// Migrations that take away what one before has made: only who has seen it remembers it, so these two must not meet in one refresh.
const AFTER_A_LOOK: [usize; 3] = [5, 6, 8];

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct Member {
    node: Node,
    /// How many migrations it has done.
    phase: usize,
    /// Batches that are not in the stream yet.
    outbox: VecDeque<Bytes>,
    /// Messages that it has applied.
    applied: usize,
}

struct World {
    rng: Rng,
    members: Vec<Member>,
    stream: Vec<Bytes>,
    /// The last value of each private cell: of row i, `n` and `c` by node i, `m` by the next.
    last: [[u64; 3]; 3],
    serial: u64,
    waited: u64,
    deleted: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed),
            members: (1..=3)
                .map(|id| Member {
                    node: Node::new(id, SCHEMA),
                    phase: 0,
                    outbox: VecDeque::new(),
                    applied: 0,
                })
                .collect(),
            stream: Vec::new(),
            last: [[0; 3]; 3],
            serial: 0,
            waited: 0,
            deleted: 0,
        }
    }

    fn step(&mut self) {
        let who = self.rng.below(3) as usize;
        match self.rng.below(21) {
            0..=8 => self.write(who),
            9..=11 => self.scan(who),
            12..=14 => self.send(who),
            15..=18 => self.apply(who),
            19 => self.migrate(who),
            _ => self.restart(who),
        }
    }

    /// Killed and started again: what was not sent yet is lost, and is found in the change log.
    fn restart(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.outbox.clear();
        member.node.restart();
        let replica = &mut member.node.replica;
        let mut seen = replica.publishers().clone();
        for (i, bytes) in self.stream.iter().enumerate().skip(member.applied) {
            let message = incoming::open(Sequence(i as u64 + 1), bytes);
            if let Body::Batch(batch) = &message.body {
                replica
                    .read_ahead(&mut seen, batch, message.sequence)
                    .unwrap();
            }
        }
    }

    fn migrate(&mut self, who: usize) {
        let member = &mut self.members[who];
        if let Some(sql) = MIGRATIONS.get(member.phase) {
            if AFTER_A_LOOK.contains(&member.phase) || self.rng.below(2) == 0 {
                current(member);
            }
            member
                .node
                .write(&format!("BEGIN IMMEDIATE; {sql}; COMMIT"));
            member.phase += 1;
        }
    }

    fn write(&mut self, who: usize) {
        self.serial += 1;
        let serial = self.serial;
        let rng = &mut self.rng;
        let (id, other) = (rng.below(8), rng.below(8));
        let phase = self.members[who].phase;
        let b = if phase > 2 { "b2" } else { "b" };
        let p = if phase > 3 { "q" } else { "p" };
        let m = if phase > 5 { "mm" } else { "m" };
        let (a, text) = (rng.below(8), serial % 12);
        let x = if phase > 2 { "x2" } else { "x" };
        let w = if phase > 3 { "w2" } else { "w" };
        let sql = match rng.below(15) {
            0 => format!("INSERT INTO t(id, a, {b}) VALUES({id}, {a}, '{text}')"),
            1 => format!("INSERT OR REPLACE INTO t(id, a, {b}) VALUES({id}, {a}, '{text}')"),
            2 => format!("UPDATE t SET a = {a} WHERE id = {id}"),
            3 => format!("UPDATE t SET {b} = '{text}' WHERE id = {id}"),
            4 => format!("DELETE FROM t WHERE id = {id}"),
            // Two rows hand their values to one another.
            5 => format!(
                "UPDATE t SET a = a + 100 WHERE id IN ({id}, {other}); UPDATE t SET a = (SELECT x.a - 100 FROM t AS x WHERE x.id = {id} + {other} - t.id) WHERE id IN ({id}, {other}) AND id <> {id} + {other} - id;
                 UPDATE t SET a = a - 100 WHERE id IN ({id}, {other}) AND a >= 100"
            ),
            6 if phase > 1 && serial.is_multiple_of(2) => {
                format!("UPDATE t SET e = '{serial}' WHERE id = {id}")
            }
            6 if phase == 5 => format!("UPDATE t SET d = '{serial}' WHERE id = {id}"),
            7 if (5..7).contains(&phase) => {
                format!("INSERT OR REPLACE INTO u VALUES({id}, {a})")
            }
            6..=8 => {
                self.last[who][0] = serial;
                format!("UPDATE {p} SET n = {serial} WHERE id = {who}")
            }
            9 if phase > 1 => {
                self.last[who][2] = serial;
                format!("UPDATE {p} SET c = {serial} WHERE id = {who}")
            }
            12 => format!("INSERT OR IGNORE INTO k VALUES({}, {other})", id % 3),
            13 => format!("DELETE FROM k WHERE {x} = {} AND y = {other}", id % 3),
            14 if phase < 7 => format!("INSERT OR REPLACE INTO {w} VALUES({id}, {serial})"),
            _ => {
                let of = (who + 2) % 3;
                self.last[of][1] = serial;
                format!("UPDATE {p} SET {m} = {serial} WHERE id = {of}")
            }
        };
        // What an index refuses is the application's business.
        self.members[who].node.try_write(&sql);
    }

    fn scan(&mut self, who: usize) {
        let member = &mut self.members[who];
        current(member);
        let batch = member.node.try_scan();
        member.outbox.extend(batch);
    }

    fn send(&mut self, who: usize) {
        let sent = self.members[who].outbox.pop_front();
        self.stream.extend(sent);
    }

    fn apply(&mut self, who: usize) {
        let member = &mut self.members[who];
        // As much as is there, now and again: a batch may wait for one of this node's own.
        let most = match self.rng.below(16) as usize {
            0..4 => usize::MAX,
            few => few,
        };
        let messages: Vec<_> = self
            .stream
            .iter()
            .enumerate()
            .skip(member.applied)
            .take(most)
            .map(|(i, bytes)| incoming::open(Sequence(i as u64 + 1), bytes))
            .collect();
        if messages.is_empty() {
            return;
        }
        let applied = member.node.apply(&messages);
        member.applied += applied.consumed;
        self.deleted += applied.fold.deleted_here;
        if let Stopped::Schema(reason) = &applied.stopped {
            self.waited += 1;
            assert!(
                member.phase < MIGRATIONS.len(),
                "it has all there is, and waits: {reason}"
            );
        }
    }

    fn settle(&mut self) {
        for who in 0..3 {
            while self.members[who].phase < MIGRATIONS.len() {
                self.migrate(who);
            }
        }
        for _ in 0..200 {
            for who in 0..3 {
                self.scan(who);
                self.send(who);
                self.apply(who);
            }
            let end = self.stream.len();
            if self
                .members
                .iter()
                .all(|m| m.applied == end && m.outbox.is_empty() && m.node.pending() == 0)
            {
                return;
            }
        }
        let left: Vec<_> = self
            .members
            .iter()
            .map(|m| (m.applied, m.outbox.len(), m.node.pending()))
            .collect();
        panic!(
            "it does not come to rest: applied of {}, unsent, pending: {left:?}",
            self.stream.len()
        );
    }

    fn check(&self, seed: u64) {
        let rows = |m: &Member| {
            (
                m.node.read(
                    "SELECT id || ':' || ifnull(a, '-') || ':' || b2 || e FROM t ORDER BY id",
                ),
                m.node
                    .read("SELECT id || ':' || n || ':' || mm || ':' || c FROM q ORDER BY id"),
                m.node.read("SELECT x2 || ':' || y FROM k ORDER BY x2, y"),
            )
        };
        let first = rows(&self.members[0]);
        for member in &self.members {
            assert_eq!(rows(member), first, "seed {seed}");
        }
        let expected: Vec<String> = self
            .last
            .iter()
            .enumerate()
            .map(|(i, [n, m, c])| format!("{i}:{n}:{m}:{c}"))
            .collect();
        assert_eq!(
            first.1,
            expected.join(","),
            "seed {seed}: a value was lost or set back"
        );
    }
}

fn current(member: &mut Member) {
    let replica = &mut member.node.replica;
    assert!(
        replica
            .make_capture_current(Duration::from_secs(5), &|| false)
            .unwrap()
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Those that the environment asks for, else a few.
fn seeds() -> std::ops::Range<u64> {
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("FIRST").unwrap_or(1);
            first..first + number("SEEDS").unwrap_or(12)
        }
    }
}

#[test]
fn nodes_that_migrate_at_different_times_end_equal_and_lose_nothing() {
    let seeds = seeds();
    let (mut waited, mut deleted) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.settle();
        world.check(seed);
        waited += world.waited;
        deleted += world.deleted;
    }
    if number("SEED").is_none() {
        assert!(waited > 0, "no node ever waited for its schema");
        assert!(deleted > 0, "no index that others lack ever had a say");
    }
}

/// Two nodes with this schema.
fn pair(schema: &str) -> (Node, Node) {
    (Node::new(1, schema), Node::new(2, schema))
}

/// Alters the schema of a node, and makes capture current.
fn alter(node: &mut Node, sql: &str) {
    node.write(sql);
    let done = node
        .replica
        .make_capture_current(Duration::from_secs(5), &|| false);
    assert!(done.unwrap());
}

/// Applies what another node has written.
fn apply_all(node: &mut Node, stream: &[Bytes]) -> Stopped {
    let messages: Vec<_> = stream
        .iter()
        .enumerate()
        .map(|(i, bytes)| incoming::open(Sequence(i as u64 + 1), bytes))
        .skip(node.replica.position().sequence.0 as usize)
        .collect();
    node.apply(&messages).stopped
}

#[test]
fn batches_for_a_renamed_key_are_applied_where_the_table_has_nothing_else() {
    let (mut a, mut b) = pair(
        "CREATE TABLE m(a INTEGER, b INTEGER, PRIMARY KEY(a, b)); INSERT INTO m VALUES(1, 1), (2, 2)",
    );
    alter(&mut a, "ALTER TABLE m RENAME COLUMN a TO a2");
    b.write("INSERT INTO m VALUES(3, 3); DELETE FROM m WHERE a = 1");
    let batch = b.scan();
    let stopped = apply_all(&mut a, &[batch]);
    let rows = a.read("SELECT a2 || ':' || b FROM m ORDER BY a2");
    assert_eq!(rows, "2:2,3:3", "{stopped:?}");
}

#[test]
fn nobody_waits_for_a_table_that_was_renamed_and_then_dropped() {
    let (mut a, mut b) =
        pair("CREATE TABLE o(id INTEGER PRIMARY KEY, v); CREATE TABLE t(id INTEGER PRIMARY KEY)");
    alter(&mut a, "ALTER TABLE o RENAME TO p");
    alter(&mut a, "DROP TABLE p");
    b.write("INSERT INTO o VALUES(1, 1); INSERT INTO t VALUES(1)");
    let stream = [b.scan()];
    let stopped = apply_all(&mut a, &stream);
    assert_eq!(a.read("SELECT CAST(id AS TEXT) FROM t"), "1", "{stopped:?}");
    // Made again, it is what batches mean by that name.
    alter(&mut a, "CREATE TABLE o(id INTEGER PRIMARY KEY, v)");
    b.write("INSERT INTO o VALUES(2, 2)");
    let stream = [stream.as_slice(), &[b.scan()]].concat();
    apply_all(&mut a, &stream);
    assert_eq!(a.read("SELECT CAST(id AS TEXT) FROM o"), "2");
}

#[test]
fn a_dropped_column_that_is_back_has_what_the_cluster_has() {
    let (mut a, mut b) = pair(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n, vat INTEGER DEFAULT 0); INSERT INTO t VALUES(1, 1, 1), (2, 2, 2), (3, 3, 3)",
    );
    let patience = Duration::from_secs(5);
    a.replica.set_cluster("c", patience, &|| false).unwrap();
    alter(&mut a, "ALTER TABLE t DROP COLUMN vat");
    b.write("UPDATE t SET vat = 9 WHERE id = 1");
    let stream = [b.scan()];
    apply_all(&mut a, &stream);
    apply_all(&mut b, &stream);
    alter(
        &mut a,
        "ALTER TABLE t ADD COLUMN vat INTEGER DEFAULT 0; UPDATE t SET vat = 7 WHERE id = 3",
    );
    let unsure = a.replica.unsure().unwrap();
    assert_eq!(
        unsure.iter().map(|u| u.reason).collect::<Vec<_>>(),
        [Reason::Included]
    );
    let fold = b.folder().join("fold.db");
    copy::finish(copy::copy(b.reader().path().unwrap().as_ref(), &fold, || false).unwrap())
        .unwrap();
    let options = RestoreOptions {
        cluster: "",
        keep_ours: false,
        patience,
        stop: &|| false,
        progress: &|_| {},
    };
    let adopted = a
        .replica
        .adopt(&fold, (Sequence(1), true), &unsure[0], &options)
        .unwrap();
    assert!(matches!(adopted, Adopted::Done(_)), "{adopted:?}");
    let vat = "SELECT CAST(vat AS TEXT) FROM t ORDER BY id";
    assert_eq!(a.read(vat), "9,2,7", "what is pending here stays");
    // It is told once.
    assert!(a.replica.refresh_capture(patience, &|| false).unwrap());
    assert_eq!(a.replica.unsure().unwrap(), []);
    let stream = [stream.as_slice(), &[a.scan()]].concat();
    apply_all(&mut b, &stream);
    assert_eq!(b.read(vat), "9,2,7");
}

#[test]
fn a_unique_column_that_was_renamed_is_under_the_same_index() {
    use harmonylite::apply::plan::{Fit, Gate, gate};
    use harmonylite::codec::commit::TableDefinition;
    let schema = "CREATE TABLE u(id INTEGER PRIMARY KEY, a TEXT UNIQUE)";
    let (other, mut node) = (Node::new(1, schema), Node::new(2, schema));
    node.write("ALTER TABLE u RENAME COLUMN a TO b");
    node.replica
        .refresh_capture(Duration::from_secs(5), &|| false)
        .unwrap();
    let theirs = TableDefinition::of(&other.replica.captured().tables[0].table);
    let here = node.replica.captured();
    let from = harmonylite::change::position::NodeId(1);
    let Gate::Open(plan) = gate(here, &|_| true, &theirs, from, Fit::Live) else {
        panic!("closed");
    };
    // It is no index that is gone, which would be looked for in the whole table at each batch.
    assert_eq!(
        (plan.gone_uniques.len(), plan.has_extra_uniques()),
        (0, false)
    );
}

#[test]
fn rows_are_displaced_by_an_index_that_is_gone_here() {
    let schema = "CREATE TABLE u(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE UNIQUE, b); INSERT INTO u VALUES(1, 'x', 0), (2, 'y', 0), (3, 'z', 0)";
    let schema = schema.replace(" UNIQUE", "") + "; CREATE UNIQUE INDEX u_a ON u(a)";
    let (mut other, mut node) = (Node::new(1, &schema), Node::new(2, &schema));
    node.write("DROP INDEX u_a");
    node.replica
        .refresh_capture(Duration::from_secs(5), &|| false)
        .unwrap();
    // One hands its value on within the batch, another is displaced; a pending update becomes whole and stays.
    other.write("UPDATE u SET a = 'was x' WHERE id = 1; UPDATE u SET a = 'X' WHERE id = 2; INSERT OR REPLACE INTO u VALUES(4, 'Z', 1)");
    let batch = other.scan();
    node.write("INSERT INTO u VALUES(9, 'z', 9)");
    let batch = support::engine::stream(&[&batch]);
    node.apply(&batch);
    assert_eq!(
        node.read("SELECT id || a FROM u ORDER BY id"),
        "1was x,2X,4Z,9z"
    );
}

#[test]
fn cells_that_no_batch_carries_are_not_pending_for_ever_where_their_table_is_dropped() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 1)";
    let mut node = Node::new(1, schema);
    node.write("UPDATE t SET v = 2");
    // By a connection that fires no triggers, as others' deletes are.
    let writer = node.replica.writer();
    writer.execute_batch("DELETE FROM t").unwrap();
    assert!(node.try_scan().is_none());
    alter(&mut node, "DROP TABLE t");
    let tidied = node.replica.tidy(Duration::from_secs(5), &|| false);
    assert!(tidied.unwrap());
    alter(&mut node, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    assert_eq!(node.pending(), 0);
}
