//! An SSH server in this process. Its SFTP side is either a plain one of its own, without OpenSSH's extensions, or OpenSSH's
//! `sftp-server` behind it.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use russh_sftp::protocol::{
    Attrs, Data, File as Named, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode,
    Version,
};
use tokio::net::TcpListener;

/// Who may log in, and what serves files.
#[derive(Clone)]
pub struct Rules {
    pub user: String,
    pub password: String,
    pub key: Option<PublicKey>,
    /// OpenSSH's program; `None`: our own.
    pub program: Option<PathBuf>,
}

/// Serves on a loopback port.
pub async fn serve(host_key: PrivateKey, rules: Rules) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(russh::server::Config {
        keys: vec![host_key],
        auth_rejection_time: std::time::Duration::ZERO,
        nodelay: true,
        ..Default::default()
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = Connection {
                rules: rules.clone(),
                channels: HashMap::new(),
            };
            let config = config.clone();
            tokio::spawn(async move {
                if let Ok(session) = russh::server::run_stream(config, stream, connection).await {
                    drop(session.await);
                }
            });
        }
    });
    port
}

struct Connection {
    rules: Rules,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl russh::server::Handler for Connection {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let right = user == self.rules.user && password == self.rules.password;
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let known = self.rules.key.as_ref();
        let right = known.is_some_and(|known| known.key_data() == key.public_key.key_data());
        let right = right && user == self.rules.user;
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(channel) = self.channels.remove(&id).filter(|_| name == "sftp") else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let mut stream = channel.into_stream();
        match &self.rules.program {
            None => russh_sftp::server::run(stream, Files::default()).await,
            Some(program) => {
                let mut process = tokio::process::Command::new(program)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
                    .unwrap();
                let mut input = process.stdin.take().unwrap();
                let output = process.stdout.take().unwrap();
                tokio::spawn(async move {
                    let mut both = tokio::io::join(output, &mut input);
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut both).await);
                    drop(process);
                });
            }
        }
        Ok(())
    }
}

/// Plain SFTP version 3 on this machine's files.
#[derive(Default)]
struct Files {
    next: u64,
    files: HashMap<String, File>,
    folders: HashMap<String, Vec<Named>>,
}

impl Files {
    fn handle(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }
}

fn code(error: io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    }
}

fn status(id: u32, done: io::Result<()>) -> Result<Status, StatusCode> {
    done.map_err(code)?;
    Ok(Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Ok".to_owned(),
        language_tag: "en".to_owned(),
    })
}

fn attributes(id: u32, metadata: io::Result<Metadata>) -> Result<Attrs, StatusCode> {
    let metadata = metadata.map_err(code)?;
    Ok(Attrs {
        id,
        attrs: FileAttributes::from(&metadata),
    })
}

impl russh_sftp::server::Handler for Files {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusCode> {
        Ok(Version::new())
    }

    async fn open(
        &mut self,
        id: u32,
        name: String,
        flags: OpenFlags,
        _: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        let file = OpenOptions::new()
            .read(flags.contains(OpenFlags::READ))
            .write(flags.contains(OpenFlags::WRITE))
            .create_new(flags.contains(OpenFlags::EXCLUDE))
            .open(name)
            .map_err(code)?;
        let handle = self.handle();
        self.files.insert(handle.clone(), file);
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusCode> {
        self.files.remove(&handle);
        self.folders.remove(&handle);
        status(id, Ok(()))
    }

    async fn read(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        len: u32,
    ) -> Result<Data, StatusCode> {
        let file = self.files.get(&handle).ok_or(StatusCode::Failure)?;
        let mut data = vec![0; len as usize];
        let count = file.read_at(&mut data, offset).map_err(code)?;
        data.truncate(count);
        if count == 0 {
            return Err(StatusCode::Eof);
        }
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusCode> {
        let file = self.files.get(&handle).ok_or(StatusCode::Failure)?;
        status(id, file.write_all_at(&data, offset))
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        attributes(id, std::fs::metadata(path))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        attributes(id, std::fs::symlink_metadata(path))
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusCode> {
        let file = self.files.get(&handle).ok_or(StatusCode::Failure)?;
        attributes(id, file.metadata())
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusCode> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(code)? {
            let entry = entry.map_err(code)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(metadata) = entry.metadata() {
                names.push(Named::new(name, FileAttributes::from(&metadata)));
            }
        }
        let handle = self.handle();
        self.folders.insert(handle.clone(), names);
        Ok(Handle { id, handle })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusCode> {
        match self.folders.insert(handle, Vec::new()) {
            Some(files) if !files.is_empty() => Ok(Name { id, files }),
            _ => Err(StatusCode::Eof),
        }
    }

    async fn remove(&mut self, id: u32, path: String) -> Result<Status, StatusCode> {
        status(id, std::fs::remove_file(path))
    }

    async fn mkdir(
        &mut self,
        id: u32,
        path: String,
        _: FileAttributes,
    ) -> Result<Status, StatusCode> {
        status(id, std::fs::create_dir(path))
    }

    /// As the protocol has it: it does not replace.
    async fn rename(&mut self, id: u32, from: String, to: String) -> Result<Status, StatusCode> {
        status(
            id,
            std::fs::hard_link(&from, to).and_then(|()| std::fs::remove_file(from)),
        )
    }
}
