//! Every link of the manual leads to a file that is there, and to a heading in it; every page can be found from the index.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::pages::{self, Page};

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for line in page.prose().lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let slug: String = title
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut unique = slug.clone();
        let mut n = 0;
        while !out.insert(unique.clone()) {
            n += 1;
            unique = format!("{slug}-{n}");
        }
    }
    out
}

/// Targets of links, outside code.
fn targets(page: &Page) -> Vec<String> {
    let prose = page.prose();
    let without_code: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let parts = without_code.split("](").skip(1);
    parts
        .filter_map(|rest| rest.split(')').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let all = pages::all();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut looked_at = 0;
    let mut broken = Vec::new();
    for page in &all {
        for target in targets(page) {
            if target.contains("://") {
                continue;
            }
            looked_at += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let from: PathBuf = root.join(&page.name);
            let file = if path.is_empty() {
                from
            } else {
                from.parent().unwrap().join(path)
            };
            let Ok(file) = file.canonicalize() else {
                broken.push(format!("{}: {target}: no such file", page.name));
                continue;
            };
            let name = file
                .strip_prefix(root.canonicalize().unwrap())
                .unwrap()
                .display()
                .to_string();
            let to = all.iter().find(|page| page.name == name);
            if !anchor.is_empty() && to.is_none_or(|page| !anchors(page).contains(anchor)) {
                broken.push(format!("{}: {target}: no such heading", page.name));
            }
        }
    }
    assert!(looked_at > 200, "{looked_at}");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_index_names_every_page() {
    let all = pages::all();
    let index = all
        .iter()
        .find(|page| page.name == "docs/README.md")
        .unwrap();
    let named: BTreeSet<String> = targets(index).into_iter().collect();
    for page in &all {
        let Some(name) = page
            .name
            .strip_prefix("docs/")
            .filter(|name| *name != "README.md")
        else {
            continue;
        };
        assert!(named.contains(name), "docs/README.md has no link to {name}");
    }
}
