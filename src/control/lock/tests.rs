use super::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// The database that a child process of the tests below is to hold.
const CHILD: &str = "HARMONYLITE_TEST_LOCKED_DATABASE";
const LONG: Duration = Duration::from_secs(60);

/// Not a test by itself: what a child process runs. It holds the lock until it is killed.
#[test]
fn child_that_holds_a_lock() {
    let Some(database) = std::env::var_os(CHILD) else {
        return;
    };
    let _lock = InstanceLock::acquire(Path::new(&database)).unwrap();
    writeln!(std::io::stderr(), "locked").unwrap();
    thread::sleep(LONG);
}

/// A process that holds the lock of a database; killed and reaped in the end.
pub(in crate::control) struct Locker(Child);

impl Locker {
    pub(in crate::control) fn start(database: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "control::lock::tests::child_that_holds_a_lock"])
            .arg("--nocapture")
            .env(CHILD, database)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let locker = Self(child);
        assert!(said.lines().any(|line| line.unwrap() == "locked"));
        locker
    }

    pub(in crate::control) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(in crate::control) fn wait(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn database() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("app.db");
    (folder, path)
}

#[test]
fn a_second_daemon_is_refused_and_told_what_to_do() {
    let (_folder, path) = database();
    let lock = InstanceLock::acquire(&path).unwrap();
    assert_eq!(lock.database(), path);
    let refused = InstanceLock::acquire(&path).unwrap_err();
    let (own, shown) = (std::process::id(), path.display());
    assert_eq!(
        refused.to_string(),
        format!(
            "another daemon (process {own}) already serves {shown}: stop it with `harmonylite -stop -db {shown}`"
        )
    );
    // By another name too.
    let link = path.with_file_name("link.db");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        InstanceLock::acquire(&link),
        Err(LockError::Held { pid, .. }) if pid == Some(own)
    ));
    drop(lock);
    assert_eq!(holder(&path).unwrap(), None);
    InstanceLock::acquire(&link).unwrap();
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    let (_folder, path) = database();
    let mut child = Locker::start(&path);
    let seen = holder(&path).unwrap().unwrap();
    assert_eq!(seen.pid(), Some(child.pid()));
    assert_eq!(seen.database(), path);
    assert!(matches!(
        InstanceLock::acquire(&path),
        Err(LockError::Held { pid, .. }) if pid == Some(child.pid())
    ));
    assert!(!wait_released(&path, Duration::ZERO, |_| ()).unwrap());
    child.kill();
    // The file still says who it was; nobody believes it.
    let lock_file = path.with_file_name("app.db-harmonylite.lock");
    let left = fs::read_to_string(&lock_file).unwrap();
    assert!(left.contains(&format!("\"pid\":{}", child.pid())));
    assert_eq!(holder(&path).unwrap(), None);
    assert!(wait_released(&path, LONG, |_| ()).unwrap());
    InstanceLock::acquire(&path).unwrap();
    assert!(lock_file.exists());
}

#[test]
fn a_holder_that_another_followed_has_released() {
    let (_folder, path) = database();
    let mut child = Locker::start(&path);
    let seen = holder(&path).unwrap().unwrap();
    assert!(!seen.wait_released(Duration::ZERO, |_| ()).unwrap());
    child.kill();
    let _next = InstanceLock::acquire(&path).unwrap();
    assert!(seen.wait_released(LONG, |_| ()).unwrap());
    // And is no longer signalled.
    assert!(matches!(
        seen.terminate(),
        Err(HolderError::Unproven { .. })
    ));
}

#[test]
fn only_the_process_that_has_the_lock_file_open_is_signalled() {
    let (_folder, path) = database();
    let (_other_folder, other) = database();
    let lock = InstanceLock::acquire(&path).unwrap();
    // A living process with its true start time, that serves another database.
    let mut stranger = Locker::start(&other);
    let names = holder(&other).unwrap().unwrap();
    let forged = Holder::forged(&path, &names);
    assert!(matches!(
        forged.terminate(),
        Err(HolderError::Unproven { .. })
    ));
    let id = Pid::from_raw(i32::try_from(stranger.pid()).unwrap());
    kill(id, None).unwrap();
    names.terminate().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(stranger.wait().signal(), Some(Signal::SIGTERM as i32));
    drop(lock);
}

#[test]
fn the_wait_says_that_it_waits_and_gives_up() {
    let (_folder, path) = database();
    let _lock = InstanceLock::acquire(&path).unwrap();
    let mut said = Vec::new();
    let released = wait_released(&path, Duration::from_millis(1200), |waited| {
        said.push(waited);
    });
    assert!(!released.unwrap());
    assert!(!said.is_empty());
}

#[test]
fn looking_never_keeps_a_daemon_from_starting() {
    let (_folder, path) = database();
    drop(InstanceLock::acquire(&path).unwrap());
    let looked = File::open(path.with_file_name("app.db-harmonylite.lock")).unwrap();
    let shared = Flock::lock(looked, FlockArg::LockSharedNonblock).unwrap();
    let looker = thread::spawn(move || {
        thread::sleep(PAUSE);
        drop(shared);
    });
    InstanceLock::acquire(&path).unwrap();
    looker.join().unwrap();
}

#[test]
fn the_file_is_for_the_own_user_and_tells_people_who_holds_it() {
    let (_folder, path) = database();
    let _lock = InstanceLock::acquire(&path).unwrap();
    let file = path.with_file_name("app.db-harmonylite.lock");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let line = fs::read_to_string(&file).unwrap();
    assert_eq!(line.lines().count(), 1);
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(said["pid"], std::process::id());
    assert_eq!(said["database"], path.to_str().unwrap());
    assert!(said["started"].as_str().unwrap().ends_with('Z'));
    assert!(!path.exists(), "the database is not made");
}

#[test]
fn nothing_but_a_plain_file_is_locked() {
    let (_folder, path) = database();
    let place = path.with_file_name("app.db-harmonylite.lock");
    let target = path.with_file_name("precious");
    fs::write(&target, "kept").unwrap();
    symlink(&target, &place).unwrap();
    let refused = InstanceLock::acquire(&path).unwrap_err();
    assert!(matches!(refused, LockError::NotAFile { .. }), "{refused}");
    assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    let refused = InstanceLock::acquire(&path).unwrap_err();
    assert!(matches!(refused, LockError::NotAFile { .. }), "{refused}");
    fs::remove_dir(&place).unwrap();
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refused = InstanceLock::acquire(&path).unwrap_err();
    assert!(matches!(refused, LockError::NotAFile { .. }), "{refused}");
}

#[test]
fn a_folder_that_takes_no_file_is_named() {
    // Nobody, not even root, makes files there.
    let refused = InstanceLock::acquire(Path::new("/proc/self/app.db")).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, LockError::NotWritable { .. }), "{text}");
    assert!(text.contains("app.db-harmonylite.lock cannot be written"));
    let missing = InstanceLock::acquire(Path::new("/no/such/app.db")).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "the folder /no/such does not exist: create it, or correct db_path"
    );
}

#[test]
fn roots_lock_file_belongs_to_the_databases_owner() {
    if !geteuid().is_root() {
        return;
    }
    let (_folder, path) = database();
    fs::write(&path, "").unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
    drop(InstanceLock::acquire(&path).unwrap());
    let made = fs::metadata(path.with_file_name("app.db-harmonylite.lock")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1234, 2345));
}
