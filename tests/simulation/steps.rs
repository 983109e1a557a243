//! The steps of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use harmonylite::replica::Replica;

use crate::Out;
use crate::rng::Rng;
use crate::world::World;

impl World {
    /// One step; the node that it was about.
    pub fn act(&mut self, r: &mut Rng) -> Out<Option<usize>> {
        let n = r.below(self.nodes.len());
        if self.nodes[n].replica.is_none() && r.chance(400) {
            self.start(n, r)?;
            return Ok(Some(n));
        }
        if self.faults && self.rare(n, r)? {
            return Ok(Some(n));
        }
        let roll = r.below(1000);
        let uid = self.nodes[n].uid;
        self.say(|| format!("node {uid}: {roll}"));
        match roll {
            0..=329 => self.application(n, r)?,
            330..=479 if !self.goes_on(n, r)? => self.application(n, r)?,
            330..=479 => {
                let fault = self.fault(r, 40);
                self.scan_with(n, fault)?;
                if r.chance(500)
                    && self.nodes[n]
                        .replica
                        .as_ref()
                        .is_some_and(Replica::needs_tidying)
                {
                    self.tidy(n)?;
                }
            }
            480..=669 => {
                let pieces = r.range(1, 12);
                self.send(n, pieces, true, r)?;
            }
            670..=869 => {
                let fault = self.fault(r, 60);
                let (max, short) = (r.range(1, 8), r.chance(300));
                self.deliver(n, max, short, fault, r)?;
            }
            870..=884 => self.tidy(n)?,
            885..=899 => {
                self.nodes[n].limits = self.limits(r);
                self.count("limits changed");
            }
            _ if !self.faults => self.application(n, r)?,
            900..=919 => self.crash_step(n, r)?,
            920..=949 => self.ghost(r)?,
            950.. if self.owners.is_some() => self.application(n, r)?,
            950..=961 => self.save(n)?,
            962..=975 => self.put_back(n, r)?,
            976..=980 => self.copy(r, false)?,
            981..=989 => self.copy(r, true)?,
            990..=992 => {
                self.lose(n);
                return Ok(None);
            }
            _ => self.stop(n, r)?,
        }
        Ok(Some(n))
    }

    /// What happens seldom, or in some clusters only; whether it did.
    fn rare(&mut self, n: usize, r: &mut Rng) -> Out<bool> {
        if r.chance(1) && r.chance(150) {
            self.burst(n, r)?;
        } else if self.brittle && r.chance(15) {
            self.lose_tail(r)?;
        } else if self.brittle && !self.mends() && r.chance(4) {
            self.trim(r);
        } else if self.alters && r.chance(25) {
            self.add_columns(n)?;
        } else if self.modes && r.chance(15) {
            let (publish, replicate) = [(true, true), (false, true), (true, false)][r.below(3)];
            self.configure(n, publish, replicate, r)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// After so many steps of SQLite's machine the next statement breaks off, in so many of a thousand cases.
    pub fn fault(&self, r: &mut Rng, per_mille: usize) -> Option<u32> {
        (self.faults && r.chance(per_mille)).then(|| {
            let most = *r.pick(&[20, 200, 2000, 10_000]);
            r.range(1, most) as u32
        })
    }
}

/// The connection fails once after so many steps of its machine; whether it has.
pub fn break_after(conn: &mut rusqlite::Connection, steps: u32) -> Arc<AtomicBool> {
    let fired = Arc::new(AtomicBool::new(false));
    let (flag, left) = (Arc::clone(&fired), AtomicU32::new(steps));
    let _ = conn.progress_handler(
        1,
        Some(move || {
            left.fetch_sub(1, Ordering::Relaxed) == 1 && !flag.swap(true, Ordering::Relaxed)
        }),
    );
    fired
}

pub fn mend(conn: &mut rusqlite::Connection) {
    let _ = conn.progress_handler(0, None::<fn() -> bool>);
}
