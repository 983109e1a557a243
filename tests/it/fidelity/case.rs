//! A case: what its file of SQL says. The files are in `cases/`; a line that begins with `--- ` is one of
//!
//! ```text
//! --- case NAME                 begins a case
//! --- schema                    SQL that makes its tables, on both nodes before the daemons start
//! --- differs between databases what its SQL writes differs each time it runs
//! --- write 1                   SQL that the app of node 1 (or 2) runs, in the one connection that it has for the case
//! --- fails TEXT                SQL that fails with TEXT in its message, in the connection of the last write
//! --- holds QUERY => ROWS       what a query answers on both nodes in the end: rows joined by `;`, values by `|`, as `quote()` writes them
//! ```
//!
//! All else belongs to the directive above it.

use std::path::Path;

/// A case.
#[derive(Debug, Default)]
pub struct Case {
    pub name: String,
    pub schema: String,
    pub steps: Vec<Step>,
    pub holds: Vec<(String, String)>,
    /// Its SQL writes something else each time.
    pub differs: bool,
}

/// What an app does.
#[derive(Debug)]
pub struct Step {
    /// Its node, 1 or 2.
    pub node: usize,
    pub sql: String,
    /// What the error must contain, if it must fail.
    pub fails: Option<String>,
}

/// The cases of all files.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fidelity/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| parse(&std::fs::read_to_string(file).unwrap()))
        .collect()
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for part in text.split("\n--- ").skip(1) {
        let (directive, sql) = part.split_once('\n').unwrap_or((part, ""));
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        let rest = rest.trim();
        if word == "case" {
            cases.push(Case {
                name: rest.to_owned(),
                ..Case::default()
            });
            continue;
        }
        let case = cases.last_mut().expect("a file begins with a case");
        let mut step = |node, fails| {
            let sql = sql.to_owned();
            case.steps.push(Step { node, sql, fails });
        };
        match word {
            "differs" => case.differs = true,
            "schema" => case.schema = sql.to_owned(),
            "write" => step(rest.parse().unwrap(), None),
            "fails" => {
                let node = case.steps.last().expect("a write before it fails").node;
                let sql = sql.to_owned();
                case.steps.push(Step {
                    node,
                    sql,
                    fails: Some(rest.to_owned()),
                });
            }
            "holds" => {
                let (query, rows) = rest.split_once(" => ").unwrap_or_else(|| panic!("{rest}"));
                case.holds.push((query.to_owned(), rows.to_owned()));
            }
            _ => panic!("{}: {directive}", case.name),
        }
    }
    cases
}

impl Case {
    /// Its steps in groups of one node each: between two groups the nodes become equal.
    pub fn groups(&self) -> Vec<&[Step]> {
        self.steps
            .chunk_by(|before, after| before.node == after.node)
            .collect()
    }
}
