//! Reads the terms and the WHERE clause out of a `CREATE INDEX` statement as text: SQLite tells the columns of an
//! index through pragmas, but neither its expressions nor its predicate.
//!
//! Invariant: text is only cut at commas, parentheses and keywords that stand outside quotes and comments.

use super::tokens::{Token, tokens};

/// The parts of a `CREATE [UNIQUE] INDEX` statement.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexText {
    /// Each term's expression, without a trailing `COLLATE name`, `ASC` or `DESC`.
    pub terms: Vec<String>,
    /// What stands behind `COLLATE` of each, if anything does.
    pub collations: Vec<Option<String>>,
    /// The WHERE clause.
    pub predicate: Option<String>,
}

/// Cuts a statement into its parts; `None` if it is not of the expected form.
#[must_use]
pub fn parse(sql: &str) -> Option<IndexText> {
    let tokens = tokens(sql)?;
    let on = tokens.iter().position(|t| t.is_word(sql, "ON"))?;
    let open = on + tokens.get(on..)?.iter().position(|t| t.text(sql) == "(")?;
    let mut depth = 0_i32;
    let mut terms = Vec::new();
    let mut collations = Vec::new();
    let mut current: Vec<Token> = Vec::new();
    let mut close = None;
    for (i, t) in tokens.iter().enumerate().skip(open) {
        match t.text(sql) {
            "(" => {
                depth += 1;
                if depth == 1 {
                    continue;
                }
            }
            ")" => {
                depth -= 1;
                if depth == 0 {
                    let (term, collation) = term(sql, &current)?;
                    terms.push(term);
                    collations.push(collation);
                    close = Some(i);
                    break;
                }
            }
            "," if depth == 1 => {
                let (term, collation) = term(sql, &current)?;
                terms.push(term);
                collations.push(collation);
                current.clear();
                continue;
            }
            _ => {}
        }
        current.push(*t);
    }
    let rest = tokens.get(close? + 1..)?;
    let predicate = match rest.split_first() {
        None => None,
        Some((w, body)) if w.is_word(sql, "WHERE") => Some(span(sql, body)?.to_owned()),
        Some(_) => return None,
    };
    Some(IndexText {
        terms,
        collations,
        predicate,
    })
}

/// A term without its sort order and its collation, and that.
fn term(sql: &str, tokens: &[Token]) -> Option<(String, Option<String>)> {
    let mut t = tokens;
    let mut collation = None;
    if let Some((last, rest)) = t.split_last()
        && (last.is_word(sql, "ASC") || last.is_word(sql, "DESC"))
    {
        t = rest;
    }
    if let [rest @ .., collate, name] = t
        && collate.is_word(sql, "COLLATE")
        && !rest.is_empty()
    {
        t = rest;
        collation = Some(name.text(sql).to_owned());
    }
    Some((span(sql, t)?.to_owned(), collation))
}

fn span<'a>(sql: &'a str, tokens: &[Token]) -> Option<&'a str> {
    sql.get(tokens.first()?.start..tokens.last()?.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sql: &str) -> (Vec<String>, Option<String>) {
        let p = parse(sql).unwrap();
        (p.terms, p.predicate)
    }

    #[test]
    fn cuts_terms_and_predicate() {
        assert_eq!(
            parts(
                "CREATE UNIQUE INDEX \"i, (x)\" ON t(a, lower(b || ',)') COLLATE nocase DESC, [c d] ASC) WHERE a > 1 AND b IN ('x', 'y')"
            ),
            (
                vec!["a".into(), "lower(b || ',)')".into(), "[c d]".into()],
                Some("a > 1 AND b IN ('x', 'y')".into())
            )
        );
        assert_eq!(
            parts("create unique index i on \"on(\" ( -- it's, x\n a /* , */ , b)"),
            (vec!["a".into(), "b".into()], None)
        );
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(parse("CREATE TABLE t(a)"), None);
        assert_eq!(parse("CREATE INDEX i ON t(a) USING x"), None);
        assert_eq!(parse("CREATE INDEX i ON t('a"), None);
    }
}
