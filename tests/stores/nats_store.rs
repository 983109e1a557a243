//! What only the NATS store has: a server that is killed for real, and one without room.

use std::sync::Arc;

use harmonylite::change::position::NodeId;
use harmonylite::config::SnapshotStore as Kind;
use harmonylite::store::{Limits, Progress, SnapshotStore, StoreError, open_with};
use harmonylite::stream::Broker;

use crate::memory;
use crate::nats::{NatsServer, nats_config};
use crate::site::{bytes, config, key, limits};

async fn store(server: &NatsServer, limits: Limits) -> Arc<dyn SnapshotStore> {
    let url = server.url();
    let nats = nats_config(&url);
    let broker = Broker::connect(&nats, &[url], NodeId(1)).await;
    let broker = broker.unwrap();
    open_with(&config(Kind::Nats), Some(broker), limits)
        .unwrap()
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_an_upload_has_the_old_one_and_takes_the_new_one() {
    let _quiet = memory::shared().await;
    let mut server = NatsServer::start();
    let store = store(&server, limits(20)).await;
    let latest = key("latest.db");
    store
        .put_small(&latest, "the old one".into())
        .await
        .unwrap();
    let room = tempfile::tempdir().unwrap();
    let (source, target) = (room.path().join("source"), room.path().join("got"));
    let content = bytes(10, 20_000_000);
    std::fs::write(&source, &content).unwrap();
    let (sent, mut seen) = tokio::sync::watch::channel(0);
    let progress = Progress::new(move |done, _| {
        sent.send_replace(done);
    });
    let (uploader, name) = (store.clone(), latest.clone());
    let put = tokio::spawn(async move { uploader.put(&name, &source, &progress).await });
    seen.wait_for(|done| *done > 2_000_000).await.unwrap();
    server.kill();
    assert!(!put.is_finished());
    server.restart();
    let kept = store.get_small(&latest).await;
    // Either the upload is not done again yet, or it is, and then it is too large to be read so.
    match kept {
        Ok(kept) => assert_eq!(kept.unwrap(), "the old one"),
        Err(error) => assert!(matches!(error, StoreError::Permanent { .. }), "{error:?}"),
    }
    put.await.unwrap().unwrap();
    store
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await
        .unwrap();
    assert!(std::fs::read(&target).unwrap() == content);
    let swept = store.sweep(std::time::Duration::ZERO).await.unwrap();
    assert!(swept > 0, "the chunks of the try that was cut off");
    store
        .get(&latest, &target, u64::MAX, &Progress::none())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_says_so() {
    let _quiet = memory::shared().await;
    let server = NatsServer::with("jetstream { max_file_store: 4MB }");
    let store = store(&server, limits(8)).await;
    let room = tempfile::tempdir().unwrap();
    let source = room.path().join("source");
    std::fs::write(&source, bytes(11, 8_000_000)).unwrap();
    let latest = key("latest.db");
    let put = store.put(&latest, &source, &Progress::none()).await;
    let error = put.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::Permanent { .. }), "{error:?}");
    assert!(text.contains("give JetStream more room"), "{text}");
}
