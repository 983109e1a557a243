//! The rules for Prometheus and the dashboard: promtool takes them, the rules fire when they should, and both use metrics that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{file, promtool, text};

/// Whose names promtool's rules may not like: they are the Go program's.
const GO: [&str; 4] = [
    "harmonylite_published",
    "harmonylite_snapshot_age",
    "harmonylite_scan_changes",
    "harmonylite_count_changes",
];

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// `promtool check metrics` finds fault with the Go program's names alone.
pub(super) fn lint(scrape: &str) {
    let mut process = promtool()
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(scrape.as_bytes()).unwrap();
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    let said = said(&output);
    // 3: it could read all of it, and has something to say.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    for line in said.lines().filter(|line| !line.is_empty()) {
        let name = line.split(' ').next().unwrap();
        assert!(GO.contains(&name), "{line}");
    }
    assert!(said.contains("harmonylite_published "), "it lints: {said}");
}

/// Names of metrics that stand in an expression.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("harmonylite_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// All expressions of the dashboard, with its variables filled in.
fn dashboard() -> Vec<String> {
    fn collect(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("expr", Value::String(expression)) => out.push(expression.clone()),
                        _ => collect(value, out),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|v| collect(v, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    let board: Value = serde_json::from_str(&text("docs/monitoring/grafana.json")).unwrap();
    collect(&board["panels"], &mut out);
    let fill = |e: &String| {
        let e = e
            .replace("$__rate_interval", "1m")
            .replace("$__range", "1h");
        e.replace("$node", ".*")
    };
    out.iter().map(fill).collect()
}

/// The expressions of the rules.
fn alerts() -> Vec<String> {
    let text = text("docs/monitoring/alerts.yml");
    let lines = text.lines();
    lines
        .filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned))
        .collect()
}

/// Nothing is used that does not exist.
pub(super) fn dashboard_and_alerts_use(there: &BTreeMap<String, BTreeSet<String>>) {
    let (board, rules) = (dashboard(), alerts());
    assert!(board.len() > 40 && rules.len() > 15);
    for expression in board.iter().chain(&rules) {
        for name in metrics_in(expression) {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(&name);
            assert!(there.contains_key(family), "{name} of {expression}");
        }
    }
}

#[test]
fn rules_fire_when_they_should_and_the_dashboard_can_be_read() {
    let folder = file("docs/monitoring");
    let run = |arguments: &[&str]| succeeds(promtool().args(arguments).current_dir(&folder));
    run(&["check", "rules", "alerts.yml"]);
    run(&["check", "config", "prometheus.yml"]);
    run(&["test", "rules", "alerts_test.yml"]);
    // Each rule has a situation of its own in that file.
    let (rules, tests) = (
        text("docs/monitoring/alerts.yml"),
        text("docs/monitoring/alerts_test.yml"),
    );
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name}");
    }
    // promtool reads the dashboard's expressions as rules.
    let records: Vec<Value> = dashboard()
        .into_iter()
        .enumerate()
        .map(|(n, expr)| serde_json::json!({ "record": format!("panel:{n}"), "expr": expr }))
        .collect();
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": records }] });
    let mut written = tempfile::NamedTempFile::new().unwrap();
    // JSON is YAML.
    written.write_all(rules.to_string().as_bytes()).unwrap();
    succeeds(promtool().args(["check", "rules"]).arg(written.path()));
}

#[test]
fn panels_do_not_cover_one_another_and_all_say_what_they_show() {
    let board: Value = serde_json::from_str(&text("docs/monitoring/grafana.json")).unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{panel}");
            }
        }
        let wants = panel["type"] != "row";
        let targets = panel["targets"].as_array().map_or(0, Vec::len);
        assert_eq!(wants, targets > 0, "{panel}");
    }
    // It is asked which Prometheus is meant, and no other is named.
    let text = board.to_string();
    assert_eq!(board["__inputs"][0]["name"], "DS_PROMETHEUS");
    assert_eq!(
        text.matches("\"uid\":").count(),
        text.matches("\"uid\":\"${DS_PROMETHEUS}\"").count() + 1
    );
}
