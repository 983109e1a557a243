//! What the daemon tells: lines that machines can read whatever tables are called, repeats that are counted, a file that is rotated or cannot be written, steps that take long.

mod phrases;
mod profiles;
mod reload;

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value as Json;

use crate::harness::http::{free_port, get};
use crate::harness::wait::eventually_ok;
use crate::harness::{Node, eventually, node};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

/// A node with these lines in `[logging]`, and the port of its health.
fn logging(url: &str, schema: &str, lines: &str) -> (Node, u16) {
    let mut node = Node::new(1, url, schema);
    let port = free_port();
    node.sections.push_str(&format!(
        "[logging]\n{lines}\n[health_check]\nenable = true\nbind = \"127.0.0.1:{port}\"\n"
    ));
    (node, port)
}

fn health(port: u16) -> Json {
    eventually_ok("health answers", || {
        let (_, body) = get(port, "/health").ok_or("nobody answers")?;
        serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))
    })
}

fn file_of(node: &Node) -> PathBuf {
    node.folder.join("harmonylite.log")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn every_line_is_one_object_with_the_same_names_whatever_tables_are_called() {
    let server = node::broker();
    // Without a key it is warned of by name, and NULL in a key is told of with table and rows.
    let hostile = "CREATE TABLE \"a\nERROR forged {\"\"\u{1b}[2J\u{2028}\u{202e}\"(v);
                   CREATE TABLE \"b\n\"(k TEXT PRIMARY KEY, v); INSERT INTO \"b\n\" VALUES('x', 1);";
    let (mut node, port) = logging(
        &server.url(),
        hostile,
        "format = \"json\"\nverbose = true\nfile = \"FILE\"",
    );
    let file = file_of(&node);
    node.sections = node.sections.replace("FILE", &file.display().to_string());
    node.environment
        .push(("HARMONYLITE_LOG".to_owned(), "harmonylite=trace".to_owned()));
    node.spawn();
    node.wait_log("\"message\":\"replicating\"");
    node.sql("INSERT INTO \"b\n\" VALUES('y', 2), ('z', 3), (NULL, 4)");
    node.wait_log("rows with NULL in their primary key");
    node.wait_log("folded messages");
    eventually("health counts the warnings", || {
        health(port)["log"]["warnings"]
            .as_u64()
            .is_some_and(|n| n > 0)
    });
    node.stop();
    let log = node.log();
    let lines: Vec<Json> = log
        .split('\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(!log.contains(['\u{1b}', '\u{2028}', '\u{202e}', '\r']));
    for line in &lines {
        let at = line["timestamp"].as_str().unwrap();
        assert!(at.len() == 27 && at.ends_with('Z'), "{line}");
        assert!(
            line["level"].is_string() && line["target"].is_string(),
            "{line}"
        );
        assert!(line["message"].is_string() && line["node"] == 1, "{line}");
        for number in [
            "shard", "seq", "rows", "duration", "position", "batch", "bytes",
        ] {
            assert!(line.get(number).is_none_or(Json::is_number), "{line}");
        }
    }
    let of = |message: &str| {
        let line = lines.iter().find(|line| line["message"] == message);
        line.unwrap_or_else(|| panic!("{message}: {log}")).clone()
    };
    let published = of("published a batch");
    assert!(
        published["seq"].as_u64() >= Some(1) && published["shard"] == 1,
        "{published}"
    );
    assert!(
        published["duration"].is_f64() && published["rows"].is_u64(),
        "{published}"
    );
    assert!(of("folded messages")["seq"].as_u64() >= Some(1));
    assert_eq!(of("a message came")["level"], "TRACE");
    let null = lines
        .iter()
        .find(|line| {
            line["message"]
                .as_str()
                .unwrap()
                .starts_with("rows with NULL")
        })
        .unwrap();
    assert_eq!(
        (null["table"].as_str(), null["rows"].as_u64()),
        (Some("b\n"), Some(1))
    );
    // The file has the same lines.
    let kept = read(&file);
    assert_eq!(kept.lines().count(), lines.len());
    assert_eq!(log, kept);
}

#[test]
fn the_same_over_and_over_is_told_once_and_counted() {
    let server = node::broker();
    let schema = "CREATE TABLE k(k TEXT PRIMARY KEY, v)";
    let (mut node, port) = logging(&server.url(), schema, "repeat_interval = 600000");
    node.start_replicating();
    let warnings = || health(port)["log"]["warnings"].as_u64().unwrap_or_default();
    // Each is found by a scan of its own, and warned of.
    for _ in 0..6 {
        let before = warnings();
        node.sql("INSERT INTO k VALUES(NULL, 1)");
        eventually("it is warned of", || warnings() > before);
    }
    let told = |log: &str, text: &str| log.lines().filter(|l| l.contains(text)).count();
    let log = node.log();
    assert_eq!(
        told(&log, "rows with NULL in their primary key"),
        1,
        "{log}"
    );
    node.stop();
    // What was counted is told before the end.
    let log = node.log();
    assert_eq!(
        told(&log, "rows with NULL in their primary key"),
        2,
        "{log}"
    );
    assert_eq!(told(&log, "; and 5 times more in "), 1, "{log}");
}

#[test]
fn a_file_is_its_owners_and_followed_when_it_is_renamed() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = node::broker();
    let (mut node, _) = logging(&server.url(), SCHEMA, "file = \"FILE\"");
    let file = file_of(&node);
    let old = node.folder.join("old.log");
    node.sections = node.sections.replace("FILE", &file.display().to_string());
    node.start_replicating();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(read(&file).contains("replicating position"));
    // Renamed, with the signal that says so.
    std::fs::rename(&file, &old).unwrap();
    node.signal(Signal::SIGHUP);
    eventually("the file is there again", || {
        read(&file).contains("the configuration was read again")
    });
    assert!(!read(&old).contains("the configuration was read again"));
    // Renamed without a signal, and removed.
    std::fs::rename(&file, &old).unwrap();
    eventually("the file is made anew by itself", || file.exists());
    std::fs::remove_file(&file).unwrap();
    eventually("the file is made anew by itself", || file.exists());
    assert_eq!(node.run(&["streams"]).code, Some(0));
    eventually("lines are in it", || {
        read(&file).contains("command=streams")
    });
    node.stop();
    let last = read(&file);
    assert!(last.trim_end().ends_with("stopped"), "{last}");
    // Standard error has it all.
    assert!(node.log().contains("replicating position") && node.log().contains("command=streams"));
}

#[test]
fn logrotate_rotates_with_the_file_that_comes_along() {
    let program = "/usr/sbin/logrotate";
    if !Path::new(program).exists() {
        eprintln!("NOT RUN: {program} is not there: apt-get install logrotate");
        return;
    }
    let server = node::broker();
    let (mut node, _) = logging(&server.url(), SCHEMA, "file = \"FILE\"");
    let folder = node.folder.join("log");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("harmonylite.log");
    node.sections = node.sections.replace("FILE", &file.display().to_string());
    node.start_replicating();
    let rules = include_str!("../../../systemd/harmonylite.logrotate");
    let rules = rules.replace("/var/log/harmonylite", &folder.display().to_string());
    let (config, state) = (node.folder.join("rules"), node.folder.join("state"));
    std::fs::write(&config, rules).unwrap();
    let rotate = || {
        let done = Command::new(program)
            .args(["--verbose", "--force", "--state"])
            .args([&state, &config])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && !said.contains("error:"), "{said}");
    };
    rotate();
    let first = folder.join("harmonylite.log.1");
    assert!(read(&first).contains("replicating position"));
    eventually("the file is made anew", || file.exists());
    assert_eq!(node.run(&["streams"]).code, Some(0));
    eventually("lines are in it", || {
        read(&file).contains("command=streams")
    });
    rotate();
    assert!(read(&first).contains("command=streams"));
    assert!(folder.join("harmonylite.log.2.gz").exists());
    node.stop();
}

#[test]
fn a_file_that_cannot_be_written_stops_nothing_and_is_said() {
    let server = node::broker();
    let (mut node, port) = logging(&server.url(), SCHEMA, "file = \"FILE\"");
    let (folder, away) = (node.folder.join("log"), node.folder.join("away"));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("harmonylite.log");
    node.sections = node.sections.replace("FILE", &file.display().to_string());
    node.start_replicating();
    std::fs::rename(&folder, &away).unwrap();
    node.wait_log("cannot be written");
    let shown = eventually_ok("health says so", || {
        let health = health(port);
        let warnings = health["warnings"].to_string();
        match warnings.contains("harmonylite.log cannot be written") {
            true => Ok(health),
            false => Err(warnings),
        }
    });
    // It is a reason to look, and none to take the node out.
    assert_eq!(shown["status"], "healthy", "{shown}");
    node.sql("INSERT INTO t VALUES(1, 1)");
    node.wait_published();
    std::fs::rename(&away, &folder).unwrap();
    node.wait_log("is written again");
    eventually("health forgets it", || {
        !health(port)["warnings"]
            .to_string()
            .contains("cannot be written")
    });
    eventually("the gap is told", || {
        read(&file).contains("the log file is written again;")
    });
    node.stop();
}

#[test]
fn a_disk_that_is_full_stops_nothing() {
    let server = node::broker();
    let (mut node, port) = logging(&server.url(), SCHEMA, "verbose = true\nfile = \"FILE\"");
    let disk = node.folder.join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "none"])
        .arg(&disk)
        .output()
        .unwrap();
    if !mounted.status.success() {
        eprintln!("NOT RUN: a small disk of its own needs root that may mount");
        return;
    }
    let _unmount = Unmount(disk.clone());
    let file = disk.join("harmonylite.log");
    node.sections = node.sections.replace("FILE", &file.display().to_string());
    node.start_replicating();
    std::fs::write(disk.join("filler"), vec![0; 1 << 20]).unwrap_err();
    // The page that the file has begun takes some lines more.
    for id in 0..100 {
        node.sql(&format!("INSERT INTO t VALUES({id}, 1)"));
        node.wait_published();
        if node.log().contains("No space left") {
            break;
        }
    }
    node.wait_log("cannot be written (No space left on device");
    node.sql("INSERT INTO t VALUES(1000, 2)");
    node.wait_published();
    eventually("health says so", || {
        health(port)["warnings"]
            .to_string()
            .contains("No space left")
    });
    std::fs::remove_file(disk.join("filler")).unwrap();
    node.wait_log("is written again");
    eventually("the gap is told", || {
        read(&file).contains("lines are missing before this one")
    });
    node.stop();
    // No line was torn.
    for line in read(&file).lines() {
        assert!(line.is_empty() || line.starts_with("20"), "{line:?}");
    }
}

/// Takes the small disk away again.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn nobody_reads_standard_error_and_the_node_goes_on() {
    use std::process::Stdio;
    let server = node::broker();
    let (mut other, port) = logging(&server.url(), SCHEMA, "verbose = true");
    other
        .environment
        .push(("HARMONYLITE_LOG".to_owned(), "trace".to_owned()));
    let config = other.write_configuration();
    // A pipe of 64 KiB whose reader has fallen asleep.
    let mut daemon = node::bound(env!("CARGO_BIN_EXE_harmonylite"))
        .arg("-config")
        .arg(&config)
        .envs(other.environment.clone())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it replicates", || health(port)["status"] == "healthy");
    for id in 0..600 {
        other.sql(&format!("INSERT INTO t VALUES({id}, 1)"));
    }
    eventually("all is published", || other.pending() == 0);
    eventually("it still answers", || health(port)["status"] == "healthy");
    let stopped = other.run(&["-stop"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.said);
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn health_shows_what_each_loop_is_at() {
    let server = node::broker();
    let (mut node, port) = logging(&server.url(), SCHEMA, "");
    node.start_replicating();
    let loops = eventually_ok("all loops are there", || {
        let health = health(port);
        let loops = health["loops"].clone();
        let there = ["publish", "consume", "snapshots"]
            .iter()
            .all(|l| loops[l].is_object());
        if there {
            Ok(loops)
        } else {
            Err(health.to_string())
        }
    });
    for name in ["publish", "consume"] {
        assert!(loops[name]["progress_seconds"].is_number(), "{loops}");
        assert!(loops[name]["step_seconds"].is_number(), "{loops}");
    }
    node.stop();
}
