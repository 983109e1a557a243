//! Who may import whom. The rules are those of `docs/architecture.md`; a new dependency between rooms has to be argued there first.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::{Path, PathBuf};

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every source file below `src` with its room (the first folder or the file's name) and its text.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files
        .into_iter()
        .map(|f| {
            let inside = f.strip_prefix(&root).unwrap();
            let room = inside
                .components()
                .next()
                .unwrap()
                .as_os_str()
                .to_string_lossy()
                .trim_end_matches(".rs")
                .to_owned();
            let text = std::fs::read_to_string(&f).unwrap();
            // What a module's own tests need is no dependency of the program.
            let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (room, f, text)
        })
        .collect()
}

fn forbid(room: &str, words: &[&str]) {
    let mut seen = false;
    for (_, file, text) in rooms().iter().filter(|(r, ..)| r == room) {
        seen = true;
        for word in words {
            let code = text
                .lines()
                .find(|l| !l.trim_start().starts_with("//") && l.contains(word));
            assert!(
                code.is_none(),
                "{} must not use {word}: {}",
                file.display(),
                code.unwrap_or_default()
            );
        }
    }
    assert!(seen, "there is no room {room}");
}

const LOOPS: [&str; 2] = ["crate::publish", "crate::consume"];

#[test]
fn only_stream_knows_nats() {
    for (room, file, text) in rooms() {
        assert!(
            room == "stream" || !text.contains("async_nats"),
            "{} uses async_nats",
            file.display()
        );
    }
}

#[test]
fn the_floor_stands_on_nothing() {
    forbid(
        "change",
        &[
            "crate::sqlite",
            "crate::codec",
            "crate::stream",
            "crate::config",
            "rusqlite",
            "tokio",
        ],
    );
    forbid(
        "config",
        &[
            "crate::sqlite",
            "crate::codec",
            "crate::stream",
            "rusqlite",
            "tokio",
        ],
    );
    forbid(
        "runtime",
        &["crate::sqlite", "crate::codec", "crate::stream", "rusqlite"],
    );
}

#[test]
fn the_codec_knows_no_database_and_no_broker() {
    forbid(
        "codec",
        &[
            "rusqlite",
            "crate::sqlite",
            "crate::stream",
            "tokio",
            "crate::publish",
            "crate::consume",
        ],
    );
}

#[test]
fn the_engine_is_synchronous_and_knows_no_broker() {
    for room in [
        "sqlite",
        "capture",
        "changelog",
        "apply",
        "state",
        "replica",
        "journals",
    ] {
        forbid(
            room,
            &[
                "crate::stream",
                "tokio",
                "async ",
                "crate::daemon",
                "crate::engine",
                "crate::http",
            ],
        );
        forbid(room, &LOOPS);
    }
}

#[test]
fn the_loops_do_not_know_each_other() {
    forbid("publish", &["crate::consume", "crate::daemon"]);
    forbid("consume", &["crate::publish", "crate::daemon"]);
}

#[test]
fn what_nodes_say_to_one_another_knows_no_database_and_no_loop() {
    forbid(
        "peers",
        &[
            "rusqlite",
            "crate::sqlite",
            "crate::engine",
            "crate::replica",
        ],
    );
    for room in ["peers", "verify", "wait"] {
        forbid(
            room,
            &[
                "crate::daemon",
                "crate::cli",
                "crate::control",
                "crate::http",
            ],
        );
        forbid(room, &LOOPS);
    }
}

#[test]
fn the_cluster_view_knows_no_database_and_no_loop() {
    forbid(
        "cluster",
        &[
            "rusqlite",
            "crate::sqlite",
            "crate::daemon",
            "crate::cli",
            "crate::control",
        ],
    );
    forbid("cluster", &LOOPS);
    forbid(
        "brakes",
        &["rusqlite", "tokio", "crate::stream", "crate::engine"],
    );
}

#[test]
fn http_asks_no_loop() {
    forbid(
        "http",
        &[
            "crate::replica",
            "crate::stream",
            "rusqlite",
            "crate::engine",
        ],
    );
    forbid("http", &LOOPS);
}

#[test]
fn nobody_needs_the_benchmark() {
    for (room, file, text) in rooms() {
        assert!(
            ["bench", "cli"].contains(&room.as_str()) || !text.contains("crate::bench"),
            "{} uses the benchmark",
            file.display()
        );
    }
    // It starts daemons as processes, as a person does.
    forbid("bench", &["crate::daemon", "crate::engine", "async_nats"]);
    forbid("bench", &LOOPS);
}

#[test]
fn every_module_says_what_it_is_for() {
    for (_, file, text) in rooms() {
        let tests = file.file_name().is_some_and(|n| n == "tests.rs");
        assert!(
            tests || text.starts_with("//!"),
            "{} does not begin with //!",
            file.display()
        );
    }
}
