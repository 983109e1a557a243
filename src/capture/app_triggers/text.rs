//! What is done to the text of an application's trigger: it is never understood further than its head and the ends of its statements.
//!
//! Invariant: text is only cut and replaced at words and semicolons outside of quotes and comments.

use crate::sqlite::tokens::{Token, tokens, unquote};

/// How SQLite begins the text of every trigger that it keeps.
const BEGINS: &str = "CREATE TRIGGER ";

/// How ours begin.
const BEGINS_TEMPORARY: &str = "CREATE TEMP TRIGGER ";

/// When a trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Rows are added.
    Insert,
    /// Rows are changed.
    Update,
    /// Rows are removed.
    Delete,
}

/// A trigger's text in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriggerText {
    /// When it fires.
    pub event: Event,
    /// From its name up to and with BEGIN.
    head: String,
    /// Where BEGIN stands in it.
    begin: usize,
    /// Where its condition begins, behind WHEN.
    when: Option<usize>,
    /// Its statements.
    pub statements: Vec<String>,
}

impl TriggerText {
    /// Cuts the text that SQLite keeps of a trigger; `None` if it is not of the expected form.
    #[must_use]
    pub fn parse(sql: &str) -> Option<Self> {
        let sql = soften(sql)?;
        let sql = sql.as_str();
        let tokens = tokens(sql)?;
        // CREATE TRIGGER name, then the time, which may be left out.
        let event = tokens.iter().skip(3).take(3).find_map(|t| {
            [
                ("INSERT", Event::Insert),
                ("UPDATE", Event::Update),
                ("DELETE", Event::Delete),
            ]
            .into_iter()
            .find(|(word, _)| t.is_word(sql, word))
            .map(|(_, event)| event)
        })?;
        let begin = tokens.windows(2).position(|pair| {
            let [begin, next] = pair else { return false };
            begin.is_word(sql, "BEGIN") && starts_statement(*next, sql)
        })?;
        let head = sql.get(BEGINS.len()..tokens.get(begin)?.end)?.to_owned();
        // No name is this word without quotes, and CASE stands behind it only.
        let when = tokens
            .get(..begin)?
            .iter()
            .find(|t| t.is_word(sql, "WHEN"))
            .map(|t| t.end - BEGINS.len());
        let begins_at = tokens.get(begin)?.start - BEGINS.len();
        let mut statements = Vec::new();
        let mut from = tokens.get(begin)?.end;
        for end in tokens.iter().skip(begin).filter(|t| t.text(sql) == ";") {
            statements.push(sql.get(from..end.start)?.trim().to_owned());
            from = end.end;
        }
        let ends = tokens.last()?.is_word(sql, "END");
        (sql.starts_with(BEGINS) && ends && !statements.is_empty()).then_some(Self {
            event,
            head,
            begin: begins_at,
            when,
            statements,
        })
    }

    /// A TEMP trigger of the same name that runs these statements while `switch`, a condition, holds.
    #[must_use]
    pub fn temporary(&self, statements: &[String], switch: &str) -> String {
        let of = |from: usize, to: usize| self.head.get(from..to).unwrap_or_default();
        let head = match self.when {
            Some(at) => format!("{} {switch} AND ({}\n)", of(0, at), of(at, self.begin)),
            None => format!("{}\nWHEN {switch}", of(0, self.begin)),
        };
        // A line of its own: a statement may end with a comment.
        let body: Vec<String> = statements.iter().map(|s| format!("{s}\n;")).collect();
        format!("{BEGINS_TEMPORARY}{head} BEGIN {} END", body.join(" "))
    }

    /// The tables that its statements write to, in lower case, as far as their first words tell: for a trigger that SQLite cannot compile here.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        self.statements.iter().filter_map(|s| target(s)).collect()
    }
}

/// `INSERT [OR …] INTO name`, `REPLACE INTO name`, `UPDATE [OR …] name`, `DELETE FROM name`, any of them after `WITH …`.
fn target(sql: &str) -> Option<String> {
    let tokens = tokens(sql)?;
    let mut depth = 0_usize;
    let mut words = tokens.iter();
    words.by_ref().find(|t| {
        match t.text(sql) {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
            && ["INSERT", "UPDATE", "DELETE", "REPLACE"]
                .iter()
                .any(|word| t.is_word(sql, word))
    })?;
    let mut next = words.next()?;
    if next.is_word(sql, "OR") {
        words.next()?;
        next = words.next()?;
    }
    if next.is_word(sql, "INTO") || next.is_word(sql, "FROM") {
        next = words.next()?;
    }
    Some(unquote(next.text(sql)).to_ascii_lowercase())
}

fn starts_statement(token: Token, sql: &str) -> bool {
    [
        "INSERT", "UPDATE", "DELETE", "SELECT", "WITH", "REPLACE", "VALUES",
    ]
    .iter()
    .any(|word| token.is_word(sql, word))
}

/// The statement that has made a TEMP trigger, by what SQLite keeps of it.
#[must_use]
pub fn made_by(kept: &str) -> String {
    let rest = kept.strip_prefix(BEGINS).unwrap_or(kept);
    format!("{BEGINS_TEMPORARY}{rest}")
}

/// Whether a trigger has `RAISE(IGNORE)` in it.
#[must_use]
pub fn raises_ignore(sql: &str) -> bool {
    tokens(sql).is_none_or(|tokens| {
        tokens.windows(3).any(|three| {
            let [raise, open, ignore] = three else {
                return false;
            };
            raise.is_word(sql, "RAISE") && open.text(sql) == "(" && ignore.is_word(sql, "IGNORE")
        })
    })
}

/// ROLLBACK and FAIL become ABORT: what goes wrong in a trigger must end its statement and undo all of it, and never the transaction, in which there is much else.
fn soften(sql: &str) -> Option<String> {
    let tokens = tokens(sql)?;
    let mut out = String::with_capacity(sql.len());
    let mut from = 0;
    for (i, token) in tokens.iter().enumerate() {
        let ends_more = token.is_word(sql, "ROLLBACK") || token.is_word(sql, "FAIL");
        let before = |n: usize, word: &str| {
            i.checked_sub(n)
                .and_then(|i| tokens.get(i))
                .is_some_and(|t| t.is_word(sql, word))
        };
        if ends_more && (before(1, "OR") || (before(1, "(") && before(2, "RAISE"))) {
            out.push_str(sql.get(from..token.start)?);
            out.push_str("ABORT");
            from = token.end;
        }
    }
    out.push_str(sql.get(from..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_statements() {
        let sql = "CREATE TRIGGER \"begin; \"\"x\" UPDATE OF begin, [end] ON \"a b\" WHEN new.begin = 'BEGIN' OR CASE WHEN 1 THEN 2 END\n\
                   BEGIN INSERT INTO ft(body) VALUES(';'); -- ; no end\n UPDATE t SET x = CASE WHEN 1 THEN 'END' END; END";
        let text = TriggerText::parse(sql).unwrap();
        assert_eq!(text.event, Event::Update);
        assert_eq!(text.statements.len(), 2, "{text:?}");
        assert_eq!(text.statements[0], "INSERT INTO ft(body) VALUES(';')");
        assert!(text.statements[1].ends_with("'END' END"));
        assert!(text.head.ends_with("\nBEGIN"));
        let copy = text.temporary(&text.statements[..1], "on()");
        assert!(copy.starts_with("CREATE TEMP TRIGGER \"begin; \"\"x\" UPDATE OF"));
        assert!(
            copy.contains(
                " WHEN on() AND ( new.begin = 'BEGIN' OR CASE WHEN 1 THEN 2 END\n\n) BEGIN "
            ),
            "{copy}"
        );
        let plain = "CREATE TRIGGER a INSERT ON t -- always\nBEGIN SELECT 1; END";
        assert_eq!(
            TriggerText::parse(plain).unwrap().temporary(&[], "on()"),
            "CREATE TEMP TRIGGER a INSERT ON t -- always\n\nWHEN on() BEGIN  END"
        );
        assert!(copy.ends_with("VALUES(';')\n; END"));
    }

    #[test]
    fn times_and_events() {
        let event = |sql: &str| TriggerText::parse(sql).map(|t| t.event);
        assert_eq!(
            event("CREATE TRIGGER a BEFORE DELETE ON t BEGIN SELECT 1; END"),
            Some(Event::Delete)
        );
        assert_eq!(
            event("CREATE TRIGGER insert_it INSTEAD OF UPDATE ON t BEGIN SELECT 1; END"),
            Some(Event::Update)
        );
        assert_eq!(
            event(
                "CREATE TRIGGER 'delete' INSERT ON t BEGIN WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x; END"
            ),
            Some(Event::Insert)
        );
        assert_eq!(event("CREATE TABLE t(a)"), None);
        assert_eq!(
            event("CREATE TRIGGER a AFTER INSERT ON t BEGIN SELECT 'open; END"),
            None
        );
    }

    #[test]
    fn targets_by_their_words() {
        for (sql, name) in [
            ("INSERT OR IGNORE INTO \"A \"\"b\" VALUES(1)", Some("a \"b")),
            ("replace into [T 1](x) SELECT 1", Some("t 1")),
            ("UPDATE t SET a = 1", Some("t")),
            (
                "WITH x AS (SELECT 1 AS \"insert\"), y AS (SELECT replace(1, 2, 3)) DELETE FROM 'd'",
                Some("d"),
            ),
            ("SELECT RAISE(IGNORE)", None),
        ] {
            assert_eq!(target(sql).as_deref(), name, "{sql}");
        }
    }

    #[test]
    fn nothing_ends_more_than_its_statement() {
        let sql = "CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT OR rollback INTO x VALUES('OR ROLLBACK'); SELECT RAISE( FAIL , 'RAISE(ROLLBACK'); SELECT rollback, fail FROM x; REPLACE INTO x VALUES(1); END";
        let soft = soften(sql).unwrap();
        assert_eq!(
            soft,
            sql.replacen("OR rollback", "OR ABORT", 1)
                .replacen("RAISE( FAIL", "RAISE( ABORT", 1)
        );
    }
}
