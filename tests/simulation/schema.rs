//! The tables that the simulated application has, with all that the model must know of them written down by hand.

use crate::model::{Key, Val};

/// What an application writes into a column.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A key from a small pool of integers.
    KeyInt(usize),
    /// A key from a small pool of texts; seldom NULL where that is allowed.
    KeyText { pool: usize, null: bool },
    /// A key without a type: 1 and 1.0 and '1'.
    KeyAny,
    /// A text from a small pool that a UNIQUE index is on, or NULL.
    Unique(usize),
    /// 0, 1 or NULL.
    Flag,
    /// Text.
    Text,
    /// Integer.
    Int,
    /// A reference to a key from a small pool, or NULL.
    Ref(usize),
    /// Any of the storage classes.
    Any,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// The values by which a row counts in a UNIQUE index, or none.
pub type Terms = fn(&[Val]) -> Option<Vec<Val>>;

pub struct TableSpec {
    pub name: &'static str,
    /// What it stands for, in the counts.
    pub says: &'static str,
    pub columns: Vec<Column>,
    /// Positions of the key's columns, and whether they compare without case. Empty: the rowid.
    pub key: Vec<(usize, bool)>,
    pub uniques: Vec<Terms>,
    /// The last column is one that applications add while they run, with this default.
    pub late: Option<Val>,
}

/// Tables that go together, with what creates them.
pub struct Group {
    pub sql: String,
    pub tables: Vec<TableSpec>,
}

impl TableSpec {
    pub fn key_len(&self) -> usize {
        self.key.len().max(1)
    }

    /// The normal form of a key.
    pub fn normal(&self, key: &[Val]) -> Key {
        key.iter()
            .enumerate()
            .map(|(i, v)| match v {
                Val::Text(t) if self.key.get(i).is_some_and(|k| k.1) => {
                    Val::Text(t.to_ascii_lowercase())
                }
                Val::Real(r) if f64::from_bits(*r).fract() == 0.0 => {
                    Val::Int(f64::from_bits(*r) as i64)
                }
                other => other.clone(),
            })
            .collect()
    }

    /// The key of a row.
    pub fn key_of(&self, row: &[Val]) -> Key {
        if self.key.is_empty() {
            return self.normal(&row[..1]);
        }
        let key: Vec<Val> = self.key.iter().map(|(i, _)| row[*i].clone()).collect();
        self.normal(&key)
    }

    /// The names of the key's columns.
    pub fn key_names(&self) -> Vec<&str> {
        if self.key.is_empty() {
            return vec!["rowid"];
        }
        self.key
            .iter()
            .map(|(i, _)| self.columns[*i].name.as_str())
            .collect()
    }

    /// How many columns it has where the late one is there, or not.
    pub fn width(&self, late_here: bool) -> usize {
        self.columns.len() - usize::from(self.late.is_some() && !late_here)
    }

    /// The table where the late column is not there yet.
    pub fn narrow(&self) -> Self {
        Self {
            columns: self.columns[..self.width(false)].to_vec(),
            key: self.key.clone(),
            uniques: self.uniques.clone(),
            late: None,
            ..*self
        }
    }

    /// What adds the late column.
    pub fn alter(&self) -> Option<String> {
        let default = match self.late.as_ref()? {
            Val::Null => String::new(),
            Val::Int(i) => format!(" DEFAULT {i}"),
            other => format!(" DEFAULT {}", other.show()),
        };
        let column = &self.columns.last()?.name;
        Some(format!(
            "ALTER TABLE {} ADD COLUMN {column}{default}",
            self.name
        ))
    }

    /// A row of a node or batch that has no late column yet.
    pub fn widen(&self, row: &mut Vec<Val>, late: Option<&Val>) {
        if let Some(default) = &self.late {
            row.push(late.unwrap_or(default).clone());
        }
    }

    pub fn is_key(&self, column: usize) -> bool {
        self.key.iter().any(|(i, _)| *i == column)
    }

    /// Reads a whole row, as the model has it.
    pub fn select(&self, late_here: bool) -> String {
        let mut names: Vec<&str> = Vec::new();
        if self.key.is_empty() {
            names.push("rowid");
        }
        let there = &self.columns[..self.width(late_here)];
        names.extend(there.iter().map(|c| c.name.as_str()));
        format!("SELECT {} FROM {}", names.join(", "), self.name)
    }
}

fn table(
    name: &'static str,
    columns: &[(&str, Kind)],
    key: &[(usize, bool)],
    uniques: &[Terms],
) -> TableSpec {
    let late = match name {
        "items" | "loose" | "children" => Some(Val::Null),
        "users" | "wide" => Some(Val::Int(7)),
        "accounts" => Some(Val::text("late")),
        _ => None,
    };
    let added = late.as_ref().map(|_| ("late", Kind::Any));
    TableSpec {
        name,
        late,
        says: match name {
            PRIVATE => "table: one row a node",
            "items" => "table: integer key",
            "words" => "table: text key",
            "pairs" => "table: composite key",
            "loose" => "table: no primary key",
            "nocase" => "table: NOCASE key",
            "anykey" => "table: key without a type",
            "users" => "table: UNIQUE column",
            "accounts" => "table: partial UNIQUE index",
            "names" => "table: UNIQUE index on an expression",
            "slots" => "table: several UNIQUE indexes",
            "tags" => "table: UNIQUE columns, no primary key",
            "parents" | "children" | "toys" => "table: foreign keys with cascades",
            "orders" | "audit" | "totals" => "table: application's triggers",
            _ => "table: more than 64 columns",
        },
        columns: columns
            .iter()
            .copied()
            .chain(added)
            .map(|(n, k)| Column {
                name: n.to_owned(),
                kind: k,
            })
            .collect(),
        key: key.to_vec(),
        uniques: uniques.to_vec(),
    }
}

fn not_null(values: &[&Val]) -> Option<Vec<Val>> {
    values
        .iter()
        .all(|v| **v != Val::Null)
        .then(|| values.iter().map(|v| (*v).clone()).collect())
}

fn lower(v: &Val) -> Val {
    match v {
        Val::Text(t) => Val::Text(t.to_ascii_lowercase()),
        other => other.clone(),
    }
}

/// The private counters: one row a node, which nobody else counts up.
pub const PRIVATE: &str = "private";

pub fn groups() -> Vec<Group> {
    use Kind::{Any, Flag, Int, KeyAny, KeyInt, KeyText, Ref, Text, Unique};
    let plain = KeyText {
        pool: 5,
        null: false,
    };
    let nullable = KeyText {
        pool: 5,
        null: true,
    };
    let mut wide: Vec<(String, Kind)> = vec![("id".into(), KeyInt(4))];
    wide.extend((1..=70).map(|i| (format!("c{i}"), Any)));
    let wide_refs: Vec<(&str, Kind)> = wide.iter().map(|(n, k)| (n.as_str(), *k)).collect();
    let wide_sql: Vec<String> = (1..=70).map(|i| format!("c{i}")).collect();
    vec![
        Group {
            sql: format!("CREATE TABLE {PRIVATE}(node INTEGER PRIMARY KEY, n INTEGER, x);"),
            tables: vec![table(PRIVATE, &[("node", Int), ("n", Int), ("x", Any)], &[(0, false)], &[])],
        },
        Group {
            sql: "CREATE TABLE items(id INTEGER PRIMARY KEY, a, b TEXT, c);".into(),
            tables: vec![table("items", &[("id", KeyInt(6)), ("a", Any), ("b", Text), ("c", Any)], &[(0, false)], &[])],
        },
        Group {
            sql: "CREATE TABLE words(w TEXT PRIMARY KEY, a, b);".into(),
            tables: vec![table("words", &[("w", nullable), ("a", Any), ("b", Any)], &[(0, false)], &[])],
        },
        Group {
            sql: "CREATE TABLE pairs(x TEXT, y INTEGER, v, u, PRIMARY KEY(y, x)) WITHOUT ROWID;".into(),
            tables: vec![table("pairs", &[("x", KeyText { pool: 3, null: false }), ("y", KeyInt(2)), ("v", Any), ("u", Any)], &[(1, false), (0, false)], &[])],
        },
        Group {
            sql: "CREATE TABLE loose(a, b, c);".into(),
            tables: vec![table("loose", &[("a", Any), ("b", Any), ("c", Any)], &[], &[])],
        },
        Group {
            sql: "CREATE TABLE nocase(k TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, v, u);".into(),
            tables: vec![table("nocase", &[("k", plain), ("v", Any), ("u", Any)], &[(0, true)], &[])],
        },
        Group {
            sql: "CREATE TABLE anykey(k PRIMARY KEY, v, u) WITHOUT ROWID;".into(),
            tables: vec![table("anykey", &[("k", KeyAny), ("v", Any), ("u", Any)], &[(0, false)], &[])],
        },
        Group {
            sql: "CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, a, b);".into(),
            tables: vec![table("users", &[("id", KeyInt(6)), ("email", Unique(5)), ("a", Any), ("b", Any)], &[(0, false)], &[|r| not_null(&[&r[1]])])],
        },
        Group {
            sql: "CREATE TABLE accounts(id TEXT PRIMARY KEY, code TEXT, active INTEGER, note); CREATE UNIQUE INDEX one_active ON accounts(code) WHERE active = 1;".into(),
            tables: vec![table("accounts", &[("id", nullable), ("code", Unique(3)), ("active", Flag), ("note", Any)], &[(0, false)], &[|r| {
                if r[2] == Val::Int(1) { not_null(&[&r[1]]) } else { None }
            }])],
        },
        Group {
            sql: "CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT, a); CREATE UNIQUE INDEX by_name ON names(lower(name));".into(),
            tables: vec![table("names", &[("id", KeyInt(6)), ("name", Unique(4)), ("a", Any)], &[(0, false)], &[|r| not_null(&[&lower(&r[1])])])],
        },
        Group {
            sql: "CREATE TABLE slots(day TEXT NOT NULL, slot INTEGER NOT NULL, who TEXT, tag TEXT, v, PRIMARY KEY(day, slot), UNIQUE(who, tag), UNIQUE(tag, slot)) WITHOUT ROWID;".into(),
            tables: vec![table(
                "slots",
                &[("day", KeyText { pool: 2, null: false }), ("slot", KeyInt(3)), ("who", Unique(3)), ("tag", Unique(3)), ("v", Any)],
                &[(0, false), (1, false)],
                &[|r| not_null(&[&r[2], &r[3]]), |r| not_null(&[&r[3], &r[1]])],
            )],
        },
        Group {
            sql: "CREATE TABLE tags(name TEXT UNIQUE COLLATE NOCASE, v, kind TEXT NOT NULL DEFAULT 'e1' UNIQUE);".into(),
            tables: vec![table("tags", &[("name", Unique(4)), ("v", Any), ("kind", Unique(5))], &[], &[|r| not_null(&[&lower(&r[1])]), |r| not_null(&[&r[3]])])],
        },
        Group {
            sql: "CREATE TABLE parents(id INTEGER PRIMARY KEY, a); CREATE TABLE children(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents(id) ON DELETE CASCADE ON UPDATE CASCADE, v);
                  CREATE TABLE toys(id INTEGER PRIMARY KEY, child INTEGER REFERENCES children(id) ON DELETE SET NULL, v);".into(),
            tables: vec![
                table("parents", &[("id", KeyInt(3)), ("a", Any)], &[(0, false)], &[]),
                table("children", &[("id", KeyInt(5)), ("parent", Ref(3)), ("v", Any)], &[(0, false)], &[]),
                table("toys", &[("id", KeyInt(4)), ("child", Ref(5)), ("v", Any)], &[(0, false)], &[]),
            ],
        },
        Group {
            sql: "CREATE TABLE orders(id INTEGER PRIMARY KEY, qty INTEGER, s TEXT UNIQUE); CREATE TABLE audit(id INTEGER PRIMARY KEY, what, who);
                  CREATE TABLE totals(k TEXT PRIMARY KEY NOT NULL, n INTEGER);
                  CREATE TRIGGER o_ai AFTER INSERT ON orders BEGIN INSERT INTO audit(what, who) VALUES('new', NEW.id); END;
                  CREATE TRIGGER o_bi BEFORE INSERT ON orders BEGIN INSERT INTO totals VALUES('in', 1) ON CONFLICT(k) DO UPDATE SET n = n + 1; END;
                  CREATE TRIGGER o_au AFTER UPDATE OF qty ON orders BEGIN UPDATE totals SET n = n + 1 WHERE k = 'in'; UPDATE orders SET s = NULL WHERE id = NEW.id AND NEW.qty > 5; END;
                  CREATE TRIGGER o_bd BEFORE DELETE ON orders BEGIN INSERT OR REPLACE INTO totals VALUES('out', OLD.id); END;
                  CREATE TRIGGER o_bu BEFORE UPDATE OF s ON orders BEGIN DELETE FROM orders WHERE id = OLD.id + 1 AND s IS NULL; END;".into(),
            tables: vec![
                table("orders", &[("id", KeyInt(5)), ("qty", Int), ("s", Unique(4))], &[(0, false)], &[|r| not_null(&[&r[2]])]),
                table("audit", &[("id", KeyInt(8)), ("what", Text), ("who", Int)], &[(0, false)], &[]),
                table("totals", &[("k", plain), ("n", Int)], &[(0, false)], &[]),
            ],
        },
        Group {
            sql: format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {});", wide_sql.join(", ")),
            tables: vec![table("wide", &wide_refs, &[(0, false)], &[])],
        },
    ]
}
