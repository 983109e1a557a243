//! A WebDAV server in this process that asks for a login, and what only WebDAV has.

use std::convert::Infallible;

use dav_server::body::Body;
use dav_server::fakels::FakeLs;
use dav_server::localfs::LocalFs;
use harmonylite::config::{Secret, SnapshotStore as Kind};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::cable::Cable;
use crate::memory;
use crate::site::{SECRET, Site, config, key, limits};

/// `me:hun&ter2`
const AUTHORIZATION: &str = "Basic bWU6aHVuJnRlcjI=";

pub async fn site() -> Option<Site> {
    let place = tempfile::tempdir().unwrap();
    let server = dav_server::DavHandler::builder()
        .filesystem(LocalFs::new(place.path(), false, false, false))
        .locksystem(FakeLs::new())
        .strip_prefix("/dav")
        .build_handler();
    let answer = move |request: hyper::Request<hyper::body::Incoming>| {
        let server = server.clone();
        async move {
            let login = request.headers().get("authorization");
            let answer = if login.is_some_and(|login| login == AUTHORIZATION) {
                server.handle(request).await
            } else {
                let mut refusal = hyper::Response::new(Body::empty());
                *refusal.status_mut() = hyper::StatusCode::UNAUTHORIZED;
                refusal
            };
            Ok::<_, Infallible>(answer)
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cable = Cable::to(listener.local_addr().unwrap().port()).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let served = http.serve_connection(TokioIo::new(stream), service_fn(answer));
                drop(served.await);
            });
        }
    });
    let port = cable.port();
    let mut config = config(Kind::WebDav);
    config.webdav_url = url(port, "me", "hun%26ter2", "/a%20b/c");
    let files = place.path().join("a b/c");
    // Made by the first upload, except where a case looks into it before.
    std::fs::create_dir_all(&files).unwrap();
    Some(Site {
        config,
        broker: None,
        cable: Some(cable),
        files: Some(files),
        // RFC 4918, 9.9.3: a MOVE that overwrites deletes first, and this server does.
        has_gaps: true,
        room: tempfile::tempdir().unwrap(),
        server: Box::new(place),
    })
}

fn url(port: u16, login: &str, secret: &str, dir: &str) -> Secret {
    Secret::new(format!(
        "http://127.0.0.1:{port}/dav?dir={dir}&login={login}&secret={secret}"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_collections_are_empty_and_made_when_needed() {
    let _quiet = memory::shared().await;
    let mut site = site().await.unwrap();
    let port = site.cable.as_ref().unwrap().port();
    site.config.webdav_url = url(port, "me", "hun%26ter2", "/x/y/z");
    let store = site.store();
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.get_small(&key("a")).await.unwrap(), None);
    store.delete(&key("a")).await.unwrap();
    store.put_small(&key("a"), "text".into()).await.unwrap();
    assert_eq!(store.get_small(&key("a")).await.unwrap().unwrap(), "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_what_to_correct() {
    let _quiet = memory::shared().await;
    let mut site = site().await.unwrap();
    let port = site.cable.as_ref().unwrap().port();
    site.config.webdav_url = url(port, "me", "guess", "/a%20b/c");
    let store = site.open(limits(8));
    let source = site.file("source", &vec![1; 3_000_000]);
    let errors = [
        store.list().await.unwrap_err(),
        store.get_small(&key("a")).await.unwrap_err(),
        store.delete(&key("a")).await.unwrap_err(),
        store
            .put(&key("a"), &source, &harmonylite::store::Progress::none())
            .await
            .unwrap_err(),
    ];
    for error in errors {
        let text = format!("{error} {error:?}");
        assert!(text.contains("correct login and secret"), "{text}");
        assert!(!text.contains("guess") && !text.contains(SECRET), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_without_webdav_is_named_as_such() {
    let _quiet = memory::shared().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().route("/dav/x", axum::routing::get(|| async { "hello" }));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    let mut config = config(Kind::WebDav);
    config.webdav_url = url(port, "me", "guess", "/x");
    let store = harmonylite::store::open_with(&config, None, limits(8)).unwrap();
    let error = store.put_small(&key("a"), "text".into()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is a WebDAV collection"), "{text}");
}
