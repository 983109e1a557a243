//! What the simulated application does: statements of every kind that the capture has a rule for, with values from small pools, so that
//! nodes meet.

use crate::model::Val;
use crate::rng::Rng;
use crate::schema::{Kind, PRIVATE, TableSpec};

/// A statement and its parameters.
pub type Statement = (String, Vec<Val>);

fn value(r: &mut Rng, kind: Kind, large: bool) -> Val {
    match kind {
        Kind::KeyInt(n) => Val::Int(r.range(1, n) as i64),
        Kind::KeyText { pool, null } => {
            if null && r.chance(40) {
                return Val::Null;
            }
            let k = r.range(1, pool);
            Val::text(&if r.chance(300) {
                format!("K{k}")
            } else {
                format!("k{k}")
            })
        }
        Kind::KeyAny => match r.below(5) {
            0 => Val::Int(1),
            1 => Val::real(1.0),
            2 => Val::text("1"),
            3 => Val::real(1.5),
            _ => Val::Blob(b"1".to_vec()),
        },
        Kind::Unique(n) => {
            if r.chance(150) {
                return Val::Null;
            }
            let k = r.range(1, n);
            Val::text(&if r.chance(200) {
                format!("E{k}")
            } else {
                format!("e{k}")
            })
        }
        Kind::Flag => [Val::Int(0), Val::Int(1), Val::Int(1), Val::Null][r.below(4)].clone(),
        Kind::Text => Val::text(&format!("t{}", r.below(100))),
        Kind::Int => Val::Int(r.below(10) as i64),
        Kind::Ref(n) => {
            if r.chance(200) {
                Val::Null
            } else {
                Val::Int(r.range(1, n) as i64)
            }
        }
        Kind::Any => match r.below(20) {
            0 => Val::Null,
            1 => Val::real(r.below(4) as f64),
            2 => Val::real(r.below(40) as f64 / 8.0),
            3 => Val::Text(vec![0xff, 0, b'x', r.below(256) as u8]),
            4 => Val::Blob(vec![0, r.below(256) as u8]),
            5 if large => {
                let byte = r.below(256) as u8;
                Val::Blob(
                    (0..r.range(500, 6000))
                        .map(|i| byte.wrapping_mul(i as u8))
                        .collect(),
                )
            }
            6..=9 => Val::text(&format!("v{}", r.below(1000))),
            _ => Val::Int(r.below(1000) as i64),
        },
    }
}

fn verb(r: &mut Rng, of: &[(&'static str, usize)]) -> &'static str {
    let sum: usize = of.iter().map(|o| o.1).sum();
    let mut x = r.below(sum);
    for (name, weight) in of {
        if x < *weight {
            return name;
        }
        x -= weight;
    }
    ""
}

/// A condition on the key with parameters from `first` on, and values for it.
fn key(r: &mut Rng, spec: &TableSpec, first: usize) -> (String, Vec<Val>) {
    if spec.key.is_empty() {
        return (
            format!("rowid = ?{first}"),
            vec![Val::Int(r.range(1, 5) as i64)],
        );
    }
    let mut parts = Vec::new();
    let mut values = Vec::new();
    for (i, _) in &spec.key {
        let c = &spec.columns[*i];
        parts.push(format!("{} IS ?{}", c.name, first + values.len()));
        values.push(value(r, c.kind, false));
    }
    (parts.join(" AND "), values)
}

fn other_column(r: &mut Rng, spec: &TableSpec) -> usize {
    loop {
        let c = r.below(spec.columns.len());
        if !spec.is_key(c) {
            return c;
        }
    }
}

fn one(what: &'static str, sql: String, values: Vec<Val>) -> Action {
    Action {
        what,
        statements: vec![(sql, values)],
    }
}

fn insert(r: &mut Rng, spec: &TableSpec, large: bool) -> Action {
    let verb = verb(
        r,
        &[
            ("INSERT", 8),
            ("INSERT OR REPLACE", 7),
            ("REPLACE", 2),
            ("INSERT OR IGNORE", 3),
            ("INSERT OR FAIL", 1),
            ("UPSERT", 5),
            ("UPSERT NOTHING", 1),
            ("INSERT OR ROLLBACK", 1),
        ],
    );
    let rows = if r.chance(150) { r.range(2, 4) } else { 1 };
    let wide = spec.columns.len() > 20;
    let mut columns: Vec<usize> = (0..spec.columns.len())
        .filter(|c| !wide || spec.is_key(*c) || r.chance(50))
        .collect();
    // SQLite chooses integer keys, too.
    if r.chance(60)
        && spec.key.len() == 1
        && matches!(spec.columns[spec.key[0].0].kind, Kind::KeyInt(_))
    {
        columns.retain(|c| !spec.is_key(*c));
    }
    if !wide && r.chance(80) && columns.len() > 1 {
        let at = r.below(columns.len());
        if !spec.is_key(columns[at]) {
            columns.remove(at);
        }
    }
    if columns.is_empty() {
        columns.push(other_column(r, spec));
    }
    let mut names: Vec<&str> = columns
        .iter()
        .map(|c| spec.columns[*c].name.as_str())
        .collect();
    let with_rowid = spec.key.is_empty() && r.chance(500);
    if with_rowid {
        names.push("rowid");
    }
    let mut values = Vec::new();
    let mut tuples = Vec::new();
    for _ in 0..rows {
        let mut tuple = Vec::new();
        for c in &columns {
            values.push(value(r, spec.columns[*c].kind, large));
            tuple.push(format!("?{}", values.len()));
        }
        if with_rowid {
            values.push(Val::Int(r.range(1, 5) as i64));
            tuple.push(format!("?{}", values.len()));
        }
        tuples.push(format!("({})", tuple.join(", ")));
    }
    let what = match verb {
        "UPSERT" | "UPSERT NOTHING" => "upsert",
        "INSERT OR REPLACE" | "REPLACE" => "INSERT OR REPLACE",
        "INSERT OR IGNORE" => "INSERT OR IGNORE",
        _ => "INSERT",
    };
    let (head, tail) = match verb {
        "UPSERT" => {
            let c = &spec.columns[other_column(r, spec)].name;
            if spec.key.is_empty() {
                ("INSERT OR REPLACE", String::new())
            } else {
                (
                    "INSERT",
                    format!(
                        " ON CONFLICT({}) DO UPDATE SET {c} = excluded.{c}",
                        spec.key_names().join(", ")
                    ),
                )
            }
        }
        "UPSERT NOTHING" => ("INSERT", " ON CONFLICT DO NOTHING".to_owned()),
        v => (v, String::new()),
    };
    one(
        what,
        format!(
            "{head} INTO {}({}) VALUES {}{tail}",
            spec.name,
            names.join(", "),
            tuples.join(", ")
        ),
        values,
    )
}

fn update(r: &mut Rng, spec: &TableSpec, large: bool) -> Action {
    let verb = verb(
        r,
        &[
            ("UPDATE", 10),
            ("UPDATE OR REPLACE", 5),
            ("UPDATE OR IGNORE", 3),
            ("UPDATE OR FAIL", 1),
        ],
    );
    let mut what = verb;
    let mut sets = Vec::new();
    let mut values = Vec::new();
    for _ in 0..r.range(1, 2) {
        let c = &spec.columns[other_column(r, spec)];
        if sets
            .iter()
            .any(|s: &String| s.starts_with(&format!("{} ", c.name)))
        {
            continue;
        }
        if r.chance(80) {
            sets.push(format!("{} = {}", c.name, c.name));
            what = "update that changes nothing";
        } else {
            values.push(value(r, c.kind, large));
            sets.push(format!("{} = ?{}", c.name, values.len()));
        }
    }
    let (mut condition, key) = key(r, spec, values.len() + 1);
    if r.chance(80) {
        condition = "1".into();
    } else {
        values.extend(key);
    }
    one(
        what,
        format!(
            "{verb} {} SET {} WHERE {condition}",
            spec.name,
            sets.join(", ")
        ),
        values,
    )
}

/// One key column becomes another value.
fn rekey(r: &mut Rng, spec: &TableSpec) -> Action {
    let verb = verb(
        r,
        &[
            ("UPDATE", 3),
            ("UPDATE OR REPLACE", 3),
            ("UPDATE OR IGNORE", 1),
        ],
    );
    let (condition, mut values) = key(r, spec, 1);
    let (name, new) = if spec.key.is_empty() {
        ("rowid", Val::Int(r.range(1, 6) as i64))
    } else {
        let c = &spec.columns[spec.key[r.below(spec.key.len())].0];
        // Integer keys are also reached through the rowid.
        (
            if matches!(c.kind, Kind::KeyInt(_)) && spec.key.len() == 1 && r.chance(300) {
                "rowid"
            } else {
                c.name.as_str()
            },
            value(r, c.kind, false),
        )
    };
    values.push(new);
    one(
        if name == "rowid" && !spec.key.is_empty() {
            "key changed through the rowid"
        } else {
            "key changed"
        },
        format!(
            "{verb} {} SET {name} = ?{} WHERE {condition}",
            spec.name,
            values.len()
        ),
        values,
    )
}

/// Two rows exchange their keys, or the values of one column.
fn swap(r: &mut Rng, spec: &TableSpec) -> Action {
    let (condition_a, a) = key(r, spec, 1);
    let (condition_b, b) = key(r, spec, 1);
    let keys = spec.key.len() == 1 && r.chance(500);
    if keys {
        let c = &spec.columns[spec.key[0].0].name;
        let hop = match spec.columns[spec.key[0].0].kind {
            Kind::KeyInt(_) => Val::Int(99),
            _ => Val::text("hop"),
        };
        let statements = vec![
            (
                format!("UPDATE {} SET {c} = ?2 WHERE {c} = ?1", spec.name),
                vec![a[0].clone(), hop.clone()],
            ),
            (
                format!("UPDATE {} SET {c} = ?2 WHERE {c} = ?1", spec.name),
                vec![b[0].clone(), a[0].clone()],
            ),
            (
                format!("UPDATE {} SET {c} = ?2 WHERE {c} = ?1", spec.name),
                vec![hop, b[0].clone()],
            ),
        ];
        return Action {
            what: "keys swapped",
            statements,
        };
    }
    let at = other_column(r, spec);
    let c = &spec.columns[at].name;
    let (x, y) = (
        value(r, spec.columns[at].kind, false),
        value(r, spec.columns[at].kind, false),
    );
    let with = |mut k: Vec<Val>, v: Val| {
        k.push(v);
        k
    };
    let set =
        |cond: &str, n: usize| format!("UPDATE {} SET {c} = ?{} WHERE {cond}", spec.name, n + 1);
    Action {
        what: "values swapped",
        statements: vec![
            (
                set(&condition_a, a.len()),
                with(a.clone(), Val::text("hop")),
            ),
            (set(&condition_b, b.len()), with(b.clone(), x)),
            (set(&condition_a, a.len()), with(a, y)),
        ],
    }
}

fn delete(r: &mut Rng, spec: &TableSpec) -> Action {
    if r.chance(60) {
        return one(
            "delete of all rows",
            format!("DELETE FROM {}", spec.name),
            vec![],
        );
    }
    let (condition, values) = key(r, spec, 1);
    one(
        "delete",
        format!("DELETE FROM {} WHERE {condition}", spec.name),
        values,
    )
}

/// What the application does in one go.
pub struct Action {
    /// What it is called in the counts.
    pub what: &'static str,
    pub statements: Vec<Statement>,
}

/// One thing that the application does to a table, in one statement or several.
pub fn act(r: &mut Rng, spec: &TableSpec, large: bool, nodes: &[i64]) -> Action {
    if spec.name == PRIVATE {
        // What others may do to a private row: write another column of it.
        return Action {
            what: "update of another's private row",
            statements: vec![(
                format!("UPDATE {PRIVATE} SET x = ?1 WHERE node = ?2"),
                vec![value(r, Kind::Any, false), Val::Int(*r.pick(nodes))],
            )],
        };
    }
    match r.below(100) {
        0..=34 => insert(r, spec, large),
        35..=66 => update(r, spec, large),
        67..=75 => rekey(r, spec),
        76..=81 => swap(r, spec),
        _ => delete(r, spec),
    }
}
