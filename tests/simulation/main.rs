//! Deterministic simulation of the engine: several nodes on real SQLite files, a simulated replication log, one seed for everything.
//! `docs/testing.md` says what is simulated and how to replay a seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]
#![allow(missing_docs)]

mod application;
mod check;
mod cuts;
mod faults;
mod histories;
mod inbound;
mod lives;
mod model;
mod node;
mod outbound;
#[cfg(feature = "planted-bugs")]
mod planted;
mod required;
mod restores;
mod rng;
mod schema;
mod snapshots;
mod steps;
mod stream;
mod template;
mod workload;
mod world;

use mimalloc as _;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use required::{ENOUGH, ENOUGH_FOR_RARE, RARE, REQUIRED};
use world::{Counters, Outcome};

/// What a check says: a sentence.
pub type Out<T> = Result<T, String>;

fn folder(worker: usize) -> PathBuf {
    let base = PathBuf::from("/dev/shm");
    let base = if base.is_dir() {
        base
    } else {
        std::env::temp_dir()
    };
    base.join(format!(
        "harmonylite-simulation-{}-{worker}",
        std::process::id()
    ))
}

/// Removes what a worker leaves.
pub fn tidy(worker: usize) {
    let folder = folder(worker);
    let _ = std::fs::remove_dir_all(world::templates(&folder));
    let _ = std::fs::remove_dir_all(folder);
}

/// Runs a seed; a panic counts as a failure.
pub fn run(seed: u64, worker: usize, without: &HashSet<usize>, trace: bool) -> Outcome {
    let folder = folder(worker);
    let done = std::panic::catch_unwind(|| world::run(seed, &folder, without, trace));
    done.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Outcome {
            result: Err(format!("panic: {}", text.unwrap_or_default())),
            counters: Counters::new(),
            trace: Vec::new(),
            steps: 0,
        }
    })
}

pub fn env(name: &str) -> Option<u64> {
    [name.to_owned(), format!("HARMONYLITE_{name}")]
        .iter()
        .find_map(|n| std::env::var(n).ok()?.parse().ok())
}

/// What a failure is about, without its numbers.
fn class(why: &str) -> String {
    why.chars()
        .filter(|c| !c.is_ascii_digit())
        .take(30)
        .collect()
}

/// The steps that a failure does not need.
fn shrink(seed: u64, total: usize, why: &str) -> HashSet<usize> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut without: HashSet<usize> = HashSet::new();
    let mut size = total.div_ceil(2).max(1);
    while size > 0 {
        let mut start = 0;
        while start < total {
            let chunk: Vec<usize> = (start..(start + size).min(total))
                .filter(|s| !without.contains(s))
                .collect();
            start += size;
            if chunk.is_empty() {
                continue;
            }
            if Instant::now() > until {
                return without;
            }
            let mut tried = without.clone();
            tried.extend(chunk);
            if run(seed, 900, &tried, false)
                .result
                .is_err_and(|e| class(&e) == class(why))
            {
                without = tried;
            }
        }
        size /= 2;
    }
    without
}

fn report(seed: u64, why: &str) {
    println!("FAILED, replay with: SEED={seed} cargo test --profile sim --test simulation: {why}");
}

/// Replays one seed, shrunk, with its trace.
fn replay(seed: u64) -> bool {
    let outcome = run(seed, 901, &HashSet::new(), false);
    let Err(why) = &outcome.result else {
        println!("seed {seed} is clean");
        tidy(901);
        return true;
    };
    report(seed, why);
    let without = if env("SHRINK") == Some(0) {
        HashSet::new()
    } else {
        shrink(seed, outcome.steps, why)
    };
    let shrunk = run(seed, 902, &without, true);
    for line in &shrunk.trace {
        println!("{line}");
    }
    println!(
        "{} of {} steps left: {:?}",
        outcome.steps - without.len(),
        outcome.steps,
        shrunk.result
    );
    [900, 901, 902].into_iter().for_each(tidy);
    false
}

struct Totals {
    counters: Counters,
    failed: Vec<(u64, String)>,
}

/// Runs seeds on all cores until they are used up or the time is.
fn many(
    seeds: &(dyn Fn(u64) -> Option<u64> + Sync),
    limit: Option<u64>,
    time: Option<Duration>,
    threads: usize,
) -> (Totals, u64) {
    let totals = Mutex::new(Totals {
        counters: Counters::new(),
        failed: Vec::new(),
    });
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let since = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let (totals, next, done, stop) = (&totals, &next, &done, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && time.is_none_or(|t| since.elapsed() < t) {
                    let Some(seed) = seeds(next.fetch_add(1, Ordering::Relaxed)) else {
                        break;
                    };
                    let outcome = run(seed, worker, &HashSet::new(), false);
                    let mut totals = totals.lock().unwrap();
                    for (name, n) in outcome.counters {
                        *totals.counters.entry(name).or_default() += n;
                    }
                    if let Err(why) = outcome.result {
                        report(seed, &why);
                        totals.failed.push((seed, why));
                        if totals.failed.len() as u64 >= env("FAILURES").unwrap_or(5) {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    let n = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if n.is_multiple_of(500) {
                        let rate = n as f64 / since.elapsed().as_secs_f64();
                        match limit {
                            Some(limit) => println!(
                                "{} {n} of {limit} seeds, {rate:.0} seeds/s",
                                bar(n, limit)
                            ),
                            None => println!("{n} seeds, {rate:.0} seeds/s"),
                        }
                    }
                }
                tidy(worker);
            });
        }
    });
    let n = done.load(Ordering::Relaxed);
    println!(
        "{n} seeds in {:.1} s, {:.0} seeds/s",
        since.elapsed().as_secs_f64(),
        n as f64 / since.elapsed().as_secs_f64()
    );
    (totals.into_inner().unwrap(), n)
}

/// Seeds that found a bug, with what they found. They begin every run.
const REGRESSIONS: &[(u64, &str)] = &[
    (
        617,
        "payload of a life that had ended was trimmed, and its record came",
    ),
    (
        3529,
        "a commit that was broken off when it had taken effect counted as failed, and its echoes were awaited for ever",
    ),
    (
        10,
        "cells on their way counted as a whole row once a column was added",
    ),
    (
        667,
        "a whole row on its way, without the column that was added meanwhile, hid another node's value of it",
    ),
    (
        4269,
        "with replicate = false, own batches counted though another daemon had taken over the id",
    ),
    (
        11_938,
        "after replicate = false an own earlier row took a UNIQUE value from an own later one",
    ),
    (
        37_447,
        "change logs that were dropped with the end of capture were read again after a pause",
    ),
    (
        5_885_736_627_771,
        "a scan was broken off while it looked for a place to cut, and what it had not read was taken for read",
    ),
];

/// Fixed seeds of a plain run.
const FIXED: u64 = 500;
/// How long a plain run goes on with fresh seeds.
const FRESH: Duration = Duration::from_secs(60);

/// Where the fresh seeds begin: far above all that are written down anywhere.
fn rand_seed() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    rng::Rng::of(now, 0).next() >> 16 | 1 << 40
}

fn bar(n: u64, of: u64) -> String {
    let full = (n * 30 / of.max(1)) as usize;
    format!("[{}{}]", "#".repeat(full), " ".repeat(30 - full.min(30)))
}

fn main() -> ExitCode {
    // Where it happened is of interest in a replay; in a run of many seeds it would hide them.
    std::panic::set_hook(Box::new(|panic| {
        if env("SEED").is_some() {
            println!("{panic}");
        }
    }));
    let threads = env("THREADS").map_or_else(
        || std::thread::available_parallelism().map_or(2, usize::from),
        |t| t as usize,
    );
    if let Some(seed) = env("SEED") {
        let clean = replay(seed);
        return ExitCode::from(u8::from(!clean));
    }
    #[cfg(feature = "planted-bugs")]
    if env("SEEDS").is_none() {
        return ExitCode::from(u8::from(!planted::planted(
            env("MOST"),
            env("QUICK") == Some(1),
        )));
    }
    let start = env("START").unwrap_or(1);
    let fresh = rand_seed();
    let (totals, n) = match env("SEEDS") {
        Some(n) => many(&|i| (i < n).then_some(start + i), Some(n), None, threads),
        None => {
            println!(
                "{} known seeds, {FIXED} fixed ones from 1 on, then fresh ones from {fresh} on for {} s",
                REGRESSIONS.len(),
                FRESH.as_secs()
            );
            let (fixed, n) = many(
                &|i| {
                    REGRESSIONS
                        .get(i as usize)
                        .map(|r| r.0)
                        .or_else(|| (i < FIXED).then(|| i + 1 - REGRESSIONS.len() as u64))
                },
                Some(FIXED),
                None,
                threads,
            );
            if fixed.failed.is_empty() {
                let (more, m) = many(&|i| Some(fresh + i), None, Some(FRESH), threads);
                let mut all = fixed;
                for (name, n) in more.counters {
                    *all.counters.entry(name).or_default() += n;
                }
                all.failed = more.failed;
                (all, n + m)
            } else {
                (fixed, n)
            }
        }
    };
    if let Some((seed, _)) = totals.failed.first() {
        replay(*seed);
    }
    for (name, n) in &totals.counters {
        println!("{n:10} {name}");
    }
    let never: Vec<&&str> = REQUIRED
        .iter()
        .chain(RARE.iter().filter(|_| n >= ENOUGH_FOR_RARE))
        .filter(|name| totals.counters.get(**name).is_none_or(|n| *n == 0))
        .collect();
    let thin = n >= ENOUGH && !never.is_empty();
    if thin {
        println!("FAILED: in {n} seeds this never happened: {never:?}");
    }
    ExitCode::from(u8::from(thin || !totals.failed.is_empty()))
}
