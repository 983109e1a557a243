//! An S3 server in this process that checks signatures, and what only S3 has.

use harmonylite::config::{Secret, SnapshotConfig, SnapshotStore as Kind};
use harmonylite::store::Progress;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

use crate::cable::Cable;
use crate::memory;
use crate::site::{SECRET, Site, bytes, config, key, limits};

const BUCKET: &str = "snapshots";

pub async fn site() -> Option<Site> {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join(BUCKET)).unwrap();
    let files = s3s_fs::FileSystem::new(place.path()).unwrap();
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single("me", SECRET));
    let service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cable = Cable::to(listener.local_addr().unwrap().port()).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let served = http.serve_connection(TokioIo::new(stream), service).await;
                drop(served);
            });
        }
    });
    let mut config = config(Kind::S3);
    config.s3.endpoint = format!("127.0.0.1:{}", cable.port());
    config.s3.bucket = BUCKET.to_owned();
    config.s3.path = "/cluster one/".to_owned();
    config.s3.force_path_style = true;
    config.s3.access_key = Secret::new("me");
    config.s3.secret = Secret::new(SECRET);
    Some(Site {
        config,
        broker: None,
        cable: Some(cable),
        files: None,
        has_gaps: false,
        room: tempfile::tempdir().unwrap(),
        server: Box::new(place),
    })
}

async fn refused(config: SnapshotConfig) -> String {
    let store = harmonylite::store::open_with(&config, None, limits(8)).unwrap();
    let mut texts = vec![store.list().await.unwrap_err()];
    let small = store.put_small(&key("latest.db"), "text".into()).await;
    texts.push(small.unwrap_err());
    for error in &texts {
        let text = format!("{error} {error:?}");
        assert!(!error.is_passing() && !error.is_missing(), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    texts[0].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_buckets_are_told_apart() {
    let _quiet = memory::shared().await;
    let site = site().await.unwrap();
    let mut config = site.config.clone();
    config.s3.secret = Secret::new("guess");
    let text = refused(config).await;
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    assert!(text.contains("correct snapshot.s3.access_key"), "{text}");
    let mut config = site.config.clone();
    config.s3.access_key = Secret::new("somebody");
    let text = refused(config).await;
    assert!(text.contains("snapshot.s3.access_key"), "{text}");
    let mut config = site.config.clone();
    config.s3.bucket = "elsewhere".to_owned();
    // This server checks the bucket for lists only.
    let store = harmonylite::store::open_with(&config, None, limits(8)).unwrap();
    let text = store.list().await.unwrap_err().to_string();
    assert!(text.contains("create the bucket"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_in_parts_is_aborted_and_leaves_the_old_one() {
    let _quiet = memory::shared().await;
    let site = site().await.unwrap();
    let (store, cable) = (site.open(limits(1)), site.cable.as_ref().unwrap());
    let latest = key("latest.db");
    store
        .put_small(&latest, "the old one".into())
        .await
        .unwrap();
    let source = site.file("source", &bytes(9, 66 * 1024 * 1024));
    // The SDK itself sends a part again three times.
    cable.cut_upload_after(30_000_000);
    let failing = cable.clone();
    let progress = Progress::new(move |done, _| {
        if done > 20_000_000 {
            failing.cut_upload_again_after(1_000_000);
        }
    });
    let put = store.put(&latest, &source, &progress).await;
    assert!(
        put.as_ref().is_err_and(|error| error.is_passing()),
        "{put:?}"
    );
    cable.mend();
    let kept = store.get_small(&latest).await.unwrap();
    assert_eq!(kept.unwrap(), "the old one");
    store
        .put(&latest, &source, &Progress::none())
        .await
        .unwrap();
    let listed = store.list().await.unwrap();
    assert_eq!(listed[0].size, 66 * 1024 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_others_in_the_bucket_are_left_alone() {
    let _quiet = memory::shared().await;
    let site = site().await.unwrap();
    let mut other = site.config.clone();
    other.s3.path = String::new();
    let other = harmonylite::store::open_with(&other, None, limits(8)).unwrap();
    other
        .put_small(&key("theirs"), "text".into())
        .await
        .unwrap();
    let store = site.store();
    assert_eq!(store.list().await.unwrap(), []);
    store.put_small(&key("ours"), "text".into()).await.unwrap();
    let names = |entries: Vec<harmonylite::store::Entry>| -> Vec<String> {
        entries
            .into_iter()
            .map(|entry| entry.key.to_string())
            .collect()
    };
    assert_eq!(names(store.list().await.unwrap()), ["ours"]);
    assert_eq!(names(other.list().await.unwrap()), ["theirs"]);
}
