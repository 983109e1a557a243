//! The manual, followed by scripts that read its pages: what stands there as a command is run as it stands.

mod migrating;

use std::collections::BTreeSet;

use crate::harness::spaces::follow;

#[test]
fn a_newcomer_gets_there_by_the_pages_alone() {
    follow("manual/newcomer.py", &[], "followed");
}

/// The situations of `docs/troubleshooting.md`; those of one line share a machine, one after the other.
const SITUATIONS: [&[&str]; 8] = [
    &[
        "look",
        "metrics",
        "nats",
        "database",
        "everywhere",
        "reach",
        "short",
        "verbose",
        "bundle",
    ],
    &["start", "arrive", "triggers", "publish"],
    &["streams", "late", "settings"],
    &["locked", "load", "limits"],
    &["damaged", "backup", "by-hand", "rebuild"],
    &["snapshots", "stores", "restore", "full"],
    &["jetstream", "no-nats"],
    &["gone", "journals", "cleanup", "schema"],
];

fn troubleshooting(line: usize) {
    follow(
        "manual/troubleshooting.py",
        SITUATIONS[line],
        "all as the page says",
    );
}

#[test]
fn troubleshooting_looks() {
    troubleshooting(0);
}

#[test]
fn troubleshooting_starts() {
    troubleshooting(1);
}

#[test]
fn troubleshooting_delays() {
    troubleshooting(2);
}

#[test]
fn troubleshooting_load() {
    troubleshooting(3);
}

#[test]
fn troubleshooting_damage() {
    troubleshooting(4);
}

#[test]
fn troubleshooting_snapshots() {
    troubleshooting(5);
}

#[test]
fn troubleshooting_nats() {
    troubleshooting(6);
}

#[test]
fn troubleshooting_nodes() {
    troubleshooting(7);
}

/// Nothing on the page looks like a command that is run, and is not; and each test that its last table names is there.
#[test]
fn every_block_of_troubleshooting_is_run() {
    let page = include_str!("../../../docs/troubleshooting.md");
    let run: BTreeSet<&str> = SITUATIONS.iter().copied().flatten().copied().collect();
    let mut before = "";
    let mut inside = false;
    let mut marked = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
            let name = before
                .strip_prefix("<!-- run: ")
                .and_then(|rest| rest.strip_suffix(" -->"));
            assert!(
                !inside || name.is_some(),
                "no `<!-- run: NAME -->` stands before the block after {before:?}"
            );
            marked.extend(name.filter(|_| inside));
        }
        before = line;
    }
    marked.insert("short");
    assert_eq!(marked, run);
    let (_, table) = page.split_once("## The Go program's guide").unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let procedures = include_str!("../recovery/procedures.rs");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    for row in rows {
        let test = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        if test.starts_with("none: ") {
            continue;
        }
        for name in test.split('`').skip(1).step_by(2) {
            let is_there = run.contains(name)
                || name.starts_with("tests/") && root.join(name).exists()
                || procedures.contains(&format!("fn {name}()"));
            assert!(is_there, "{row}: there is no {name}");
        }
    }
}
