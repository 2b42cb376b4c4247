//! Creating and deleting objects.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Error, ErrorKind, Result};

use super::error::{CREATE, Failure, Verdict};
use super::{ObjectName, Remote};

/// What is known after one attempt to create an object.
#[derive(Debug, Clone)]
#[expect(clippy::enum_variant_names, reason = "the verdict is best called what it says")]
pub(crate) enum Created {
    /// It did not exist, and now holds our bytes.
    Created,
    /// An object of this name exists. It may be our own, from an earlier attempt.
    Exists,
    /// No verdict: the request may have been applied, or may be applied later.
    Doubt(Error),
}

/// The proof that must be presented before manifests and data are deleted: no checkpoint needs them
/// now or ever will. Only the garbage collector's `Confirmed` provides it.
pub(crate) trait NeededByNothing {}

/// Objects that the store will not delete.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) count: usize,
    pub(crate) example: ObjectName,
    pub(crate) error: Error,
}

/// The progress of a deletion.
struct Deletion {
    count_left: usize,
    left: Vec<ObjectName>,
    /// None: the objects that are left did not exist.
    failure: Option<Failure>,
}

impl Remote {
    /// Tries once to create `name`. Never overwrites.
    ///
    /// Ends in doubt as soon as other requests show that this one hangs. The caller then reads what
    /// is there, which is faster than waiting.
    pub(crate) async fn create(&self, name: &ObjectName, payload: Bytes) -> Created {
        let bytes = payload.len() as u64;
        let limit = self.limit_by_pace(bytes, self.limit(bytes));
        match self.create_within(name, payload, limit).await {
            Ok(()) => Created::Created,
            Err(failure) if failure.verdict == Verdict::Exists => Created::Exists,
            Err(failure) => Created::Doubt(failure.error),
        }
    }

    pub(super) async fn try_create(
        &self,
        name: &ObjectName,
        payload: Bytes,
        sharers: u32,
    ) -> Result<(), Failure> {
        let limit = self.limit((payload.len() as u64).saturating_mul(u64::from(sharers)));
        self.create_within(name, payload, limit).await
    }

    async fn create_within(&self, name: &ObjectName, payload: Bytes, limit: Duration) -> Result<(), Failure> {
        let bytes = payload.len();
        self.counters.put(bytes);
        let path = self.path(name);
        let options = PutOptions::from(PutMode::Create);
        let put = self.store.put_opts(&path, PutPayload::from_bytes(payload), options);
        match self.timed(CREATE, name, bytes as u64, limit, put).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.verdict == Verdict::Absent => Err(Failure {
                error: failure.error.advise("check that the bucket or container exists"),
                // S3 answers 404 as well if a create meets a deletion of the same name.
                verdict: Verdict::Passing,
            }),
            Err(failure) => Err(failure),
        }
    }

    /// As [`Remote::try_create`], for a data object. If it takes much longer than other requests,
    /// it is sent a second time over another connection, and the first answer counts. Both requests
    /// have the same bytes, and the name is never used for other bytes, so it does not matter which
    /// of them the store applies, or whether it applies both.
    async fn create_hedged(&self, name: &ObjectName, payload: &Bytes, sharers: u32) -> Result<(), Failure> {
        let bytes = payload.len() as u64;
        let (begun, start) = (self.pace.begin(bytes), self.env.clock.monotonic());
        let limit = self.limit(bytes.saturating_mul(u64::from(sharers)));
        let first = pin!(self.try_create(name, payload.clone(), sharers));
        let overdue = pin!(self.overdue(&begun, start, || self.hedge_after(bytes), limit));
        let first = match select(first, overdue).await {
            Either::Left((done, _)) => return done,
            Either::Right(((), first)) => first,
        };
        // Few at a time. Where everything is slow, second requests would only make it slower.
        let Ok(_room) = self.hedges.try_acquire() else { return first.await };
        tracing::debug!(object = %name, "a request takes much longer than others, and is sent a second time");
        self.counters.retry();
        let second = pin!(self.try_create(name, payload.clone(), sharers));
        match select(first, second).await {
            // A failure of one request says nothing about the other, which may still succeed.
            Either::Left((Err(failure), second)) if failure.is_failure() => second.await,
            Either::Right((Err(failure), first)) if failure.is_failure() => first.await,
            Either::Left((done, _)) | Either::Right((done, _)) => done,
        }
    }

    /// Creates a data object, trying again after failures. Its name belongs to this store instance
    /// alone. An object found there after a doubt can therefore only be from an earlier try; it
    /// counts as success only if it holds the same bytes.
    pub(crate) async fn put_data(&self, name: &ObjectName, payload: Bytes) -> Result<()> {
        self.put_data_shared(name, payload, 1).await
    }

    /// As [`Remote::put_data`], with a deadline for a shared link. Up to `sharers` transfers,
    /// including this one, may share one link that runs at the slowest rate we tolerate. In the
    /// worst case each gets 1/`sharers` of it, so the deadline is `sharers` times what this payload
    /// needs alone.
    pub(crate) async fn put_data_shared(
        &self,
        name: &ObjectName,
        payload: Bytes,
        sharers: u32,
    ) -> Result<()> {
        let mut attempts = self.attempts();
        loop {
            let failure = match self.create_hedged(name, &payload, sharers).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.verdict == Verdict::Exists => match self.try_get(name, None).await {
                    Ok(there) if there == payload => return Ok(()),
                    Ok(there) => return Err(not_ours(name, &there, &payload)),
                    // Two of our own creates met (409), and neither was applied.
                    Err(gone) if gone.verdict == Verdict::Absent => Failure::passing(Error::new(
                        ErrorKind::StoreUnavailable,
                        format!(
                            "cannot create the object {name}: the store answers that it exists, and that it does not"
                        ),
                    )),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            attempts.again(failure).await?;
        }
    }

    /// Has the store copy `from`, an object of another job in the same store, to `name`. The name
    /// belongs to this store instance alone, because not every store can copy on condition that the
    /// target is absent. Checks that `size` bytes have arrived.
    pub(crate) async fn copy_data(
        &self,
        other_job: &Self,
        from: &ObjectName,
        name: &ObjectName,
        size: u64,
    ) -> Result<()> {
        let mut attempts = self.attempts();
        loop {
            match self.try_copy(&other_job.path(from), name, size).await {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.again(failure).await?,
            }
        }
    }

    async fn try_copy(&self, from: &Path, name: &ObjectName, size: u64) -> Result<(), Failure> {
        self.counters.put(0);
        let path = self.path(name);
        let copy = self.store.copy(from, &path);
        self.request("copy the object", name, self.limit(size), copy).await?;
        match self.try_head(name).await? {
            there if there == size => Ok(()),
            there => {
                let message = format!("a copy of {size} bytes has {there}");
                Err(Failure::lasting(Error::corrupt(message).object(name)))
            }
        }
    }

    /// Deletes objects that the garbage collector has found unneeded. If the store refuses for
    /// good, that is an answer and no error: the store may be set up that way.
    pub(crate) async fn delete_collected(
        &self,
        _proof: &impl NeededByNothing,
        names: Vec<ObjectName>,
    ) -> Result<Option<Refused>> {
        let deletion = self.delete_all(names).await;
        match (deletion.failure, deletion.left.into_iter().min()) {
            (Some(failure), Some(example)) if failure.verdict == Verdict::Lasting => {
                let error = failure.error;
                Ok(Some(Refused { count: deletion.count_left, example, error }))
            }
            (Some(failure), _) => Err(failure.error),
            (None, _) => Ok(None),
        }
    }

    /// Deletes pins, savepoints and probes, which their makers may remove. Their names are never
    /// used again, so a late request hits nothing else.
    ///
    /// # Errors
    /// `Internal` if anything else is among them; nothing is deleted then.
    pub(crate) async fn withdraw(&self, names: Vec<ObjectName>) -> Result<()> {
        let state = |name: &&ObjectName| matches!(name, ObjectName::Manifest(_) | ObjectName::Data { .. });
        if let Some(name) = names.iter().find(state) {
            return Err(Error::internal("only the garbage collector deletes this").object(name));
        }
        self.delete_any(names).await.map(drop)
    }

    #[cfg(test)]
    pub(crate) async fn delete(&self, names: Vec<ObjectName>) -> Result<usize> {
        self.delete_any(names).await
    }

    /// Deletes objects, and returns how many the store says it deleted (some stores count absent
    /// ones, too). One that does not exist is no error.
    async fn delete_any(&self, names: Vec<ObjectName>) -> Result<usize> {
        let all = names.len();
        let deletion = self.delete_all(names).await;
        deletion.failure.map_or(Ok(all - deletion.count_left), |failure| Err(failure.error))
    }

    async fn delete_all(&self, names: Vec<ObjectName>) -> Deletion {
        // A store may delete some of a bulk request and fail the rest, so only what is left is asked for again.
        let mut left: HashMap<Path, ObjectName> =
            names.into_iter().map(|name| (self.path(&name), name)).collect();
        let mut attempts = self.attempts();
        let mut failure = None;
        while !left.is_empty() {
            let Err(failed) = self.try_delete(&mut left).await else { break };
            let verdict = failed.verdict;
            if let Err(error) = attempts.again(failed).await {
                failure = Some(Failure { verdict, error });
                break;
            }
        }
        Deletion { count_left: left.len(), left: left.into_values().collect(), failure }
    }

    /// Removes the deleted objects from `left`. `Ok` says that the rest did not exist.
    async fn try_delete(&self, left: &mut HashMap<Path, ObjectName>) -> Result<(), Failure> {
        self.counters.delete(left.len());
        let mut paths: Vec<Path> = left.keys().cloned().collect();
        // A fixed order, so that runs with a seed can be repeated.
        paths.sort_unstable();
        let mut answers = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        let mut failed = None;
        loop {
            let next = async { answers.next().await.transpose() };
            match self.request("delete objects", self.root.as_ref(), self.timeout, next).await {
                Ok(Some(path)) => {
                    left.remove(&path);
                }
                Ok(None) => return failed.map_or(Ok(()), Err),
                // The error does not name its object. If all others succeed, the rest was absent.
                Err(failure) if failure.verdict == Verdict::Absent => {}
                // S3 answers a bulk request with one error for each object.
                Err(failure) if failure.error.to_string().contains("AccessDenied") => {
                    failed = Some(Failure::lasting(failure.error));
                }
                // The stream may be stuck, so nothing more is read from it.
                Err(failure) if failure.error.kind() == ErrorKind::StoreUnavailable => return Err(failure),
                Err(failure) => failed = Some(failure),
            }
        }
    }

    /// The size of an object, without reading it.
    pub(super) async fn try_head(&self, name: &ObjectName) -> Result<u64, Failure> {
        self.counters.get();
        let path = self.path(name);
        let meta = self.request("look up the object", name, self.timeout, self.store.head(&path)).await?;
        Ok(meta.size)
    }
}

fn not_ours(name: &ObjectName, there: &Bytes, payload: &Bytes) -> Error {
    Error::corrupt(format!(
        "an object of this name exists with other content: {} bytes with CRC32C {:08x}, not {} bytes with {:08x}",
        there.len(),
        crc32c::crc32c(there),
        payload.len(),
        crc32c::crc32c(payload),
    ))
    .object(name)
    .advise("another process writes below this prefix; give each job a prefix of its own")
}
