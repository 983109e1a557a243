//! Nodes that give tables other keys, each at its own time, while all write. One seed decides the order of everything; `SEED=n` runs one, `SEEDS=n` as many.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body};
use harmonylite::change::position::Sequence;
use harmonylite::replica::group::Stopped;

use crate::support::engine::Node;
use crate::support::witness::{Snapshot, reconcile};

/// `p`: cells that one node each writes. `d`: rows that are never made again. `ab`, `x`, `ty`: anything goes, keys included.
const SCHEMA: &str = "
    CREATE TABLE p(id INTEGER PRIMARY KEY, uuid TEXT, n0 INTEGER DEFAULT 0, n1 INTEGER DEFAULT 0, n2 INTEGER DEFAULT 0);
    INSERT INTO p(id, uuid) VALUES(0, 'u0'), (1, 'u1'), (2, 'u2'), (3, 'u3');
    CREATE TABLE d(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, v);
    CREATE TABLE ab(a INTEGER PRIMARY KEY, b INTEGER NOT NULL, v, w);
    INSERT INTO ab VALUES(1, 1, 1, 1), (2, 2, 2, 2);
    CREATE TABLE x(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, v, w);
    INSERT INTO x VALUES(1, 'x1', 1, 1), (2, 'x2', 2, 2);
    CREATE TABLE ty(k INTEGER PRIMARY KEY, v);
    INSERT INTO ty VALUES(1, 1), (2, 2), (3, 3);";

/// What every node does, in this order, at a time of its own: a table, its columns and key.
const MIGRATIONS: [(&str, &str); 7] = [
    (
        "p",
        "id INTEGER, uuid TEXT PRIMARY KEY, n0 INTEGER, n1 INTEGER, n2 INTEGER",
    ),
    (
        "d",
        "id INTEGER NOT NULL UNIQUE, uuid TEXT NOT NULL PRIMARY KEY, v",
    ),
    (
        "ab",
        "a INTEGER NOT NULL, b INTEGER NOT NULL, v, w, PRIMARY KEY(a, b)",
    ),
    ("x", "id INTEGER, uuid TEXT NOT NULL PRIMARY KEY, v, w"),
    ("ty", "k TEXT PRIMARY KEY, v"),
    (
        "ab",
        "a INTEGER NOT NULL, b INTEGER NOT NULL, v, w, PRIMARY KEY(b, a)",
    ),
    (
        "d",
        "id INTEGER NOT NULL PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, v",
    ),
];

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
    phase: usize,
    outbox: VecDeque<Bytes>,
    applied: usize,
}

struct World {
    rng: Rng,
    members: Vec<Member>,
    stream: Vec<Bytes>,
    snapshot: Snapshot,
    /// The last value of each node's cell of each row of `p`.
    last: [[u64; 3]; 4],
    /// The rows of `d` that were made, and those of them that were deleted.
    made: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    serial: u64,
    waited: u64,
    entered: u64,
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
            snapshot: Snapshot::of_schema(SCHEMA),
            last: [[0; 3]; 4],
            made: BTreeSet::new(),
            gone: BTreeSet::new(),
            serial: 0,
            waited: 0,
            entered: 0,
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

    /// Killed and started again.
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
        self.close_gaps(who);
    }

    fn migrate(&mut self, who: usize) {
        let look = self.rng.below(2) == 0;
        let member = &mut self.members[who];
        let Some((table, columns)) = MIGRATIONS.get(member.phase) else {
            return;
        };
        if look {
            current(member);
        }
        member.node.write(&format!(
            "BEGIN IMMEDIATE; CREATE TABLE anew({columns}); INSERT INTO anew SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE anew RENAME TO {table}; COMMIT"
        ));
        member.phase += 1;
        // Two migrations of one table are not to meet in one look.
        if look || member.phase == 5 {
            current(member);
        }
        self.close_gaps(who);
    }

    /// Tables that are not certain: nothing is applied before they are. What is on its way is stored meanwhile.
    fn close_gaps(&mut self, who: usize) {
        let member = &mut self.members[who];
        if member.node.replica.unsure().unwrap().is_empty() {
            return;
        }
        current(member);
        let unsure = member.node.replica.unsure().unwrap();
        {
            self.stream.extend(member.outbox.drain(..));
            self.entered += reconcile(&mut member.node, unsure, &self.snapshot, &self.stream);
        }
    }

    fn write(&mut self, who: usize) {
        self.serial += 1;
        let serial = self.serial;
        let rng = &mut self.rng;
        let node = &self.members[who].node;
        let (a, b, row) = (rng.below(5), rng.below(3), rng.below(4));
        let sql = match rng.below(20) {
            0..=4 => {
                self.last[row as usize][who] = serial;
                format!("UPDATE p SET n{who} = {serial} WHERE uuid = 'u{row}'")
            }
            5 | 6 => {
                self.made.insert(serial);
                format!("INSERT INTO d VALUES({serial}, 'd{serial}', {who})")
            }
            7 | 8 => {
                let there = node.read("SELECT CAST(id AS TEXT) FROM d ORDER BY id");
                let there: Vec<u64> = there.split(',').filter_map(|id| id.parse().ok()).collect();
                if there.is_empty() {
                    return;
                }
                let id = there[rng.below(there.len() as u64) as usize];
                if rng.below(2) == 0 {
                    self.gone.insert(id);
                    format!("DELETE FROM d WHERE id = {id}")
                } else {
                    format!("UPDATE d SET v = {serial} WHERE id = {id}")
                }
            }
            9 => format!("INSERT INTO ab VALUES({a}, {b}, {serial}, 0)"),
            10 => format!("INSERT OR REPLACE INTO ab VALUES({a}, {b}, {serial}, 1)"),
            11 => format!("UPDATE ab SET v = {serial} WHERE a = {a}"),
            12 => format!("UPDATE ab SET b = {b}, w = {serial} WHERE a = {a}"),
            13 => format!("DELETE FROM ab WHERE a = {a}"),
            14 => format!("INSERT OR REPLACE INTO x VALUES({a}, 'x{row}', {serial}, 0)"),
            15 => format!("UPDATE x SET uuid = 'x{row}' WHERE id = {a}"),
            16 => format!(
                "UPDATE x SET id = {a} WHERE uuid = 'x{row}'; UPDATE x SET w = {serial} WHERE id = {b}"
            ),
            17 => format!(
                "UPDATE x SET v = {serial} WHERE id = {a}; DELETE FROM x WHERE id = {b} AND v % 3 = 0"
            ),
            18 => format!("INSERT OR REPLACE INTO ty VALUES({row}, {serial})"),
            _ => format!("UPDATE ty SET v = {serial} WHERE k = {b}; DELETE FROM ty WHERE k = {a}"),
        };
        // What a key refuses is the application's business.
        node.try_write(&sql);
    }

    fn scan(&mut self, who: usize) {
        let member = &mut self.members[who];
        current(member);
        let batch = member.node.try_scan();
        member.outbox.extend(batch);
        self.close_gaps(who);
    }

    fn send(&mut self, who: usize) {
        let sent = self.members[who].outbox.pop_front();
        self.stream.extend(sent);
    }

    fn apply(&mut self, who: usize) {
        current(&mut self.members[who]);
        self.close_gaps(who);
        let member = &mut self.members[who];
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
        if let Stopped::Schema(reason) = &applied.stopped {
            self.waited += 1;
            assert!(
                member.phase < MIGRATIONS.len(),
                "it has all there is, and waits: {reason}"
            );
        }
    }

    fn settle(&mut self, seed: u64) {
        for who in 0..3 {
            while self.members[who].phase < MIGRATIONS.len() {
                self.migrate(who);
            }
        }
        for _ in 0..300 {
            for who in 0..3 {
                self.scan(who);
                self.send(who);
                self.apply(who);
                self.close_gaps(who);
            }
            let end = self.stream.len();
            let rests = |m: &Member| {
                m.applied == end
                    && m.outbox.is_empty()
                    && m.node.pending() == 0
                    && m.node.replica.unsure().unwrap().is_empty()
            };
            if self.members.iter().all(rests) {
                return;
            }
        }
        let left: Vec<_> = self
            .members
            .iter()
            .map(|m| (m.applied, m.outbox.len(), m.node.pending()))
            .collect();
        panic!(
            "seed {seed}: it does not come to rest: applied of {}, unsent, pending: {left:?}",
            self.stream.len()
        );
    }

    fn check(&self, seed: u64) {
        let rows = |m: &Member| -> BTreeMap<&str, String> {
            [
                ("p", "SELECT id || ':' || uuid || ':' || n0 || ':' || n1 || ':' || n2 FROM p ORDER BY uuid"),
                ("d", "SELECT id || ':' || uuid || ':' || v FROM d ORDER BY id"),
                ("ab", "SELECT a || ':' || b || ':' || v || ':' || w FROM ab ORDER BY a, b"),
                ("x", "SELECT uuid || ':' || ifnull(id, '-') || ':' || v || ':' || w FROM x ORDER BY uuid"),
                ("ty", "SELECT k || ':' || v FROM ty ORDER BY k"),
            ]
            .into_iter()
            .map(|(table, sql)| (table, m.node.read(sql)))
            .collect()
        };
        let first = rows(&self.members[0]);
        for member in &self.members {
            for (table, rows) in rows(member) {
                assert_eq!(rows, first[table], "seed {seed}: table {table}");
            }
        }
        let expected: Vec<String> = self
            .last
            .iter()
            .enumerate()
            .map(|(i, [a, b, c])| format!("{i}:u{i}:{a}:{b}:{c}"))
            .collect();
        assert_eq!(
            first["p"],
            expected.join(","),
            "seed {seed}: a value was lost or set back"
        );
        let there: BTreeSet<u64> = first["d"]
            .split(',')
            .filter_map(|row| row.split(':').next()?.parse().ok())
            .collect();
        let expected: BTreeSet<u64> = self.made.difference(&self.gone).copied().collect();
        assert_eq!(there, expected, "seed {seed}: a row was lost or came back");
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

#[test]
fn nodes_that_change_keys_at_different_times_end_equal_and_lose_nothing() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SEEDS").unwrap_or(12),
    };
    let (mut waited, mut entered) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.settle(seed);
        world.check(seed);
        waited += world.waited;
        entered += world.entered;
    }
    if number("SEED").is_none() {
        assert!(waited > 0, "no node ever waited for another's key");
        assert!(entered > 0, "nothing was ever found that was in no log");
    }
}
