//! The unit files, and the install steps of docs/production.md.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::node;
use crate::harness::spaces::{self, text};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const UNITS: [&str; 2] = ["harmonylite.service", "harmonylite@shop.service"];

/// A root in which the units are installed, beside those that systemd has.
fn root() -> tempfile::TempDir {
    let root = node::folder();
    let at = |path: &str| root.path().join(path);
    for folder in ["usr/local/bin", "usr/lib/systemd", "etc/systemd/system"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    let systems = Path::new("/usr/lib/systemd/system");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(systems)
        .arg(at("usr/lib/systemd/"))
        .status();
    assert!(
        copied.unwrap().success(),
        "{} is not there: apt-get install systemd",
        systems.display()
    );
    std::os::unix::fs::symlink("usr/lib", at("lib")).unwrap();
    // What is verified is that there is such a program.
    std::fs::copy("/bin/true", at("usr/local/bin/harmonylite")).unwrap();
    for unit in ["harmonylite.service", "harmonylite@.service"] {
        let from = Path::new(PROJECT).join("systemd").join(unit);
        std::fs::copy(from, at("etc/systemd/system").join(unit)).unwrap();
    }
    root
}

fn analyze(root: &Path, arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .arg(format!("--root={}", root.display()))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("systemd-analyze does not run ({error}): apt-get install systemd")
        })
}

#[test]
fn the_units_are_understood_whole() {
    let root = root();
    for unit in UNITS {
        let verified = analyze(root.path(), &["verify", unit]);
        // It ends with 0 for keys that it does not know, too.
        assert!(
            verified.status.success() && verified.stderr.is_empty(),
            "{unit}: {}",
            text(&verified)
        );
    }
    // A key that is none would be seen.
    let broken = root.path().join("etc/systemd/system/harmonylite.service");
    let unit = std::fs::read_to_string(&broken).unwrap();
    std::fs::write(&broken, unit.replace("WatchdogSec=", "WatchDogSec=")).unwrap();
    let verified = analyze(root.path(), &["verify", UNITS[0]]);
    assert!(!verified.stderr.is_empty());
}

#[test]
fn the_units_are_exposed_little() {
    let root = root();
    // Tenths: below 3.0.
    let secure = |threshold, unit| {
        let threshold = format!("--threshold={threshold}");
        analyze(
            root.path(),
            &["security", "--offline=true", "--no-pager", &threshold, unit],
        )
    };
    for unit in UNITS {
        let rated = secure(29, unit);
        assert!(rated.status.success(), "{unit}: {}", text(&rated));
        assert!(
            text(&rated).contains("Overall exposure level"),
            "{}",
            text(&rated)
        );
    }
    // The threshold is one.
    assert!(!secure(0, UNITS[0]).status.success());
}

#[test]
fn the_template_is_the_unit_with_other_names() {
    let lines = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(Path::new(PROJECT).join("systemd").join(file)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let expected: Vec<String> = lines("harmonylite.service")
        .into_iter()
        .map(|line| {
            line.replace("/etc/harmonylite/config.toml", "/etc/harmonylite/%i.toml")
                .replace(
                    "StateDirectory=harmonylite",
                    "StateDirectory=harmonylite/%i",
                )
                .replace("LogsDirectory=harmonylite", "LogsDirectory=harmonylite/%i")
                .replace("a SQLite database", "the SQLite database of %i")
        })
        .collect();
    assert_eq!(lines("harmonylite@.service"), expected);
}

#[test]
fn the_install_steps_lead_to_a_node_that_replicates() {
    spaces::follow("security/install.py", &[], "installed");
}
