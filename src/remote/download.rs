//! Downloads of objects that are too large for memory, into local files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Returns the length and the BLAKE3 hash of the written bytes; the file is not synced. A body
    /// that breaks off is requested again from that byte. On failure no file is left.
    pub(crate) async fn get_to_file(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        path: &Path,
    ) -> Result<(u64, blake3::Hash)> {
        let result = self.get_to_new_file(name, range, path).await;
        if result.is_err() {
            // Errors are ignored: the file may never have been created.
            let _ = std::fs::remove_file(path);
        }
        result
    }

    async fn get_to_new_file(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        path: &Path,
    ) -> Result<(u64, blake3::Hash)> {
        // Always a new file. A task of an abandoned download may still write to an old one, and
        // nothing would notice, because the hash covers the received bytes.
        let _ = std::fs::remove_file(path);
        let file = File::create_new(path).map_err(|source| Error::disk("create the file", path, source))?;
        let sink = Sink::shared(file);
        let start = range.as_ref().map_or(0, |range| range.start);
        // The first answer says how long the whole is.
        let mut whole = range.map(|range| range.end.saturating_sub(range.start));
        let mut attempts = self.attempts();
        let mut turn = next_turn(&sink).await?;
        loop {
            if whole == Some(turn.length) {
                return Ok((turn.length, lock(&sink).hasher.finalize()));
            }
            // The next request continues after the bytes that are there.
            let rest = whole.map(|whole| start + turn.length..start + whole);
            let received = self.receive(name, rest, &sink, turn, &mut whole, path).await;
            let mut next = next_turn(&sink).await?;
            self.counters.received(next.length.saturating_sub(turn.length));
            let failure = match received {
                Ok(()) if whole == Some(next.length) => None,
                Ok(()) => {
                    self.counters.failure();
                    Some(Failure::cut_short(READ, name, next.length, whole.unwrap_or_default()))
                }
                Err(failure) if failure.verdict == Verdict::Absent => return Err(missing(name)),
                Err(failure) => Some(failure),
            };
            let Some(failure) = failure else {
                turn = next;
                continue;
            };
            if whole.is_some_and(|whole| next.length > whole) {
                // A body longer than the object is not to be trusted at all: begin again.
                next = start_over(&sink, path).await?;
            } else if next.length > turn.length {
                attempts.moved();
            }
            attempts.again(failure).await?;
            turn = next;
        }
    }

    /// Requests `rest` of an object (None: all of it) and appends the body to `sink`. `whole` is
    /// the final length of the file, if it is known.
    async fn receive(
        &self,
        name: &ObjectName,
        rest: Option<Range<u64>>,
        sink: &Arc<Mutex<Sink>>,
        turn: Turn,
        whole: &mut Option<u64>,
        path: &Path,
    ) -> Result<(), Failure> {
        let (answer, coming) = self.start_get(name, rest).await?;
        whole.get_or_insert(coming);
        let limit = self.limit(coming);
        match tokio::time::timeout(limit, self.copy(name, answer, sink, turn, path)).await {
            Ok(copied) => copied,
            Err(_elapsed) => {
                self.counters.failure();
                Err(Failure::no_answer(READ, name, limit))
            }
        }
    }

    async fn copy(
        &self,
        name: &ObjectName,
        answer: GetResult,
        sink: &Arc<Mutex<Sink>>,
        turn: Turn,
        path: &Path,
    ) -> Result<(), Failure> {
        let range = answer.range.clone();
        let failed = |error| disk("write to the file", path, error);
        match answer.payload {
            // The generic stream would read a local file in pieces of 8 KiB, each on another
            // thread.
            GetResultPayload::File(source, source_path) => {
                let sink = Arc::clone(sink);
                let copy = spawn_blocking(move || copy_from(source, range, &sink, turn)).await;
                joined(copy)?.map_err(|(side, error)| match side {
                    Side::Source => {
                        Failure::passing(Error::disk("read the file of the store", &source_path, error))
                    }
                    Side::Target => failed(error),
                })
            }
            GetResultPayload::Stream(mut stream) => {
                let mut writing: Option<JoinHandle<io::Result<()>>> = None;
                let mut batch = Vec::new();
                let mut batched = 0;
                loop {
                    let next = async { stream.next().await.transpose() };
                    // The whole body has its own limit. This one notices sooner that no bytes
                    // arrive.
                    let chunk = self.request(READ, name, self.stall(), next).await;
                    // Bytes that came before a failure are kept.
                    let done = !matches!(chunk, Ok(Some(_)));
                    let failure = chunk.map(|chunk| {
                        batched += chunk.as_ref().map_or(0, Bytes::len);
                        batch.extend(chunk);
                    });
                    if !done && batched < BATCH {
                        continue;
                    }
                    // The disk writes one batch while the next one arrives.
                    if let Some(write) = writing.take() {
                        joined(write.await)?.map_err(failed)?;
                    }
                    let (sink, full) = (Arc::clone(sink), std::mem::take(&mut batch));
                    batched = 0;
                    let write = spawn_blocking(move || lock(&sink).write(turn, full));
                    if done {
                        joined(write.await)?.map_err(failed)?;
                        return failure;
                    }
                    writing = Some(write);
                }
            }
        }
    }
}

/// The local file, and the hash and length of what was written to it.
struct Sink {
    file: File,
    hasher: blake3::Hasher,
    length: u64,
    /// Number of the try that may write. A task of an earlier, abandoned try may still be running.
    turn: u64,
}

/// A try, and the length that the file had when it began.
#[derive(Clone, Copy)]
struct Turn {
    number: u64,
    length: u64,
}

/// Which of two files an error is about.
enum Side {
    Source,
    Target,
}

impl Sink {
    fn shared(file: File) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { file, hasher: blake3::Hasher::new(), length: 0, turn: 0 }))
    }

    fn next_turn(&mut self) -> Turn {
        self.turn += 1;
        Turn { number: self.turn, length: self.length }
    }

    fn start_over(&mut self) -> io::Result<Turn> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher.reset();
        self.length = 0;
        Ok(self.next_turn())
    }

    fn write(&mut self, turn: Turn, batch: Vec<Bytes>) -> io::Result<()> {
        batch.iter().try_for_each(|chunk| self.put(turn, chunk))
    }

    fn put(&mut self, turn: Turn, chunk: &[u8]) -> io::Result<()> {
        if turn.number != self.turn {
            return Err(io::Error::other("the download was given up"));
        }
        self.file.write_all(chunk)?;
        self.hasher.update(chunk);
        self.length += chunk.len() as u64;
        Ok(())
    }
}

fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    // A write that panicked has not counted its bytes, so the final hash will differ.
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a try after the current write of the one before has ended. Its later writes are refused.
async fn next_turn(sink: &Arc<Mutex<Sink>>) -> Result<Turn> {
    let sink = Arc::clone(sink);
    joined(spawn_blocking(move || lock(&sink).next_turn()).await).map_err(|failure| failure.error)
}

async fn start_over(sink: &Arc<Mutex<Sink>>, path: &Path) -> Result<Turn> {
    let sink = Arc::clone(sink);
    let turn =
        joined(spawn_blocking(move || lock(&sink).start_over()).await).map_err(|failure| failure.error)?;
    turn.map_err(|error| Error::disk("empty the file", path, error))
}

fn copy_from(
    mut source: File,
    range: Range<u64>,
    sink: &Mutex<Sink>,
    turn: Turn,
) -> Result<(), (Side, io::Error)> {
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
            return Ok(());
        }
        let bytes = buffer.get(..got).unwrap_or_default();
        lock(sink).put(turn, bytes).map_err(|error| (Side::Target, error))?;
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
