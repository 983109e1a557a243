//! Plants bugs, one at a time, to see that the simulation finds them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use harmonylite::planted::{Bug, plant};

use crate::{run, tidy};

/// What needs more seeds than [`WITHIN`], and within how many it must be found: about four times what it took when this was written.
const SLOWER: &[(&str, u64)] = &[
    ("DeletesLast", 600),
    ("BeginLeftOpen", 800),
    ("NonceIgnored", 2000),
    ("RetiresTheFuture", 2500),
    ("KeylessStays", 3000),
    ("SettledTooSoon", 30_000),
    ("OnlyOwnIncarnation", 10_000),
    ("ParkedIsLost", 10_000),
    ("AnyPieceWillDo", 10_000),
    ("BytesAloneCompared", 30_000),
    ("CellsWithoutRow", 30_000),
    ("CoveredForgotten", 1500),
    ("LoserNotLogged", 1500),
    ("RestoreForgetsNoCells", 1500),
    ("SilenceIgnored", 30_000),
];

/// Within how many seeds any other planted bug must be found. These are planted by `make test`, too.
const WITHIN: u64 = 400;

/// Plants one bug after the other and looks how many seeds it takes to find it; whether all were found.
pub fn planted(most: Option<u64>, quick: bool) -> bool {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let all_found = AtomicBool::new(true);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let (next, all_found) = (&next, &all_found);
            scope.spawn(move || {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = format!("{bug:?}");
                    if std::env::var("BUG").is_ok_and(|wanted| name != wanted) {
                        continue;
                    }
                    let slower = SLOWER.iter().find(|(n, _)| *n == name).map(|(_, n)| *n);
                    if quick && slower.is_some() {
                        continue;
                    }
                    let most = most.or(slower).unwrap_or(WITHIN);
                    plant(Some(*bug));
                    let found = (1..=most).find_map(|seed| {
                        run(seed, worker, &HashSet::new(), false)
                            .result
                            .err()
                            .map(|why| (seed, why))
                    });
                    plant(None);
                    match found {
                        Some((seed, why)) => println!("{name}: found by seed {seed}: {why}"),
                        None => {
                            println!("FAILED: {name} is not found in {most} seeds");
                            all_found.store(false, Ordering::Relaxed);
                        }
                    }
                }
                tidy(worker);
            });
        }
    });
    all_found.into_inner()
}
