//! The commands that need no daemon, and how the program refuses.

use crate::harness::Node;

const URL: &str = "nats://127.0.0.1:1";

#[test]
fn check_needs_no_network_and_no_database() {
    let node = Node::bare(1, URL);
    let checked = node.run(&["-check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.said);
    assert!(checked.said.contains("valid"), "{}", checked.said);
    assert!(!node.database().exists(), "looking changes nothing");
    let two_dashes = node.run(&["--check"]);
    assert_eq!(
        (two_dashes.code, two_dashes.said),
        (checked.code, checked.said)
    );
}

#[test]
fn every_fault_is_named_with_key_and_line() {
    let mut node = Node::bare(1, URL);
    node.root = "publsh = true\nscan_max_changes = \"many\"\ncleanup_interval = 1".to_owned();
    for flags in [&["-check"][..], &[]] {
        let refused = node.run(flags);
        assert_eq!(refused.code, Some(78), "{}", refused.said);
        // db_path and node_id stand above.
        for text in [
            "publsh",
            "publish",
            "line 3",
            "scan_max_changes",
            "line 4",
            "cleanup_interval",
            "line 5",
        ] {
            assert!(
                refused.said.contains(text),
                "{text} is missing in: {}",
                refused.said
            );
        }
    }
    node.root = "this is no toml".to_owned();
    let refused = node.run(&[]);
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    assert!(refused.said.contains("line 3"), "{}", refused.said);
    let absent = node.run(&["-config", "/nowhere/at/all.toml"]);
    assert!(
        matches!(absent.code, Some(64 | 78)),
        "{:?} {}",
        absent.code,
        absent.said
    );
}

#[test]
fn a_secret_is_never_shown() {
    let mut node = Node::bare(1, URL);
    node.sections = format!(
        "[nats]\nurls = [\"nats://me:hunter2@127.0.0.1:1/%zz\"]\nuser_password = \"hunter2\"\nseed_file = \"/nowhere\"\n{}",
        "[snapshot.s3]\nsecret = \"hunter2\"\n"
    );
    let refused = node.run(&["-check"]);
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    assert!(!refused.said.contains("hunter2"), "{}", refused.said);
}

#[test]
fn missing_folders_are_named() {
    let node = Node::bare(1, URL);
    let refused = node.run(&["-db", "/nowhere/at/all/app.db"]);
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    assert!(refused.said.contains("/nowhere/at/all"), "{}", refused.said);
}

#[test]
fn version_help_and_wrong_flags() {
    let node = Node::bare(1, URL);
    for flag in ["-version", "--version"] {
        let said = node.run(&[flag]);
        assert_eq!(said.code, Some(0));
        assert!(
            said.said.contains(env!("CARGO_PKG_VERSION")),
            "{}",
            said.said
        );
    }
    let help = node.run(&["-help"]);
    assert_eq!(help.code, Some(0));
    for flag in [
        "-config",
        "-check",
        "-cleanup",
        "-stop",
        "-node-id",
        "-cluster-addr",
        "-db",
    ] {
        assert!(
            help.said.contains(flag),
            "{flag} is missing in: {}",
            help.said
        );
    }
    for wrong in [
        &["-clean-up"][..],
        &["-node-id", "many"],
        &["-check", "-cleanup"],
    ] {
        let refused = node.run(wrong);
        assert_eq!(refused.code, Some(64), "{wrong:?}: {}", refused.said);
    }
    assert!(
        node.run(&["-clean-up"]).said.contains("-cleanup"),
        "the nearest flag is named"
    );
}
