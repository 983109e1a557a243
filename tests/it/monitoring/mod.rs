//! What operators see: metrics, health, alerts and the dashboard, as documented and as they are.

mod documented;
mod health;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::http::get;
use crate::harness::wait::eventually_ok;

/// A file of this project.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap()
}

/// `promtool`, which a script fetches once.
fn promtool() -> Command {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let path = FOUND.get_or_init(|| {
        let output = Command::new(file("scripts/get-promtool")).output().unwrap();
        let path = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(path.trim())
    });
    Command::new(path)
}

/// The families of a scrape, each with the labels of its series.
fn families(scrape: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for line in scrape.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, _) = rest.split_once(' ').unwrap();
            all.insert(name.to_owned(), BTreeSet::new());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| {
                name.strip_suffix(end)
                    .filter(|name| all.contains_key(*name))
            })
            .unwrap_or(name);
        let own = labels.trim_end_matches('}').split("\",");
        let own = own.map(|pair| pair.split_once('=').unwrap().0.to_owned());
        all.get_mut(family).unwrap().extend(own);
    }
    all
}

/// The body that this path answers with.
fn json(port: u16, path: &str) -> (u16, Value) {
    let (code, body) = get(port, path).expect("it answers");
    let body = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
    (code, body)
}

/// Waits until this path answers with this code and a body for which `good` holds; the body.
fn answers(port: u16, path: &str, code: u16, good: impl Fn(&Value) -> bool) -> Value {
    eventually_ok(&format!("{path} answers {code}"), || {
        let (now, body) = json(port, path);
        if now == code && good(&body) {
            Ok(body)
        } else {
            Err(format!("{now} {body}"))
        }
    })
}
