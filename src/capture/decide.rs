//! Decides of each table, and of all together, what is to be done to make capture current: a pure function of what was read.
//!
//! Invariant: a table that was not known before needs nothing that another one has a part in, so that it can be captured alone.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::captured::{Captured, CapturedTable, FormerValues, describe};
use super::carry_over::Change;
use super::formerly::{Formerly, names_in, renamed_columns};
use super::known::{Borne, KnownTable, StoredObject, newest_app_triggers, purposes};
use super::prepare::State;
use super::rekey::{self, Rekeyed};
use super::steps::{NewTable, Step};
use super::{layout, triggers};
use crate::change::table::Table;
use crate::planted::planted;
use crate::sqlite::ident::quote;
use crate::state::unsure::Reason;

/// What there is to do, and what is captured then.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub captured: Captured,
    pub steps: Vec<Step>,
    pub new_tables: Vec<NewTable>,
    /// What follows on these.
    pub last: Vec<Step>,
}

/// An object that should be there, and whether it is to be made anew though it is.
type Desired = (triggers::Object, bool);

/// A decision on its way.
pub(super) struct Deciding<'a> {
    state: &'a State,
    bare: &'a HashMap<String, StoredObject>,
    first: bool,
    /// Names of all tables, in lower case.
    taken: &'a BTreeSet<String>,
    followed: &'a [&'a str],
    newest_app_triggers: HashMap<String, i64>,
    pub out: Decided,
    desired: Vec<Desired>,
    /// What is logged when all is there.
    logs: Vec<Step>,
    /// Objects that go before the others are looked at, in lower case.
    gone: HashSet<String>,
}

impl<'a> Deciding<'a> {
    /// `bare`: the objects as they were found, before anything was renamed. `captured`: what is known without a look at the tables.
    pub fn new(
        state: &'a State,
        bare: &'a HashMap<String, StoredObject>,
        first: bool,
        taken: &'a BTreeSet<String>,
        followed: &'a [&'a str],
        captured: Captured,
    ) -> Self {
        Self {
            state,
            bare,
            first,
            taken,
            followed,
            newest_app_triggers: newest_app_triggers(&state.there),
            out: Decided {
                captured,
                ..Decided::default()
            },
            desired: Vec::new(),
            logs: Vec::new(),
            gone: HashSet::new(),
        }
    }

    /// One of the tables that are wanted.
    pub fn table(&mut self, table: &Table) {
        let state = self.state;
        let lower = table.name.to_ascii_lowercase();
        let columns = describe(table.columns.iter().map(|c| c.name.as_str()));
        let key = describe(table.key_names());
        let before = state.known.get(&lower);
        let generation = match before {
            // What older triggers logged as cells may be of columns under a UNIQUE index by now, which travel whole.
            Some(k)
                if k.columns == columns
                    && k.key == key
                    && !k.formerly.has_other_uniques(&table.unique_definitions()) =>
            {
                k.generation
            }
            Some(k) => k.generation + 1,
            None => 1,
        };
        let ours = triggers::triggers(table, generation);
        let columns_before = before.map_or_else(Vec::new, |k| names_in(&k.columns));
        let borne = Borne {
            there: self.bare,
            table,
            followed: self.followed,
        };
        let renamed = renamed_columns(&borne);
        let key_before = before.map_or_else(Vec::new, |k| names_in(&k.key));
        let made_anew = before.is_some_and(|b| b.key != key) && !borne.bears_any();
        let mut formerly = before
            .map_or_else(Formerly::default, |k| k.formerly.clone())
            .after(
                table,
                &columns_before,
                &key_before,
                renamed.as_deref(),
                made_anew,
            );
        // A name that another table has now means that one.
        formerly.forget_tables(|name| self.taken.contains(&name.to_ascii_lowercase()));
        let now = KnownTable {
            generation,
            columns,
            key,
            triggers: purposes(table, &ours),
            formerly,
        };
        let log = layout::change_log(&table.name).to_ascii_lowercase();
        let log_there = state.there.contains_key(&log);
        let included = before.is_some_and(KnownTable::was_left_out);
        let lost = !included && before.is_some_and(|b| borne.has_lost(b));
        let rekeyed = made_anew && log_there;
        let gap = lost || (before.is_none() && self.first && state.of_a_cluster);
        // Each row's new key is told by its former one.
        let clear = rekeyed && !included && rekey::is_clear(table, &columns_before, &key_before);
        let mut steps = Vec::new();
        let mut logs = Vec::new();
        let mark = |reason| Step::Mark(table.name.clone(), reason);
        let warnings = &mut self.out.captured.warnings;
        if gap && (!rekeyed || clear) {
            steps.push(mark(Reason::Gap));
        }
        if lost {
            warnings.push(format!(
                "the triggers on table \"{}\" were gone (a rebuilt table, or dropped by hand): what was written without them is looked for",
                table.name
            ));
        }
        if (rekeyed && !clear) || !log_there {
            self.out.captured.new_logs.push(table.name.clone());
        }
        let mut log_goes = false;
        if included {
            warnings.push(if state.of_a_cluster {
                steps.push(mark(Reason::Included));
                format!(
                    "table \"{}\" was left out until now: it becomes what the cluster has, and rows that only this node has are published",
                    table.name
                )
            } else {
                format!(
                    "table \"{}\" was left out until now: its rows are taken to be equal on all nodes; run harmonylite verify",
                    table.name
                )
            });
            log_goes = rekeyed;
        } else if clear {
            warnings.push(format!(
                "table \"{}\" has a new primary key: what is pending goes over to it, and rows that were written without capture are looked for",
                table.name
            ));
            let generations = (before.map_or(0, |b| b.generation), generation);
            let moved = Rekeyed::new(table, (columns_before.clone(), key_before), generations);
            self.out.steps.push(Step::SetAside(moved.clone()));
            log_goes = true;
            logs.push(Step::GoOver(moved));
        } else if rekeyed {
            // Key values of the old log cannot be read as the new key's: log every row anew, whole.
            warnings.push(format!(
                "table \"{}\" has a new primary key: all its rows are sent again",
                table.name
            ));
            log_goes = true;
            logs.push(Step::Log(triggers::log_all_rows(table, generation)));
        } else if before.is_none() && !self.first {
            if state.of_a_cluster {
                steps.push(Step::MarkIfRows(table.name.clone()));
            } else {
                logs.push(Step::Log(triggers::log_all_rows(table, generation)));
            }
        } else if before.is_some_and(|b| b.generation != generation)
            && log_there
            && !planted!(NotSentAgain)
            && !planted!(GenerationForgotten)
        {
            let change = Change {
                table,
                before: &columns_before,
                now: renamed.as_deref(),
                compared: gap,
                aged: before.map_or(0, |b| b.generation),
                generation,
            };
            logs.extend(change.sql().into_iter().map(Step::Log));
        }
        let back = before.map_or_else(Vec::new, |b| b.formerly.dropped_and_back(table));
        if state.of_a_cluster && !gap && !rekeyed && !back.is_empty() {
            // What others wrote to it meanwhile was passed over here.
            steps.push(mark(Reason::Included));
            warnings.push(format!(
                "column {} of table \"{}\" was dropped here and is back: the table becomes what the cluster has",
                describe(back.into_iter()),
                table.name
            ));
        }
        if before != Some(&now) {
            steps.push(Step::Know(table.name.clone(), now.clone()));
        }
        let formerly = now.formerly;
        // Newer triggers fire first: when the app has made one since, ours are made anew.
        let oldest_of_ours = ours
            .iter()
            .filter_map(|o| state.there.get(&o.name.to_ascii_lowercase()))
            .map(|t| t.rowid)
            .min();
        let newest_of_app = self.newest_app_triggers.get(&lower);
        let renew = oldest_of_ours.is_some_and(|ours| newest_of_app.is_some_and(|app| *app > ours));
        let mut objects: Vec<Desired> = triggers::tables(table)
            .into_iter()
            .map(|o| (o, false))
            .collect();
        objects.extend(ours.into_iter().map(|o| (o, renew)));
        if log_goes {
            self.drop_log(table);
        }
        let is_new = before.is_none()
            && !self.first
            && objects
                .iter()
                .all(|(o, _)| !state.there.contains_key(&o.name.to_ascii_lowercase()));
        if is_new {
            let creates = objects.into_iter().map(|(o, _)| Step::Create(o));
            self.out.new_tables.push(NewTable {
                table: table.clone(),
                steps: creates.chain(steps).chain(logs).collect(),
            });
        } else {
            self.desired.extend(objects);
            self.out.steps.extend(steps);
            self.logs.extend(logs);
        }
        self.out.captured.tables.push(CapturedTable {
            generation,
            log: quote(&layout::change_log(&table.name)),
            former: FormerValues::of(table),
            fires: Vec::new(),
            turn: 0,
            notes: (!table.uniques.is_empty()).then(|| quote(&layout::notes(&table.name))),
            former_key: CapturedTable::former_key_columns(table, &formerly),
            former_logged: Vec::new(),
            formerly,
            table: table.clone(),
        });
    }

    /// The change log of a table goes, whose layout no longer fits it, with all that names it; the mending makes that again.
    fn drop_log(&mut self, table: &Table) {
        let logs = [
            layout::change_log(&table.name),
            layout::notes(&table.name),
            // Its ids are those of the log, which begin anew.
            layout::former_values(&table.name),
        ];
        let logs: Vec<&StoredObject> = logs
            .iter()
            .filter_map(|name| self.state.there.get(&name.to_ascii_lowercase()))
            .collect();
        let naming = self.state.there.values().filter(|o| {
            !logs.is_empty()
                && o.ours
                && o.kind != "table"
                && (o.kind == "view" || o.on.eq_ignore_ascii_case(&table.name))
        });
        for object in naming.chain(logs.iter().copied()) {
            if self.gone.insert(object.name.to_ascii_lowercase()) {
                self.out.steps.push(Step::drop(object));
            }
        }
    }

    /// What should not be there (or is another) goes, then what is missing is made, in order.
    pub fn mend(mut self, tables: &[&Table]) -> Decided {
        let views = triggers::views(tables);
        let wanted: HashMap<String, (&triggers::Object, bool)> = self
            .desired
            .iter()
            .map(|(o, renew)| (o.name.to_ascii_lowercase(), (o, *renew)))
            .chain(
                views
                    .iter()
                    .map(|o| (o.name.to_ascii_lowercase(), (o, false))),
            )
            .collect();
        let mut steps = Vec::new();
        for (name, object) in &self.state.there {
            if !object.ours || self.gone.contains(name) {
                continue;
            }
            // Tables of the state stay. A change log without a table too: its rows may still have to be sent, or the table may be back in a moment. Reconciliation tidies it.
            // Former values are an aid only, and must fit the triggers.
            let stays = object.kind == "table" && !name.ends_with(layout::FORMER_VALUES);
            let keep = wanted.get(name).is_some_and(|(o, renew)| {
                !renew
                    && o.kind == object.kind
                    && o.on.eq_ignore_ascii_case(&object.on)
                    && (stays || o.sql == object.sql)
            });
            if keep || stays {
                continue;
            }
            steps.push(Step::drop(object));
            self.gone.insert(name.clone());
        }
        let missing = |o: &triggers::Object| {
            let name = o.name.to_ascii_lowercase();
            self.gone.contains(&name) || !self.state.there.contains_key(&name)
        };
        steps.extend(
            self.desired
                .iter()
                .filter(|(o, _)| missing(o))
                .map(|(o, _)| Step::Create(o.clone())),
        );
        self.out.steps.extend(steps);
        // Views over all of them, when all are there.
        let views = views.into_iter().filter(|o| missing(o)).map(Step::Create);
        self.out.last = views.chain(self.logs).collect();
        let all = self.out.steps.iter().chain(&self.out.last);
        self.out.captured.changed =
            !self.out.new_tables.is_empty() || all.clone().any(Step::is_of_schema);
        self.out
    }
}
