//! Unix domain sockets at paths of any length, private from the moment that they exist.
//!
//! A socket address holds 107 bytes; database paths may be longer. Folder and socket are therefore reached
//! through descriptors, as `/proc/self/fd/<n>`.
//!
//! Invariants: a socket file has mode 0600 before anybody can connect to it; it appears under its name only
//! once it listens, in one rename, so that a client finds a socket that listens or a stale one, never half of one;
//! nothing but a socket is ever replaced or removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use super::paths::Paths;

/// Clients that may wait for the server to take them.
const BACKLOG: i32 = 64;

/// Listens at `paths.socket`, in place of a stale socket. Only the holder of the lock may.
pub(super) fn listen(paths: &Paths) -> io::Result<UnixListener> {
    let folder = handle(&paths.folder)?;
    let new = through(&folder).join(&paths.new_socket);
    // Left by a crash between the steps below.
    remove(&new)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode of the unbound socket: no window in which others could connect.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    let listening = socket
        .listen(BACKLOG)
        .and_then(|()| socket.set_nonblocking(true))
        .and_then(|()| removable(&paths.socket))
        .and_then(|_| fs::rename(&new, &paths.socket));
    if let Err(error) = listening {
        remove(&new)?;
        return Err(error);
    }
    Ok(UnixListener::from(socket))
}

/// Connects within `wait`: a daemon that hangs may have a full queue.
pub(super) fn connect(path: &Path, wait: Duration) -> io::Result<UnixStream> {
    let target = handle(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(wait.max(Duration::from_millis(1))))?;
    socket.connect(&SockAddr::unix(through(&target))?)?;
    Ok(UnixStream::from(socket))
}

/// Removes a socket, if one is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match removable(path)? {
        true => fs::remove_file(path),
        false => Ok(()),
    }
}

/// Whether a socket is at `path`. Anything else there is somebody's file, and an error.
fn removable(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(true),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is in its place: move it away",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A descriptor that only names what is at `path`: it is not opened.
fn handle(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
        .open(path)
}

fn through(handle: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}
