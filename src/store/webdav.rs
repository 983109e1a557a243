//! WebDAV: a collection on a web server, Nextcloud, Apache and others.
//!
//! Invariants: an object is uploaded beside its place, its length is asked back, and then it is moved over its place; uploads say
//! their length, since many servers refuse or lose bodies without one. Missing collections are made. The login goes to this server
//! only, in a header, and is part of no URL.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reqwest::{Response, StatusCode};
use reqwest_dav::list_cmd::{ListPropStat, ListResponse};
use reqwest_dav::{Auth, Client, DecodeError, Depth, Error};
use tokio::sync::OnceCell;
use url::Url;

use super::error::{Fault, StoreError, chain, tls_remedy};
use super::key::{Key, is_partial};
use super::meter::Meter;
use super::retrying::Backend;
use super::sink::Sink;
use super::source::{Body, Source};
use super::{Entry, MOST_IN_A_COPY};
use crate::config::Secret;

/// A healthy server answers in milliseconds; this covers lost packets.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Tidying up after a failure must not hold up the failure's report.
const TIDY_DEADLINE: Duration = Duration::from_secs(10);
const EXAMPLE: &str = "write it as https://HOST/PATH?dir=/snapshots&login=USER&secret=PASSWORD";

pub(super) struct Collection {
    /// Scheme, host and port.
    origin: Url,
    /// The segments of the collection's path, percent-encoded.
    path: Vec<String>,
    auth: Auth,
    client: OnceCell<Client>,
}

impl Collection {
    pub(super) fn new(url: &Secret) -> Result<Self, StoreError> {
        let unusable = || StoreError::Configuration {
            key: "snapshot.webdav.url",
            problem: "is not a WebDAV URL".to_owned(),
            remedy: EXAMPLE,
        };
        let mut url = Url::parse(url.expose()).map_err(|_| unusable())?;
        let parameter = |name: &str| {
            let mut pairs = url.query_pairs();
            pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        let (folder, login, secret) = (parameter("dir"), parameter("login"), parameter("secret"));
        let auth = match login {
            Some(login) => Auth::Basic(login, secret.unwrap_or_default()),
            None => Auth::Anonymous,
        };
        url.set_query(None);
        url.path_segments_mut()
            .map_err(|()| unusable())?
            .extend(folder.unwrap_or_default().split('/'));
        let segments = url.path().split('/').filter(|part| !part.is_empty());
        let path = segments.map(str::to_owned).collect();
        url.set_path("");
        Ok(Self {
            origin: url,
            path,
            auth,
            client: OnceCell::new(),
        })
    }

    async fn client(&self) -> Result<&Client, Fault> {
        let make = async || {
            crate::stream::install_crypto_provider();
            let agent = reqwest::Client::builder().connect_timeout(CONNECT_DEADLINE);
            let agent = agent.build().map_err(|error| request(&error))?;
            reqwest_dav::ClientBuilder::new()
                .set_agent(agent)
                .set_host(self.origin.to_string())
                .set_auth(self.auth.clone())
                .build()
                .map_err(failed)
        };
        self.client.get_or_try_init(make).await
    }

    fn place(&self, name: &str) -> String {
        let mut place = self.path.join("/");
        place.push('/');
        place.push_str(name);
        place
    }

    /// The files at `place` with their properties; `None` when nothing is there.
    async fn files(&self, place: &str, depth: i64) -> Result<Option<Vec<File>>, Fault> {
        let client = self.client().await?;
        match client.list_rsp(place, Depth::Number(depth)).await {
            Ok(listed) => Ok(Some(listed.into_iter().filter_map(File::new).collect())),
            Err(Error::Decode(DecodeError::StatusMismatched(status)))
                if status.response_code == 404 =>
            {
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The length of the file at `place`, where the server says it.
    async fn len(&self, place: &str) -> Result<Option<u64>, Fault> {
        let found = self.files(place, 0).await?.unwrap_or_default();
        Ok(found.first().and_then(|file| file.size))
    }

    async fn all(&self) -> Result<Vec<File>, Fault> {
        Ok(self.files(&self.place(""), 1).await?.unwrap_or_default())
    }

    /// Makes the collection and what is missing above it.
    async fn make(&self) -> Result<(), Fault> {
        let client = self.client().await?;
        // Upwards to the first that can be made or is there, and down again.
        let mut depth = self.path.len();
        let mut climbing = true;
        loop {
            let some = self.path.get(..depth).unwrap_or_default();
            let answer = client.mkcol_raw(&some.join("/")).await.map_err(failed)?;
            match answer.status() {
                StatusCode::CONFLICT | StatusCode::NOT_FOUND if climbing && depth > 1 => {
                    depth -= 1;
                    continue;
                }
                // There already; what is above the user's own folders may not even be asked for.
                StatusCode::METHOD_NOT_ALLOWED => {}
                _ => accepted(answer)?,
            }
            climbing = false;
            if depth == self.path.len() {
                return Ok(());
            }
            depth += 1;
        }
    }

    async fn upload(&self, partial: &str, key: &Key, source: &Source) -> Result<(), Fault> {
        let client = self.client().await?;
        let body = reqwest::Body::wrap(Body::from(source.whole()));
        let answer = client.put_raw(&self.place(partial), body).await;
        accepted(answer.map_err(failed)?)?;
        source.meter().alive();
        let len = self.len(&self.place(partial)).await?;
        if len != Some(source.len()) {
            let (want, got) = (source.len(), len.unwrap_or_default());
            return Err(Fault::passing(format!(
                "the server kept {got} of {want} bytes"
            )));
        }
        source.meter().alive();
        let (from, to) = (self.place(partial), self.place(key.as_str()));
        accepted(client.mv_raw(&from, &to).await.map_err(failed)?)
    }

    /// Removes what a failed upload left.
    async fn tidy(&self, partial: &str) {
        let tidy = tokio::time::timeout(TIDY_DEADLINE, self.remove(partial)).await;
        if !matches!(tidy, Ok(Ok(()) | Err(Fault::Missing))) {
            tracing::debug!(partial, "a failed upload stays until it is swept");
        }
    }

    async fn remove(&self, name: &str) -> Result<(), Fault> {
        let answer = self.client().await?.delete_raw(&self.place(name)).await;
        accepted(answer.map_err(failed)?)
    }
}

#[async_trait]
impl Backend for Collection {
    fn name(&self) -> String {
        format!("WebDAV collection {}{}", self.origin, self.path.join("/"))
    }

    async fn put(&self, key: &Key, source: &Source) -> Result<(), Fault> {
        // Asked first: a refused login is then a clear answer, not a connection that breaks in the middle of the body.
        if self.files(&self.place(""), 0).await?.is_none() {
            self.make().await?;
            if self.files(&self.place(""), 0).await?.is_none() {
                return Err(not_webdav());
            }
        }
        source.meter().alive();
        let partial = key.partial();
        let done = self.upload(&partial, key, source).await;
        if done.is_err() {
            self.tidy(&partial).await;
        }
        done.map_err(|fault| match fault {
            // Somebody removed the collection or the upload meanwhile.
            Fault::Missing => Fault::passing("the upload is gone"),
            other => other,
        })
    }

    async fn duplicate(&self, from: &Key, to: &Key, meter: &Meter) -> Result<bool, Fault> {
        let client = self.client().await?;
        let len = self.len(&self.place(from.as_str())).await?;
        meter.alive();
        if len.is_none_or(|len| len > MOST_IN_A_COPY) {
            return Ok(false);
        }
        // Beside its place first: a server may remove what is there before it begins to copy.
        let partial = to.partial();
        let (from, beside, to) = (
            self.place(from.as_str()),
            self.place(&partial),
            self.place(to.as_str()),
        );
        let copied = async {
            accepted(client.cp_raw(&from, &beside, true).await.map_err(failed)?)?;
            meter.alive();
            if self.len(&beside).await? != len {
                return Err(Fault::passing("the server has copied a part of it"));
            }
            meter.alive();
            accepted(client.mv_raw(&beside, &to).await.map_err(failed)?)
        };
        let done = copied.await;
        if done.is_err() {
            self.tidy(&partial).await;
        }
        done.map(|()| true)
    }

    async fn get(&self, key: &Key, sink: &mut Sink) -> Result<(), Fault> {
        let place = self.place(key.as_str());
        let answer = self.client().await?.get_raw(&place).await;
        let mut answer = answer.map_err(failed)?;
        accepted_ref(&answer)?;
        if let Some(len) = answer.content_length() {
            sink.expect(len);
        }
        while let Some(piece) = answer.chunk().await.map_err(|error| request(&error))? {
            sink.write(&piece).await?;
        }
        Ok(())
    }

    async fn list(&self, _: &Meter) -> Result<Vec<Entry>, Fault> {
        let entry = |file: File| {
            Some(Entry {
                key: Key::new(file.name).ok()?,
                size: file.size?,
                modified: file.modified,
            })
        };
        Ok(self.all().await?.into_iter().filter_map(entry).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Fault> {
        self.remove(key.as_str()).await
    }

    async fn sweep(&self, before: SystemTime, meter: &Meter) -> Result<usize, Fault> {
        let mut count = 0;
        for file in self.all().await? {
            if is_partial(&file.name) && file.modified.is_some_and(|time| time < before) {
                match self.remove(&file.name).await {
                    Ok(()) | Err(Fault::Missing) => count += 1,
                    Err(other) => return Err(other),
                }
                meter.alive();
            }
        }
        Ok(count)
    }
}

/// A file of the collection.
struct File {
    name: String,
    size: Option<u64>,
    modified: Option<SystemTime>,
}

impl File {
    /// `None` for a collection. Servers leave out what they do not know.
    fn new(response: ListResponse) -> Option<Self> {
        let found = |answer: &ListPropStat| answer.status.split(' ').nth(1) == Some("200");
        let prop = response.prop_stat.into_iter().find(found)?.prop;
        if prop.resource_type.collection.is_some() {
            return None;
        }
        Some(Self {
            name: name_of(&response.href)?,
            size: prop.content_length.and_then(|len| u64::try_from(len).ok()),
            modified: prop.last_modified.map(SystemTime::from),
        })
    }
}

/// The last segment of a path or URL, decoded.
fn name_of(href: &str) -> Option<String> {
    let last = href.rsplit('/').next()?;
    let name = percent_encoding::percent_decode_str(last).decode_utf8();
    name.ok().map(|name| name.into_owned())
}

fn accepted(answer: Response) -> Result<(), Fault> {
    accepted_ref(&answer)
}

fn accepted_ref(answer: &Response) -> Result<(), Fault> {
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(refused(status.as_u16()))
    }
}

/// What an HTTP status means.
fn refused(status: u16) -> Fault {
    let text = format!("the server answers HTTP {status}");
    let remedy = match status {
        404 => return Fault::Missing,
        401 => {
            "correct login and secret in snapshot.webdav.url (as %XX where they hold special characters)"
        }
        403 => "let this user read and write in the collection that snapshot.webdav.url names",
        405 | 501 => "check that snapshot.webdav.url is a WebDAV collection",
        409 => "check the path and dir of snapshot.webdav.url: a part of it is no collection",
        413 => "raise the server's limit for the size of uploads",
        507 => "make room on the server, or raise the user's quota",
        300..=399 => "put the address that the server redirects to into snapshot.webdav.url",
        // Also locked (423): somebody else is at it.
        408 | 423 | 425 | 429 | 500.. => return Fault::passing(text),
        _ => "check snapshot.webdav.url against the server's documentation",
    };
    Fault::permanent(text, remedy)
}

fn not_webdav() -> Fault {
    Fault::permanent(
        "the answer is not that of a WebDAV server",
        "check that snapshot.webdav.url is a WebDAV collection",
    )
}

fn failed(error: Error) -> Fault {
    match error {
        Error::Reqwest(error) => request(&error),
        Error::Decode(DecodeError::StatusMismatched(status)) => refused(status.response_code),
        Error::Decode(DecodeError::Server(answer)) => refused(answer.response_code),
        Error::Decode(_) => not_webdav(),
        other => Fault::permanent(format!("{other}"), EXAMPLE),
    }
}

/// What a request means that got no answer, or not the whole of it.
fn request(error: &reqwest::Error) -> Fault {
    let text = chain(error);
    match tls_remedy(error) {
        Some(remedy) => Fault::permanent(text, remedy),
        None if error.is_builder() => Fault::permanent(text, EXAMPLE),
        None => Fault::passing(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_yields_a_place_without_its_login() {
        let url = "https://host:8443/remote.php/dav?dir=/my%20snap/shots&login=me%40home&secret=hun%26ter2";
        let collection = Collection::new(&Secret::new(url)).unwrap();
        assert_eq!(
            collection.name(),
            "WebDAV collection https://host:8443/remote.php/dav/my%20snap/shots"
        );
        assert_eq!(
            collection.place("latest.db"),
            "remote.php/dav/my%20snap/shots/latest.db"
        );
        let Auth::Basic(login, secret) = &collection.auth else {
            panic!("no login")
        };
        assert_eq!((&**login, &**secret), ("me@home", "hun&ter2"));
        let bare = Collection::new(&Secret::new("http://host")).unwrap();
        assert_eq!(bare.place("latest.db"), "/latest.db");
    }

    #[test]
    fn names_are_decoded() {
        assert_eq!(name_of("/dav/a%2Bb%3D.db").unwrap(), "a+b=.db");
        assert_eq!(name_of("http://h/dav/a+b.db").unwrap(), "a+b.db");
    }
}
