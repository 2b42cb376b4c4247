//! Objects that are too large for memory, into local files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use object_store::{GetResult, GetResultPayload};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::error::{Error, Result};

use super::error::{Failure, Verdict};
use super::read::{READ, missing};
use super::{ObjectName, Remote};

/// Bytes that are gathered before they go to the disk.
const BATCH: usize = 1024 * 1024;

impl Remote {
    /// Streams an object, or a part of it, into the file `path`, which is created or replaced.
    /// Returns the length and the BLAKE3 hash of what was written; the file is not synced. On failure
    /// no file is left.
    pub(crate) async fn get_to_file(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        path: &Path,
    ) -> Result<(u64, blake3::Hash)> {
        let mut attempts = self.attempts();
        loop {
            let failure = match self.try_get_to_file(name, range.clone(), path).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            // Nothing useful is in it, and it may never have been created.
            let _ = std::fs::remove_file(path);
            if failure.verdict == Verdict::Absent {
                return Err(missing(name));
            }
            attempts.again(failure).await?;
        }
    }

    async fn try_get_to_file(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        path: &Path,
    ) -> Result<(u64, blake3::Hash), Failure> {
        // Never an old file: a task of a download that was given up may still be writing to it, and
        // nobody would notice, because the hash is that of the bytes that came.
        let _ = std::fs::remove_file(path);
        let file = File::create_new(path).map_err(|error| disk("create the file", path, error))?;
        let mut sink = Sink { file, hasher: blake3::Hasher::new(), length: 0 };
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok((0, sink.hasher.finalize()));
        }
        let (result, wanted) = self.start_get(name, range).await?;
        let limit = self.limit(wanted);
        let copied = tokio::time::timeout(limit, self.copy(name, result, sink, path)).await;
        sink = match copied {
            Ok(sink) => sink?,
            Err(_elapsed) => {
                self.counters.failure();
                return Err(Failure::no_answer(READ, name, limit));
            }
        };
        self.counters.received(sink.length);
        if sink.length != wanted {
            self.counters.failure();
            return Err(Failure::cut_short(READ, name, sink.length, wanted));
        }
        Ok((sink.length, sink.hasher.finalize()))
    }

    async fn copy(
        &self,
        name: &ObjectName,
        result: GetResult,
        sink: Sink,
        path: &Path,
    ) -> Result<Sink, Failure> {
        let range = result.range.clone();
        match result.payload {
            // The generic stream would read a local file in pieces of 8 KiB, each on another thread.
            GetResultPayload::File(source, source_path) => {
                let copy = spawn_blocking(move || sink.copy_from(source, range)).await;
                match joined(copy)? {
                    Ok(sink) => Ok(sink),
                    Err((Side::Source, error)) => {
                        Err(Failure::passing(Error::disk("read the file of the store", &source_path, error)))
                    }
                    Err((Side::Target, error)) => Err(disk("write to the file", path, error)),
                }
            }
            GetResultPayload::Stream(mut stream) => {
                let mut idle = Some(sink);
                let mut writing: Option<JoinHandle<io::Result<Sink>>> = None;
                let mut batch = Vec::new();
                let mut batched = 0;
                loop {
                    let next = async { stream.next().await.transpose() };
                    // The whole body has its own limit; this one notices sooner that nothing comes.
                    let chunk = self.request(READ, name, self.timeout, next).await?;
                    let done = chunk.is_none();
                    if let Some(chunk) = chunk {
                        batched += chunk.len();
                        batch.push(chunk);
                    }
                    if !done && batched < BATCH {
                        continue;
                    }
                    // The disk writes one batch while the next one arrives.
                    let sink = match (idle.take(), writing.take()) {
                        (Some(sink), _) => sink,
                        (None, Some(write)) => {
                            joined(write.await)?.map_err(|error| disk("write to the file", path, error))?
                        }
                        (None, None) => return Err(Failure::lasting(Error::internal("the file is gone"))),
                    };
                    let full = std::mem::take(&mut batch);
                    batched = 0;
                    let write = spawn_blocking(move || sink.write(full));
                    if done {
                        return joined(write.await)?.map_err(|error| disk("write to the file", path, error));
                    }
                    writing = Some(write);
                }
            }
        }
    }
}

/// The local file, with what is known of it so far.
struct Sink {
    file: File,
    hasher: blake3::Hasher,
    length: u64,
}

/// Which of two files an error is about.
enum Side {
    Source,
    Target,
}

impl Sink {
    fn write(mut self, batch: Vec<Bytes>) -> io::Result<Self> {
        for chunk in batch {
            self.put(&chunk)?;
        }
        Ok(self)
    }

    fn put(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.hasher.update(chunk);
        self.length += chunk.len() as u64;
        Ok(())
    }

    fn copy_from(mut self, mut source: File, range: Range<u64>) -> Result<Self, (Side, io::Error)> {
        source.seek(SeekFrom::Start(range.start)).map_err(|error| (Side::Source, error))?;
        let mut source = source.take(range.end.saturating_sub(range.start));
        let mut buffer = vec![0; BATCH];
        loop {
            let got = match source.read(&mut buffer) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err((Side::Source, error)),
            };
            if got == 0 {
                return Ok(self);
            }
            self.put(buffer.get(..got).unwrap_or_default()).map_err(|error| (Side::Target, error))?;
        }
    }
}

fn disk(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::lasting(Error::disk(what, path, error))
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, Failure> {
    result.map_err(|error| {
        Failure::lasting(Error::internal("a task that accesses a file ended early").source(error))
    })
}
