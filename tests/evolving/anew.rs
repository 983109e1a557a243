//! Tables that are renamed, made anew and dropped, each node at its own time, while snapshots are taken by whoever has nothing pending: what was written without capture is
//! found by comparing with the fold of a snapshot and the stream, as a daemon does it.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body, Incoming};
use harmonylite::capture::Captured;
use harmonylite::change::position::Sequence;
use harmonylite::replica::Replica;
use harmonylite::replica::reconcile::{Ahead, Difference, Entered, name_as_here, names_of};
use harmonylite::replica::restore::{Adopted, RestoreOptions};
use harmonylite::replica::{absent, copy};
use harmonylite::snapshot::fold;
use harmonylite::state::publishers::LastTaken;
use harmonylite::state::unsure::{Reason, Unsure};
use rusqlite::Connection;

use crate::support::engine::Node;
use crate::{Rng, number, seeds};

const PATIENCE: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE r(id INTEGER PRIMARY KEY, n INTEGER, m INTEGER, x TEXT);
    CREATE TABLE doomed(id INTEGER PRIMARY KEY, v);
    INSERT INTO r(id) VALUES(0), (1), (2); INSERT INTO doomed VALUES(1, 1), (2, 2), (3, 3);";

/// What every node does, in this order, at a time of its own.
const MIGRATIONS: [&str; 2] = [
    "ALTER TABLE r RENAME TO s",
    "ALTER TABLE s RENAME COLUMN x TO x2",
];

struct Member {
    node: Node,
    phase: usize,
    outbox: VecDeque<Bytes>,
}

impl Member {
    fn applied(&self) -> usize {
        self.node.replica.position().sequence.0 as usize
    }

    fn table(&self) -> &'static str {
        if self.phase > 0 { "s" } else { "r" }
    }

    fn column(&self) -> &'static str {
        if self.phase > 1 { "x2" } else { "x" }
    }

    fn has_doomed(&self) -> bool {
        !self
            .node
            .read("SELECT name FROM sqlite_schema WHERE name = 'doomed'")
            .is_empty()
    }

    fn current(&mut self) {
        let done = self.node.replica.make_capture_current(PATIENCE, &|| false);
        assert!(done.unwrap());
    }

    /// A row that is not private to a node.
    fn some_row(&self, rng: &mut Rng) -> Option<u64> {
        let ids = self.node.read(&format!(
            "SELECT CAST(id AS TEXT) FROM {} WHERE id >= 100",
            self.table()
        ));
        let ids: Vec<u64> = ids.split(',').filter_map(|id| id.parse().ok()).collect();
        let at = rng.below(ids.len().max(1) as u64) as usize;
        ids.get(at).copied()
    }
}

struct World {
    rng: Rng,
    members: Vec<Member>,
    stream: Vec<Bytes>,
    /// By position.
    snapshots: Vec<(usize, PathBuf)>,
    folder: tempfile::TempDir,
    serial: u64,
    /// The last value of each private cell: of row i, `n` by node i, `m` by the next.
    last: [[u64; 2]; 3],
    /// Rows that were inserted and that nobody has deleted.
    rows: BTreeSet<u64>,
    compared: u64,
    carried: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut members: Vec<Member> = (1..=3)
            .map(|id| Member {
                node: Node::new(id, SCHEMA),
                phase: 0,
                outbox: VecDeque::new(),
            })
            .collect();
        for member in &mut members {
            let replica = &mut member.node.replica;
            replica.set_cluster("c", PATIENCE, &|| false).unwrap();
            replica.watch_unsure(true);
        }
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("first.db");
        copy::finish(
            copy::copy(
                members[0].node.reader().path().unwrap().as_ref(),
                &first,
                || false,
            )
            .unwrap(),
        )
        .unwrap();
        Self {
            rng: Rng(seed),
            members,
            stream: Vec::new(),
            snapshots: vec![(0, first)],
            folder,
            serial: 0,
            last: [[0; 2]; 3],
            rows: BTreeSet::new(),
            compared: 0,
            carried: 0,
        }
    }

    fn step(&mut self) {
        let who = self.rng.below(3) as usize;
        match self.rng.below(24) {
            0..=7 => {
                let sql = self.writing(who);
                self.members[who].node.write(&sql);
            }
            8..=10 => self.scan(who),
            11..=13 => self.send(who),
            14..=16 => self.apply(who),
            17 => self.migrate(who),
            18 => self.make_anew(who),
            19 => self.drop_or_make(who),
            20 => self.restart(who),
            21 => self.snapshot(who),
            _ => self.reconcile(who),
        }
    }

    /// Something that the application writes.
    fn writing(&mut self, who: usize) -> String {
        self.serial += 1;
        let serial = self.serial;
        let member = &self.members[who];
        let (table, x) = (member.table(), member.column());
        let row = member.some_row(&mut self.rng);
        match (self.rng.below(8), row) {
            (0 | 1, _) => {
                self.last[who][0] = serial;
                format!("UPDATE {table} SET n = {serial} WHERE id = {who}")
            }
            (2, _) => {
                let of = (who + 2) % 3;
                self.last[of][1] = serial;
                format!("UPDATE {table} SET m = {serial} WHERE id = {of}")
            }
            (3, Some(id)) => {
                self.rows.remove(&id);
                format!("DELETE FROM {table} WHERE id = {id}")
            }
            (4, Some(id)) => format!("UPDATE {table} SET {x} = {serial}, n = 1 WHERE id = {id}"),
            (5, _) if member.has_doomed() => format!(
                "INSERT OR REPLACE INTO doomed VALUES({}, {serial}); DELETE FROM doomed WHERE id = {}",
                serial % 9,
                (serial + 4) % 9
            ),
            _ => {
                self.rows.insert(100 + serial);
                format!(
                    "INSERT INTO {table}(id, {x}) VALUES({}, {serial})",
                    100 + serial
                )
            }
        }
    }

    fn migrate(&mut self, who: usize) {
        let member = &mut self.members[who];
        if let Some(sql) = MIGRATIONS.get(member.phase) {
            member.current();
            member.node.write(sql);
            member.phase += 1;
        }
    }

    /// As Alembic and Django do it, with something written in between.
    fn make_anew(&mut self, who: usize) {
        self.members[who].current();
        let (before, after) = (self.writing(who), self.writing(who));
        let member = &self.members[who];
        let (table, x) = (member.table(), member.column());
        let columns = ["n, m, #", "m, #, n", "#, n, m"][self.rng.below(3) as usize].replace('#', x);
        member.node.write(&format!(
            "BEGIN IMMEDIATE; {before}; CREATE TABLE anew(id INTEGER PRIMARY KEY, {columns}); INSERT INTO anew(id, {columns}) SELECT id, {columns} FROM {table};
             DROP TABLE {table}; ALTER TABLE anew RENAME TO {table}; {after}; COMMIT"
        ));
    }

    fn drop_or_make(&mut self, who: usize) {
        self.serial += 1;
        let serial = self.serial;
        let member = &mut self.members[who];
        member.current();
        if member.has_doomed() {
            member.node.write("DROP TABLE doomed");
        } else {
            member.node.write(&format!(
                "BEGIN IMMEDIATE; CREATE TABLE doomed(id INTEGER PRIMARY KEY, v); INSERT INTO doomed VALUES({}, 'made {serial}'); COMMIT",
                serial % 9
            ));
        }
    }

    fn scan(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.current();
        let batch = member.node.try_scan();
        member.outbox.extend(batch);
    }

    fn send(&mut self, who: usize) {
        let sent = self.members[who].outbox.pop_front();
        self.stream.extend(sent);
    }

    fn messages(&self, after: usize, to: usize) -> Vec<Incoming> {
        let open = |(i, bytes): (usize, &Bytes)| incoming::open(Sequence(i as u64 + 1), bytes);
        self.stream
            .iter()
            .enumerate()
            .take(to)
            .skip(after)
            .map(open)
            .collect()
    }

    fn apply(&mut self, who: usize) {
        let most = match self.rng.below(4) {
            0 => self.stream.len(),
            few => self.members[who].applied() + few as usize,
        };
        let messages = self.messages(self.members[who].applied(), most);
        if !messages.is_empty() {
            self.members[who].node.apply(&messages);
        }
    }

    /// Killed and started again.
    fn restart(&mut self, who: usize) {
        let rest = self.messages(self.members[who].applied(), self.stream.len());
        let member = &mut self.members[who];
        member.outbox.clear();
        member.node.restart();
        let replica = &mut member.node.replica;
        let mut seen = replica.publishers().clone();
        for message in &rest {
            if let Body::Batch(batch) = &message.body {
                replica
                    .read_ahead(&mut seen, batch, message.sequence)
                    .unwrap();
            }
        }
        replica.watch_unsure(true);
        let gap = replica.unsure().unwrap();
        replica.pause_applying(gap.iter().any(|u| u.reason != Reason::New));
    }

    /// The newest snapshot that is not newer than this, as a file that may be written to.
    fn newest(&mut self, at: usize) -> (usize, PathBuf) {
        self.serial += 1;
        let (position, file) = self
            .snapshots
            .iter()
            .filter(|(position, _)| *position <= at)
            .max_by_key(|(position, _)| *position)
            .unwrap();
        let to = self.folder.path().join(format!("{}.db", self.serial));
        std::fs::copy(file, &to).unwrap();
        (*position, to)
    }

    fn snapshot(&mut self, who: usize) {
        // Nothing of its own may be pending in it.
        self.scan(who);
        while !self.members[who].outbox.is_empty() {
            self.send(who);
        }
        let rest = self.messages(self.members[who].applied(), self.stream.len());
        self.members[who].node.apply(&rest);
        let at = self.members[who].applied();
        let member = &mut self.members[who];
        member.current();
        if member.node.pending() > 0 || !member.node.replica.unsure().unwrap().is_empty() {
            return;
        }
        let file = self.folder.path().join(format!("taken-{}.db", self.serial));
        if file.exists() {
            return;
        }
        let mut copied = copy::copy(member.node.reader().path().unwrap().as_ref(), &file, || {
            false
        })
        .unwrap();
        let lacks = !member.has_doomed();
        let may_have = |m: &Member| m.has_doomed() || m.applied() < at;
        if lacks && self.members.iter().any(may_have) {
            let names = ["doomed".to_owned()];
            let (from, scratch) = self.newest(at);
            let conn = Connection::open(&scratch).unwrap();
            absent::bring_back(&conn, "doomed", "doomed").unwrap();
            drop(conn);
            let options = fold::nobody(names.to_vec(), Vec::new());
            let replica = Replica::open(&scratch, &options, PATIENCE, &|| false).unwrap();
            let like = Captured::default();
            fold::apply(replica, self.messages(from, at), Some(&like)).unwrap();
            absent::put(&mut copied, &scratch, &names).unwrap();
            self.carried += 1;
        }
        copy::finish(copied).unwrap();
        self.snapshots.push((at, file));
    }

    /// Makes tables certain that are due.
    fn reconcile(&mut self, who: usize) {
        let member = &mut self.members[who];
        member.current();
        let (new, mut due): (Vec<Unsure>, Vec<Unsure>) = member
            .node
            .replica
            .unsure()
            .unwrap()
            .into_iter()
            .partition(|u| u.reason == Reason::New);
        if due.is_empty() && member.applied() == self.stream.len() {
            due = new;
        }
        if due.is_empty() {
            return;
        }
        self.compared += 1;
        while !self.members[who].outbox.is_empty() {
            self.send(who);
        }
        let at = self.members[who].applied();
        let (from, scratch) = self.newest(at);
        let behind = self.messages(from, at);
        let ahead = self.messages(at, self.stream.len());
        let node = &mut self.members[who].node;
        let captured = std::sync::Arc::clone(node.replica.captured());
        let had = name_as_here(&scratch, &captured, due.iter().map(|u| u.table.as_str())).unwrap();
        let globs = due
            .iter()
            .flat_map(|u| names_of(captured.table(&u.table).unwrap()))
            .map(str::to_owned)
            .collect();
        let options = fold::nobody(globs, Vec::new());
        let mut replica = Replica::open(&scratch, &options, PATIENCE, &|| false).unwrap();
        let mut grown = Vec::new();
        let mut fold = |replica, messages| {
            let (replica, more) = fold::apply(replica, messages, Some(&captured)).unwrap();
            grown.extend(more);
            replica
        };
        replica = fold(replica, behind);
        let mut contained = Ahead {
            folded: None,
            last: node.replica.last_on_its_way(),
        };
        for message in ahead {
            let taken = match &message.body {
                Body::Batch(b) if b.record.node == node.replica.node_id() => {
                    LastTaken::of(&b.record, message.sequence)
                }
                _ => continue,
            };
            replica = fold(replica, vec![message]);
            if replica.position().folded == taken.sequence {
                contained.folded = Some(node.replica.carrier_of(taken));
            }
        }
        drop(replica);
        assert!(contained.is_complete());
        let (included, others): (Vec<Unsure>, Vec<Unsure>) = due
            .into_iter()
            .partition(|u| matches!(u.reason, Reason::Included | Reason::Behind));
        let mut difference = Difference::find(
            node.replica.path(),
            &scratch,
            (node.replica.position().sequence, contained),
            &captured,
            &others,
            &grown,
            &|| false,
        )
        .unwrap()
        .unwrap();
        loop {
            let entered = node
                .replica
                .enter_difference(&mut difference, PATIENCE, &|| false)
                .unwrap();
            match entered {
                Entered::Done(_) => break,
                Entered::More(_) => {}
                other => panic!("{other:?}"),
            }
        }
        drop(difference);
        for table in included {
            let options = RestoreOptions {
                cluster: "",
                keep_ours: false,
                patience: PATIENCE,
                stop: &|| false,
                progress: &|_| {},
            };
            let at = node.replica.position().sequence;
            let adopted =
                node.replica
                    .adopt(&scratch, (at, had.contains(&table.table)), &table, &options);
            assert!(matches!(adopted, Ok(Adopted::Done(_))), "{adopted:?}");
        }
        node.replica.pause_applying(false);
    }

    fn settle(&mut self) {
        for who in 0..3 {
            while self.members[who].phase < MIGRATIONS.len() {
                self.migrate(who);
            }
            if !self.members[who].has_doomed() {
                self.drop_or_make(who);
            }
        }
        for _ in 0..100 {
            for who in 0..3 {
                self.reconcile(who);
                self.scan(who);
                self.send(who);
                self.apply(who);
            }
            let end = self.stream.len();
            let quiet = |m: &Member| {
                m.applied() == end
                    && m.outbox.is_empty()
                    && m.node.pending() == 0
                    && m.node.replica.unsure().unwrap().is_empty()
            };
            if self.members.iter().all(quiet) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn check(&self, seed: u64) {
        let rows = |m: &Member| {
            m.node.read(
                "SELECT 's' || id || ':' || ifnull(n, 0) || ':' || ifnull(m, 0) || ':' || ifnull(x2, '-') FROM s UNION ALL SELECT 'd' || id || ':' || v FROM doomed ORDER BY 1",
            )
        };
        let first = rows(&self.members[0]);
        for member in &self.members {
            assert_eq!(rows(member), first, "seed {seed}");
        }
        let private = "SELECT ifnull(n, 0) || ':' || ifnull(m, 0) FROM s WHERE id < 3 ORDER BY id";
        let expected: Vec<String> = self.last.iter().map(|[n, m]| format!("{n}:{m}")).collect();
        let private = self.members[0].node.read(private);
        assert_eq!(private, expected.join(","), "seed {seed}: set back");
        let there = "SELECT CAST(id AS TEXT) FROM s WHERE id >= 100 ORDER BY id";
        let expected: Vec<String> = self.rows.iter().map(u64::to_string).collect();
        let there = self.members[0].node.read(there);
        assert_eq!(there, expected.join(","), "seed {seed}: lost, or back");
    }
}

#[test]
fn tables_that_are_renamed_made_anew_and_dropped_lose_nothing() {
    let seeds = seeds();
    let (mut compared, mut carried) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..250 {
            world.step();
        }
        world.settle();
        world.check(seed);
        compared += world.compared;
        carried += world.carried;
    }
    if number("SEED").is_none() {
        assert!(compared > 0, "nothing was ever made anew");
        assert!(
            carried > 0,
            "no snapshot ever held a table that its taker had dropped"
        );
    }
}
