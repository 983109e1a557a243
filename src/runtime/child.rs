//! Programs that this one starts and that must not outlive it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// A command whose process dies with the calling thread, which therefore has to live as long as the process should. It reads nothing, hears nothing of a Ctrl-C in our
/// terminal, and has none of the secrets that we may have been given in the environment.
#[allow(unsafe_code)]
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    let parent = Pid::this();
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        // Ctrl-C in a terminal is for us alone: we still need the program for what is to be ended in good order.
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"HARMONYLITE_") {
            command.env_remove(name);
        }
    }
    let die_with_parent = move || {
        // SIGKILL rather than SIGTERM: a daemon that is started again at once must not meet the old server over its store. What
        // the server has acknowledged is in the kernel's page cache by then.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // We may have died before that call.
        if getppid() == parent {
            Ok(())
        } else {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: the closure runs in the forked child before exec. It makes two system calls (prctl, getppid), both
    // async-signal-safe, allocates nothing (an error of a kind alone is a plain value) and takes no lock.
    unsafe {
        command.pre_exec(die_with_parent);
    }
    command
}
