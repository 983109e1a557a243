//! SFTP: a folder on an SSH server.
//!
//! Invariants: an object is uploaded beside its place, its length is asked back, and then it is renamed over its place: at once where
//! the server knows OpenSSH's posix-rename, else after the old one was removed, which leaves a moment without either. One
//! connection a request: none is kept that a firewall could forget.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use russh::client::Handle;
use russh_sftp::client::error::Error;
use russh_sftp::client::{RawSftpSession, SftpSession};
use russh_sftp::protocol::{OpenFlags, Packet, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use super::Entry;
use super::error::{Fault, StoreError};
use super::key::{Key, is_partial};
use super::meter::Meter;
use super::retrying::Backend;
use super::sftp_login::{Checked, Login, broken};
use super::sink::Sink;
use super::source::{PIECE, Source};
use crate::config::SftpConfig;

/// Tidying up after a failure must not hold up the failure's report.
const TIDY_DEADLINE: Duration = Duration::from_secs(10);
/// One request of the protocol: half a MiB may be in flight before it on a slow line.
const REQUEST_DEADLINE_SECS: u64 = 60;
const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// A disk with less than this left is called full.
const FULL_BELOW: u64 = 1024 * 1024;

pub(super) struct Remote {
    login: Login,
    /// Begins and ends with a slash.
    folder: String,
}

/// A connection with its SFTP session.
struct Session {
    ssh: Handle<Checked>,
    sftp: SftpSession,
}

impl Remote {
    pub(super) fn new(config: &SftpConfig) -> Result<Self, StoreError> {
        let url = Url::parse(config.url.expose()).map_err(|_| StoreError::Configuration {
            key: "snapshot.sftp.url",
            problem: "is not an SFTP URL".to_owned(),
            remedy: "write it as sftp://USER:PASSWORD@HOST:PORT/PATH",
        })?;
        let path = percent_encoding::percent_decode_str(url.path()).decode_utf8_lossy();
        let folder = match path.trim_matches('/') {
            "" => "/".to_owned(),
            path => format!("/{path}/"),
        };
        let login = Login::new(config, &url)?;
        Ok(Self { login, folder })
    }

    fn place(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    async fn open(&self, meter: &Meter) -> Result<Session, Fault> {
        let ssh = self.login.open().await?;
        meter.alive();
        let channel = ssh.channel_open_session().await.map_err(broken)?;
        channel
            .request_subsystem(true, "sftp")
            .await
            .map_err(broken)?;
        let config = russh_sftp::client::Config {
            request_timeout_secs: REQUEST_DEADLINE_SECS,
            ..russh_sftp::client::Config::default()
        };
        let sftp = SftpSession::new_with_config(channel.into_stream(), config).await;
        let sftp = sftp.map_err(|error| match error {
            Error::Timeout | Error::IO(_) => Fault::passing(error),
            error => Fault::permanent(
                error,
                "allow the SFTP subsystem for this user on the server",
            ),
        })?;
        meter.alive();
        Ok(Session { ssh, sftp })
    }

    /// Makes the folder and what is missing above it.
    async fn make_folder(&self, sftp: &SftpSession) -> Result<(), Fault> {
        let mut path = String::new();
        for part in self.folder.split('/').filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
            // What is above may be there and not be for us to look at; the last one decides.
            if !sftp.try_exists(&*path).await.unwrap_or(false)
                && let Err(error) = sftp.create_dir(&*path).await
                && !sftp.try_exists(&*path).await.unwrap_or(false)
            {
                tracing::debug!(path, %error, "could not make a folder on the SFTP server");
            }
        }
        let found = sftp.metadata(&*self.folder).await;
        let found = found.map_err(|error| self.absent(error))?;
        if found.is_dir() {
            Ok(())
        } else {
            Err(self.absent("it is a file"))
        }
    }

    fn absent(&self, error: impl Into<super::Cause>) -> Fault {
        let folder = &self.folder;
        Fault::permanent(
            error,
            format!(
                "make the folder {folder} on the server and let this user write in it, or correct the path in snapshot.sftp.url"
            ),
        )
    }

    async fn upload(
        &self,
        session: &Session,
        partial: &str,
        key: &Key,
        source: &Source,
    ) -> Result<(), Fault> {
        let sftp = &session.sftp;
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
        let mut file = sftp
            .open_with_flags(partial, flags)
            .await
            .map_err(|error| self.fault(error))?;
        let mut reader = source.whole();
        let mut piece = vec![0; PIECE];
        let sent = async {
            loop {
                let count = reader.read(&mut piece).await?;
                if count == 0 {
                    break;
                }
                file.write_all(piece.get(..count).unwrap_or_default())
                    .await?;
            }
            file.flush().await
        };
        if let Err(error) = sent.await {
            return Err(self.write_fault(sftp, error).await);
        }
        file.sync_all().await.map_err(|error| self.fault(error))?;
        source.meter().alive();
        let kept = file.metadata().await.map_err(|error| self.fault(error))?;
        if let Err(error) = file.close().await {
            return Err(self.write_fault(sftp, error).await);
        }
        if kept.size != Some(source.len()) {
            let (want, got) = (source.len(), kept.size.unwrap_or_default());
            return Err(Fault::passing(format!(
                "the server kept {got} of {want} bytes"
            )));
        }
        source.meter().alive();
        self.replace(session, partial, &self.place(key.as_str()))
            .await
    }

    /// Renames over what is there.
    async fn replace(&self, session: &Session, from: &str, to: &str) -> Result<(), Fault> {
        let channel = session.ssh.channel_open_session().await.map_err(broken)?;
        channel
            .request_subsystem(true, "sftp")
            .await
            .map_err(broken)?;
        let raw = RawSftpSession::new(channel.into_stream());
        raw.set_timeout(REQUEST_DEADLINE_SECS);
        let version = raw.init().await.map_err(|error| self.fault(error))?;
        if version.extensions.contains_key(POSIX_RENAME) {
            let mut names = Vec::new();
            for name in [from, to] {
                // Names are far shorter than 4 GiB.
                let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
                names.extend_from_slice(&len.to_be_bytes());
                names.extend_from_slice(name.as_bytes());
            }
            let answer = raw.extended(POSIX_RENAME, names).await;
            return match answer.map_err(|error| self.fault(error))? {
                Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
                Packet::Status(status) => Err(self.fault(Error::Status(status))),
                _ => Err(Fault::passing(Error::UnexpectedPacket)),
            };
        }
        let sftp = &session.sftp;
        // A plain rename refuses to replace; some servers' does not.
        if sftp.rename(from, to).await.is_ok() {
            return Ok(());
        }
        match sftp
            .remove_file(to)
            .await
            .map_err(|error| self.fault(error))
        {
            Ok(()) | Err(Fault::Missing) => {}
            Err(other) => return Err(other),
        }
        sftp.rename(from, to)
            .await
            .map_err(|error| self.fault(error))
    }

    /// The protocol has no word for a full disk.
    async fn write_fault(&self, sftp: &SftpSession, error: std::io::Error) -> Fault {
        let space = tokio::time::timeout(TIDY_DEADLINE, sftp.fs_info(&*self.folder)).await;
        match space {
            Ok(Ok(Some(disk)))
                if disk.blocks_avail.saturating_mul(disk.fragment_size) < FULL_BELOW =>
            {
                Fault::permanent(error, "make room on the SFTP server's disk")
            }
            _ => Fault::passing(error),
        }
    }

    fn fault(&self, error: Error) -> Fault {
        let status = match &error {
            Error::Status(status) => status.status_code,
            _ => return Fault::passing(error),
        };
        match status {
            StatusCode::NoSuchFile => Fault::Missing,
            StatusCode::PermissionDenied => Fault::permanent(
                error,
                format!(
                    "let this user list, read and write in {} on the server",
                    self.folder
                ),
            ),
            StatusCode::OpUnsupported => Fault::permanent(
                error,
                "use an SFTP server that can do this, or another kind of store",
            ),
            _ => Fault::passing(error),
        }
    }

    /// The files in the folder, with size and time; none when there is no folder.
    async fn files(&self, session: &Session) -> Result<Vec<Found>, Fault> {
        let listed = match session.sftp.read_dir(&*self.folder).await {
            Ok(listed) => listed,
            Err(error) => {
                return match self.fault(error) {
                    Fault::Missing => Ok(Vec::new()),
                    other => Err(other),
                };
            }
        };
        let files = listed.filter(|entry| entry.file_type().is_file());
        Ok(files
            .map(|entry| {
                let metadata = entry.metadata();
                let seconds = metadata.mtime.map(u64::from).map(Duration::from_secs);
                Found {
                    name: entry.file_name(),
                    size: metadata.size.unwrap_or_default(),
                    modified: seconds.map(|time| SystemTime::UNIX_EPOCH + time),
                }
            })
            .collect())
    }

    async fn remove(&self, session: &Session, name: &str) -> Result<(), Fault> {
        let removed = session.sftp.remove_file(self.place(name)).await;
        match removed.map_err(|error| self.fault(error)) {
            Ok(()) | Err(Fault::Missing) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

/// A file on the server.
struct Found {
    name: String,
    size: u64,
    modified: Option<SystemTime>,
}

#[async_trait]
impl Backend for Remote {
    fn name(&self) -> String {
        let Login { host, port, .. } = &self.login;
        format!("SFTP folder {} at {host}:{port}", self.folder)
    }

    async fn put(&self, key: &Key, source: &Source) -> Result<(), Fault> {
        let session = self.open(source.meter()).await?;
        self.make_folder(&session.sftp).await?;
        let name = key.partial();
        let partial = self.place(&name);
        let done = self.upload(&session, &partial, key, source).await;
        if done.is_err() {
            let tidy = tokio::time::timeout(TIDY_DEADLINE, self.remove(&session, &name)).await;
            if !matches!(tidy, Ok(Ok(()))) {
                tracing::debug!(partial, "a failed upload stays until it is swept");
            }
        }
        done.map_err(|fault| match fault {
            // Somebody removed the folder or the upload meanwhile.
            Fault::Missing => Fault::passing("the upload is gone"),
            other => other,
        })
    }

    async fn get(&self, key: &Key, sink: &mut Sink) -> Result<(), Fault> {
        let session = self.open(sink.meter()).await?;
        let fault = |error| self.fault(error);
        let opened = session.sftp.open(self.place(key.as_str())).await;
        let mut file = opened.map_err(fault)?;
        let len = file.metadata().await.map_err(fault)?.size;
        sink.expect(len.unwrap_or_default());
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece).await.map_err(Fault::passing)?;
            if count == 0 {
                return Ok(());
            }
            sink.write(piece.get(..count).unwrap_or_default()).await?;
        }
    }

    async fn list(&self, meter: &Meter) -> Result<Vec<Entry>, Fault> {
        let session = self.open(meter).await?;
        let entry = |file: Found| {
            Some(Entry {
                key: Key::new(file.name).ok()?,
                size: file.size,
                modified: file.modified,
            })
        };
        let files = self.files(&session).await?;
        Ok(files.into_iter().filter_map(entry).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Fault> {
        let session = self.open(&Meter::default()).await?;
        self.remove(&session, key.as_str()).await
    }

    async fn sweep(&self, before: SystemTime, meter: &Meter) -> Result<usize, Fault> {
        let session = self.open(meter).await?;
        let mut count = 0;
        for file in self.files(&session).await? {
            if is_partial(&file.name) && file.modified.is_some_and(|time| time < before) {
                self.remove(&session, &file.name).await?;
                meter.alive();
                count += 1;
            }
        }
        Ok(count)
    }
}
