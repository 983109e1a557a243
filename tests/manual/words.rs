//! Commands, flags, keys, variables and endpoints: what the manual names is there, and what is there is named.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use harmonylite::cli::args::{Args, Command};
use harmonylite::config::{Config, Overrides};

use crate::pages::{self, Page};
use crate::rust::{Token, tokens};

fn help() -> String {
    match Args::parse(["harmonylite", "help"].map(OsString::from))
        .unwrap()
        .command
    {
        Command::Help(text) => text,
        other => panic!("{other:?}"),
    }
}

/// Command lines of the program that a page shows, as words.
fn command_lines(page: &Page) -> Vec<Vec<String>> {
    let blocks = page.blocks(None);
    let lines = blocks.iter().flat_map(|block| block.lines());
    let prose = page.prose();
    let indented = prose.lines().filter(|line| line.starts_with("    "));
    let spans = page.spans();
    let shown = lines
        .chain(indented)
        .chain(spans.iter().map(String::as_str));
    shown.filter_map(command_line).collect()
}

/// `$ sudo -u me harmonylite -config x status # comment` without what is not the program's.
fn command_line(line: &str) -> Option<Vec<String>> {
    let mut words: Vec<&str> = line
        .trim()
        .trim_start_matches("$ ")
        .split_whitespace()
        .collect();
    if words.first() == Some(&"sudo") {
        words.remove(0);
        if words.first() == Some(&"-u") {
            words.drain(..2.min(words.len()));
        }
    }
    let program = words.first()?.rsplit('/').next()?;
    if program != "harmonylite" || words.len() < 2 {
        return None;
    }
    let ends = |word: &&str| {
        !(word.starts_with(['#', '|', '>', '&', ';', '(', '<', '…'])
            || word.starts_with("2>")
            || *word == "...")
    };
    let words = words.into_iter().skip(1).take_while(ends);
    let mut out = Vec::new();
    for word in words {
        let last = word.ends_with(';');
        out.push(
            word.trim_end_matches([';', ',', '.', ':'])
                .replace(['[', ']', '"', '\''], ""),
        );
        if last {
            break;
        }
    }
    Some(out)
}

/// Names in capitals stand for values.
fn example(word: &str) -> String {
    let is_name = word.len() > 1
        && word
            .chars()
            .all(|c| c.is_ascii_uppercase() || c == '-' || c == '_')
        || word == "N";
    match word {
        "COMMAND" => "status".to_owned(),
        _ if is_name => "1".to_owned(),
        _ => word.to_owned(),
    }
}

#[test]
fn every_command_line_in_the_manual_is_understood() {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for page in pages::all() {
        for words in command_lines(&page) {
            // `a|b` stands for both.
            let most = words
                .iter()
                .map(|word| word.split('|').count())
                .max()
                .unwrap_or(1);
            for choice in 0..most {
                let chosen = words.iter().map(|word| {
                    let all: Vec<&str> = word.split('|').collect();
                    example(all.get(choice).or(all.last()).unwrap())
                });
                looked_at += 1;
                let line: Vec<String> = std::iter::once("harmonylite".to_owned())
                    .chain(chosen)
                    .collect();
                if let Err(error) = Args::parse(line.iter().map(OsString::from)) {
                    let error = error.to_string();
                    // A command that is named without its operands.
                    if !error.contains(" needs ") && !error.contains(": give ") {
                        wrong.push(format!("{}: {}: {error}", page.name, line.join(" ")));
                    }
                }
            }
        }
    }
    assert!(looked_at > 150, "{looked_at}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a page shows of what one types, as words; `a|b` stands for both.
fn typed(page: &Page) -> BTreeSet<Vec<Vec<String>>> {
    let blocks = page.blocks(None);
    let prose = page.prose();
    let indented = prose.lines().filter(|line| line.starts_with("    "));
    let spans = page.spans();
    let lines = blocks
        .iter()
        .flat_map(|block| block.lines())
        .chain(indented);
    let words = |line: &str| {
        let words = line
            .split_whitespace()
            .map(|word| word.trim_matches(['"', ',', '.', ';', '[', ']']));
        let alternatives = |word: &str| word.split('|').map(str::to_owned).collect();
        words.map(alternatives).collect()
    };
    lines
        .chain(spans.iter().map(String::as_str))
        .map(words)
        .collect()
}

/// Whether these words stand there, one behind the other.
fn shows(line: &[Vec<String>], words: &[&str]) -> bool {
    line.windows(words.len()).any(|part| {
        let mut pairs = part.iter().zip(words);
        pairs.all(|(there, word)| there.iter().any(|w| w == word))
    })
}

#[test]
fn every_command_is_in_the_manual() {
    let help = help();
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = rest.split_once("\n\n").unwrap();
    let shown: Vec<_> = pages::all().iter().flat_map(typed).collect();
    let mut count = 0;
    for line in commands
        .lines()
        .filter(|line| !line.contains("help COMMAND"))
    {
        // Two words, or one and what it works on.
        let left = line.get(2..).unwrap();
        let words: Vec<&str> = left.split_whitespace().take(2).collect();
        let is_pair = words[1].chars().all(|c| c.is_ascii_lowercase() || c == '-')
            && Args::parse(["harmonylite", "help", words[0]].map(OsString::from)).is_ok_and(
                |args| matches!(args.command, Command::Help(text) if text.contains(&format!("] {} {}", words[0], words[1]))),
            );
        let wanted = &words[..if is_pair { 2 } else { 1 }];
        count += 1;
        let is_there = shown.iter().any(|line| shows(line, wanted));
        assert!(is_there, "no page shows `harmonylite {}`", wanted.join(" "));
    }
    assert!(count > 20, "{count}: {commands}");
}

/// The help of every command, by its words.
fn helps() -> Vec<(String, String)> {
    let help = help();
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = rest.split_once("\n\n").unwrap();
    let groups: BTreeSet<&str> = commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .collect();
    let mut out = Vec::new();
    for group in groups {
        let args = Args::parse(["harmonylite", "help", group].map(OsString::from)).unwrap();
        let Command::Help(text) = args.command else {
            panic!("{group}: {:?}", args.command)
        };
        for part in text.split("\n---\n") {
            let (_, usage) = part.split_once("Usage: harmonylite [flags] ").unwrap();
            let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            let words: Vec<&str> = usage
                .lines()
                .next()
                .unwrap()
                .split(' ')
                .take_while(is_word)
                .collect();
            out.push((words.join(" "), part.to_owned()));
        }
    }
    out
}

/// The other way round is `every_command_line_in_the_manual_is_understood`.
#[test]
fn every_option_of_a_command_is_in_the_manual() {
    let pages: Vec<_> = pages::all().iter().map(typed).collect();
    let mut lacking = Vec::new();
    let mut count = 0;
    for (command, help) in helps() {
        let words: Vec<&str> = command.split(' ').collect();
        let options = help
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"));
        for option in options {
            let option = format!("--{}", option.split([' ', '=']).next().unwrap());
            count += 1;
            // Behind its command, or by itself on a page about that.
            let is_there = pages.iter().any(|page| {
                let about = page.iter().any(|line| shows(line, &words));
                about && page.iter().any(|line| shows(line, &[&option]))
            });
            if !is_there {
                lacking.push(format!("{command} {option}"));
            }
        }
    }
    assert!(count > 30, "{count}");
    assert!(lacking.is_empty(), "no page names {lacking:#?}");
}

#[test]
fn the_table_of_flags_is_the_programs() {
    let help = help();
    let (_, flags) = help.split_once("Flags, one dash or two").unwrap();
    let name = |line: &str| {
        line.trim_start()
            .strip_prefix('-')
            .map(|rest| rest.split([' ', '`']).next().unwrap().to_owned())
    };
    let known: BTreeSet<String> = flags.lines().skip(1).filter_map(name).collect();
    let page = pages::text("docs/configuration.md");
    let (_, table) = page.split_once("| Flag | Meaning |\n").unwrap();
    let rows = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(1);
    let documented: BTreeSet<String> = rows
        .filter_map(|row| name(row.trim_start_matches("| `")))
        .collect();
    assert!(known.len() > 10, "{known:?}");
    assert_eq!(documented, known);
}

/// The other way round is in `config/file.rs`.
#[test]
fn every_key_in_the_table_is_one() {
    let example = pages::text("config.example.toml");
    let mut section = String::new();
    let mut known = BTreeSet::new();
    for line in example.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        }
        // The one key whose default depends on the machine is commented out.
        let line = line
            .strip_prefix("# ")
            .filter(|line| line.starts_with("node_id = "))
            .unwrap_or(line);
        if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            known.insert(format!("{section}{key}"));
        }
    }
    let page = pages::text("docs/configuration.md");
    let (_, tables) = page.split_once("\n## Root\n").unwrap();
    let (tables, _) = tables.split_once("\n## Flags\n").unwrap();
    // Some stand in a second table too, which says what can be changed at run time.
    let mut told = BTreeSet::new();
    for row in tables.lines().filter_map(|line| line.strip_prefix("| `")) {
        let key = row.split('`').next().unwrap();
        assert!(
            known.contains(key),
            "docs/configuration.md: {key} is no key"
        );
        told.insert(key.to_owned());
    }
    assert_eq!(told, known);
}

#[test]
fn every_fragment_of_a_configuration_has_known_keys() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for page in pages::all() {
        for block in page.blocks(Some("toml")) {
            let path = folder.path().join("config.toml");
            std::fs::write(&path, &block).unwrap();
            count += 1;
            // Files that it names are not here; what it says must be a configuration all the same.
            if let Err(faults) = Config::load(Some(&path), &Overrides::default()) {
                let said = faults.to_string();
                for wrong in [
                    "is not a known key",
                    "cannot be read as TOML",
                    "wrong type",
                    "out of range",
                ] {
                    assert!(!said.contains(wrong), "{}:\n{block}\n{said}", page.name);
                }
            }
        }
    }
    assert!(count > 8, "{count}");
}

/// Texts in the program's source below a folder.
fn literals(folder: &str) -> BTreeSet<String> {
    fn collect(folder: &Path, out: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs")
                && path.file_stem().is_some_and(|stem| stem != "tests")
            {
                let code = tokens(&std::fs::read_to_string(&path).unwrap());
                out.extend(code.into_iter().filter_map(|token| match token {
                    Token::Text(text) => Some(text),
                    _ => None,
                }));
            }
        }
    }
    let mut out = BTreeSet::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut out,
    );
    out
}

fn variables(text: &str) -> BTreeSet<String> {
    let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let parts = text.split(|c| !letters(c));
    parts
        .filter(|word| word.starts_with("HARMONYLITE_") && word.len() > 12)
        .map(str::to_owned)
        .collect()
}

#[test]
fn environment_variables_are_the_programs() {
    let program: BTreeSet<String> = literals("src")
        .iter()
        .flat_map(|text| variables(text))
        .collect();
    assert!(program.contains("HARMONYLITE_LOG"), "{program:?}");
    let pages = pages::all();
    let documented: BTreeSet<String> = pages
        .iter()
        .flat_map(|page| variables(&page.text))
        .collect();
    for name in &program {
        assert!(documented.contains(name), "no page names {name}");
    }
    // Those that follow from a key, and those of the project's own scripts and tests.
    let secrets = pages::text("docs/configuration.md");
    let (_, table) = secrets
        .split_once("| Key | Credential | Variable | File |")
        .unwrap();
    let keys = table
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|row| row.contains("| yes | yes |"));
    let of_keys: BTreeSet<String> = keys
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .map(|key| format!("HARMONYLITE_{}", key.replace('.', "_").to_uppercase()))
        .collect();
    let developers: BTreeSet<String> = ["Makefile", "scripts/get-nats-server"]
        .into_iter()
        .flat_map(|file| variables(&pages::text(file)))
        .collect();
    for name in documented {
        assert!(
            program.contains(&name) || of_keys.contains(&name) || developers.contains(&name),
            "the manual names {name}, which nothing reads"
        );
    }
}

#[test]
fn endpoints_are_the_programs() {
    let is_path = |text: &String| {
        let letters = |c: char| c.is_ascii_lowercase() || c == '/';
        text.strip_prefix('/')
            .is_some_and(|rest| rest.len() > 2 && rest.chars().all(letters))
            // Where the kernel tells of this process.
            && !text.starts_with("/proc/")
    };
    let mut served: BTreeSet<String> = literals("src/http").into_iter().filter(is_path).collect();
    served.insert("/health".to_owned());
    assert!(
        served.contains("/metrics") && served.contains("/debug/pprof/heap"),
        "{served:?}"
    );
    let mut named = BTreeSet::new();
    for page in pages::all() {
        for span in page.spans() {
            if let Some(path) = span.strip_prefix("GET ") {
                named.insert(path.split('?').next().unwrap().to_owned());
            }
        }
    }
    assert_eq!(
        named, served,
        "`GET /…` in the manual, and the paths that are served"
    );
}
