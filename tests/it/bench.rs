//! `harmonylite bench`, run small: what it writes and what it leaves behind, never how fast anything was.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::node::{bound, folder};
use crate::harness::{Cluster, eventually, nats};

/// A benchmark with a folder for all that it makes.
fn bench(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = bound(env!("CARGO_BIN_EXE_harmonylite"));
    command
        .arg("bench")
        .args(arguments)
        .arg("--folder")
        .arg(folder)
        .arg("--nats-server")
        .arg(nats::binary())
        .stdin(Stdio::null());
    command
}

fn small(folder: &Path, only: &str) -> (Output, Value, String) {
    let (json, svg) = (folder.join("out.json"), folder.join("out.svg"));
    let output = bench(folder, &["--rounds", "1", "--duration", "1"])
        .args(["--rows", "2000", "--database-mb", "8", "--only", only])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(&svg)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    (output, json, std::fs::read_to_string(svg).unwrap())
}

fn names(json: &Value) -> Vec<String> {
    let rows = json["rows"].as_array().unwrap();
    let name = |row: &Value| row["name"].as_str().unwrap().to_owned();
    rows.iter().map(name).collect()
}

/// Processes whose command line names this folder.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&folder) {
            found.push(line);
        }
    }
    found
}

fn left(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let own = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("harmonylite-bench-")
    };
    entries.map(|e| e.path()).filter(own).collect()
}

#[test]
fn every_usual_row_is_measured_beside_its_baseline() {
    let folder = folder();
    let usual = "capture,idle,lag: ,end to end,app wait,catch-up,memory";
    let (output, json, svg) = small(folder.path(), usual);
    let names = names(&json);
    assert_eq!(names.len(), 12, "{names:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    for row in json["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap();
        assert!(shown.contains(name), "{name} is not shown: {shown}");
        assert!(row["ours"]["median"].as_f64().unwrap() >= 0.0, "{row}");
        assert!(!row["target"].as_str().unwrap().is_empty(), "{row}");
        let has_ratio = row["ratio"]["median"].as_f64().is_some_and(|r| r > 0.0);
        assert_eq!(has_ratio, !row["baseline"].is_null(), "{row}");
        // In the chart `<` is written otherwise; the names have none.
        assert!(svg.contains(name), "{name} is not in the chart");
        assert_eq!(name.starts_with("capture"), !row["floors"].is_null());
    }
    let equal = json["equal"].as_array().unwrap();
    assert!(equal.iter().any(|e| e.as_str().unwrap().contains("items")));
    assert!(json["machine"]["cores"].as_u64().unwrap() > 0, "{json}");
    assert!(!json["machine"]["load_after"].as_str().unwrap().is_empty());
    let server = json["versions"]["nats-server"].as_str().unwrap();
    assert!(server.contains("nats-server"), "{server}");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(processes(folder.path()), Vec::<String>::new());
}

#[test]
fn the_expensive_rows_are_measured_where_they_are_named() {
    let folder = folder();
    let (_, json, _) = small(folder.path(), "snapshot,restore,log growth");
    assert_eq!(names(&json).len(), 4, "{json}");
    let left_in_log = &json["rows"][2];
    assert!(left_in_log["ours"]["median"].as_f64().unwrap() <= 1.0);
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn several_writers_at_once_lose_nothing() {
    let folder = folder();
    let output = bench(folder.path(), &["--clients", "3", "--rounds", "1"])
        .args(["--duration", "1", "--only", "end to end"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(shown.contains("3 writers"), "{shown}");
    assert!(shown.contains("table items is equal on 2 nodes"), "{shown}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = folder();
    let unknown = bench(folder.path(), &["--only", "lags"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(64));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        said.contains("\"lags\"") && said.contains("lag: p50"),
        "{said}"
    );
    // Of a flag given twice the last one counts.
    let mut command = bench(folder.path(), &["--only", "idle"]);
    let none = folder.path().join("none");
    let absent = command.arg("--nats-server").arg(none).output().unwrap();
    assert_eq!(absent.status.code(), Some(69), "{absent:?}");
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(processes(folder.path()), Vec::<String>::new());
}

fn measuring(folder: &Path) -> Child {
    let child = bench(folder, &["--duration", "3600", "--only", "end to end"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Itself, nats-server and two daemons.
    eventually("the benchmark has started all", || {
        processes(folder).len() == 4
    });
    child
}

#[test]
fn ctrl_c_leaves_no_process_and_no_file_behind() {
    let folder = folder();
    let mut child = measuring(folder.path());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert_eq!(processes(folder.path()), Vec::<String>::new());
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_killed_benchmark_takes_its_processes_with_it() {
    let folder = folder();
    let mut child = measuring(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("all have ended", || processes(folder.path()).is_empty());
}

const TABLE: &str = "CREATE TABLE harmonylite_bench(run TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY(run, n))";

#[test]
fn a_live_run_removes_its_own_rows_and_no_others() {
    let schema = format!("{TABLE}; CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);");
    let cluster = Cluster::new(2, 1, &schema);
    cluster[0].sql("INSERT INTO harmonylite_bench VALUES('somebody', 1, 'else'); INSERT INTO t VALUES(1, 'mine');");
    let expected = cluster.converge();
    // The nodes say what their schemas are a moment after they run.
    eventually("both nodes' schemas are known", || {
        let known = cluster[0].run(&["schema", "--cluster", "--json"]);
        known.said.matches("\"running\": true").count() == 2
    });
    let json = cluster[0].folder.join("live.json");
    let json_text = json.display().to_string();
    let flags = ["bench", "--live", "--duration", "1", "--rate", "50"];
    // Two at once, on two nodes.
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| cluster[1].run(&flags));
        let mut with_json = flags.to_vec();
        with_json.extend(["--clients", "2", "--json", &json_text]);
        (cluster[0].run(&with_json), other.join().unwrap())
    });
    assert_eq!(
        (first.code, second.code),
        (Some(0), Some(0)),
        "{}{}",
        first.said,
        second.said
    );
    let found: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(found["rows"], 50, "{found}");
    assert_eq!(found["removed"], 50, "{found}");
    assert_eq!(found["ways"].as_array().unwrap().len(), 2, "{found}");
    for what in ["commit_ms", "back_ms", "everywhere_ms"] {
        assert!(found[what]["count"].as_u64().unwrap() > 0, "{found}");
    }
    cluster.converge_to(&expected);
}

#[test]
fn a_live_run_that_is_stopped_removes_its_rows_too() {
    let cluster = Cluster::new(2, 1, TABLE);
    let expected = cluster.converge();
    let configuration = cluster[0].write_configuration();
    let started = std::cell::RefCell::new(None);
    // Its schema is known a moment after a node runs; until then it is refused.
    eventually("the benchmark writes", || {
        let mut held = started.borrow_mut();
        let running = held
            .as_mut()
            .is_some_and(|c: &mut Child| c.try_wait().unwrap().is_none());
        if !running {
            let mut command = bound(env!("CARGO_BIN_EXE_harmonylite"));
            command.arg("-config").arg(&configuration);
            command.args(["bench", "--live", "--duration", "3600"]);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            *held = Some(command.spawn().unwrap());
        }
        cluster[1].integer("SELECT count(*) FROM harmonylite_bench") > 0
    });
    let mut child = started.into_inner().unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    cluster.converge_to(&expected);
}

#[test]
fn a_live_run_is_refused_where_a_node_lacks_the_table() {
    let mut cluster = Cluster::prepared(2, "CREATE TABLE t(id INTEGER PRIMARY KEY)");
    let alone = cluster[0].run(&["bench", "--live"]);
    assert_eq!(alone.code, Some(69), "{}", alone.said);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let refused = cluster[0].run(&["bench", "--live"]);
    assert_eq!(refused.code, Some(69), "{}", refused.said);
    let names_it = refused.said.contains("CREATE TABLE harmonylite_bench");
    assert!(names_it, "{}", refused.said);
    let mixed = cluster[0].run(&["bench", "--live", "--svg", "x.svg"]);
    assert_eq!(mixed.code, Some(64), "{}", mixed.said);
}

#[test]
fn growth_gives_a_chart_a_sentence_and_figures_for_each_series() {
    let folder = folder();
    let out = folder.path().join("growth");
    let output = {
        let mut command = bound(env!("CARGO_BIN_EXE_harmonylite"));
        command
            .args(["bench", "growth", "--rounds", "1", "--duration", "1"])
            .args(["--rows", "1000", "--database-mb", "8"])
            .args(["--only", "shards,database size,backlog"])
            .arg("--folder")
            .arg(folder.path())
            .arg("--nats-server")
            .arg(nats::binary())
            .arg("--output")
            .arg(&out)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let json: Value = serde_json::from_str(&read("growth.json")).unwrap();
    let page = read("growth.md");
    let series = json["series"].as_array().unwrap();
    assert_eq!(series.len(), 3, "{json}");
    for one in series {
        let says = one["says"].as_str().unwrap();
        assert!(shown.contains(says) && page.contains(says), "{says}");
        for point in one["points"].as_array().unwrap() {
            let rate = &point["rows_per_second"]["median"];
            assert!(rate.as_f64().unwrap() > 0.0, "{point}");
        }
    }
    for name in ["shards.svg", "database-size.svg", "backlog.svg"] {
        assert!(page.contains(&format!("]({name})")), "{page}");
        assert!(read(name).ends_with("</svg>\n"), "{name}");
    }
    assert_eq!(left(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(processes(folder.path()), Vec::<String>::new());
}
