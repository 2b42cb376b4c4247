//! Fetches what a plan names: bases, with every byte checked (I4), and deltas as they are. Deltas
//! are checked where they are decoded.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::batch::{DeltaId, DeltaLocation};
use super::local::LocalFiles;
use super::plan::SubtaskPlan;
use super::reads::{Read, coalesce, part_of};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{BaseRef, Origin};
use crate::materialize::{BaseFile, BaseIndex, FileId, FileLocation, blocking, run_all};
use crate::remote::{ObjectName, Remote};
use crate::table;

/// A subtask whose base files lie in their directories.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) plan: SubtaskPlan,
    /// Where the table is to be.
    pub(super) dir: PathBuf,
    /// One for each of the plan's sources.
    pub(super) sources: Vec<FetchedSource>,
}

#[derive(Debug)]
pub(super) struct FetchedSource {
    pub(super) base: Option<BaseIndex>,
    /// Where the base's files are: the table's own directory, or one beside it.
    pub(super) dir: PathBuf,
}

/// The cost of a restore so far.
#[derive(Debug, Default)]
pub(super) struct Cost {
    pub(super) downloaded: AtomicU64,
    pub(super) reused: AtomicU64,
    pub(super) requests: AtomicU64,
}

/// Fetches what a restore needs, with a limited number of requests under way at a time.
pub(super) struct Fetcher<'a> {
    remote: &'a Remote,
    parallel: usize,
    requests: Semaphore,
    pub(super) cost: Cost,
    /// Contents that were taken from the local disk. The store's copies of them were not read.
    unread: Mutex<HashSet<FileId>>,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(remote: &'a Remote, parallel: usize) -> Self {
        let parallel = parallel.max(1);
        let (requests, cost, unread) = (Semaphore::new(parallel), Cost::default(), Mutex::default());
        Self { remote, parallel, requests, cost, unread }
    }

    /// Contents that were found on the local disk, and so were not read from the store.
    pub(super) fn unread(&self) -> HashSet<FileId> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the bases of all `plans`, each into its directory, which must be there and empty.
    pub(super) async fn bases(
        &self,
        plans: Vec<(SubtaskPlan, PathBuf)>,
        local: &Arc<LocalFiles>,
    ) -> Result<Vec<Fetched>> {
        let mut parts = Vec::new();
        for (plan, (wanted, _)) in plans.iter().enumerate() {
            for (source, wanted) in wanted.sources.iter().enumerate() {
                if let Some(base) = &wanted.base {
                    let range = part_of(&base.object, base.offset, base.length)?;
                    parts.push((base.object.clone(), range, (plan, source)));
                }
            }
        }
        let indexes = self.read(parts).await?;
        let mut fetched: Vec<_> = plans.into_iter().map(|(plan, dir)| Fetched::empty(plan, dir)).collect();
        for ((plan, source), bytes) in indexes {
            fetched.get_mut(plan).ok_or_else(astray)?.place(source, &bytes)?;
        }

        // A file that several subtasks take over from one old subtask is fetched once.
        let mut files = BTreeMap::<(&ObjectName, FileId), Vec<(PathBuf, &BaseFile)>>::new();
        let mut embedded = Vec::new();
        for source in fetched.iter().flat_map(|fetched| &fetched.sources) {
            for file in source.base.iter().flat_map(|base| &base.files) {
                let target = source.dir.join(&file.name);
                match &file.location {
                    FileLocation::Object(object) => {
                        files.entry((object, file.id)).or_default().push((target, file));
                    }
                    FileLocation::Embedded(content) => embedded.push((target, content.clone())),
                }
            }
        }
        // Before anything is written, because the disk may be full of files that are no longer
        // needed.
        let (there, sizes) = (Arc::clone(local), files.keys().map(|(_, id)| id.size).collect());
        let make_room = move || {
            there.keep_only(&sizes);
            Ok(())
        };
        blocking(make_room).await?;
        blocking(move || embedded.into_iter().try_for_each(|(target, content)| write(&target, &content)))
            .await?;
        let mut files: Vec<_> = files.into_iter().collect();
        // The largest first, so that they don't come last and alone.
        files.sort_by_key(|((_, id), _)| std::cmp::Reverse(id.size));
        let work: Vec<_> =
            files.into_iter().map(|((object, _), targets)| self.file(object, targets, local)).collect();
        run_all(work, self.parallel).await?;
        Ok(fetched)
    }

    /// Fetches the deltas of a batch, in the order of their ids. They are not checked yet.
    pub(super) async fn deltas(&self, batch: Vec<DeltaLocation>) -> Result<Vec<(DeltaId, Bytes)>> {
        let mut deltas = self.read(batch).await?;
        deltas.sort_by_key(|(id, _)| *id);
        Ok(deltas)
    }

    /// Reads parts of objects, in no particular order. Parts that lie side by side take one request.
    async fn read<T>(&self, parts: Vec<(ObjectName, Range<u64>, T)>) -> Result<Vec<(T, Bytes)>> {
        let reads: Vec<_> = coalesce(parts).into_iter().map(|read| self.read_parts(read)).collect();
        Ok(run_all(reads, self.parallel).await?.into_iter().flatten().collect())
    }

    async fn read_parts<T>(&self, read: Read<T>) -> Result<Vec<(T, Bytes)>> {
        let _request = self.request().await?;
        let start = read.range.start;
        let bytes = self.remote.get_range(&read.object, read.range).await?;
        self.cost.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let part = |(range, tag): (Range<u64>, T)| {
            let at = |offset: u64| usize::try_from(offset - start).ok().filter(|at| *at <= bytes.len());
            let slice = at(range.start).zip(at(range.end)).map(|(from, to)| bytes.slice(from..to));
            slice
                .map(|slice| (tag, slice))
                .ok_or_else(|| Error::corrupt("the object is cut short").object(&read.object))
        };
        read.parts.into_iter().map(part).collect()
    }

    async fn request(&self) -> Result<SemaphorePermit<'_>> {
        let permit = self.requests.acquire().await;
        self.cost.requests.fetch_add(1, Ordering::Relaxed);
        permit.map_err(|closed| Error::internal("a restore's requests were stopped").source(closed))
    }

    /// Brings one object's content to all `targets`: from an earlier instance's file, or by a
    /// download.
    async fn file(
        &self,
        object: &ObjectName,
        targets: Vec<(PathBuf, &BaseFile)>,
        local: &Arc<LocalFiles>,
    ) -> Result<()> {
        let mut targets = targets.into_iter();
        let Some((target, file)) = targets.next() else { return Ok(()) };
        let found = {
            let (local, file, target) = (Arc::clone(local), file.clone(), target.clone());
            blocking(move || local.take_over(&file, &target)).await?
        };
        if found {
            self.cost.reused.fetch_add(file.id.size, Ordering::Relaxed);
            self.unread.lock().unwrap_or_else(PoisonError::into_inner).insert(file.id);
        } else {
            let _request = self.request().await?;
            let (size, hash) = self.remote.get_to_file(object, None, &target).await?;
            self.cost.downloaded.fetch_add(size, Ordering::Relaxed);
            if (FileId { size, hash: *hash.as_bytes() }) != file.id {
                let message = if size == file.id.size {
                    format!("the content of {} does not match its checksum", file.name)
                } else {
                    format!("{} has {size} bytes where {} are expected", file.name, file.id.size)
                };
                return Err(Error::corrupt(message).object(object));
            }
        }
        let others: Vec<_> = targets.map(|(other, _)| other).collect();
        blocking(move || others.iter().try_for_each(|other| link(&target, other))).await
    }
}

/// Where the files of sources are, one directory each, that are brought into the table in `dir`.
pub(super) fn sources_beside(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push("-sources");
    dir.with_file_name(name)
}

fn write(target: &Path, content: &[u8]) -> Result<()> {
    let dir = target.parent().unwrap_or(target);
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(target, content))
        .map_err(|error| Error::disk("write a file of the base", target, error))
}

impl Fetched {
    fn empty(plan: SubtaskPlan, dir: PathBuf) -> Self {
        let host = plan.host();
        let empty = |index| FetchedSource {
            base: None,
            dir: if Some(index) == host { dir.clone() } else { sources_beside(&dir).join(index.to_string()) },
        };
        let sources = (0..plan.sources.len()).map(empty).collect();
        Self { plan, dir, sources }
    }

    /// Checks the index of a base and puts it where it belongs.
    fn place(&mut self, source: usize, index: &Bytes) -> Result<()> {
        let wanted = self.plan.sources.get(source).ok_or_else(astray)?;
        let base = wanted.base.as_ref().ok_or_else(astray)?;
        let index = check_base(wanted, base, index)?;
        self.sources.get_mut(source).ok_or_else(astray)?.base = Some(index);
        Ok(())
    }
}

fn astray() -> Error {
    Error::internal("a restore read something that its plan does not have")
}

fn check_base(source: &Origin, base: &BaseRef, bytes: &Bytes) -> Result<BaseIndex> {
    if crc32c::crc32c(bytes) != base.crc32c {
        return Err(Error::corrupt("the index of a base does not match its checksum").object(&base.object));
    }
    let index = BaseIndex::decode(bytes).map_err(|error| error.object(&base.object))?;
    let reachable: HashSet<_> = base.files.iter().collect();
    let whose = source.segments.first();
    let same = whose.is_some_and(|first| index.subtask == first.subtask && index.range == first.range)
        && index.seq == base.seq;
    // A file that the reference does not name would not be safe from garbage collection (I3).
    if !same || !index.objects().iter().all(|object| reachable.contains(object)) {
        let message = format!(
            "the index is of subtask {} up to delta {} and does not fit the manifest's reference",
            index.subtask, index.seq
        );
        return Err(Error::corrupt(message).object(&base.object));
    }
    if index.merge_operator != table::OPERATOR_NAME {
        let message = format!(
            "the base was written with the merge operator {:?}; this build has {:?}",
            index.merge_operator,
            table::OPERATOR_NAME
        );
        return Err(Error::new(ErrorKind::Incompatible, message).object(&base.object));
    }
    Ok(index)
}

/// Links a file, or copies it to another disk. Tables may share an SST file, because RocksDB never changes one.
fn link(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .map_err(|error| Error::disk("link a file of the base", to, error))
}
