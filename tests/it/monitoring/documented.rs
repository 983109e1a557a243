//! Every metric, key, component and endpoint that exists is documented, and every documented one exists: with the labels that it has.

use std::collections::{BTreeMap, BTreeSet};

use super::{families, json, text};
use crate::harness::http::{get, observed};
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, eventually};

/// Of which tables are sure to lie in both shards.
const SCHEMA: &str =
    "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v);
    CREATE TABLE c(id INTEGER PRIMARY KEY, v); CREATE TABLE d(id INTEGER PRIMARY KEY, v);
    CREATE TABLE e(id INTEGER PRIMARY KEY, v); CREATE TABLE f(id INTEGER PRIMARY KEY, v)";

/// The part of a page from this heading to the next one of its rank or above.
fn section(page: &str, heading: &str) -> String {
    let rank = heading.split(' ').next().unwrap().len();
    let lines = page.lines().skip_while(|line| *line != heading);
    let ends = |line: &&str| {
        let marks = line.bytes().take_while(|b| *b == b'#').count();
        !(1..=rank).contains(&marks)
    };
    let body: Vec<&str> = lines.skip(1).take_while(ends).collect();
    assert!(!body.is_empty(), "no section {heading}");
    body.join("\n")
}

/// What stands in backticks in the first cells of a section's tables.
fn first_cells(section: &str) -> Vec<String> {
    let cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells
        .flat_map(|cell| {
            let words = cell.split('`').step_by(2);
            words.map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn a_name_is_documented_if_and_only_if_it_exists() {
    let page = text("docs/monitoring.md");
    let mut documented: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in first_cells(&section(&page, "## Metrics")) {
        let (name, labels) = name.split_once('{').unwrap_or((&name, ""));
        let labels = labels.trim_end_matches('}').split(',').map(str::to_owned);
        let twice = documented.insert(name.to_owned(), labels.filter(|l| !l.is_empty()).collect());
        assert!(twice.is_none(), "{name} is documented twice");
    }
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let (health, metrics) = observed(&mut cluster[0]);
    for node in &mut cluster.nodes {
        node.sections.push_str("[replication_log]\nshards = 2\n");
        node.start_replicating();
    }
    for table in ["a", "b", "c", "d", "e", "f"] {
        cluster[0].sql(&format!("INSERT INTO {table} VALUES(1, 1)"));
        cluster[1].sql(&format!("INSERT INTO {table} VALUES(2, 2)"));
    }
    cluster.converge();
    let scrape = eventually_ok("what is documented is there, and nothing else", || {
        let (_, scrape) = get(metrics, "/metrics").unwrap();
        let mut there = families(&scrape);
        for labels in there.values_mut() {
            assert!(labels.remove("node_id"), "{scrape}");
            labels.remove("le");
        }
        if there == documented {
            return Ok(scrape);
        }
        let differ = |a: &BTreeMap<_, _>, b: &BTreeMap<_, _>| {
            let only = a
                .iter()
                .filter(|(name, labels)| b.get(*name) != Some(*labels));
            only.map(|(name, labels)| format!("{name} {labels:?}"))
                .collect::<Vec<_>>()
        };
        Err(format!(
            "only in the daemon: {:?}; only in docs/monitoring.md: {:?}",
            differ(&there, &documented),
            differ(&documented, &there)
        ))
    });
    for name in documented.keys() {
        assert!(scrape.contains(&format!("# HELP {name} ")), "{name}");
    }
    super::rules::lint(&scrape);
    super::rules::dashboard_and_alerts_use(&families(&scrape));

    // The body of /health, and its components.
    let whole = section(&page, "## Health");
    let keys = whole.split("### Components").next().unwrap();
    let documented: BTreeSet<String> = first_cells(keys).into_iter().collect();
    let (_, body) = json(health, "/health");
    let there: BTreeSet<String> = body.as_object().unwrap().keys().cloned().collect();
    assert_eq!(there, documented);
    let documented: BTreeSet<String> = first_cells(&section(&page, "### Components"))
        .into_iter()
        .collect();
    eventually("the components are those that are documented", || {
        let (_, body) = json(health, "/health");
        let there = body["components"].as_object().unwrap();
        there.keys().cloned().collect::<BTreeSet<_>>() == documented
    });

    // Endpoints: those of the source, and those of all pages.
    let mut pages = String::new();
    for entry in std::fs::read_dir(super::file("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            pages.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    let end = |c: char| !(c.is_ascii_alphanumeric() || c == '/');
    let documented: BTreeSet<&str> = pages
        .split("GET /")
        .skip(1)
        .map(|rest| rest.split(end).next().unwrap())
        .collect();
    let mut there = BTreeSet::from(["health".to_owned()]);
    for source in ["routes", "positions"] {
        let source = text(&format!("src/http/{source}.rs"));
        let paths = source.split("_PATH: &str = \"/").skip(1);
        there.extend(paths.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert_eq!(there.len(), 6, "{there:?}");
    // Those of profiles have an address of their own, and tests of their own.
    let profiles = text("src/http/pprof.rs");
    let profiles = profiles.split(".route(\"/").skip(1);
    let profiles = profiles.map(|rest| rest.split('"').next().unwrap().to_owned());
    let profiles: BTreeSet<String> = profiles.collect();
    assert!(profiles.contains("debug/pprof/heap"), "{profiles:?}");
    assert_eq!(
        there
            .iter()
            .chain(&profiles)
            .map(String::as_str)
            .collect::<BTreeSet<_>>(),
        documented
    );
    for path in there {
        let port = if path == "metrics" { metrics } else { health };
        let (code, body) = get(port, &format!("/{path}")).unwrap();
        assert_ne!(code, 404, "{path}: {body}");
    }
    assert_eq!(get(health, "/").unwrap().0, 404);
}
