//! What all stores do alike.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use harmonylite::config::SnapshotStore as Kind;
use harmonylite::store::{Content, MAX_SMALL, Progress, StoreError};
use sha2::Digest;

use crate::memory;
use crate::site::{SECRET, Site, bytes, key, names};

/// What a store should say of these bytes.
fn content(bytes: &[u8]) -> Content {
    let hash = sha2::Sha256::digest(bytes);
    Content {
        len: bytes.len() as u64,
        sha256: hash.iter().map(|b| format!("{b:02x}")).collect(),
    }
}

pub async fn objects_come_and_go(site: &Site) {
    let _quiet = memory::shared().await;
    let store = site.store();
    let (latest, manifest) = (key("latest.db"), key("manifest-1.json"));
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.get_small(&manifest).await.unwrap(), None);
    store.delete(&latest).await.unwrap();
    let target = site.path("got");
    let missing = store
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await;
    let missing = missing.unwrap_err();
    assert!(missing.is_missing(), "{missing:?}");
    assert_eq!(names(site.room.path()), [""; 0]);
    let missing = store.read_back(&latest).await.unwrap_err();
    assert!(missing.is_missing(), "{missing:?}");

    let first = bytes(1, 3_000_001);
    let source = site.file("source", &first);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let seen = reports.clone();
    let progress = Progress::new(move |done, total| seen.lock().unwrap().push((done, total)));
    assert_eq!(
        store.put(&latest, &source, &progress).await.unwrap(),
        content(&first)
    );
    // What is longer than it may be is not kept, nor any of it.
    let long = store
        .get(&latest, &target, 3_000_000, &Progress::none())
        .await;
    assert!(
        matches!(
            long,
            Err(StoreError::TooLong {
                most: 3_000_000,
                ..
            })
        ),
        "{long:?}"
    );
    assert_eq!(names(site.room.path()), ["source"]);
    let reports = reports.lock().unwrap().clone();
    assert_eq!(reports.last(), Some(&(3_000_001, 3_000_001)));
    assert!(reports.len() > 5 && reports.is_sorted(), "{reports:?}");
    assert_eq!(
        store
            .get(&latest, &target, u64::MAX, &Progress::none())
            .await
            .unwrap(),
        content(&first)
    );
    assert!(std::fs::read(&target).unwrap() == first);
    assert_eq!(store.read_back(&latest).await.unwrap(), content(&first));

    let text = Bytes::from_static(b"{\"format\": 1}");
    store.put_small(&manifest, text.clone()).await.unwrap();
    assert_eq!(store.get_small(&manifest).await.unwrap(), Some(text));
    store.put_small(&key("empty"), Bytes::new()).await.unwrap();
    assert_eq!(
        store.get_small(&key("empty")).await.unwrap(),
        Some(Bytes::new())
    );

    let second = bytes(2, 1_000_000);
    let source = site.file("source", &second);
    store
        .put(&latest, &source, &Progress::none())
        .await
        .unwrap();
    store
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await
        .unwrap();
    assert!(std::fs::read(&target).unwrap() == second);

    let listed = store.list().await.unwrap();
    let sizes: Vec<_> = listed.iter().map(|e| (e.key.as_str(), e.size)).collect();
    assert_eq!(
        sizes,
        [
            ("empty", 0),
            ("latest.db", 1_000_000),
            ("manifest-1.json", 13)
        ]
    );
    let now = SystemTime::now();
    for entry in &listed {
        let modified = entry.modified.expect("all of these servers say when");
        let apart = now
            .duration_since(modified)
            .unwrap_or_else(|e| e.duration());
        assert!(apart < Duration::from_secs(3600), "{entry:?}");
    }
    for entry in listed {
        store.delete(&entry.key).await.unwrap();
    }
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.get_small(&manifest).await.unwrap(), None);
    assert_eq!(names(site.room.path()), ["got", "source"]);
    if let Some(files) = &site.files {
        assert_eq!(names(files), [""; 0]);
    }
}

pub async fn odd_keys(site: &Site) {
    let _quiet = memory::shared().await;
    let store = site.store();
    let mut keys: Vec<_> = ["a+b", "a=b", "a@b", "a~b", "a,b", "a(b)", "A_b-c.d..e", "0"]
        .map(key)
        .into();
    keys.push(key(&"k".repeat(100)));
    keys.sort();
    for key in &keys {
        let text = Bytes::from(key.to_string());
        store.put_small(key, text).await.unwrap();
    }
    let listed = store.list().await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|entry| entry.key).collect();
    assert_eq!(listed, keys);
    for key in &keys {
        let text = store.get_small(key).await.unwrap().unwrap();
        assert_eq!(text, key.as_str());
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.list().await.unwrap(), []);
}

pub async fn a_copy_is_an_object_of_its_own(site: &Site) {
    let _quiet = memory::shared().await;
    let store = site.store();
    let (snapshot, latest) = (key("snapshot-1.db"), key("latest.db"));
    assert!(!store.duplicate(&snapshot, &latest).await);
    assert_eq!(store.list().await.unwrap(), []);
    let none = Progress::none();
    let copies = matches!(site.config.store, Kind::File | Kind::S3 | Kind::WebDav);
    // Of more than one window, and not a whole number of them.
    for (seed, len) in [(1, 17_000_001), (2, 3), (3, 9_000_000)] {
        let bytes = bytes(seed, len);
        let source = site.file("source", &bytes);
        let sent = store.put(&snapshot, &source, &none).await.unwrap();
        assert_eq!(sent, content(&bytes));
        let copied = store.duplicate(&snapshot, &latest).await;
        assert_eq!(copied, copies);
        if copied {
            assert_eq!(store.read_back(&latest).await.unwrap(), sent);
            assert_eq!(store.list().await.unwrap().len(), 2);
            store.delete(&snapshot).await.unwrap();
            assert_eq!(store.read_back(&latest).await.unwrap(), sent);
            // Of what is not there any more, what is there stays.
            assert!(!store.duplicate(&snapshot, &latest).await);
            assert_eq!(store.read_back(&latest).await.unwrap(), sent);
        }
    }
    if let Some(files) = &site.files {
        // Nothing is left over.
        assert!(names(files).len() <= 1, "{:?}", names(files));
    }
}

pub async fn large_ones_stay_large(site: &Site) {
    const LEN: usize = 70 * 1024 * 1024;
    // Pieces in flight, buffers of sockets on both sides (the servers run here too), the allocator's slack.
    const BOUND: u64 = 40 * 1024 * 1024;
    let _quiet = memory::alone().await;
    let (source, target) = (site.path("source"), site.path("got"));
    std::fs::write(&source, bytes(3, LEN)).unwrap();
    let store = site.store();
    let warm = Bytes::from_static(b"up");
    store.put_small(&key("warm"), warm).await.unwrap();
    let peak = memory::Peak::watch();
    let latest = key("latest.db");
    let none = Progress::none();
    let put = store.put(&latest, &source, &none).await;
    let sent = put.unwrap();
    assert_eq!(sent.len, LEN as u64);
    let up = peak.growth();
    let get = store.get(&latest, &target, u64::MAX, &none).await;
    assert_eq!(get.unwrap(), sent);
    let down = peak.growth();
    println!("memory grew by {up} bytes up, {down} bytes up and down");
    assert!(up < BOUND && down < BOUND, "grew by {up}, {down} bytes");
    drop(peak);
    assert!(std::fs::read(&source).unwrap() == std::fs::read(&target).unwrap());
}

pub async fn readers_see_whole_versions(site: &Site) {
    const LEN: usize = 600_000;
    let _quiet = memory::shared().await;
    let store: Arc<dyn harmonylite::store::SnapshotStore> = site.store().into();
    let latest = key("latest.db");
    let source = site.file("source", &[0; LEN]);
    store
        .put(&latest, &source, &Progress::none())
        .await
        .unwrap();
    let (ended, reads) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let readers: Vec<_> = (0..3)
        .map(|number| {
            let (store, latest, has_gaps) = (store.clone(), latest.clone(), site.has_gaps);
            let (ended, reads) = (ended.clone(), reads.clone());
            let target = site.path(&format!("got-{number}"));
            tokio::spawn(async move {
                while !ended.load(Ordering::SeqCst) {
                    match store
                        .get(&latest, &target, u64::MAX, &Progress::none())
                        .await
                    {
                        Ok(got) => assert_eq!(got.len, LEN as u64),
                        Err(StoreError::Missing { .. }) if has_gaps => continue,
                        Err(error) => panic!("{error:?}"),
                    }
                    let got = std::fs::read(&target).unwrap();
                    assert!(got.len() == LEN && got.iter().all(|byte| *byte == got[0]));
                    reads.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for version in 1..=15 {
        let before = reads.load(Ordering::SeqCst);
        let source = site.file("source", &[version; LEN]);
        store
            .put(&latest, &source, &Progress::none())
            .await
            .unwrap();
        while reads.load(Ordering::SeqCst) == before {
            let failed = readers.iter().all(|reader| reader.is_finished());
            assert!(!failed, "all readers failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    ended.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    let last = store.get_small(&latest).await.unwrap().unwrap();
    assert!(last.iter().all(|byte| *byte == 15));
}

pub async fn secrets_stay_inside(site: &Site) {
    let _quiet = memory::shared().await;
    let store = site.store();
    let shown = format!("{} {store:?} {:?}", store.name(), site.config);
    assert!(
        !shown.contains(SECRET) && !shown.contains("hun%26ter2"),
        "{shown}"
    );
}

pub async fn small_ones_are_bounded(site: &Site) {
    let _quiet = memory::shared().await;
    let store = site.store();
    let most = Bytes::from(bytes(4, MAX_SMALL));
    store.put_small(&key("most"), most.clone()).await.unwrap();
    assert_eq!(store.get_small(&key("most")).await.unwrap(), Some(most));
    let more = Bytes::from(bytes(4, MAX_SMALL + 1));
    let refused = store.put_small(&key("more"), more.clone()).await;
    assert!(matches!(refused, Err(StoreError::Permanent { .. })));
    let source = site.file("source", &more);
    store
        .put(&key("more"), &source, &Progress::none())
        .await
        .unwrap();
    let refused = store.get_small(&key("more")).await;
    assert!(
        matches!(refused, Err(StoreError::Permanent { .. })),
        "{refused:?}"
    );
}
