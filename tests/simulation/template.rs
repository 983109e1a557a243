//! Databases to begin with: made once for each choice of tables and copied for every seed, since creating tables, triggers and first rows costs as
//! much as all steps of a run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use harmonylite::change::position::NodeId;
use harmonylite::replica::Replica;
use harmonylite::replica::lifecycle::OpenOptions;

use crate::Out;
use crate::model::State;
use crate::node::{AppOptions, is_refusal, open_app, read_state, remove_file};
use crate::rng::Rng;
use crate::schema::{TableSpec, groups};

/// Which tables (places in [`groups`], ascending, without the private one), which first rows, and whether capture is installed already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Choice {
    pub groups: Vec<usize>,
    pub rows: usize,
    pub captured: bool,
}

/// So many sets of first rows there are for each choice of tables.
pub const ROWS: usize = 3;

/// A database file that nobody has open.
pub struct Template {
    pub path: PathBuf,
    pub specs: Rc<Vec<TableSpec>>,
    /// For each table the group that it belongs to, the private one being 0.
    pub group_of: Vec<usize>,
    pub start: State,
}

thread_local! {
    static MADE: RefCell<HashMap<(PathBuf, Choice), Rc<Template>>> = RefCell::default();
}

/// The template of a choice, made now if it is the first time.
pub fn get(folder: &Path, choice: &Choice) -> Out<Rc<Template>> {
    let key = (folder.to_owned(), choice.clone());
    if let Some(t) = MADE.with_borrow(|m| m.get(&key).cloned()) {
        return Ok(t);
    }
    let made = Rc::new(make(folder, choice)?);
    MADE.with_borrow_mut(|m| m.insert(key, Rc::clone(&made)));
    Ok(made)
}

fn make(folder: &Path, choice: &Choice) -> Out<Template> {
    let names: Vec<String> = choice.groups.iter().map(usize::to_string).collect();
    let path = folder.join(format!(
        "{}-{}-{}.db",
        names.join("."),
        choice.rows,
        choice.captured
    ));
    std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    remove_file(&path);
    let plain = rusqlite::Connection::open(&path).map_err(|e| e.to_string())?;
    // Small pages: less to copy and to write.
    plain
        .execute_batch("PRAGMA page_size = 1024")
        .map_err(|e| e.to_string())?;
    drop(plain);
    let conn = open_app(
        &path,
        AppOptions {
            foreign_keys: true,
            recursive_triggers: false,
        },
    )?;
    let (mut specs, mut group_of) = (Vec::new(), Vec::new());
    for (at, group) in groups().into_iter().enumerate() {
        if at == 0 || choice.groups.contains(&at) {
            conn.execute_batch(&group.sql).map_err(|e| e.to_string())?;
            group_of.extend(vec![at; group.tables.len()]);
            specs.extend(group.tables);
        }
    }
    let mut r = Rng::of(choice.rows as u64, 3);
    for spec in specs.iter().skip(1) {
        for _ in 0..4 {
            let narrow = spec.narrow();
            for (sql, values) in crate::workload::act(&mut r, &narrow, false, &[1]).statements {
                match conn.execute(&sql, rusqlite::params_from_iter(&values)) {
                    Ok(_) => {}
                    Err(e) if is_refusal(&e) => {}
                    Err(e) => return Err(format!("{sql}: {e}")),
                }
            }
        }
    }
    // Rows without a key are on no other node's account.
    for spec in &specs {
        let null: Vec<String> = spec
            .key_names()
            .iter()
            .map(|k| format!("{k} IS NULL"))
            .collect();
        conn.execute_batch(&format!(
            "DELETE FROM {} WHERE {}",
            spec.name,
            null.join(" OR ")
        ))
        .map_err(|e| e.to_string())?;
    }
    let late: Vec<bool> = specs.iter().map(|s| s.late.is_none()).collect();
    let start = read_state(&conn, &specs, &late)?;
    if choice.captured {
        let options = OpenOptions {
            node_id: NodeId(1),
            publish: true,
            include: Vec::new(),
            exclude: Vec::new(),
            fire_triggers: Some(Vec::new()),
        };
        Replica::open(&path, &options, Duration::ZERO, &|| true).map_err(|e| e.to_string())?;
    }
    drop(conn);
    Ok(Template {
        path,
        specs: Rc::new(specs),
        group_of,
        start,
    })
}
