//! Brings everything that a plan names onto this machine, and checks every byte of it (I4).

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::local::LocalFiles;
use super::plan::{Read, SubtaskPlan, coalesce};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{BaseRef, DeltaRef, Origin};
use crate::materialize::{BaseFile, BaseIndex, FileId, Place, blocking, run_all};
use crate::remote::{ObjectName, Remote};
use crate::table;

/// A subtask whose base files lie in their directories and whose deltas are in memory.
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
    /// As in the plan, oldest first.
    pub(super) deltas: Vec<Bytes>,
}

/// What it took.
#[derive(Debug, Default)]
pub(super) struct Cost {
    pub(super) downloaded: AtomicU64,
    pub(super) reused: AtomicU64,
    pub(super) requests: AtomicU64,
}

/// What a part of an object is: which base or delta of which source of which plan.
#[derive(Debug, Clone, Copy)]
struct Tag {
    plan: usize,
    source: usize,
    /// None: the index of the base.
    delta: Option<usize>,
}

/// Fetches all `plans`, each into its directory, which must be there and empty.
pub(super) async fn fetch(
    remote: &Remote,
    plans: Vec<(SubtaskPlan, PathBuf)>,
    local: &Arc<LocalFiles>,
    parallel: usize,
    cost: &Cost,
) -> Result<Vec<Fetched>> {
    let reads: Vec<_> =
        coalesce(parts(&plans)?).into_iter().map(|read| read_parts(remote, read, cost)).collect();
    let parts = run_all(reads, parallel).await?;
    let mut fetched: Vec<_> = plans.into_iter().map(|(plan, dir)| Fetched::empty(plan, dir)).collect();
    for (tag, bytes) in parts.into_iter().flatten() {
        fetched.get_mut(tag.plan).ok_or_else(astray)?.place(tag, bytes)?;
    }

    // What several subtasks take over of one is fetched once.
    let mut files = BTreeMap::<(&ObjectName, FileId), Vec<(PathBuf, &BaseFile)>>::new();
    let mut embedded = Vec::new();
    for source in fetched.iter().flat_map(|fetched| &fetched.sources) {
        for file in source.base.iter().flat_map(|base| &base.files) {
            let target = source.dir.join(&file.name);
            match &file.place {
                Place::Object(object) => files.entry((object, file.id)).or_default().push((target, file)),
                Place::Embedded(content) => embedded.push((target, content.clone())),
            }
        }
    }
    blocking(move || embedded.into_iter().try_for_each(|(target, content)| write(&target, &content))).await?;
    let mut files: Vec<_> = files.into_iter().collect();
    // The largest first, so that they don't come last and alone.
    files.sort_by_key(|((_, id), _)| std::cmp::Reverse(id.size));
    let work: Vec<_> = files
        .into_iter()
        .map(|((object, _), targets)| fetch_file(remote, object, targets, local, cost))
        .collect();
    run_all(work, parallel).await?;
    Ok(fetched)
}

/// Where the files of sources are, one directory each, that are copied into the table in `dir`.
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

/// Everything but the base's files.
fn parts(plans: &[(SubtaskPlan, PathBuf)]) -> Result<Vec<(ObjectName, Range<u64>, Tag)>> {
    let range = |object: &ObjectName, offset: u64, length: u64| {
        let end = offset.checked_add(length).filter(|_| length > 0);
        end.map(|end| offset..end).ok_or_else(|| {
            Error::corrupt(format!("a reference to {length} bytes at {offset}")).object(object)
        })
    };
    let mut parts = Vec::new();
    for (plan, (wanted, _)) in plans.iter().enumerate() {
        for (source, wanted) in wanted.sources.iter().enumerate() {
            if let Some(base) = &wanted.base {
                let range = range(&base.object, base.offset, base.length)?;
                parts.push((base.object.clone(), range, Tag { plan, source, delta: None }));
            }
            for (index, (_, delta)) in wanted.deltas().enumerate() {
                let range = range(&delta.object, delta.offset, delta.length)?;
                parts.push((delta.object.clone(), range, Tag { plan, source, delta: Some(index) }));
            }
        }
    }
    Ok(parts)
}

async fn read_parts(remote: &Remote, read: Read<Tag>, cost: &Cost) -> Result<Vec<(Tag, Bytes)>> {
    let start = read.range.start;
    cost.requests.fetch_add(1, Ordering::Relaxed);
    let bytes = remote.get_range(&read.object, read.range).await?;
    cost.downloaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    let part = |(range, tag): (Range<u64>, Tag)| {
        let at = |offset: u64| usize::try_from(offset - start).ok().filter(|at| *at <= bytes.len());
        let slice = at(range.start).zip(at(range.end)).map(|(from, to)| bytes.slice(from..to));
        slice
            .map(|slice| (tag, slice))
            .ok_or_else(|| Error::corrupt("the object is cut short").object(&read.object))
    };
    read.parts.into_iter().map(part).collect()
}

impl Fetched {
    fn empty(plan: SubtaskPlan, dir: PathBuf) -> Self {
        let host = plan.host();
        let empty = |(index, source): (usize, &Origin)| FetchedSource {
            base: None,
            dir: if Some(index) == host { dir.clone() } else { sources_beside(&dir).join(index.to_string()) },
            deltas: vec![Bytes::new(); source.deltas().count()],
        };
        let sources = plan.sources.iter().enumerate().map(empty).collect();
        Self { plan, dir, sources }
    }

    /// Checks what was read and puts it where it belongs.
    fn place(&mut self, tag: Tag, bytes: Bytes) -> Result<()> {
        let wanted = self.plan.sources.get(tag.source).ok_or_else(astray)?;
        let source = self.sources.get_mut(tag.source).ok_or_else(astray)?;
        match tag.delta {
            None => {
                let base = wanted.base.as_ref().ok_or_else(astray)?;
                source.base = Some(check_base(wanted, base, &bytes)?);
            }
            Some(index) => {
                check_delta(wanted.deltas().nth(index).ok_or_else(astray)?.1, &bytes)?;
                *source.deltas.get_mut(index).ok_or_else(astray)? = bytes;
            }
        }
        Ok(())
    }
}

fn astray() -> Error {
    Error::internal("a restore read something that its plan does not have")
}

fn check_delta(delta: &DeltaRef, bytes: &[u8]) -> Result<()> {
    if crc32c::crc32c(bytes) == delta.crc32c {
        return Ok(());
    }
    let message = format!("deltas {}..={} do not match their checksum", delta.first, delta.last);
    Err(Error::corrupt(message).object(&delta.object))
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

/// Brings one object's content to all `targets`: taken over from an earlier instance, or downloaded.
async fn fetch_file(
    remote: &Remote,
    object: &ObjectName,
    targets: Vec<(PathBuf, &BaseFile)>,
    local: &Arc<LocalFiles>,
    cost: &Cost,
) -> Result<()> {
    let mut targets = targets.into_iter();
    let Some((target, file)) = targets.next() else { return Ok(()) };
    let found = {
        let (local, file, target) = (Arc::clone(local), file.clone(), target.clone());
        blocking(move || local.take_over(&file, &target)).await?
    };
    if found {
        cost.reused.fetch_add(file.id.size, Ordering::Relaxed);
    } else {
        cost.requests.fetch_add(1, Ordering::Relaxed);
        let (size, hash) = remote.get_to_file(object, None, &target).await?;
        cost.downloaded.fetch_add(size, Ordering::Relaxed);
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

/// RocksDB never writes to an SST file that is there, so tables may share one.
fn link(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .map_err(|error| Error::disk("link a file of the base", to, error))
}
