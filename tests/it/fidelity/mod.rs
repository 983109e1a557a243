//! What SQLite offers, one case a feature, on real daemons. The cases that fit one database share it and a cluster of two nodes, and run from node 1 to
//! node 2 and the other way round; what needs a file, a program or a daemon of its own has a module.
//!
//! Each case is run on a third database too, which has no daemon: an app must find its own database as it would be without replication.
//! `FIDELITY=text` runs the cases whose names contain the text.

mod case;
mod files;
mod limits;
mod old_sqlite;
mod refused;
mod wide;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::Connection;

use crate::harness::tables::{self, Cell, Dump};
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, app, node};
use case::{Case, Step};

#[test]
fn cases_from_node_1_to_node_2() {
    run([0, 1]);
}

#[test]
fn cases_from_node_2_to_node_1() {
    run([1, 0]);
}

/// Two databases with an app each and a third that both apps write to in turn.
struct Sides {
    cluster: Cluster,
    /// The place in the cluster of the cases' nodes 1 and 2.
    place: [usize; 2],
    alone: std::path::PathBuf,
    /// The apps' connections by case and node, in the cluster and without daemon.
    apps: HashMap<(String, usize), (Connection, Connection)>,
    _folder: tempfile::TempDir,
}

fn run(place: [usize; 2]) {
    let wanted = std::env::var("FIDELITY").unwrap_or_default();
    let mut cases = case::all();
    cases.extend(wide::cases());
    cases.retain(|case| case.name.contains(&wanted));
    assert!(!cases.is_empty(), "no case is called {wanted:?}");
    let folder = node::folder();
    let alone = folder.path().join("alone.db");
    app::create(&alone, "PRAGMA user_version = 7; PRAGMA application_id = 9");
    let mut owner: HashMap<String, usize> = HashMap::new();
    {
        let conn = Connection::open(&alone).unwrap();
        for (number, case) in cases.iter().enumerate() {
            conn.execute_batch(&case.schema)
                .unwrap_or_else(|error| panic!("the schema of case {}: {error}", case.name));
            for table in tables::names(&conn) {
                owner.entry(table).or_insert(number);
            }
        }
    }
    let schema: String = cases.iter().map(|case| case.schema.as_str()).collect();
    let schema = format!("PRAGMA user_version = 7; PRAGMA application_id = 9; {schema}");
    let mut sides = Sides {
        cluster: Cluster::new(2, 1, &schema),
        place,
        alone,
        apps: HashMap::new(),
        _folder: folder,
    };
    let groups: Vec<_> = cases.iter().map(Case::groups).collect();
    let rounds = groups.iter().map(Vec::len).max().unwrap();
    for round in 0..rounds {
        let mut expected = Dump::new();
        for (case, groups) in cases.iter().zip(&groups) {
            for step in groups.get(round).copied().unwrap_or_default() {
                sides.step(case, step);
            }
            sides.assert_nothing_open(case);
        }
        let mut dumps: Vec<Dump> = sides.cluster.nodes.iter().map(|n| n.dump()).collect();
        for (table, number) in &owner {
            let writer = match groups[*number].get(round) {
                Some(group) => sides.place[group[0].node - 1],
                None => 0,
            };
            expected.insert(table.clone(), dumps[writer].remove(table).unwrap());
        }
        let mut alone = tables::dump(&app::look(&sides.alone).unwrap());
        for (table, number) in &owner {
            if cases[*number].differs {
                alone.insert(table.clone(), expected[table].clone());
            }
        }
        if let Some(text) = named(&cases, &owner, &alone, &expected) {
            panic!("round {round}: without replication (left) the app finds other rows: {text}");
        }
        sides.converge_to(&cases, &owner, &expected, round);
    }
    let mut wrong = Vec::new();
    for case in &cases {
        for (query, rows) in &case.holds {
            for node in &sides.cluster.nodes {
                let found = shown(&app::look(&node.database()).unwrap(), query);
                if &found != rows {
                    wrong.push(format!("{}: {query} => {found}", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sides.assert_sound();
}

impl Sides {
    /// Runs a step in the cluster and without it.
    fn step(&mut self, case: &Case, step: &Step) {
        let path = self.cluster[self.place[step.node - 1]].database();
        let apps = match self.apps.entry((case.name.clone(), step.node)) {
            Entry::Occupied(apps) => apps.into_mut(),
            Entry::Vacant(none) => none.insert((connect(&path), connect(&self.alone))),
        };
        for conn in [&apps.1, &apps.0] {
            let outcome = conn.execute_batch(&step.sql);
            match (&step.fails, outcome) {
                (None, Ok(())) => {}
                (Some(text), Err(error)) if error.to_string().contains(text.as_str()) => {}
                (wanted, found) => panic!(
                    "case {}, node {}: wanted {wanted:?}, found {found:?}: {}",
                    case.name,
                    step.node,
                    step.sql.chars().take(2000).collect::<String>()
                ),
            }
        }
    }

    fn assert_nothing_open(&self, case: &Case) {
        for ((name, _), (app, alone)) in &self.apps {
            let open = !app.is_autocommit() || !alone.is_autocommit();
            assert!(
                name != &case.name || !open,
                "case {name}: a transaction is open"
            );
        }
    }

    fn converge_to(
        &mut self,
        cases: &[Case],
        owner: &HashMap<String, usize>,
        expected: &Dump,
        round: usize,
    ) {
        eventually_ok("the cases are equal on both nodes", || {
            self.cluster.assert_running();
            for node in &self.cluster.nodes {
                if let Some(text) = named(cases, owner, expected, &node.dump()) {
                    return Err(format!(
                        "in round {round}: the writer (left), node {} (right): {text}",
                        node.id
                    ));
                }
                if node.pending() != 0 {
                    return Err(format!("node {} has changes pending", node.id));
                }
            }
            Ok(())
        });
    }

    /// Nothing was lost, refused or left behind, and `-cleanup` leaves the apps' databases.
    fn assert_sound(&mut self) {
        self.apps.clear();
        for node in &mut self.cluster.nodes {
            for journal in ["conflicts", "dead_letters"] {
                let entries = format!("SELECT * FROM __harmonylite__{journal}");
                assert_eq!(
                    shown(&node.app(), &entries),
                    "",
                    "node {}: {journal}",
                    node.id
                );
            }
            assert_eq!(node.integer("PRAGMA user_version"), 7);
            assert_eq!(node.integer("PRAGMA application_id"), 9);
        }
        let compared = self.cluster[0].run(&["verify"]);
        assert_eq!(compared.code, Some(0), "{}", compared.said);
        for node in &mut self.cluster.nodes {
            let before = node.dump();
            assert_eq!(shown(&node.app(), "PRAGMA integrity_check"), "'ok'");
            assert_eq!(shown(&node.app(), "PRAGMA foreign_key_check"), "");
            let cleaned = node.run(&["-cleanup"]);
            assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
            node.wait_end();
            let ours = "SELECT count(*) FROM sqlite_schema WHERE name GLOB '__harmonylite__*'";
            assert_eq!(node.integer(ours), 0);
            assert_eq!(node.dump(), before);
            assert_eq!(shown(&node.app(), "PRAGMA integrity_check"), "'ok'");
        }
    }
}

fn connect(path: &std::path::Path) -> Connection {
    let conn = app::connect(path);
    conn.execute_batch("PRAGMA synchronous = NORMAL").unwrap();
    conn
}

/// Where two dumps differ, with the case of each table.
fn named(
    cases: &[Case],
    owner: &HashMap<String, usize>,
    left: &Dump,
    right: &Dump,
) -> Option<String> {
    let text = tables::difference(left, right)?;
    let differ: Vec<&str> = owner
        .iter()
        .filter(|(table, _)| left.get(*table) != right.get(*table))
        .map(|(_, number)| cases[*number].name.as_str())
        .collect();
    Some(format!("cases {differ:?}: {text}"))
}

/// The rows of a query as text, in its order.
pub fn shown(conn: &Connection, query: &str) -> String {
    let mut statement = conn
        .prepare(query)
        .unwrap_or_else(|error| panic!("{query}: {error}"));
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut out = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values: Vec<String> = (0..columns)
            .map(|column| match tables::cell(row.get_ref_unwrap(column)) {
                Cell::Null => "NULL".to_owned(),
                Cell::Integer(number) => number.to_string(),
                Cell::Real(bits) => format!("{:?}", f64::from_bits(bits)),
                Cell::Text(bytes) => format!("'{}'", String::from_utf8_lossy(&bytes)),
                Cell::Blob(bytes) => format!("x'{}'", hex(&bytes)),
            })
            .collect();
        out.push(values.join("|"));
    }
    out.join(";")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
