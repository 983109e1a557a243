//! A UNIQUE index that was here and has been dropped, made anew of its definition: on columns alone, on expressions, or with a WHERE clause.
//!
//! Invariant: an index is given back only where its text means here what it meant when it was here; where a name in it was given to another column since, or its column was dropped, it is
//! not.

use super::plan::plain_index;
use crate::capture::formerly::Formerly;
use crate::change::table::{IndexTerm, Table, UniqueIndex};
use crate::sqlite::index_sql;
use crate::sqlite::tokens::tokens;

/// The index of this definition (see [`UniqueIndex::definition`]) on the table as it is here.
#[must_use]
pub fn dropped_index(table: &Table, formerly: &Formerly, definition: &str) -> Option<UniqueIndex> {
    plain_index(table, formerly, definition).or_else(|| by_its_text(formerly, definition))
}

/// One whose terms or WHERE clause SQLite has to work out.
fn by_its_text(formerly: &Formerly, definition: &str) -> Option<UniqueIndex> {
    if names_what_has_changed(formerly, definition)? {
        return None;
    }
    let text = index_sql::parse(&format!("CREATE UNIQUE INDEX i ON t{definition}"))?;
    let terms = text
        .terms
        .into_iter()
        .zip(text.collations)
        .map(|(sql, collation)| {
            Some(IndexTerm {
                column: None,
                sql,
                collation: collation?,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    Some(UniqueIndex {
        name: definition.to_owned(),
        terms,
        predicate: text.predicate,
    })
}

/// Whether a word of the text is the name of a column of before. `None`: it cannot be read.
fn names_what_has_changed(formerly: &Formerly, definition: &str) -> Option<bool> {
    let mut tokens = tokens(definition)?.into_iter();
    Some(tokens.any(|token| {
        let word = token.text(definition);
        let word = word.rsplit('.').next().unwrap_or(word);
        formerly
            .column(word.trim_matches(['"', '`', '[', ']']))
            .is_some()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_what_its_definition_says() {
        let definition =
            "((lower(c)) COLLATE NOCASE, \"a b\" COLLATE BINARY) WHERE live = ')' AND c > 1";
        let index = by_its_text(&Formerly::default(), definition).unwrap();
        let terms: Vec<(&str, &str)> = index
            .terms
            .iter()
            .map(|t| (t.sql.as_str(), t.collation.as_str()))
            .collect();
        assert_eq!(terms, [("(lower(c))", "NOCASE"), ("\"a b\"", "BINARY")]);
        assert_eq!(index.predicate.as_deref(), Some("live = ')' AND c > 1"));
        assert_eq!(index.definition(), definition);
        assert!(!index.is_plain());
    }
}
