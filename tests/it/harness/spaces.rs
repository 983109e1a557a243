//! Scripts that need a machine of their own: pages whose steps write to `/etc` and begin services are followed in namespaces that end with them.

use std::path::Path;
use std::process::{Command, Output};

use super::{nats, node};

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

const SPACES: [&str; 6] = [
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
];

/// Everything that it said.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Runs a Python script of the tests with the project, the program under test, a nats-server, a folder, and these arguments. It must succeed and say `done`.
/// On a machine that gives no namespaces it is not run, and the test says so.
pub fn follow(script: &str, arguments: &[&str], done: &str) {
    let alone = Command::new("unshare")
        .args(SPACES)
        .arg("true")
        .output()
        .unwrap();
    if !nix::unistd::geteuid().is_root() || !alone.status.success() {
        eprintln!(
            "NOT RUN: {script} needs root that may make namespaces and users of its own. {}",
            text(&alone)
        );
        return;
    }
    let scratch = node::folder();
    // Other users must get to the program and what it reads.
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(scratch.path(), open).unwrap();
    let output = Command::new("unshare")
        .args(SPACES)
        .args(["python3", "-B"])
        .arg(Path::new(PROJECT).join("tests/it").join(script))
        .args([PROJECT, env!("CARGO_BIN_EXE_harmonylite")])
        .arg(nats::binary())
        .arg(scratch.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success() && text(&output).contains(done),
        "{script} {arguments:?}: {}",
        text(&output)
    );
}
