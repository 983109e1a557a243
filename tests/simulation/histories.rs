//! Histories: where the broker has lost what nodes had folded, the nodes choose whose fold a new history begins from, that one gives it as the base, and all restore
//! onto it. What the stream still holds is read again. Whose fold it is, the base and the restore are the engine's: `history::choose`, `replica::base`,
//! `Replica::restore`. Who is asked, and for how long, is decided here.

use std::collections::BTreeMap;
use std::rc::Rc;

use harmonylite::apply::incoming::Body;
use harmonylite::apply::order;
use harmonylite::change::history::History;
use harmonylite::change::position::{NodeId, Sequence};
use harmonylite::history::choose::{Candidate, Source, choose};
use harmonylite::replica::base::{self, Base};
use harmonylite::replica::copy;
use harmonylite::sqlite::connection::{open_reader, open_writer};
use harmonylite::state::{node, past, publishers};
use harmonylite::stream::continuity;

use crate::Out;
use crate::model::Accepts;
use crate::node::remove_file;
use crate::rng::Rng;
use crate::world::World;

/// What the nodes have agreed on.
#[derive(Default)]
pub struct Histories {
    /// The history that counts.
    pub settled: History,
    /// Nodes say where they stand.
    pub election: Option<Election>,
}

/// A history has broken, and the next is not chosen.
#[derive(Default)]
pub struct Election {
    /// Who is waited for.
    wanted: Vec<i64>,
    /// Who has said where he stands: by node id, who it is, in which life, and where.
    stood: BTreeMap<u64, (i64, u64, Candidate)>,
}

impl World {
    /// Whether a history that breaks is followed by another one.
    pub fn mends(&self) -> bool {
        self.brittle && self.snapshots.is_some()
    }

    /// A node looks what the others have agreed on. `Some`: it goes on, or not; `None`: it has heard of nothing.
    pub fn follow(&mut self, n: usize, r: &mut Rng) -> Out<Option<bool>> {
        let (uid, life) = (self.nodes[n].uid, self.nodes[n].life);
        let Some(replica) = &self.nodes[n].replica else {
            return Ok(Some(false));
        };
        if replica.history() != self.histories.settled {
            self.count("hears of a new history while it runs");
            self.start(n, r)?;
            return Ok(None);
        }
        let Some(election) = &self.histories.election else {
            return Ok(None);
        };
        let stood = election.stood.values().any(|s| (s.0, s.1) == (uid, life));
        if stood || self.impatient || r.chance(600) {
            if !stood {
                self.stand(n)?;
            }
            return Ok(Some(false));
        }
        Ok(None)
    }

    /// What a node has folded the stream does not hold any more.
    pub fn propose(&mut self, n: Option<usize>) -> Out<()> {
        if self.histories.election.is_none() {
            let wanted = self
                .nodes
                .iter()
                .filter(|n| n.replica.is_some() && !n.cut_off)
                .map(|n| n.uid)
                .collect();
            self.histories.election = Some(Election {
                wanted,
                ..Election::default()
            });
            self.count("history breaks");
            let who = n.map(|n| self.nodes[n].uid);
            self.say(|| format!("node {who:?} proposes a new history"));
        }
        match n {
            Some(n) => self.stand(n),
            None => Ok(()),
        }
    }

    /// A node says where it stands, and stands still.
    fn stand(&mut self, n: usize) -> Out<()> {
        let node = &self.nodes[n];
        let Some(replica) = &node.replica else {
            return Ok(());
        };
        let position = replica.position();
        let conn = open_reader(&node.path).map_err(|e| e.to_string())?;
        let mut known = past::read(&conn).map_err(|e| e.to_string())?;
        known.push((position.sequence, position.hash));
        let candidate = self.candidate(
            Source::Node(node.id.0),
            position.sequence,
            position.hash,
            &known,
        );
        let (uid, life, id) = (node.uid, node.life, node.id.0);
        let said = format!("node {uid} stands: {candidate:?}");
        if let Some(election) = &mut self.histories.election {
            election.stood.insert(id, (uid, life, candidate));
        }
        self.say(|| said);
        Ok(())
    }

    fn candidate(
        &self,
        source: Source,
        position: Sequence,
        hash: u64,
        known: &[(Sequence, u64)],
    ) -> Candidate {
        let info = self.stream.info();
        let there = self.stream.fingerprint(position);
        let broken = continuity::compare("order", &info, position, hash, there);
        let reaches = self.stream.first() == 1
            || known
                .iter()
                .any(|(at, hash)| self.stream.fingerprint(*at) == Some(*hash));
        Candidate {
            source,
            position,
            lost: matches!(
                broken,
                Err(continuity::Broken::Shorter { .. } | continuity::Broken::Other { .. })
            ),
            reaches,
        }
    }

    /// Where everybody who is waited for has said where he stands, or is waited for no longer, the next history begins.
    pub fn elect(&mut self, r: &mut Rng) -> Out<()> {
        let nodes: BTreeMap<i64, u64> = self
            .nodes
            .iter()
            .filter(|n| n.replica.is_some() && !n.cut_off)
            .map(|n| (n.uid, n.life))
            .collect();
        let Some(election) = &mut self.histories.election else {
            return Ok(());
        };
        election
            .stood
            .retain(|_, (uid, life, _)| nodes.get(uid) == Some(life));
        let missing = election
            .wanted
            .iter()
            .filter(|uid| nodes.contains_key(uid))
            .any(|uid| !election.stood.values().any(|s| s.0 == *uid));
        // Where nobody is of the history that has broken, its base alone is left.
        let settled = self.histories.settled;
        let nobody = !self
            .nodes
            .iter()
            .any(|n| !n.cut_off && n.replica.as_ref().is_some_and(|r| r.history() == settled));
        if (election.stood.is_empty() && !nobody) || (missing && !r.chance(40)) {
            return Ok(());
        }
        let mut candidates: Vec<Candidate> = election.stood.values().map(|s| s.2.clone()).collect();
        let shots = self
            .snapshots
            .as_ref()
            .map_or(Vec::new(), |s| s.shots.clone());
        for shot in &shots {
            let position = shot.state_position();
            let known = [(position.sequence, position.hash)];
            candidates.push(self.candidate(
                Source::Snapshot(shot.manifest.file.clone()),
                position.sequence,
                position.hash,
                &known,
            ));
        }
        let chosen = choose(&candidates).ok_or("nobody to choose")?.clone();
        self.say(|| format!("chosen: {chosen:?}"));
        self.add("history begins while a node is away", u64::from(missing));
        self.begin(&chosen.source, r)
    }

    /// The base is put into the store, and the history begins.
    fn begin(&mut self, source: &Source, r: &mut Rng) -> Out<()> {
        let path = self.shot_path();
        let (mut copied, ours) = match source {
            Source::Snapshot(file) => {
                self.count("history begins from a snapshot");
                std::fs::copy(file, &path).map_err(|e| e.to_string())?;
                (open_writer(&path).map_err(|e| e.to_string())?, None)
            }
            Source::Node(id) => {
                self.count("history begins from a node");
                let election = self.histories.election.as_ref().ok_or("no election")?;
                let uid = election.stood.get(id).ok_or("nobody who stands")?.0;
                let giver = self.nodes.iter().find(|n| n.uid == uid);
                let giver = giver.ok_or("a giver that is gone")?;
                let copied = copy::copy(&giver.path, &path, || false).map_err(|e| e.to_string())?;
                let stored = match &giver.replica {
                    Some(replica) => replica.stored_incarnation().map_err(|e| e.to_string())?,
                    None => 0,
                };
                (copied, Some((giver.id, stored)))
            }
        };
        let mut taken = publishers::read(&copied).map_err(|e| e.to_string())?;
        let (mut void, mut own, mut complete, mut highest) = (Vec::new(), Vec::new(), true, 0);
        for at in self.stream.first()..=self.stream.end() {
            let Body::Batch(batch) = &self.stream.entries[at].incoming.body else {
                continue;
            };
            let record = &batch.record;
            let is_own = ours.is_some_and(|(me, _)| me == record.node);
            if is_own {
                highest = highest.max(record.incarnation.counter);
            }
            let sequence = Sequence(at as u64);
            if !order::admit(&mut taken, record, sequence) {
                continue;
            }
            match self.stream.whole(at) {
                Some(batch) if is_own => own.push(batch),
                Some(_) => {}
                None => {
                    void.push(sequence);
                    complete &= !is_own;
                }
            }
        }
        let mut ended = None;
        if let Some((me, stored)) = ours.filter(|_| complete)
            && base::contains(&copied, &own).map_err(|e| e.to_string())?
        {
            ended = Some((me, base::end_of_lives(stored, highest, r.next())));
        }
        self.count(match (ours, ended) {
            (Some(_), None) => "base that does not contain all of its node",
            _ => "base",
        });
        self.add("void message", void.len() as u64);
        let history = History {
            number: self.histories.settled.number + 1,
            id: r.next(),
        };
        let base = Base {
            history,
            position: Sequence(self.stream.first() as u64 - 1),
            void: &void,
            ended,
        };
        base::make(&mut copied, &base).map_err(|e| e.to_string())?;
        copy::finish(copied).map_err(|e| e.to_string())?;
        self.settle_on(history, path, &void)
    }

    fn settle_on(
        &mut self,
        history: History,
        path: std::path::PathBuf,
        void: &[Sequence],
    ) -> Out<()> {
        // Whoever has not restored onto the base yet is what it was.
        for n in 0..self.nodes.len() {
            if self.nodes[n].history.is_none() {
                let at = match &self.nodes[n].replica {
                    Some(replica) => replica.position().sequence.0 as usize,
                    None => self.nodes[n].stored_position()?,
                };
                let line = self.nodes[n].line.clone();
                self.nodes[n].history = Some(self.fold_on(line.as_ref(), at));
            }
        }
        for f in 0..self.files.len() {
            if self.files[f].history.is_none() {
                let (line, at) = (self.files[f].line.clone(), self.files[f].position);
                self.files[f].history = Some(self.fold_on(line.as_ref(), at));
            }
        }
        let content = self.content(&path)?;
        let conn = open_reader(&path).map_err(|e| e.to_string())?;
        let position = node::read(&conn)
            .map_err(|e| e.to_string())?
            .ok_or("a base without state")?
            .position;
        let void: Vec<usize> = void.iter().map(|at| at.0 as usize).collect();
        self.stream
            .begin_again(content.clone(), Accepts::read(&conn)?, &void);
        self.histories.settled = history;
        self.histories.election = None;
        if let Some(snapshots) = &mut self.snapshots {
            for shot in snapshots.forget_all() {
                remove_file(&shot);
            }
        }
        self.say(|| format!("history {history} begins at {}", position.sequence));
        let at = position.sequence.0 as usize;
        self.add_shot(path, position, content, at)?;
        for n in 0..self.nodes.len() {
            let end = self.stream.state(self.stream.end());
            let left = crate::node::private_count(&self.specs, end, self.nodes[n].uid);
            self.nodes[n].floor = self.nodes[n].floor.min(left);
        }
        Ok(())
    }

    /// What a database comes to at a position.
    pub fn fold_on(
        &self,
        line: Option<&Rc<crate::snapshots::Line>>,
        at: usize,
    ) -> crate::model::State {
        line.and_then(|l| l.state(&self.stream, at))
            .unwrap_or_else(|| self.stream.state(at).clone())
    }

    /// Which change-log rows of a node a snapshot contains, as it says itself.
    pub fn covered_by(
        &self,
        path: &std::path::Path,
        me: NodeId,
    ) -> Out<std::collections::BTreeSet<(String, i64, i64)>> {
        let conn = open_reader(path).map_err(|e| e.to_string())?;
        let mut all = std::collections::BTreeSet::new();
        harmonylite::state::covered::each::<harmonylite::sqlite::error::SqliteError>(
            &conn,
            me,
            |covered| {
                for rows in &covered.rows {
                    let table = &covered.tables[rows.table as usize];
                    all.extend(
                        rows.rows()
                            .map(|(id, stamp)| (table.clone(), id, i64::from(stamp))),
                    );
                }
                Ok(())
            },
        )
        .map_err(|e| e.to_string())?;
        Ok(all)
    }
}
