//! What all stores do alike when the network fails.

use std::time::Duration;

use bytes::Bytes;
use harmonylite::store::{Limits, Progress};

use crate::memory;
use crate::site::{Site, bytes, key, limits, names};

const LEN: usize = 5_000_000;

pub async fn a_cut_upload_leaves_the_old_one(site: &Site) {
    let _quiet = memory::shared().await;
    let (store, cable) = (site.open(limits(1)), site.cable.as_ref().unwrap());
    let latest = key("latest.db");
    let old = Bytes::from_static(b"the old one");
    store.put_small(&latest, old.clone()).await.unwrap();
    let source = site.file("source", &bytes(5, LEN));
    // Again and again: some clients send again by themselves.
    let failing = cable.clone();
    let progress = Progress::new(move |done, _| {
        if done > 1_000_000 {
            failing.cut_upload_again_after(500_000);
        }
    });
    let put = store.put(&latest, &source, &progress).await;
    let error = put.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    assert!(cable.cuts() > 0);
    cable.mend();
    // With tries again: the connection to NATS needs a moment.
    let store = site.store();
    assert_eq!(store.get_small(&latest).await.unwrap(), Some(old));
    let listed = store.list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    // The server may notice later that its client is gone, and keep what came until then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    sweep_all(site).await;
    assert_eq!(store.list().await.unwrap(), listed);
}

/// Removes what cut-off uploads left; nothing but objects is left then.
async fn sweep_all(site: &Site) {
    let store = site.store();
    store.sweep(Duration::ZERO).await.unwrap();
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 0);
    if let Some(files) = &site.files {
        let names = names(files);
        let objects = names.iter().filter(|name| !name.starts_with('.'));
        assert_eq!(objects.count(), names.len(), "{names:?}");
    }
}

pub async fn a_cut_upload_is_tried_again(site: &Site) {
    let _quiet = memory::shared().await;
    let (store, cable) = (site.store(), site.cable.as_ref().unwrap());
    let latest = key("latest.db");
    let content = bytes(6, LEN);
    let source = site.file("source", &content);
    cable.cut_upload_after(2_000_000);
    let put = store.put(&latest, &source, &Progress::none()).await;
    assert_eq!(put.unwrap().len, LEN as u64);
    assert_eq!(cable.cuts(), 1);
    let target = site.path("got");
    store
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await
        .unwrap();
    assert!(std::fs::read(&target).unwrap() == content);
}

pub async fn a_cut_download_leaves_nothing(site: &Site) {
    let _quiet = memory::shared().await;
    let (store, cable) = (site.store(), site.cable.as_ref().unwrap());
    let latest = key("latest.db");
    let content = bytes(7, LEN);
    let source = site.file("source", &content);
    store
        .put(&latest, &source, &Progress::none())
        .await
        .unwrap();
    let target = site.path("got");
    cable.cut_download_after(2_000_000);
    let once = site.open(limits(1));
    let got = once
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await;
    assert_eq!(cable.cuts(), 1);
    let error = got.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
    assert_eq!(names(site.room.path()), ["source"]);
    cable.cut_download_after(2_000_000);
    store
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await
        .unwrap();
    assert_eq!(cable.cuts(), 2);
    assert!(std::fs::read(&target).unwrap() == content);
    assert_eq!(names(site.room.path()), ["got", "source"]);
}

pub async fn a_silent_server_is_given_up(site: &Site) {
    let _quiet = memory::shared().await;
    let cable = site.cable.as_ref().unwrap();
    let latest = key("latest.db");
    let source = site.file("source", &bytes(8, LEN));
    let impatient = site.open(Limits {
        stall: Duration::from_millis(400),
        ..limits(2)
    });
    let text = Bytes::from_static(b"before");
    impatient.put_small(&latest, text.clone()).await.unwrap();
    cable.silence(true);
    let put = impatient.put(&latest, &source, &Progress::none()).await;
    assert!(
        put.as_ref().is_err_and(|error| error.is_passing()),
        "{put:?}"
    );
    let listed = impatient.list().await;
    assert!(
        listed.as_ref().is_err_and(|error| error.is_passing()),
        "{listed:?}"
    );
    cable.silence(false);
}

pub async fn a_server_that_comes_back_is_found(site: &Site) {
    let _quiet = memory::shared().await;
    let (store, cable) = (site.store(), site.cable.as_ref().unwrap());
    let text = Bytes::from_static(b"here");
    // Cut at once, and then nobody at home for some tries.
    cable.refuse(3);
    cable.cut_upload_after(1);
    store.put_small(&key("a"), text.clone()).await.unwrap();
    assert_eq!(store.get_small(&key("a")).await.unwrap(), Some(text));
}
