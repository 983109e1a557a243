//! What comes out for what goes in.

use std::time::Duration;

use tempfile::TempDir;

use super::file::LogFile;
use super::line::{Look, line};
use super::*;
use crate::config::LogFormat;

/// What the log file holds when these events are over.
fn logged(config: &LoggingConfig, wish: Option<&str>, events: impl FnOnce()) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let config = LoggingConfig {
        file: Some(path.clone()),
        ..config.clone()
    };
    let filter = filter(&config, wish).unwrap();
    let writer = Writer::start(output(&config, 7)).unwrap();
    let (subscriber, logging) = subscriber(filter, writer, 7);
    tracing::subscriber::with_default(subscriber, events);
    logging.flush();
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn config(verbose: bool, format: LogFormat) -> LoggingConfig {
    LoggingConfig {
        verbose,
        format,
        ..LoggingConfig::default()
    }
}

fn events() {
    tracing::debug!(batch = 7, took = 0.123_456_789_f64, "published");
    tracing::info!(node = 3, "started");
    tracing::warn!(
        error = "first\nsecond\r\nthird \u{1b}[2J\u{2028}\u{202e}",
        "the broker is away"
    );
}

#[test]
fn console_is_one_line_per_event_with_level_message_and_fields() {
    let lines = logged(&LoggingConfig::default(), None, events);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("Z  INFO started node=3"), "{}", lines[0]);
    assert!(
        lines[1].contains("Z  WARN the broker is away error=\"first\\nsecond\\r\\nthird"),
        "{}",
        lines[1]
    );
    assert!(!lines[1].contains(|c: char| c.is_control() || c == '\u{202e}'));
}

#[test]
fn json_is_one_object_per_line_whatever_is_in_it() {
    let lines = logged(&config(true, LogFormat::Json), None, events);
    assert_eq!(lines.len(), 3, "{lines:?}");
    let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["level"], "DEBUG");
    assert_eq!(first["message"], "published");
    assert_eq!(
        (&first["batch"], &first["took"]),
        (&7.into(), &0.123_457.into())
    );
    assert_eq!(first["node"], 7);
    assert_eq!(first["target"], "harmonylite::telemetry::logging::tests");
    let third: serde_json::Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!(
        third["error"],
        "first\nsecond\r\nthird \u{1b}[2J\u{2028}\u{202e}"
    );
    assert!(lines[2].is_ascii(), "{}", lines[2]);
    assert!(lines[0].starts_with("{\"timestamp\":\"20"), "{}", lines[0]);
}

#[test]
fn the_variable_wins_over_verbose_and_libraries_are_quiet() {
    let verbose = config(true, LogFormat::Console);
    assert_eq!(logged(&verbose, Some("error"), events).len(), 0);
    assert_eq!(logged(&verbose, Some("  "), events).len(), 3);
    let library = || tracing::info!(target: "hyper_util::client", "chatter");
    assert_eq!(logged(&LoggingConfig::default(), None, library).len(), 0);
    assert_eq!(logged(&verbose, None, library).len(), 1);
}

#[test]
fn libraries_are_never_heard_below_info() {
    let events = || {
        tracing::trace!(target: "hyper_util::connection", "CONNECT with a password");
        tracing::debug!(target: "harmonylite_like", "no room of ours");
        tracing::info!(target: "hyper_util", "connected");
        tracing::trace!(target: "harmonylite::publish", "sent");
        tracing::debug!(target: "nats-server", "a client");
    };
    for wish in ["trace", "hyper_util=trace,harmonylite_like=debug,trace"] {
        let lines = logged(&LoggingConfig::default(), Some(wish), events);
        assert_eq!(lines.len(), 3, "{lines:?}");
    }
}

#[test]
fn a_filter_that_is_none_is_named() {
    let error = filter(&LoggingConfig::default(), Some("harmonylite=loud")).unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.contains("HARMONYLITE_LOG") && sentence.contains("harmonylite=loud"));
}

#[test]
fn repeats_are_counted_and_errors_are_remembered() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let config = LoggingConfig {
        file: Some(path.clone()),
        repeat_interval: Duration::from_secs(60),
        ..LoggingConfig::default()
    };
    let writer = Writer::start(output(&config, 7)).unwrap();
    let (subscriber, logging) = subscriber(filter(&config, None).unwrap(), writer, 7);
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..5 {
            tracing::error!(table = "t", "it fails");
        }
        // As an operator does at run time.
        logging
            .set(&LoggingConfig {
                verbose: true,
                ..config.clone()
            })
            .unwrap();
        tracing::debug!("now heard");
    });
    logging.flush();
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].ends_with("it fails table=t") && lines[1].ends_with("now heard"));
    assert!(
        lines[2].contains("it fails; and 4 times more in ")
            && lines[2].ends_with(" table=t repeats=4"),
        "{text}"
    );
    assert_eq!(logging.counts(), (5, 0));
    assert_eq!(logging.last_error().unwrap().message, "it fails");
    assert_eq!(logging.fault(), None);
}

#[test]
fn long_texts_are_cut() {
    let lines = logged(&LoggingConfig::default(), None, || {
        tracing::warn!(error = "\u{20ac}".repeat(100_000), "x");
    });
    assert!(
        lines[0].len() < 9000 && lines[0].ends_with('\u{2026}'),
        "{}",
        lines[0].len()
    );
}

fn text_line(text: &str) -> String {
    let look = Look {
        format: LogFormat::Console,
        colour: false,
        node: 1,
    };
    line(&Event::of_ours(Level::INFO, text.to_owned()), look)
}

fn again(missing: u64) -> String {
    format!("{missing} missing\n")
}

#[test]
fn a_file_that_was_renamed_or_removed_is_made_anew_for_its_owner() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let mut file = LogFile::open(path.clone());
    file.write("one\n", &again);
    std::fs::rename(&path, &old).unwrap();
    file.write("two\n", &again);
    file.follow();
    file.write("three\n", &again);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Truncated in place, as by copytruncate: what follows begins at the beginning.
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    file.write("four\n", &again);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
    assert_eq!(file.fault(), None);
}

#[test]
fn a_file_that_cannot_be_written_is_a_fault_that_ends() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sub").join("log");
    let mut file = LogFile::open(path.clone());
    file.write(&text_line("lost"), &again);
    file.write(&text_line("lost"), &again);
    let fault = file.fault().unwrap();
    assert!(
        fault.contains("sub/log") && fault.contains("No such file"),
        "{fault}"
    );
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    file.follow();
    assert!(file.recover(&again));
    file.write("back\n", &again);
    assert_eq!(file.fault(), None);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "2 missing\nback\n");

    // Full from the first byte on.
    let mut full = LogFile::open("/dev/full".into());
    full.write("x\n", &again);
    assert!(full.fault().unwrap().contains("it is no file"));
}
