//! Uploads of local files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use object_store::{MultipartUpload, PutMultipartOptions, PutPayload};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

use super::error::Failure;
use super::{BaseTraffic, ObjectName, Remote};

/// Size of a part, and the largest file that goes in one request. S3 wants parts of 5 MiB or more,
/// and takes at most 10,000 of them: enough for 78 GiB.
const PART: u64 = 8 * 1024 * 1024;
/// What room for uploads is counted in.
const ROOM_UNIT: u64 = 64 * 1024;

/// Room for so many bytes of files on their way at a time, and never for less than one part.
pub(super) fn room(bytes: u64) -> Arc<Semaphore> {
    let units = usize::try_from(bytes.max(PART) / ROOM_UNIT).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
}

impl Remote {
    /// Uploads `length` bytes of `file`, which must not change meanwhile. Small files are created
    /// like any data object. Larger ones go in parts of 8 MiB, up to `parallel` of them at a time,
    /// and appear at once when the last part has arrived. `traffic` is asked before each part. Up
    /// to `sharers` such transfers, including this upload's own parts, may share a link, as in
    /// [`Remote::put_data_shared`]. Returns the BLAKE3 hash of the sent bytes.
    pub(crate) async fn put_file(
        &self,
        name: &ObjectName,
        file: &Path,
        length: u64,
        traffic: Option<&BaseTraffic>,
        parallel: usize,
        sharers: u32,
    ) -> Result<blake3::Hash> {
        if length <= PART {
            let source = FileReader::open(file, length).await?;
            let (source, bytes, _room) = source.read(length, traffic, &self.upload_room).await?;
            let put = self.put_data_shared(name, bytes, sharers);
            return timed(traffic, put).await.map(|()| source.hash.finalize());
        }
        let mut attempts = self.attempts();
        loop {
            match self.try_put_parts(name, file, length, traffic, parallel, sharers).await {
                Ok(hash) => return Ok(hash),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    async fn try_put_parts(
        &self,
        name: &ObjectName,
        file: &Path,
        length: u64,
        traffic: Option<&BaseTraffic>,
        parallel: usize,
        sharers: u32,
    ) -> Result<blake3::Hash, Failure> {
        let source = FileReader::open(file, length).await.map_err(Failure::lasting)?;
        self.counters.put(0);
        let path = self.path(name);
        let begin = self.store.put_multipart_opts(&path, self.multipart_options());
        let upload = self.request("begin the upload of", name, self.timeout, begin).await?;
        let mut unfinished = Unfinished { remote: self, upload: Some(upload) };
        let Some(upload) = unfinished.upload.as_deref_mut() else {
            return Err(Failure::lasting(Error::internal("an upload was lost")));
        };
        let sent = self.put_parts(name, upload, source, traffic, parallel, sharers).await;
        let done = match sent {
            Ok(hash) => {
                self.counters.put(0);
                let limit = self.limit(length);
                self.request("complete the upload of", name, limit, upload.complete()).await.map(|_| hash)
            }
            Err(failure) => Err(failure),
        };
        if done.is_err() {
            // Parts of an unfinished upload cost money in some stores. If this abort fails as well,
            // the store's own rule for unfinished uploads must remove them.
            self.counters.put(0);
            let _ = self.request("abort the upload of", name, self.timeout, upload.abort()).await;
        }
        unfinished.upload = None;
        done
    }

    async fn put_parts(
        &self,
        name: &ObjectName,
        upload: &mut dyn MultipartUpload,
        mut source: FileReader,
        traffic: Option<&BaseTraffic>,
        parallel: usize,
        sharers: u32,
    ) -> Result<blake3::Hash, Failure> {
        let mut sending = FuturesUnordered::new();
        while source.left > 0 {
            let size = source.left.min(PART);
            let reading = source.read(size, traffic, &self.upload_room);
            tokio::pin!(reading);
            // Earlier parts are on their way while the next one is read and waits for its turn.
            let (rest, bytes, room) = loop {
                tokio::select! {
                    biased;
                    Some(sent) = sending.next() => sent?,
                    read = &mut reading => break read.map_err(Failure::lasting)?,
                }
            };
            source = rest;
            self.counters.put(bytes.len());
            let part = upload.put_part(PutPayload::from_bytes(bytes));
            let limit = self.limit(size.saturating_mul(sharers.into()));
            let request = self.unless_it_hangs("upload a part of", name, size, limit, part);
            sending.push(async move {
                let sent = timed(traffic, request).await;
                drop(room);
                sent
            });
            while sending.len() >= parallel.max(1)
                && let Some(sent) = sending.next().await
            {
                sent?;
            }
        }
        while let Some(sent) = sending.next().await {
            sent?;
        }
        Ok(source.hash.finalize())
    }

    /// Repeats single parts within the store's client. It cannot be done from outside, and starting
    /// over with a large file because of one part is expensive.
    fn multipart_options(&self) -> PutMultipartOptions {
        let options = PutMultipartOptions::default();
        #[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
        let options = options.with_retry_policy(std::sync::Arc::new(parts::PartRetry {
            policy: self.retry_policy(),
            env: self.env().clone(),
        }));
        options
    }
}

/// A multipart upload that is neither completed nor aborted. If it is dropped half-way, because its
/// caller has given up, it is aborted in the background.
struct Unfinished<'a> {
    remote: &'a Remote,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // Without a runtime the process is going down.
        let (Some(mut upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) else { return };
        self.remote.counters.put(0);
        let timeout = self.remote.timeout;
        runtime.spawn(async move {
            // As above: if it fails, the store's own rules must do.
            let _ = tokio::time::timeout(timeout, upload.abort()).await;
        });
    }
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
mod parts {
    use std::future::Future;
    use std::pin::Pin;

    use object_store::retry::{RetryContext, RetryPolicy};

    use crate::env::Env;

    /// Our own rules for retries, in the store's terms.
    #[derive(Debug)]
    pub(super) struct PartRetry {
        pub(super) policy: super::super::RetryPolicy,
        pub(super) env: Env,
    }

    impl RetryPolicy for PartRetry {
        // What `async_trait` makes of `async fn retry(&self, context) -> bool`.
        fn retry<'a, 'b>(&'a self, context: RetryContext) -> Pin<Box<dyn Future<Output = bool> + Send + 'b>>
        where
            'a: 'b,
        {
            Box::pin(async move {
                let failed = u32::try_from(context.attempt).unwrap_or(u32::MAX);
                if failed >= self.policy.attempts {
                    return false;
                }
                tokio::time::sleep(self.policy.pause(failed, &self.env)).await;
                true
            })
        }
    }
}

/// A file that is read from front to back.
struct FileReader {
    file: File,
    path: Box<Path>,
    left: u64,
    /// The hash of all bytes that were read so far.
    hash: Box<blake3::Hasher>,
}

impl FileReader {
    async fn open(path: &Path, length: u64) -> Result<Self> {
        let path: Box<Path> = path.into();
        blocking(move || {
            let mut file = File::open(&path).map_err(|error| Error::disk("open the file", &path, error))?;
            let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size));
            let size = size.map_err(|error| Error::disk("read the file", &path, error))?;
            if size < length {
                let text = format!("the file has {size} bytes, not {length}");
                return Err(Error::new(ErrorKind::Disk, text).object(path.display()));
            }
            Ok(Self { file, path, left: length, hash: Box::default() })
        })
        .await
    }

    /// The next `size` bytes, when the traffic lets them pass and there is room for them. They take
    /// the room until the permit is dropped.
    async fn read(
        mut self,
        size: u64,
        traffic: Option<&BaseTraffic>,
        room: &Arc<Semaphore>,
    ) -> Result<(Self, Bytes, OwnedSemaphorePermit)> {
        if let Some(traffic) = traffic {
            traffic.pass(size).await;
        }
        let units = u32::try_from(size.div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(room).acquire_many_owned(units).await;
        let room = room.map_err(|closed| Error::internal("an upload was stopped").source(closed))?;
        blocking(move || {
            let mut bytes =
                vec![0; usize::try_from(size).map_err(|_| Error::internal("a part is too large"))?];
            self.file
                .read_exact(&mut bytes)
                .map_err(|error| Error::disk("read the file", &self.path, error))?;
            self.left -= size;
            self.hash.update(&bytes);
            Ok((self, bytes.into(), room))
        })
        .await
    }
}

/// Tells the traffic how long the upload of a part takes.
async fn timed<T>(traffic: Option<&BaseTraffic>, upload: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let sent = upload.await;
    if let Some(traffic) = traffic {
        traffic.took(start.elapsed());
    }
    sent
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("a task that reads a file ended early").source(error)),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn i6_files_on_their_way_take_no_more_memory_than_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 3 * PART as usize]).unwrap();
        let room = room(2 * PART);
        let mut held = Vec::new();
        for _ in 0..2 {
            let source = FileReader::open(&path, 3 * PART).await.unwrap();
            held.push(source.read(PART, None, &room).await.unwrap());
        }
        let source = FileReader::open(&path, 3 * PART).await.unwrap();
        let mut third = Box::pin(source.read(1, None, &room));
        assert!(third.as_mut().now_or_never().is_none(), "there is no room for it");
        held.pop();
        assert_eq!(third.await.unwrap().1.len(), 1);
    }

    #[tokio::test]
    async fn a_part_always_finds_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; PART as usize]).unwrap();
        let source = FileReader::open(&path, PART).await.unwrap();
        assert_eq!(source.read(PART, None, &room(0)).await.unwrap().1.len() as u64, PART);
    }
}
