//! What the application of a node does: transactions of all kinds of statements, left open over other steps now and then.

use crate::Out;
use crate::model::Val;
use crate::node::is_refusal;
use crate::rng::Rng;
use crate::schema::PRIVATE;
use crate::world::World;

impl World {
    pub fn application(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        if !self.nodes[n].publish || !self.nodes[n].captures {
            return Ok(());
        }
        if self.nodes[n].held.is_some() {
            if r.chance(600) {
                let commit = r.chance(800);
                return self.finish_app(n, commit);
            }
        } else {
            self.nodes[n]
                .app
                .execute_batch(if r.chance(500) {
                    "BEGIN"
                } else {
                    "BEGIN IMMEDIATE"
                })
                .map_err(|e| e.to_string())?;
            self.nodes[n].held = Some(None);
        }
        self.app_statements(n, r)?;
        if self.nodes[n].held.is_some() && !r.chance(100) {
            let commit = r.chance(930);
            self.finish_app(n, commit)?;
        } else {
            self.count("application's transaction left open");
        }
        Ok(())
    }

    fn app_statements(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let mut statements = Vec::new();
        let uid = self.nodes[n].uid;
        let mut own = None;
        if r.chance(300) {
            self.next_own += 1;
            own = Some(self.next_own);
            statements.push((
                format!("INSERT INTO {PRIVATE}(node, n) VALUES(?1, ?2) ON CONFLICT(node) DO UPDATE SET n = excluded.n"),
                vec![Val::Int(uid), Val::Int(self.next_own)],
            ));
        }
        let uids: Vec<i64> = self.nodes.iter().map(|n| n.uid).collect();
        for _ in 0..r.range(usize::from(own.is_none()), 4) {
            // Others' private rows are seldom written to.
            let spec = if r.chance(100) {
                0
            } else {
                1 + r.below(self.specs.len() - 1)
            };
            // What nobody else writes to: the private table aside, where each has its own row.
            if self
                .owners
                .as_ref()
                .is_some_and(|o| spec == 0 || o[spec] != n)
            {
                continue;
            }
            // Who has changed one column of a row that the base of a new history lacks sends the whole row, other columns as it knows them: a limit that is
            // documented. What is checked of the private rows must not depend on it.
            if spec == 0 && self.mends() {
                continue;
            }
            let savepoint = r.chance(30);
            if savepoint {
                statements.push(("SAVEPOINT s".into(), vec![]));
            }
            let table = if self.nodes[n].late[spec] {
                &self.specs[spec]
            } else {
                &self.narrow[spec]
            };
            let done = crate::workload::act(r, table, self.large, &uids);
            self.count(done.what);
            self.count(self.specs[spec].says);
            statements.extend(done.statements);
            if savepoint {
                statements.push(("ROLLBACK TO s".into(), vec![]));
                self.count("savepoint rolled back");
            }
        }
        for (sql, values) in statements {
            let node = &mut self.nodes[n];
            let done = node
                .app
                .prepare_cached(&sql)
                .and_then(|mut s| s.execute(rusqlite::params_from_iter(&values)));
            let shown: Vec<String> = values.iter().map(Val::show).collect();
            let what = match &done {
                Ok(rows) => format!("{rows} rows"),
                Err(e) => e.to_string(),
            };
            self.say(|| format!("node {uid} app: {sql} [{}]: {what}", shown.join(", ")));
            match done {
                Ok(_) => self.count("statement"),
                Err(e) if is_refusal(&e) => self.count("statement refused"),
                Err(e) => return Err(format!("{sql}: {e}")),
            }
            if self.nodes[n].app.is_autocommit() {
                self.count("transaction rolled back by OR ROLLBACK");
                self.nodes[n].held = None;
                return Ok(());
            }
        }
        if let (Some(own), Some(held)) = (own, &mut self.nodes[n].held) {
            *held = Some(own);
        }
        Ok(())
    }

    /// A transaction that only counts up the node's private count.
    pub fn count_up(&mut self, n: usize) -> Out<()> {
        self.next_own += 1;
        let node = &mut self.nodes[n];
        node.app
            .prepare_cached(&format!("INSERT INTO {PRIVATE}(node, n) VALUES(?1, ?2) ON CONFLICT(node) DO UPDATE SET n = excluded.n"))
            .and_then(|mut s| s.execute([node.uid, self.next_own]))
            .map_err(|e| e.to_string())?;
        node.last_own = Some(self.next_own);
        node.seen_own = self.next_own;
        Ok(())
    }

    pub fn finish_app(&mut self, n: usize, commit: bool) -> Out<()> {
        let node = &mut self.nodes[n];
        let Some(own) = node.held.take() else {
            return Ok(());
        };
        let uid = node.uid;
        node.app
            .execute_batch(if commit { "COMMIT" } else { "ROLLBACK" })
            .map_err(|e| e.to_string())?;
        if let Some(own) = own.filter(|_| commit) {
            node.last_own = Some(own);
            // Visible at once, and from now on.
            node.seen_own = own;
        }
        self.count(if commit {
            "application commits"
        } else {
            "application rolls back"
        });
        self.say(|| {
            format!(
                "node {uid} app: {}",
                if commit { "COMMIT" } else { "ROLLBACK" }
            )
        });
        if commit {
            self.note_point(n)?;
        }
        Ok(())
    }
}
