//! Whatever bytes a decoder is given, it answers: it never panics, never goes on for ever, and takes no more memory than its kind of message may.
//!
//! `cargo test --test fuzz` reads the inputs that were found before (`tests/fuzz/corpus`) and then a fixed number of changed ones for each decoder, always
//! the same. `make fuzz SECONDS=60` reads fresh ones for that long, all decoders together. What fails is written to the corpus: commit it with the fix.
//! A word after `--` chooses the decoders whose name contains it; `SEED=n` begins with that seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod mutate;
#[path = "../simulation/rng.rs"]
#[allow(dead_code)]
mod rng;
mod seeds;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use mutate::change;
use rng::Rng;
use targets::Target;

/// Counts what the decoders take.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Changed inputs of each decoder in a run of fixed length: a few seconds together.
const FIXED: u64 = 2_000;

/// Inputs between two looks at the clock.
const ROUND: u64 = 100;

fn main() -> ExitCode {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(
            text.parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        )
    };
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let mut targets = targets::all();
    targets.retain(|t| chosen.is_empty() || chosen.iter().any(|c| t.name.contains(c.as_str())));
    let seconds = number("SECONDS");
    let fresh = u64::from(rand::random::<u32>());
    let seed = number("SEED").unwrap_or(if seconds.is_some() { fresh } else { 1 });
    println!("{} decoders, seed {seed}", targets.len());
    // A panic is reported with the input that caused it.
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = 0;
    let count = targets.len() as u32;
    for (number, target) in targets.iter().enumerate() {
        let outcome = known(target).and_then(|known| {
            let mut rng = Rng::of(seed, number as u64);
            let share = seconds.map(|s| Duration::from_secs(s) / count.max(1));
            run(target, &mut rng, share).map(|n| (known, n))
        });
        match outcome {
            Ok((known, n)) => println!("{:24} {known:3} known, {n:8} changed: ok", target.name),
            Err(failure) => {
                println!("{:24} FAILED: {failure}", target.name);
                failed += 1;
            }
        }
    }
    ExitCode::from(u8::from(failed > 0))
}

/// The seeds, which the decoder must accept, and the inputs of the corpus. How many of the latter.
fn known(target: &Target) -> Result<usize, String> {
    for seed in &target.seeds {
        if !judge(target, seed)? {
            return Err(format!("does not accept its own seed {}", shown(seed)));
        }
    }
    let mut count = 0;
    for entry in std::fs::read_dir(corpus(target)).into_iter().flatten() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        judge(target, &bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        count += 1;
    }
    Ok(count)
}

/// Changed inputs, for so long or as many as are fixed. How many.
fn run(target: &Target, rng: &mut Rng, share: Option<Duration>) -> Result<u64, String> {
    let began = Instant::now();
    let mut n = 0;
    loop {
        for _ in 0..ROUND {
            let input = change(&target.seeds, rng);
            if let Err(failure) = judge(target, &input) {
                let folder = corpus(target);
                std::fs::create_dir_all(&folder).unwrap();
                let file = folder.join(format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&input)));
                std::fs::write(&file, &input).unwrap();
                return Err(format!(
                    "{failure}; the input is now {}: commit it with the fix",
                    file.display()
                ));
            }
            n += 1;
        }
        match share {
            Some(share) if began.elapsed() < share => {}
            None if n < FIXED => {}
            _ => return Ok(n),
        }
    }
}

/// Whether the decoder accepts the input.
fn judge(target: &Target, input: &[u8]) -> Result<bool, String> {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let accepted = catch_unwind(AssertUnwindSafe(|| (target.read)(input))).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        format!("{text} ({})", shown(input))
    })?;
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = (target.memory)(input.len());
    if taken > most {
        return Err(format!(
            "it took {taken} bytes of memory, {most} are allowed ({})",
            shown(input)
        ));
    }
    Ok(accepted)
}

fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target.name)
}

/// The beginning of an input.
fn shown(input: &[u8]) -> String {
    let hex: String = input.iter().take(64).map(|b| format!("{b:02x}")).collect();
    format!("{} bytes, {hex}", input.len())
}
