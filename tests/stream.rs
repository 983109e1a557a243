//! The broker side against real nats-server processes: what is promised about publishing, reading, connecting and leases when
//! servers, consumers and streams vanish.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use harmonylite::change::position::{NodeId, Sequence, ShardId};
use harmonylite::config::{NatsConfig, Secret};
use harmonylite::stream::{
    Broker, Holder, KvError, LeaseError, LogReader, NodeLease, PublishError, StoredMessage,
    StreamError,
};
use support::nats::{NatsServer, log_config, nats_config};

/// No step of a healthy test takes longer; a hang fails instead of blocking the run.
const LIMIT: Duration = Duration::from_secs(30);
const SHARD: ShardId = ShardId(1);

async fn connect(server: &NatsServer) -> Broker {
    try_connect(&nats_config(&server.url())).await.unwrap()
}

async fn try_connect(config: &NatsConfig) -> Result<Broker, StreamError> {
    Broker::connect(config, &config.urls, NodeId(7)).await
}

async fn with_streams(server: &NatsServer) -> Broker {
    let broker = connect(server).await;
    broker.ensure_streams(&log_config(1), false).await.unwrap();
    broker
}

async fn publish(broker: &Broker, text: impl Into<Bytes>) -> Result<Sequence, PublishError> {
    broker.publish(SHARD, text.into(), LIMIT).await
}

async fn next(reader: &mut LogReader) -> Result<StoredMessage, StreamError> {
    tokio::time::timeout(LIMIT, reader.next())
        .await
        .expect("nothing came")
}

fn jetstream(client: async_nats::Client) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_read_in_order_and_fetched() {
    let server = NatsServer::start();
    let broker = with_streams(&server).await;
    assert!(broker.is_connected());
    assert_eq!(broker.reconnects(), 0);
    let empty = broker.stream_state(SHARD).await.unwrap();
    assert_eq!((empty.first, empty.last), (Sequence(1), Sequence(0)));

    let mut reader = broker.reader(SHARD, Sequence(1));
    assert!(reader.try_next().is_none());
    // Many in flight at once.
    let all = (1..=10_000_u64)
        .map(|n| publish(&broker, n.to_string()))
        .collect::<Vec<_>>();
    let mut published = vec![0; 10_001];
    for (n, sequence) in (1..).zip(futures_util::future::join_all(all).await) {
        published[sequence.unwrap().0 as usize] = n;
    }
    for n in 1..=10_000_u64 {
        let message = next(&mut reader).await.unwrap();
        assert_eq!(message.sequence, Sequence(n));
        assert_eq!(message.payload, published[n as usize].to_string());
        assert!(message.timestamp_nanos > empty.created);
    }
    assert_eq!(reader.behind(), 0);
    assert!(reader.try_next().is_none());
    // Pull requests that end by count, by bytes or by time are renewed, the consumer stays.
    assert_eq!(reader.health().snapshot().recreations, 0);

    let mut later = broker.reader(SHARD, Sequence(9_000));
    assert_eq!(next(&mut later).await.unwrap().sequence, Sequence(9_000));
    let fetched = broker.fetch(SHARD, Sequence(4_711), LIMIT).await.unwrap();
    assert_eq!(fetched.unwrap().payload, published[4_711].to_string());
    let absent = broker.fetch(SHARD, Sequence(10_001), LIMIT).await.unwrap();
    assert_eq!(absent, None);
    let missing = broker.fetch(ShardId(9), Sequence(1), LIMIT).await;
    assert!(
        matches!(missing, Err(StreamError::StreamMissing { .. })),
        "{missing:?}"
    );
    let state = broker.stream_state(SHARD).await.unwrap();
    assert_eq!(
        (state.first, state.last, state.messages, state.created),
        (Sequence(1), Sequence(10_000), 10_000, empty.created)
    );
}

#[tokio::test]
async fn a_future_of_next_that_is_dropped_loses_nothing() {
    let server = NatsServer::start();
    let broker = with_streams(&server).await;
    let mut reader = broker.reader(SHARD, Sequence(1));
    let writer = tokio::spawn({
        let broker = broker.clone();
        async move {
            for n in 1..=300_u64 {
                publish(&broker, n.to_string()).await.unwrap();
            }
        }
    });
    let mut read = 0;
    while read < 300 {
        // So short that most futures are dropped unfinished, opening included.
        if let Ok(message) = tokio::time::timeout(Duration::from_micros(50), reader.next()).await {
            read += 1;
            assert_eq!(message.unwrap().sequence, Sequence(read));
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn large_messages_pass_up_to_the_servers_limit_and_no_further() {
    let server = NatsServer::with("max_payload: 3MB");
    let broker = with_streams(&server).await;
    let limit = broker.max_payload();
    assert_eq!(limit, 3 << 20);
    let mut reader = broker.reader(SHARD, Sequence(1));
    // More than one pull request asks for.
    for fill in 0..6_u8 {
        publish(&broker, vec![fill; limit]).await.unwrap();
    }
    for fill in 0..6_u8 {
        let message = next(&mut reader).await.unwrap();
        assert!(message.payload.len() == limit && message.payload.iter().all(|byte| *byte == fill));
    }
    let error = publish(&broker, vec![0; limit + 1]).await.unwrap_err();
    assert!(
        matches!(error, PublishError::TooLarge { size, limit: told, .. } if size == limit + 1 && told == limit),
        "{error:?}"
    );
    // The connection has not suffered.
    publish(&broker, "small").await.unwrap();
    assert_eq!(next(&mut reader).await.unwrap().payload, "small");
    assert_eq!(reader.health().snapshot().recreations, 0);
}

#[tokio::test]
async fn a_full_stream_pushes_back_or_drops_the_oldest() {
    let server = NatsServer::start();
    let broker = connect(&server).await;
    let mut config = log_config(1);
    config.max_bytes = 20_000;
    let notices = broker.ensure_streams(&config, false).await.unwrap();
    if notices.iter().any(|notice| notice.contains("2.10.5")) {
        // A server that old cannot do what this test is about, and says so: run the test with a newer one.
        return;
    }
    assert!(notices.is_empty(), "{notices:?}");
    let mut stored = Sequence(0);
    let error = loop {
        match publish(&broker, vec![0; 1000]).await {
            Ok(sequence) => stored = sequence,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, PublishError::StreamFull { .. }),
        "{error:?}"
    );
    assert!(!error.maybe_stored());
    assert_eq!(broker.stream_state(SHARD).await.unwrap().last, stored);

    // Other settings are reported, and changed only where that is asked for.
    let notices = broker.ensure_streams(&config, true).await.unwrap();
    assert_eq!(notices.len(), 1);
    assert!(
        notices[0].contains("discard is New, not Old"),
        "{notices:?}"
    );
    publish(&broker, vec![0; 1000]).await.unwrap_err();
    config.update_existing = true;
    let notices = broker.ensure_streams(&config, true).await.unwrap();
    assert!(notices[0].contains("was changed"), "{notices:?}");
    assert!(
        broker
            .ensure_streams(&config, true)
            .await
            .unwrap()
            .is_empty()
    );

    let mut reader = broker.reader(SHARD, Sequence(1));
    assert_eq!(next(&mut reader).await.unwrap().sequence, Sequence(1));
    assert_eq!(
        publish(&broker, vec![0; 1000]).await.unwrap(),
        stored.next()
    );
    // The first is gone now: whoever needs it is told, and what it begins with.
    let error = next(&mut broker.reader(SHARD, Sequence(1)))
        .await
        .unwrap_err();
    assert!(
        matches!(error, StreamError::Trimmed { first, wanted: Sequence(1), .. } if first > Sequence(1)),
        "{error:?}"
    );
}

#[tokio::test]
async fn messages_removed_before_they_were_read_are_noticed() {
    let server = NatsServer::start();
    let broker = with_streams(&server).await;
    for n in 1..=20_u64 {
        publish(&broker, n.to_string()).await.unwrap();
    }
    let admin = jetstream(async_nats::connect(server.url()).await.unwrap());
    let stream = admin.get_stream("harmonylite-changes-1").await.unwrap();
    let mut reader = broker.reader(SHARD, Sequence(1));
    assert_eq!(next(&mut reader).await.unwrap().sequence, Sequence(1));

    // From the middle: passed over, in order.
    stream.delete_message(15).await.unwrap();
    let mut middle = broker.reader(SHARD, Sequence(14));
    assert_eq!(next(&mut middle).await.unwrap().sequence, Sequence(14));
    assert_eq!(next(&mut middle).await.unwrap().sequence, Sequence(16));
    assert_eq!(
        broker.fetch(SHARD, Sequence(15), LIMIT).await.unwrap(),
        None
    );

    // From the front, behind the reader's back.
    let mut idle = broker.reader(SHARD, Sequence(21));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), idle.next())
            .await
            .is_err()
    );
    publish(&broker, "21").await.unwrap();
    stream.purge().sequence(22).await.unwrap();
    publish(&broker, "22").await.unwrap();
    let mut seen = Vec::new();
    let error = loop {
        match next(&mut idle).await {
            Ok(message) => seen.push(message.sequence.0),
            Err(error) => break error,
        }
        if seen == [21, 22] {
            // It had been sent before it was purged: also fine.
            return;
        }
    };
    assert!(seen.is_empty(), "{seen:?}");
    assert!(
        matches!(
            error,
            StreamError::Trimmed {
                first: Sequence(22),
                wanted: Sequence(21),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_again_and_again_loses_and_repeats_nothing() {
    let mut server = NatsServer::start();
    let broker = with_streams(&server).await;
    let mut reader = broker.reader(SHARD, Sequence(1));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn({
        let broker = broker.clone();
        async move {
            let mut acknowledged = 0_u64;
            while !*stopped.borrow() {
                // Until it is acknowledged, as the publish loop does; so the stream may hold it more than once.
                match publish(&broker, acknowledged.to_string()).await {
                    Ok(_) => acknowledged += 1,
                    Err(error) => {
                        assert!(
                            matches!(
                                error,
                                PublishError::NotConnected { .. } | PublishError::NoStream { .. }
                            ),
                            "{error:?}"
                        );
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            acknowledged
        }
    });
    let consumer = tokio::spawn(async move {
        let (mut expected, mut read) = (0_u64, Sequence(0));
        loop {
            let message = next(&mut reader).await.unwrap();
            assert_eq!(message.sequence, read.next());
            read = message.sequence;
            if message.payload == "end" {
                return (expected, reader);
            }
            let value: u64 = std::str::from_utf8(&message.payload)
                .unwrap()
                .parse()
                .unwrap();
            assert!(value <= expected, "{value} came before {expected}");
            expected = expected.max(value + 1);
        }
    });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.restart();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.send(true).unwrap();
    let acknowledged = writer.await.unwrap();
    while publish(&broker, "end").await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (read, reader) = consumer.await.unwrap();
    assert!(acknowledged > 0);
    assert_eq!(read, acknowledged);
    assert!(broker.reconnects() >= 4, "{}", broker.reconnects());
    let health = reader.health().snapshot();
    assert!(health.recreations >= 4, "{health:?}");
    assert_eq!(health.trouble, None);
}

#[tokio::test]
async fn while_the_server_is_away_publishing_says_so_at_once_and_reading_waits() {
    let mut server = NatsServer::start();
    let broker = with_streams(&server).await;
    let mut reader = broker.reader(SHARD, Sequence(1));
    publish(&broker, "1").await.unwrap();
    assert_eq!(next(&mut reader).await.unwrap().payload, "1");
    let mut link = broker.on_reconnect();
    server.kill();
    link.wait_for(|link| !link.connected).await.unwrap();
    let error = publish(&broker, "2").await.unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::NotConnected {
                maybe_stored: false,
                ..
            }
        ),
        "{error:?}"
    );
    let error = broker.stream_state(SHARD).await.unwrap_err();
    assert!(
        matches!(error, StreamError::NotConnected { .. }),
        "{error:?}"
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(300), reader.next())
            .await
            .is_err()
    );
    server.restart();
    link.wait_for(|link| link.connected).await.unwrap();
    while publish(&broker, "2").await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(next(&mut reader).await.unwrap().payload, "2");
}

#[tokio::test]
async fn a_consumer_deleted_behind_the_readers_back_is_made_anew() {
    let server = NatsServer::start();
    let broker = with_streams(&server).await;
    let mut reader = broker.reader(SHARD, Sequence(1));
    publish(&broker, "1").await.unwrap();
    assert_eq!(next(&mut reader).await.unwrap().payload, "1");
    let admin = jetstream(async_nats::connect(server.url()).await.unwrap());
    let stream = admin.get_stream("harmonylite-changes-1").await.unwrap();
    for round in 2..=4_u64 {
        use futures_util::TryStreamExt;
        let consumers: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
        assert_eq!(consumers.len(), 1);
        stream.delete_consumer(&consumers[0]).await.unwrap();
        publish(&broker, round.to_string()).await.unwrap();
        let message = next(&mut reader).await.unwrap();
        assert_eq!(message.payload, round.to_string());
    }
    assert!(reader.health().snapshot().recreations >= 3);
}

#[tokio::test]
async fn a_stream_made_anew_is_noticed_and_a_missing_one_is_waited_for() {
    let server = NatsServer::start();
    let broker = with_streams(&server).await;
    let mut reader = broker.reader(SHARD, Sequence(1));
    for n in 1..=3_u64 {
        publish(&broker, n.to_string()).await.unwrap();
        next(&mut reader).await.unwrap();
    }
    let admin = jetstream(async_nats::connect(server.url()).await.unwrap());
    admin.delete_stream("harmonylite-changes-1").await.unwrap();
    let error = publish(&broker, "x").await.unwrap_err();
    assert!(matches!(error, PublishError::NoStream { .. }), "{error:?}");
    let health = reader.health();
    let waiting = tokio::spawn(async move { (next(&mut reader).await, reader) });
    while health.snapshot().trouble.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let trouble = health.snapshot().trouble.unwrap();
    assert_eq!(trouble, "stream harmonylite-changes-1 does not exist");

    broker.ensure_streams(&log_config(1), false).await.unwrap();
    let (result, mut reader) = waiting.await.unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, StreamError::Replaced { .. }), "{error:?}");
    // It has grown past our position: still not the stream that we read.
    for n in 1..=5_u64 {
        publish(&broker, n.to_string()).await.unwrap();
    }
    let error = next(&mut reader).await.unwrap_err();
    assert!(matches!(error, StreamError::Replaced { .. }), "{error:?}");
    // Someone who starts anew with an old position.
    let error = next(&mut broker.reader(SHARD, Sequence(8)))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            StreamError::Shorter {
                last: Sequence(5),
                read: Sequence(7),
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_stream_that_holds_our_subject_is_named_with_what_to_do() {
    let server = NatsServer::start();
    let admin = jetstream(async_nats::connect(server.url()).await.unwrap());
    admin
        .create_stream(async_nats::jetstream::stream::Config {
            name: "harmonylite-changes-c-1".to_owned(),
            subjects: vec!["harmonylite-change-log-1".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let broker = connect(&server).await;
    // Somebody else's stream would acknowledge: not taken for ours.
    let error = publish(&broker, "x").await.unwrap_err();
    assert!(
        matches!(error, PublishError::WrongStream { .. }),
        "{error:?}"
    );
    let error = broker
        .ensure_streams(&log_config(1), false)
        .await
        .unwrap_err();
    assert!(!error.is_transient());
    let text = error.to_string();
    assert!(
        text.starts_with("Failed to create stream harmonylite-changes-1: subjects overlap"),
        "{text}"
    );
    assert!(
        text.contains("nats stream rm harmonylite-changes-c-1"),
        "{text}"
    );
}

#[tokio::test]
async fn without_jetstream_creating_a_stream_says_so() {
    let server = NatsServer::with("jetstream: disabled");
    let broker = connect(&server).await;
    let error = broker
        .ensure_streams(&log_config(1), false)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("Failed to create stream harmonylite-changes-1"),
        "{text}"
    );
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_password() {
    let port = support::ports::free();
    let error = try_connect(&nats_config(&format!("nats://me:hunter2@127.0.0.1:{port}")))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "Failed to connect to NATS at nats://127.0.0.1:{port}"
        )),
        "{text}"
    );
    assert!(!format!("{error:?}{text}").contains("hunter2"), "{error:?}");
    assert!(error.is_transient());
    let error = try_connect(&nats_config("nats://me:hunter2@:x"))
        .await
        .unwrap_err();
    assert!(
        !format!("{error:?}{error}").contains("hunter2"),
        "{error:?}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn user_and_password_are_used_and_a_wrong_one_is_not_shown() {
    let server = NatsServer::with("authorization { user: ada, password: lovelace }");
    let mut config = nats_config(&server.url());
    config.user_name = "ada".to_owned();
    config.user_password = Secret("lovelace".to_owned());
    try_connect(&config).await.unwrap();
    config.user_password = Secret("byron1788".to_owned());
    let error = try_connect(&config).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("authorization violation") && text.contains("nats.user_password"),
        "{text}"
    );
    assert!(
        !format!("{error:?}{text}").contains("byron1788"),
        "{error:?}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn an_nkey_seed_opens_the_door_and_another_does_not() {
    let (ours, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let server = NatsServer::with(&format!(
        "authorization {{ users = [ {{ nkey: {} }} ] }}",
        ours.public_key()
    ));
    let mut config = nats_config(&server.url());
    let file = server.folder().join("seed");
    config.seed_file = Some(file.clone());
    std::fs::write(&file, ours.seed().unwrap()).unwrap();
    try_connect(&config).await.unwrap();
    std::fs::write(&file, other.seed().unwrap()).unwrap();
    let error = try_connect(&config).await.unwrap_err();
    assert!(matches!(error, StreamError::Connect { .. }), "{error:?}");
    assert!(!format!("{error:?}{error}").contains(&other.seed().unwrap()));
    std::fs::remove_file(&file).unwrap();
    let text = try_connect(&config).await.unwrap_err().to_string();
    assert!(text.contains("nats.seed_file"), "{text}");
    let creds = server.folder().join("creds");
    std::fs::write(&creds, "not credentials").unwrap();
    config.seed_file = None;
    config.creds_file = Some(creds);
    let text = try_connect(&config).await.unwrap_err().to_string();
    assert!(
        text.contains("nats.creds_file") && !text.contains("not credentials"),
        "{text}"
    );
}

#[tokio::test]
async fn tls_with_our_own_ca_and_a_client_certificate() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(path(name), certificate.pem()).unwrap();
        Issuer::new(params, key)
    };
    let issuer = authority("ca.pem");
    authority("other-ca.pem");
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let server = NatsServer::in_folder(
        folder,
        "tls { cert_file: 'FOLDER/server.pem', key_file: 'FOLDER/server.key', ca_file: 'FOLDER/ca.pem', verify: true }",
    );
    let path = |name: &str| Some(server.folder().join(name));
    let mut config = nats_config(&server.url());
    config.ca_file = path("ca.pem");
    let error = try_connect(&config).await.unwrap_err();
    assert!(
        error.to_string().starts_with("Failed to connect to NATS"),
        "{error}"
    );
    config.cert_file = path("client.pem");
    config.key_file = path("client.key");
    let broker = try_connect(&config).await.unwrap();
    broker.ensure_streams(&log_config(1), false).await.unwrap();
    publish(&broker, "over TLS").await.unwrap();
    let mut reader = broker.reader(SHARD, Sequence(1));
    assert_eq!(next(&mut reader).await.unwrap().payload, "over TLS");
    config.ca_file = path("other-ca.pem");
    try_connect(&config).await.unwrap_err();
    // Whoever names a CA never speaks in clear.
    let plain = NatsServer::start();
    config.urls = vec![plain.url()];
    try_connect(&config).await.unwrap_err();
}

#[tokio::test]
async fn buckets_compare_and_set() {
    let server = NatsServer::start();
    let broker = connect(&server).await;
    let bucket = broker.kv_bucket("b", None, 1).await.unwrap();
    let conflict = |error: KvError| assert!(matches!(error, KvError::Conflict { .. }), "{error:?}");
    assert_eq!(bucket.keys().await.unwrap(), Vec::<String>::new());
    assert_eq!(bucket.get("k").await.unwrap(), None);
    let first = bucket.create("k", "1".into()).await.unwrap();
    conflict(bucket.create("k", "2".into()).await.unwrap_err());
    let second = bucket.update("k", "2".into(), first).await.unwrap();
    conflict(bucket.update("k", "3".into(), first).await.unwrap_err());
    let entry = bucket.get("k").await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"2"[..], second));
    conflict(bucket.delete_expecting("k", first).await.unwrap_err());
    bucket.put("other", "x".into()).await.unwrap();
    let again = broker.kv_bucket("b", None, 1).await.unwrap();
    let mut keys = again.keys().await.unwrap();
    keys.sort();
    assert_eq!(keys, ["k", "other"]);
    bucket.delete_expecting("k", second).await.unwrap();
    assert_eq!(bucket.get("k").await.unwrap(), None);
    bucket.create("k", "4".into()).await.unwrap();
    bucket.purge("k").await.unwrap();
    assert_eq!(bucket.keys().await.unwrap(), ["other"]);
    let error = bucket.put("a key", "x".into()).await.unwrap_err();
    assert!(matches!(error, KvError::InvalidKey { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_written_all_the_time_is_in_every_list() {
    let server = NatsServer::start();
    let broker = connect(&server).await;
    let bucket = broker.kv_bucket("b", None, 1).await.unwrap();
    for key in ["a", "b", "c"] {
        bucket.create(key, "0".into()).await.unwrap();
    }
    let writing: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|key| {
            let bucket = bucket.clone();
            tokio::spawn(async move {
                loop {
                    bucket.put(key, "1".into()).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..200 {
        let keys = bucket.keys().await.unwrap();
        assert_eq!(keys, ["a", "b", "c"]);
    }
    for task in writing {
        task.abort();
    }
}

#[tokio::test]
async fn a_node_id_has_one_living_holder() {
    let server = NatsServer::start();
    let broker = connect(&server).await;
    let node = NodeId(7);
    let acquire = |holder: Holder| NodeLease::acquire(&broker, 1, node, holder);
    let mine = Holder::this_process("first-database", 1);
    let mut lease = acquire(mine.clone()).await.unwrap();
    lease.renew().await.unwrap();

    // A process of this machine: its life is seen, nobody waits.
    let rival = Holder::this_process("second-database", 2);
    let error = acquire(rival.clone()).await.unwrap_err();
    assert!(matches!(error, LeaseError::Held { .. }), "{error:?}");
    let text = error.to_string();
    for part in [
        "node id 7",
        "first-database",
        "second-database",
        &mine.host,
        "node_id",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // Given back, it can be had.
    lease.release().await.unwrap();
    let lease = acquire(rival.clone()).await.unwrap();
    lease.release().await.unwrap();

    // A process of this machine that has ended: taken over at once.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let ended = Holder {
        pid: child.id(),
        process_start: 1,
        nonce: "dead".to_owned(),
        ..mine.clone()
    };
    child.wait().unwrap();
    let mut left = acquire(ended).await.unwrap();
    let mut lease = acquire(mine.clone()).await.unwrap();
    // Who was thought dead and is not learns it.
    let error = left.renew().await.unwrap_err();
    assert!(
        matches!(&error, LeaseError::Lost { by, .. } if by.nonce == mine.nonce),
        "{error:?}"
    );
    lease.renew().await.unwrap();
    lease.release().await.unwrap();

    // On another machine: only its renewals tell.
    let elsewhere = Holder {
        boot_id: "another machine".to_owned(),
        nonce: "elsewhere".to_owned(),
        ..mine.clone()
    };
    let mut remote = acquire(elsewhere).await.unwrap();
    let renewing = tokio::spawn(async move {
        for _ in 0..2 {
            tokio::time::sleep(NodeLease::RENEW_EVERY).await;
            remote.renew().await.unwrap();
        }
    });
    let error = acquire(mine.clone()).await.unwrap_err();
    assert!(matches!(error, LeaseError::Held { .. }), "{error:?}");
    renewing.await.unwrap();
    let lease = acquire(mine).await.unwrap();

    assert_eq!(lease.highest_incarnation().await.unwrap(), 0);
    lease.record_incarnation(5).await.unwrap();
    lease.record_incarnation(3).await.unwrap();
    assert_eq!(lease.highest_incarnation().await.unwrap(), 5);
}

#[tokio::test]
async fn a_lease_survives_its_expiry_when_nobody_else_wants_it() {
    let server = NatsServer::start();
    let broker = connect(&server).await;
    let mut lease = NodeLease::acquire(&broker, 1, NodeId(1), Holder::this_process("db", 1))
        .await
        .unwrap();
    let bucket = broker
        .kv_bucket("harmonylite-changes-leases", None, 1)
        .await
        .unwrap();
    bucket.purge("node-1").await.unwrap();
    lease.renew().await.unwrap();
    assert!(bucket.get("node-1").await.unwrap().is_some());
    lease.renew().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_ask_one_another_and_hear_nothing_of_other_clusters() {
    let server = NatsServer::start();
    let (one, two) = (connect(&server).await, connect(&server).await);
    let other = try_connect(&NatsConfig {
        stream_prefix: "other".to_owned(),
        ..nats_config(&server.url())
    })
    .await
    .unwrap();
    let mut questions = two.peer_questions(NodeId(2)).await.unwrap();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            // One question is never answered.
            if question.payload == "silence" {
                continue;
            }
            let answer = [&b"re: "[..], &question.payload].concat();
            question.answer(answer.into()).await;
        }
    });
    // The server learns of the subscription on another connection than ours.
    let answer = loop {
        match one.ask_peer(NodeId(2), "hello".into(), LIMIT).await {
            Err(StreamError::NobodyHears { .. }) => tokio::task::yield_now().await,
            answer => break answer.unwrap(),
        }
    };
    assert_eq!(answer, "re: hello");
    let own = two.ask_peer(NodeId(2), "me".into(), LIMIT).await.unwrap();
    assert_eq!(own, "re: me");
    for (broker, node) in [(&one, 3), (&other, 2)] {
        let error = broker
            .ask_peer(NodeId(node), "hello".into(), LIMIT)
            .await
            .unwrap_err();
        assert!(matches!(error, StreamError::NobodyHears { .. }), "{error}");
        assert!(error.is_transient());
    }
    let late = one
        .ask_peer(NodeId(2), "silence".into(), Duration::from_millis(50))
        .await;
    assert!(matches!(late, Err(StreamError::Timeout { .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn living_nodes_are_those_that_hold_a_lease() {
    let server = NatsServer::start();
    let broker = connect(&server).await;
    let mut leases = Vec::new();
    for node in [12, 3, 7] {
        let holder = Holder::this_process(&format!("database {node}"), node);
        let lease = NodeLease::acquire(&broker, 1, NodeId(node), holder).await;
        leases.push(lease.unwrap());
    }
    let all = [NodeId(3), NodeId(7), NodeId(12)];
    assert_eq!(broker.living_nodes().await.unwrap(), all);
    leases.remove(1).release().await.unwrap();
    assert_eq!(
        broker.living_nodes().await.unwrap(),
        [NodeId(7), NodeId(12)]
    );
}
