//! The messages that the program can say, as its source has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::rust::{Token, inside, tokens};

/// Files whose sentences reach people another way than as an error, a log line or a refusal: through health, `-check`, a notice at start, a pause.
const SPEAKING: [&str; 19] = [
    "src/apply/plan.rs",
    "src/brakes/mod.rs",
    "src/capture/app_triggers/mod.rs",
    "src/cli/commands.rs",
    "src/cluster/hearing.rs",
    "src/config/notice.rs",
    "src/config/outside.rs",
    "src/config/rights.rs",
    "src/daemon/histories/mod.rs",
    "src/daemon/measuring.rs",
    "src/doctor/tables.rs",
    "src/http/status/verdict.rs",
    "src/journals/chosen_keys.rs",
    "src/publish/gate.rs",
    "src/snapshot/watch.rs",
    "src/sqlite/concerns.rs",
    "src/stream/refusal.rs",
    "src/telemetry/logging/file.rs",
    "src/telemetry/logging/writer.rs",
];

/// Calls whose texts are for people.
const CALLS: [&[&str]; 3] = [
    &["Fatal", ":", ":", "new"],
    &["Refusal", ":", ":", "new"],
    &["refuse"],
];

/// Macros whose texts are for people.
const MACROS: [&str; 2] = ["warn", "error"];

/// What the program can say: each message with `…` for what differs, and the first file that says it.
pub fn all() -> BTreeMap<String, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files.sort();
    for file in SPEAKING {
        assert!(
            root.join(file).exists(),
            "tests/manual/messages.rs names {file}, which is gone: name the file that has its sentences now"
        );
    }
    let mut out = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_owned();
        // Files of tests, and what a build for the simulation alone says.
        if name
            .file_stem()
            .is_some_and(|stem| stem == "tests" || stem == "planted")
        {
            continue;
        }
        let code = tokens(&std::fs::read_to_string(&file).unwrap());
        let speaks = SPEAKING.iter().any(|speaking| Path::new(speaking) == name);
        for message in said(&code, speaks) {
            out.entry(message).or_insert_with(|| name.clone());
        }
    }
    out
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn said(code: &[Token], speaks: bool) -> Vec<String> {
    let mut out = Vec::new();
    for i in 0..code.len() {
        let followed = |sign| code.get(i + 1) == Some(&Token::Sign(sign));
        let is_macro = MACROS.iter().any(|m| code[i].is(m)) && followed('!');
        if code[i].is("error") && followed('(') && i > 0 && code[i - 1] == Token::Sign('[') {
            out.extend(texts(inside(code, i + 1)).take(1));
        } else if is_macro {
            out.extend(texts(inside(code, i + 2)).filter(|text| words(text) >= 3));
        } else if let Some(call) = CALLS.iter().find(|call| begins(&code[i..], call)) {
            let open = i + call.len();
            // Its definition says nothing.
            let is_defined = i > 0 && code[i - 1].is("fn");
            if code.get(open) == Some(&Token::Sign('(')) && !is_defined {
                out.extend(texts(inside(code, open)).filter(|text| words(text) >= 3));
            }
        }
    }
    if speaks {
        out.extend(texts(code).filter(|text| words(text) >= 4 && text.contains(' ')));
    }
    out.retain(|text| words(text) >= 1);
    out
}

fn begins(code: &[Token], call: &[&str]) -> bool {
    call.iter().enumerate().all(|(i, part)| match code.get(i) {
        Some(Token::Word(word)) => word == part,
        Some(Token::Sign(sign)) => *part == sign.to_string(),
        _ => false,
    })
}

/// Texts, with `…` for each value. SQL is none.
fn texts(code: &[Token]) -> impl Iterator<Item = String> + '_ {
    const SQL: [&str; 9] = [
        "SELECT ", "INSERT ", "CREATE ", "DELETE ", "UPDATE ", "WITH ", "DROP ", "ALTER ",
        "PRAGMA ",
    ];
    code.iter().filter_map(|token| match token {
        Token::Text(text) if !SQL.iter().any(|sql| text.starts_with(sql)) => Some(pattern(text)),
        _ => None,
    })
}

/// A format string with `…` in place of each value, on one line.
fn pattern(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
                out.push(c);
            }
            '{' => {
                while chars.next().is_some_and(|c| c != '}') {}
                out.push('…');
            }
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
    }
    out.trim().to_owned()
}

/// How many words of its own a message has.
fn words(text: &str) -> usize {
    let parts = text.split(|c: char| !c.is_alphabetic());
    parts.filter(|word| word.chars().count() > 1).count()
}
