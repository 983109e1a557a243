//! S3, Amazon's and others', by Amazon's SDK.
//!
//! Invariants: an object is put in one request or in parts that count when they are completed, so whole or not at all; parts of an
//! upload that failed are aborted. Only checksums that an operation requires are sent: other S3 servers refuse or mangle the
//! optional ones, and the caller has a hash of its own. Retries of single parts are the SDK's, of the whole ours.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::OnceCell;

use super::error::Fault;
use super::key::Key;
use super::meter::Meter;
use super::retrying::Backend;
use super::s3_client::{connect, fault};
use super::sink::Sink;
use super::source::{Body, Source};
use super::{Entry, MOST_IN_A_COPY};
use crate::config::S3Config;

/// Larger objects go in parts, so that one that breaks costs a part and not the object.
const IN_ONE_REQUEST: u64 = 64 * 1024 * 1024;
/// What stands for itself in the name of what is to be copied; a plus sign would be taken for a space.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');
/// Above S3's least of 5 MiB; a part that is sent again costs seconds at most.
const LEAST_PART: u64 = 8 * 1024 * 1024;
/// S3 allows 10,000.
const MOST_PARTS: u64 = 9_000;
/// Tidying up after a failure must not hold up the failure's report.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Bucket {
    config: S3Config,
    /// Empty, or ends with a slash.
    prefix: String,
    client: OnceCell<Client>,
}

impl Bucket {
    pub(super) fn new(config: &S3Config) -> Self {
        let prefix = match config.path.trim_matches('/') {
            "" => String::new(),
            path => format!("{path}/"),
        };
        Self {
            config: config.clone(),
            prefix,
            client: OnceCell::new(),
        }
    }

    fn place(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| connect(&self.config)).await
    }

    async fn put_parts(
        &self,
        client: &Client,
        place: &str,
        upload: &str,
        source: &Source,
    ) -> Result<(), Fault> {
        let size = LEAST_PART.max(source.len().div_ceil(MOST_PARTS));
        let mut parts = Vec::new();
        let mut from = 0;
        for number in 1.. {
            let len = size.min(source.len() - from);
            let sent = client
                .upload_part()
                .bucket(&self.config.bucket)
                .key(place)
                .upload_id(upload)
                .part_number(number)
                .content_length(signed(len))
                .body(stream(source, from, len))
                .send()
                .await
                .map_err(fault)?;
            source.meter().alive();
            let part = CompletedPart::builder().part_number(number);
            parts.push(part.set_e_tag(sent.e_tag).build());
            from += len;
            if from == source.len() {
                break;
            }
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        client
            .complete_multipart_upload()
            .bucket(&self.config.bucket)
            .key(place)
            .upload_id(upload)
            .multipart_upload(parts.build())
            .send()
            .await
            .map_err(fault)?;
        Ok(())
    }

    async fn put_large(&self, client: &Client, place: &str, source: &Source) -> Result<(), Fault> {
        let begun = client
            .create_multipart_upload()
            .bucket(&self.config.bucket)
            .key(place)
            .send()
            .await
            .map_err(fault)?;
        let upload = begun.upload_id.unwrap_or_default();
        source.meter().alive();
        let done = self.put_parts(client, place, &upload, source).await;
        if done.is_err() {
            let abort = self.abort(client, place, &upload);
            if let Err(error) = tokio::time::timeout(ABORT_DEADLINE, abort).await {
                tracing::debug!(%error, "the parts of a failed upload stay until they are swept");
            }
        }
        done
    }

    async fn abort(&self, client: &Client, place: &str, upload: &str) -> Result<(), Fault> {
        let abort = client.abort_multipart_upload();
        let abort = abort.bucket(&self.config.bucket).key(place);
        match abort.upload_id(upload).send().await.map_err(fault) {
            Ok(_) | Err(Fault::Missing) => Ok(()),
            Err(other) => Err(other),
        }
    }
}

/// A part of the source that the SDK can send more than once.
fn stream(source: &Source, from: u64, len: u64) -> ByteStream {
    let source = source.clone();
    let body = move || SdkBody::from_body_1_x(Body::from(source.part(from, len)));
    ByteStream::new(SdkBody::retryable(body))
}

fn signed(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn unsigned(len: Option<i64>) -> Option<u64> {
    len.and_then(|len| u64::try_from(len).ok())
}

#[async_trait]
impl Backend for Bucket {
    fn name(&self) -> String {
        let Self { config, prefix, .. } = self;
        let at = match &*config.endpoint {
            "" => "Amazon",
            endpoint => endpoint,
        };
        format!("S3 bucket {}/{prefix} at {at}", config.bucket)
    }

    async fn put(&self, key: &Key, source: &Source) -> Result<(), Fault> {
        let (client, place) = (self.client().await, self.place(key));
        source.meter().alive();
        if source.len() > IN_ONE_REQUEST {
            return self.put_large(client, &place, source).await;
        }
        client
            .put_object()
            .bucket(&self.config.bucket)
            .key(place)
            .content_length(signed(source.len()))
            .body(stream(source, 0, source.len()))
            .send()
            .await
            .map_err(fault)?;
        Ok(())
    }

    async fn duplicate(&self, from: &Key, to: &Key, meter: &Meter) -> Result<bool, Fault> {
        let client = self.client().await;
        let place = self.place(from);
        let object = client.head_object().bucket(&self.config.bucket);
        let object = object.key(&place).send().await.map_err(fault)?;
        meter.alive();
        if unsigned(object.content_length).is_none_or(|len| len > MOST_IN_A_COPY) {
            return Ok(false);
        }
        let source = format!("{}/{place}", self.config.bucket);
        client
            .copy_object()
            .copy_source(utf8_percent_encode(&source, PLAIN).to_string())
            .bucket(&self.config.bucket)
            .key(self.place(to))
            .send()
            .await
            .map_err(fault)?;
        Ok(true)
    }

    async fn get(&self, key: &Key, sink: &mut Sink) -> Result<(), Fault> {
        let client = self.client().await;
        let object = client.get_object().bucket(&self.config.bucket);
        let object = object.key(self.place(key)).send().await.map_err(fault)?;
        if let Some(len) = unsigned(object.content_length) {
            sink.expect(len);
        }
        let mut body = object.body;
        while let Some(piece) = body.next().await {
            sink.write(&piece.map_err(Fault::passing)?).await?;
        }
        Ok(())
    }

    async fn list(&self, meter: &Meter) -> Result<Vec<Entry>, Fault> {
        let client = self.client().await;
        let mut entries = Vec::new();
        let mut after = None;
        loop {
            let page = client
                .list_objects_v2()
                .bucket(&self.config.bucket)
                .prefix(&self.prefix)
                .delimiter("/")
                .set_continuation_token(after)
                .send()
                .await
                .map_err(fault)?;
            meter.alive();
            entries.extend(page.contents().iter().filter_map(|object| {
                let name = object.key()?.strip_prefix(&self.prefix)?;
                Some(Entry {
                    key: Key::new(name).ok()?,
                    size: unsigned(object.size)?,
                    modified: object.last_modified.and_then(|time| time.try_into().ok()),
                })
            }));
            match page.next_continuation_token {
                Some(next) if page.is_truncated == Some(true) => after = Some(next),
                _ => return Ok(entries),
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), Fault> {
        let delete = self.client().await.delete_object();
        let delete = delete.bucket(&self.config.bucket).key(self.place(key));
        delete.send().await.map_err(fault)?;
        Ok(())
    }

    async fn sweep(&self, before: SystemTime, meter: &Meter) -> Result<usize, Fault> {
        let client = self.client().await;
        let mut count = 0;
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let asked = client
                .list_multipart_uploads()
                .bucket(&self.config.bucket)
                .prefix(&self.prefix)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await;
            let page = match asked {
                Ok(page) => page,
                // Then the server's own rules remove them.
                Err(error) if error.code() == Some("NotImplemented") => return Ok(count),
                Err(error) => return Err(fault(error)),
            };
            meter.alive();
            for upload in page.uploads() {
                let (Some(place), Some(id), Some(begun)) =
                    (upload.key(), upload.upload_id(), upload.initiated)
                else {
                    continue;
                };
                let ours = place
                    .strip_prefix(&self.prefix)
                    .is_some_and(|name| Key::new(name).is_ok());
                if ours && SystemTime::try_from(begun).is_ok_and(|begun| begun < before) {
                    self.abort(client, place, id).await?;
                    meter.alive();
                    count += 1;
                }
            }
            if page.is_truncated != Some(true) {
                return Ok(count);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }
}
