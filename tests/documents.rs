//! What the documentation says of tests: each one that it names is there, and each case of the fidelity suite is named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::path::Path;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of tests with the file that each is said to be in: links like [`name`](../tests/file).
fn named(page: &str) -> BTreeSet<(String, String)> {
    page.split("[`")
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once("`](../")?;
            let (file, _) = rest.split_once(')')?;
            file.starts_with("tests/")
                .then(|| (name.to_owned(), file.to_owned()))
        })
        .collect()
}

/// What a file of tests holds: cases of SQL, test functions, and cases that a table or a function names.
fn has(file: &str, name: &str) -> bool {
    let text = text(file);
    text.lines().any(|line| line == format!("--- case {name}"))
        || text.contains(&format!("fn {name}()"))
        || text.contains(&format!("\"{name}\""))
}

#[test]
fn every_test_that_is_named_is_there() {
    let named = named(&text("docs/sqlite-support.md"));
    assert!(named.len() > 100, "{}", named.len());
    for (name, file) in named {
        assert!(has(&file, &name), "{file} has no test {name}");
    }
}

#[test]
fn every_case_is_named() {
    let named = named(&text("docs/sqlite-support.md"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fidelity");
    let mut found = 0;
    for folder in [folder.clone(), folder.join("cases")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let cases = text
                .lines()
                .filter_map(|line| line.strip_prefix("--- case "));
            let functions = text.split("#[test]\nfn ").skip(1);
            let functions = functions.filter_map(|rest| rest.split_once('(').map(|(name, _)| name));
            for name in cases.chain(functions) {
                found += 1;
                assert!(
                    named.iter().any(|(there, _)| there == name),
                    "docs/sqlite-support.md does not name {name} of {}",
                    path.display()
                );
            }
        }
    }
    assert!(found > 90, "{found}");
}
