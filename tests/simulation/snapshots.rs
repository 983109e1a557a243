//! Snapshots and trimming: what the cluster's store and its KV hold, who takes a snapshot, when it counts, and what is removed from the streams then.
//! The functions are the daemon's: `take::copy_database`, `fold::apply`, `trim::trim`, `Gate`, `Living::of`, `Verified`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, Ready, ready};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use harmonylite::change::position::{NodeId, Sequence, ShardId};
use harmonylite::changelog::marks::Marks;
use harmonylite::config::ReplicationLogConfig;
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::replica::{Replica, copy};
use harmonylite::snapshot::manifest::{FORMAT, Manifest};
use harmonylite::snapshot::presence::{Living, Present};
use harmonylite::snapshot::streams::Streams;
use harmonylite::snapshot::trim::{self, Known, TrimError};
use harmonylite::snapshot::verified::Verified;
use harmonylite::snapshot::{fold, take, watch};
use harmonylite::sqlite::connection::{open_reader, open_writer};
use harmonylite::state::node::Position;
use harmonylite::stream::continuity::compare;
use harmonylite::stream::{StoredMessage, StreamError, StreamState};

use crate::Out;
use crate::model::State;
use crate::node::{late_columns, read_state};
use crate::rng::Rng;
use crate::stream::Stream;
use crate::world::World;

/// A node that has said nothing for so long holds up trimming no more.
pub const SILENT_AFTER: Duration = Duration::from_secs(3600);
/// So long a step takes.
const STEP: Duration = Duration::from_secs(20);
/// How often a node says where it is while time passes.
const ANNOUNCE: Duration = Duration::from_secs(600);

/// What a snapshot's database comes to as the stream goes on: its maker's own changes that it contains lie on the fold before they stand in the stream.
/// From `exact` on it is what everybody has.
pub struct Line {
    from: usize,
    states: RefCell<Vec<State>>,
    exact: usize,
}

impl Line {
    fn new(from: usize, state: State, exact: usize) -> Rc<Self> {
        Rc::new(Self {
            from,
            states: RefCell::new(vec![state]),
            exact,
        })
    }

    /// What a node comes to at `at`, if not what everybody has there.
    pub fn state(&self, stream: &Stream, at: usize) -> Option<State> {
        if at >= self.exact || at < self.from {
            return None;
        }
        let mut states = self.states.borrow_mut();
        if at > stream.end() && states.len() <= at - self.from {
            return None;
        }
        while states.len() <= at - self.from {
            let next = stream.after(states.last()?, self.from + states.len());
            states.push(next);
        }
        states.get(at - self.from).cloned()
    }

    /// What the snapshot holds.
    pub fn begin(&self) -> Option<State> {
        self.states.borrow().first().cloned()
    }

    /// Whether it contains what the stream has lost.
    pub fn is_lost(&self) -> bool {
        self.exact == usize::MAX
    }

    /// The same where the stream has lost what stood behind `keep`: it never is what everybody has.
    pub fn cut(self: Rc<Self>, keep: usize) -> Rc<Self> {
        if self.exact <= keep || keep < self.from {
            return self;
        }
        let mut states = self.states.borrow().clone();
        states.truncate(keep + 1 - self.from);
        Rc::new(Self {
            from: self.from,
            states: RefCell::new(states),
            exact: usize::MAX,
        })
    }

    /// From its last message on it must be what everybody has.
    fn check(&self, world: &World) -> Out<()> {
        if self.exact <= self.from {
            return Ok(());
        }
        let last = self
            .state(&world.stream, self.exact - 1)
            .ok_or("a line without its end")?;
        let here = world.stream.after(&last, self.exact);
        crate::check::equal(&world.specs, &here, world.stream.state(self.exact)).map_err(|e| {
            format!(
                "a snapshot of {} contains what nobody else has: {e}",
                self.from
            )
        })
    }
}

/// A snapshot in the store.
pub struct Shot {
    pub path: PathBuf,
    pub manifest: Manifest,
    pub line: Rc<Line>,
}

impl Shot {
    pub fn position(&self) -> usize {
        self.manifest.sequence as usize
    }

    /// Where who restores it stands.
    pub fn state_position(&self) -> Position {
        self.manifest.position()
    }
}

/// One that waits until what it contains of its maker's own has come back.
struct Taking {
    uid: i64,
    life: u64,
    path: PathBuf,
    position: Position,
    marks: Marks,
    /// It contains changes of its maker's own, and is folded on until they have come back.
    waited: bool,
    content: State,
    /// What the maker's own database comes to is exact from there on.
    exact: usize,
}

/// What the cluster has for snapshots.
pub struct Snapshots {
    pub verified: Verified,
    /// Newest first.
    pub shots: Vec<Rc<Shot>>,
    taking: Option<Taking>,
    /// The streams are full again and again: they are trimmed by the newest snapshot alone.
    tight: bool,
    max_entries: u64,
    /// What each node has said last, and when.
    said: BTreeMap<NodeId, (Present, u64)>,
    /// The highest incarnation that each has said.
    highest: BTreeMap<NodeId, u64>,
    made: u64,
}

impl Snapshots {
    /// Nothing counts any more: a new history begins. Returns the files.
    pub fn forget_all(&mut self) -> Vec<PathBuf> {
        self.verified = Verified::default();
        let taking = self.taking.take().map(|t| t.path);
        let shots = self.shots.drain(..).map(|s| s.path.clone());
        shots.chain(taking).collect()
    }

    pub fn new(r: &mut Rng) -> Self {
        Self {
            verified: Verified::default(),
            shots: Vec::new(),
            taking: None,
            tight: r.chance(300),
            max_entries: [0, 0, 3, 10][r.below(4)],
            said: BTreeMap::new(),
            highest: BTreeMap::new(),
            made: 0,
        }
    }
}

/// The streams as trimming sees them.
struct Trimming<'a>(RefCell<&'a mut Stream>);

impl Streams for Trimming<'_> {
    fn state(
        &self,
        shard: ShardId,
    ) -> impl Future<Output = Result<StreamState, StreamError>> + Send {
        ready(Ok(self.0.borrow().shard_info(shard)))
    }

    fn read(
        &self,
        shard: ShardId,
        first: Sequence,
        last: Sequence,
        mut show: impl FnMut(&StoredMessage) -> Result<bool, TrimError> + Send,
    ) -> impl Future<Output = Result<(), TrimError>> + Send {
        let stream = self.0.borrow();
        let shown = (first.0..=last.0).try_for_each(|at| match show(&stream.stored(shard, at)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(None),
            Err(e) => Err(Some(e)),
        });
        ready(match shown {
            Err(Some(e)) => Err(e),
            _ => Ok(()),
        })
    }

    fn older_than(
        &self,
        _: ShardId,
        _: Duration,
        _: u64,
    ) -> impl Future<Output = Result<Option<Sequence>, StreamError>> + Send {
        ready(Ok(None))
    }

    fn purge(
        &self,
        shard: ShardId,
        up_to: Sequence,
    ) -> impl Future<Output = Result<u64, StreamError>> + Send {
        let gone: Ready<Result<u64, StreamError>> =
            ready(Ok(self.0.borrow_mut().purge(shard, up_to.0 as usize + 1)));
        gone
    }
}

/// What needs no waiting is done at once.
fn at_once<T>(work: impl Future<Output = T>) -> Out<T> {
    let mut work = std::pin::pin!(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Ok(done),
        Poll::Pending => Err("it waits for something".into()),
    }
}

impl World {
    /// Under which incarnation a node publishes, as far as it has said so.
    pub fn announced(&self, node: NodeId) -> u64 {
        let highest = self.snapshots.as_ref().and_then(|s| s.highest.get(&node));
        highest.copied().unwrap_or(0)
    }

    /// Whether a snapshot, or a database that has begun from one, contains what stood behind `keep` in the stream.
    pub fn snapshots_go_beyond(&self, keep: usize) -> bool {
        let shots = self.snapshots.as_ref().map_or(&[][..], |s| &s.shots);
        let lines = self.nodes.iter().filter_map(|n| n.line.as_ref());
        let saved = self.files.iter().filter_map(|f| f.line.as_ref());
        shots.iter().any(|s| s.line.exact > keep) || lines.chain(saved).any(|l| l.is_lost())
    }

    /// What a snapshot comes to whose position the stream does not hold any more, or holds otherwise.
    pub fn lost_to_stream(&self, shot: &Shot) -> Option<State> {
        let position = shot.state_position();
        let there = self.stream.fingerprint(position.sequence);
        let other = there.is_some_and(|hash| hash != position.hash && position.hash != 0);
        (other || shot.position() > self.stream.end())
            .then(|| shot.line.begin())
            .flatten()
    }

    /// Whether streams are trimmed by the newest snapshot alone.
    pub fn is_tight(&self) -> bool {
        self.snapshots.as_ref().is_some_and(|s| s.tight)
    }

    /// The moment of the simulated clock.
    pub fn moment(&self) -> Instant {
        self.base + self.now
    }

    /// What happens in a cluster with snapshots beside the step itself; the node that it was about.
    pub fn beside(&mut self, r: &mut Rng) -> Out<Option<usize>> {
        if self.snapshots.is_none() {
            return Ok(None);
        }
        self.pass_time(r)?;
        self.finish_taking()?;
        self.elect(r)?;
        let n = r.below(self.nodes.len());
        let done = match r.below(1000) {
            0..=99 => self.take(n),
            100..=129 => self.take_folded(n, r),
            130..=269 => self.trim_streams(n, r),
            270..=284 if self.faults => {
                // Most is to be seen where a batch is under way.
                let under_way = (0..self.nodes.len()).find(|n| self.has_payload_under_way(*n));
                self.cut_off(under_way.unwrap_or(n), r);
                Ok(())
            }
            285..=294 if self.faults => self.ask_for_recovery(n, r),
            295..=302 if self.faults => return self.join(r).map(|()| None),
            303..=308 if self.faults && self.owners.is_none() => self.lose_file(n, r),
            _ => Ok(()),
        };
        done.map(|()| Some(n))
    }

    /// The clock goes on; who can says where it is.
    fn pass_time(&mut self, r: &mut Rng) -> Out<()> {
        self.now += STEP;
        for n in 0..self.nodes.len() {
            if r.chance(400) {
                self.announce(n);
            }
        }
        if r.chance(30) {
            let until = self.now + Duration::from_secs(60 * r.range(20, 200) as u64);
            self.count("time passes");
            while self.now < until {
                self.now += ANNOUNCE;
                for n in 0..self.nodes.len() {
                    self.announce(n);
                }
            }
        }
        self.forget_kept(r)?;
        for n in 0..self.nodes.len() {
            if self.nodes[n].cut_off && r.chance(60) {
                self.reach(n, r.chance(500));
            }
        }
        Ok(())
    }

    /// What a verified snapshot covers a node needs not keep, if the stream holds what both have folded.
    fn forget_kept(&mut self, r: &mut Rng) -> Out<()> {
        let Some(newest) = self.snapshots.as_ref().and_then(|s| s.verified.0.first()) else {
            return Ok(());
        };
        let covered = newest.position();
        let settled = self.histories.settled;
        let n = r.below(self.nodes.len());
        if let Some(replica) = &mut self.nodes[n].replica
            && replica.history() == settled
            && [covered, replica.position()].iter().all(|p| {
                let there = self.stream.fingerprint(p.sequence);
                compare("order", &self.stream.info(), p.sequence, p.hash, there).is_ok()
            })
        {
            replica
                .covered_by(covered.sequence)
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// A node says where it is.
    pub fn announce(&mut self, n: usize) {
        let (now, at) = (self.now.as_nanos() as u64, self.moment());
        let (node, Some(snapshots)) = (&self.nodes[n], &mut self.snapshots) else {
            return;
        };
        let (Some(replica), false) = (&node.replica, node.cut_off) else {
            return;
        };
        let present = Present {
            position: node.replicate.then(|| replica.position().sequence),
            incarnation: replica.incarnation(),
            wanted: 0,
            history: replica.history(),
            keeps_much: false,
            gone: false,
        };
        snapshots.said.insert(node.id, (present, now));
        let highest = snapshots.highest.entry(node.id).or_default();
        *highest = (*highest).max(present.incarnation.map_or(0, |i| i.counter));
        node.gate.announced(at);
    }

    fn has_payload_under_way(&mut self, n: usize) -> bool {
        let flying = self.nodes[n].sending.unacknowledged();
        flying.is_some_and(|f| f.outbox.since().is_some())
    }

    /// A node does not reach the broker for a while: the network, or the whole machine stands still.
    fn cut_off(&mut self, n: usize, r: &mut Rng) {
        if !std::mem::replace(&mut self.nodes[n].cut_off, true) {
            let uid = self.nodes[n].uid;
            self.count("node cut off");
            self.say(|| format!("node {uid} is cut off"));
            if r.chance(700) {
                self.now += Duration::from_secs(60 * r.range(20, 200) as u64);
                for n in 0..self.nodes.len() {
                    self.announce(n);
                }
            }
        }
    }

    /// It reaches the broker again; `anew`: by another connection.
    pub fn reach(&mut self, n: usize, anew: bool) {
        if std::mem::take(&mut self.nodes[n].cut_off) {
            self.nodes[n].unverified |= anew;
            let uid = self.nodes[n].uid;
            self.say(|| format!("node {uid} is back"));
        }
    }

    /// Whether a node could lead.
    fn may_lead(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let settled = self.histories.settled;
        self.histories.election.is_none()
            && node.publish
            && node.replicate
            && node.halted.is_none()
            && node.history.is_none()
            && node
                .replica
                .as_ref()
                .is_some_and(|r| r.history() == settled)
            && !node.cut_off
            && node.position() + 1 >= self.stream.first()
    }

    pub fn shot_path(&mut self) -> PathBuf {
        let made = self.snapshots.as_mut().map_or(0, |s| {
            s.made += 1;
            s.made
        });
        self.folder.join(format!("snapshot-{made}.db"))
    }

    /// The first node puts the common starting state into the store.
    pub fn found(&mut self, n: usize) -> Out<()> {
        let path = self.shot_path();
        let (state, _) =
            take::copy_database(&self.nodes[n].path, &path, || false).map_err(|e| e.to_string())?;
        finish(&path)?;
        let content = self.content(&path)?;
        crate::check::equal(&self.specs, &content, self.stream.state(0))?;
        self.add_shot(path, state.position, content, 0)
    }

    /// What a snapshot holds.
    pub fn content(&self, path: &Path) -> Out<State> {
        let conn = open_reader(path).map_err(|e| e.to_string())?;
        let late = late_columns(&conn, &self.specs)?;
        read_state(&conn, &self.specs, &late)
    }

    /// A copy of this node's database, which waits for what it contains of its own.
    fn take(&mut self, n: usize) -> Out<()> {
        // Who has begun from a snapshot that contains what the stream has lost is no fold.
        let is_fold = self.nodes[n].line.as_ref().is_none_or(|l| !l.is_lost());
        let taking = self.snapshots.as_ref().is_none_or(|s| s.taking.is_some());
        if !self.may_lead(n) || taking || !is_fold {
            return Ok(());
        }
        let path = self.shot_path();
        let (state, marks) =
            take::copy_database(&self.nodes[n].path, &path, || false).map_err(|e| e.to_string())?;
        let content = self.content(&path)?;
        let node = &self.nodes[n];
        let (uid, life) = (node.uid, node.life);
        let exact = node.line.as_ref().map_or(0, |l| l.exact).max(node.behind);
        let at = state.position.sequence;
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.taking = Some(Taking {
                uid,
                life,
                path,
                position: state.position,
                waited: !marks.is_empty(),
                marks,
                content,
                exact,
            });
        }
        self.count("snapshot begun");
        self.say(|| format!("node {uid} copies its database at {at}"));
        self.finish_taking()
    }

    /// Looks whether what the copy contains of its maker's own has come back.
    fn finish_taking(&mut self) -> Out<()> {
        let Some(mut taking) = self.snapshots.as_mut().and_then(|s| s.taking.take()) else {
            return Ok(());
        };
        let maker = self
            .nodes
            .iter()
            .find(|n| n.uid == taking.uid && n.life == taking.life);
        let Some((replica, reader)) =
            maker.and_then(|n| Some((n.replica.as_ref()?, n.reader.as_ref()?)))
        else {
            crate::node::remove_file(&taking.path);
            self.count("snapshot's maker gone before it counts");
            return Ok(());
        };
        let captured = std::sync::Arc::clone(replica.captured());
        let back = taking
            .marks
            .clear(reader, &captured)
            .map_err(|e| e.to_string())?;
        if !back {
            if let Some(snapshots) = &mut self.snapshots {
                snapshots.taking = Some(taking);
            }
            self.count("snapshot waits for its maker's changes");
            return Ok(());
        }
        let here = replica.position().sequence.0 as usize;
        // Its maker has not noticed yet that what it has folded is lost.
        let lost = maker
            .is_some_and(|n| n.history.is_some() || n.line.as_ref().is_some_and(|l| l.is_lost()));
        if lost {
            self.count("snapshot of what the stream has lost");
            if taking.waited {
                // It cannot be folded on.
                crate::node::remove_file(&taking.path);
            } else {
                finish(&taking.path)?;
                self.add_shot(taking.path, taking.position, taking.content, usize::MAX)?;
            }
            return self.propose(None);
        }
        let (id, until) = (
            maker.map_or(NodeId(0), |n| n.id),
            replica.position().sequence,
        );
        let mut position = taking.position;
        if taking.waited {
            let Some(folded) = self.fold_copy_on(&taking.path, id, until)? else {
                crate::node::remove_file(&taking.path);
                self.count("snapshot's copy gives way otherwise than its maker");
                return Ok(());
            };
            position = folded;
        }
        finish(&taking.path)?;
        let content = if taking.waited {
            self.content(&taking.path)?
        } else {
            taking.content
        };
        self.add_shot(taking.path, position, content, taking.exact.max(here))
    }

    /// Folds into the copy what has come since it was made. None where the copy has something pending then, or lacks a column.
    fn fold_copy_on(&mut self, path: &Path, id: NodeId, until: Sequence) -> Out<Option<Position>> {
        let options = OpenOptions {
            node_id: id,
            publish: true,
            include: Vec::new(),
            exclude: Vec::new(),
            fire_triggers: Some(Vec::new()),
        };
        let mut replica =
            Replica::open(path, &options, Duration::ZERO, &|| true).map_err(|e| e.to_string())?;
        let at = replica.position().sequence.0 as usize;
        let messages = self.messages(at, until.0 as usize);
        if messages.len() != until.0 as usize - at {
            return Ok(None);
        }
        replica = match fold::apply(replica, messages, None) {
            Ok((replica, _)) => replica,
            Err(_) if self.alters => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let is_fold = take::is_fold(&replica).map_err(|e| e.to_string())?;
        Ok(is_fold.then(|| replica.position()))
    }

    /// A snapshot of the one before and the stream behind it.
    fn take_folded(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let newest = self
            .snapshots
            .as_ref()
            .and_then(|s| s.shots.first().cloned());
        let Some(newest) = newest.filter(|_| self.may_lead(n)) else {
            return Ok(());
        };
        if newest.position() + 1 < self.stream.first() || newest.position() >= self.stream.end() {
            return Ok(());
        }
        // The stream holds something else there than the snapshot has folded.
        let position = newest.state_position();
        let there = self.stream.fingerprint(position.sequence);
        if there.is_some_and(|hash| hash != position.hash && position.hash != 0) {
            return Ok(());
        }
        let path = self.shot_path();
        std::fs::copy(&newest.path, &path).map_err(|e| e.to_string())?;
        let options = OpenOptions {
            node_id: NodeId(0),
            publish: false,
            include: Vec::new(),
            exclude: Vec::new(),
            fire_triggers: Some(Vec::new()),
        };
        let mut replica =
            Replica::open(&path, &options, Duration::ZERO, &|| true).map_err(|e| e.to_string())?;
        let end = self.stream.end();
        while (replica.position().sequence.0 as usize) < end {
            let at = replica.position().sequence.0 as usize;
            let to = end.min(at + r.range(1, 12));
            let messages = self.messages(at, to);
            if messages.is_empty() {
                crate::node::remove_file(&path);
                return Ok(());
            }
            replica = match fold::apply(replica, messages, None) {
                Ok((replica, _)) => replica,
                // Who makes it lacks a column, or the snapshot before does.
                Err(e) if self.alters => {
                    crate::node::remove_file(&path);
                    self.count("snapshot not to be made of the one before");
                    self.say(|| e.to_string());
                    return Ok(());
                }
                Err(e) => return Err(e.to_string()),
            };
        }
        let position = replica.position();
        drop(replica);
        finish(&path)?;
        let content = self.content(&path)?;
        let exact = newest.line.exact;
        let expected = newest.line.state(&self.stream, end);
        crate::check::equal(
            &self.specs,
            &content,
            expected.as_ref().unwrap_or(self.stream.state(end)),
        )
        .map_err(|e| format!("a folded snapshot at {end}: {e}"))?;
        self.count("snapshot made of the one before");
        self.add_shot(path, position, content, exact)
    }

    pub fn add_shot(
        &mut self,
        path: PathBuf,
        position: Position,
        content: State,
        exact: usize,
    ) -> Out<()> {
        let at = position.sequence.0 as usize;
        let line = Line::new(at, content, exact);
        if line.is_lost() {
            self.count("snapshot that is no fold");
        } else if line.check(self).map(|()| exact <= at)? {
            crate::check::equal(&self.specs, &line.states.borrow()[0], self.stream.state(at))
                .map_err(|e| format!("a snapshot at {at}: {e}"))?;
        } else {
            self.count("snapshot with its maker's changes ahead");
        }
        let manifest = Manifest {
            format: FORMAT,
            file: path.to_string_lossy().into_owned(),
            cluster: String::new(),
            node: String::new(),
            history: self.histories.settled,
            sequence: position.sequence.0,
            hash: format!("{:016x}", position.hash),
            folded: position.folded.0,
            schema: String::new(),
            absent: Vec::new(),
            size: 0,
            sha256: String::new(),
            time: String::new(),
            harmonylite: String::new(),
        };
        let Some(snapshots) = &mut self.snapshots else {
            return Ok(());
        };
        snapshots.verified = std::mem::take(&mut snapshots.verified).with(manifest.clone());
        snapshots.shots.insert(
            0,
            Rc::new(Shot {
                path,
                manifest,
                line,
            }),
        );
        snapshots
            .shots
            .sort_by_key(|s| std::cmp::Reverse(s.manifest.sequence));
        let kept = snapshots.verified.0.len();
        for old in snapshots.shots.split_off(kept) {
            crate::node::remove_file(&old.path);
        }
        self.count("snapshot available");
        self.say(|| format!("a snapshot of {at} is available, exact from {exact} on"));
        Ok(())
    }

    /// The leader removes what nobody needs any more.
    fn trim_streams(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        if !self.may_lead(n) {
            return Ok(());
        }
        let (node, Some(snapshots)) = (&self.nodes[n], &self.snapshots) else {
            return Ok(());
        };
        let Some(replica) = &node.replica else {
            return Ok(());
        };
        let unblock = snapshots.tight && r.chance(700);
        let Some(covered) = snapshots.verified.covered(unblock) else {
            return Ok(());
        };
        let said: Vec<_> = snapshots
            .said
            .iter()
            .map(|(id, (present, at))| (*id, *present, *at))
            .collect();
        let leased: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|n| n.replica.is_some() && !n.cut_off)
            .map(|n| n.id)
            .collect();
        let living = Living::of(&said, &leased, SILENT_AFTER);
        let config = ReplicationLogConfig {
            shards: 4,
            max_entries: snapshots.max_entries,
            max_bytes: 0,
            kept_max_bytes: 0,
            max_age: Duration::ZERO,
            silent_after: SILENT_AFTER,
            replicas: 1,
            compress: false,
            compress_min_bytes: 0,
            update_existing: false,
        };
        let known = Known {
            publishers: replica.publishers().clone(),
            living: &living,
            history: self.histories.settled,
            covered,
            unblock,
        };
        let uid = node.uid;
        let first = self.stream.first();
        let trimmed = at_once(trim::trim(
            &Trimming(RefCell::new(&mut self.stream)),
            &config,
            &known,
        ))?
        .map_err(|e| e.to_string())?;
        if trimmed.messages == 0 {
            return Ok(());
        }
        let now = self.stream.first();
        self.count(if unblock {
            "streams trimmed by the newest snapshot alone"
        } else {
            "streams trimmed"
        });
        self.add("order stream trimmed", u64::from(now > first));
        self.add(
            "payload trimmed",
            u64::from(trimmed.messages > (now - first) as u64),
        );
        self.say(|| {
            format!(
                "node {uid} trims {} messages; the order stream begins at {now}",
                trimmed.messages
            )
        });
        if let Some(at) = self.stream.lacks_payload().filter(|_| !self.brittle) {
            return Err(format!(
                "the payload of {at} is trimmed, which can still be read"
            ));
        }
        let newest = self.snapshots.as_ref().and_then(|s| s.shots.first());
        if newest.is_none_or(|s| s.position() + 1 < now) {
            return Err(format!(
                "the stream begins at {now}, and no snapshot reaches that"
            ));
        }
        Ok(())
    }

    /// The gate of a node that begins.
    pub fn gate(&self) -> harmonylite::publish::gate::Gate {
        let gate = harmonylite::publish::gate::Gate::default();
        if self.snapshots.is_some() {
            gate.require_presence(watch::gap(SILENT_AFTER));
        }
        gate
    }
}

/// Takes out of a copy what is its maker's alone.
fn finish(path: &Path) -> Out<()> {
    let copy = open_writer(path).map_err(|e| e.to_string())?;
    copy::finish(copy).map_err(|e| e.to_string())
}
