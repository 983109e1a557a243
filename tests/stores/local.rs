//! What only the folder has: it is on this machine.

use harmonylite::config::SnapshotStore as Kind;
use harmonylite::store::{Progress, StoreError};

use crate::memory;
use crate::site::{config, folder, key, names};

#[tokio::test]
async fn a_folder_that_is_not_there_is_never_made() {
    let _quiet = memory::shared().await;
    let site = folder().await.unwrap();
    let mut config = config(Kind::File);
    config.file_path = site.path("mount");
    let store = harmonylite::store::open(&config, None).unwrap();
    let errors = [
        store.list().await.unwrap_err(),
        store.put_small(&key("a"), "text".into()).await.unwrap_err(),
        store.get_small(&key("a")).await.unwrap_err(),
        store.delete(&key("a")).await.unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(matches!(error, StoreError::Permanent { .. }), "{text}");
        assert!(text.contains("mount it"), "{text}");
    }
    assert_eq!(names(site.room.path()), [""; 0]);
}

#[tokio::test]
async fn a_source_that_is_not_there_is_named() {
    let _quiet = memory::shared().await;
    let site = folder().await.unwrap();
    let absent = site.path("absent");
    let put = site
        .store()
        .put(&key("a"), &absent, &Progress::none())
        .await;
    let text = put.unwrap_err().to_string();
    assert!(
        text.contains("there is no") && text.contains("absent"),
        "{text}"
    );
    assert_eq!(site.store().list().await.unwrap(), []);
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let _quiet = memory::shared().await;
    let site = folder().await.unwrap();
    let source = site.file("source", &vec![1; 20_000_000]);
    let (begun, mut seen) = tokio::sync::watch::channel(0);
    let progress = Progress::new(move |done, _| {
        begun.send_replace(done);
    });
    let (store, latest) = (site.store(), key("a"));
    tokio::select! {
        put = store.put(&latest, &source, &progress) => panic!("{put:?}"),
        begun = seen.wait_for(|done| *done > 0) => assert!(begun.is_ok()),
    }
    assert_eq!(names(site.files.as_ref().unwrap()), [""; 0]);
}

#[test]
fn the_nats_store_needs_nats() {
    let refused = harmonylite::store::open(&config(Kind::Nats), None).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("there is no connection to NATS"), "{text}");
}
