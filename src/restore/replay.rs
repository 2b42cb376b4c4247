//! From files to an open table: opens a base, after a rescale brings in the data of other sources, and
//! applies the deltas batch by batch.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::batch::DeltaId;
use super::fetch::{Fetched, FetchedSource, sources_beside};
use super::load::load;
use super::plan::SubtaskPlan;
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::manifest::Origin;
use crate::materialize::{Known, Stamp};
use crate::table::{SourceTable, Table, TableResources};

/// A subtask's table on its way to its cut.
pub(super) struct Replay {
    pub(super) plan: SubtaskPlan,
    pub(super) table: Table,
    pub(super) known: Known,
    pub(super) open: Duration,
    pub(super) join: Duration,
    pub(super) replay: Duration,
    /// Bytes of keys and values that were copied from one table to another.
    pub(super) copied: u64,
    pub(super) entries: u64,
    dir: PathBuf,
    /// For each source, how many of its deltas are in.
    done: Vec<usize>,
}

impl Replay {
    /// Opens the base, and brings in what other sources have, with this number of threads. Blocks.
    /// A crash on the way leaves an incomplete table in a directory that the next start deletes.
    pub(super) fn open(
        fetched: Fetched,
        resources: &TableResources,
        clock: &dyn Clock,
        threads: usize,
    ) -> Result<Self> {
        let Fetched { plan, dir, sources } = fetched;
        assert_eq!(plan.sources.len(), sources.len(), "the files of every source");
        let start = clock.monotonic();
        let host = plan.host();
        let sources = || plan.sources.iter().zip(&sources).enumerate();
        let (mut table, known) = match sources().find(|(index, _)| Some(*index) == host) {
            Some((_, (source, fetched))) => open_host(source, fetched, resources)?,
            None => (Table::create(&dir, plan.range, resources)?, Known::default()),
        };
        let opened = clock.monotonic();
        let mut copied = 0;
        if let Some((_, (source, _))) = sources().find(|(index, _)| Some(*index) == host) {
            let others = || sources().filter(|(index, _)| Some(*index) != host).map(|(_, other)| other);
            let opened = others().map(|(source, fetched)| open_other(source, fetched, resources));
            let opened: Vec<_> = opened.filter_map(Result::transpose).collect::<Result<_>>()?;
            let whole = source.segments.first().is_some_and(|first| first.range == plan.range);
            if !whole || source.owned != plan.range {
                copied = table.take_over(source.owned, plan.range, opened, threads)?;
            }
            note_joined(&known, &dir, others().map(|(_, fetched)| fetched))?;
        }
        // The files of other sources are not needed any more. If they stay behind, the next start removes them.
        let _ = std::fs::remove_dir_all(sources_beside(&dir));
        let done = vec![0; plan.sources.len()];
        let (open, join) = (opened.saturating_sub(start), clock.monotonic().saturating_sub(opened));
        Ok(Self { plan, table, known, open, join, replay: Duration::ZERO, copied, entries: 0, dir, done })
    }

    /// Brings in the deltas of one batch, ascending, with at most about `limit` bytes of them decoded at
    /// a time; blocks.
    ///
    /// Sources own disjoint key groups, so their order does not matter. Each source's deltas are
    /// clipped to the key groups that it owns.
    pub(super) fn add(&mut self, batch: &[(DeltaId, Bytes)], limit: u64, clock: &dyn Clock) -> Result<()> {
        let start = clock.monotonic();
        for deltas in batch.chunk_by(|(a, _), (b, _)| a.source == b.source) {
            let Some((first, _)) = deltas.first() else { continue };
            let (Some(source), Some(done)) =
                (self.plan.sources.get(first.source), self.done.get_mut(first.source))
            else {
                return Err(Error::internal("a restore read something that its plan does not have"));
            };
            // Checked for any batches: with one delta missing or out of order, the state would be
            // one that never was (I1).
            if deltas.iter().map(|(id, _)| id.delta).ne(*done..*done + deltas.len()) {
                return Err(Error::internal("the deltas of a restore came out of order"));
            }
            let refs = source.deltas().skip(*done).zip(deltas.iter().map(|(_, bytes)| bytes));
            self.entries += load(&self.table, source.owned, refs, limit)?.entries;
            *done += deltas.len();
        }
        self.replay += clock.monotonic().saturating_sub(start);
        Ok(())
    }

    /// Sets the table to its cut, once all deltas are in; blocks.
    pub(super) fn finish(self) -> Result<Self> {
        let missing =
            self.plan.sources.iter().zip(&self.done).find(|(source, done)| source.deltas().count() != **done);
        if let Some((source, done)) = missing {
            let message = format!("the replay ended after {done} deltas of {}", source.deltas().count());
            return Err(Error::internal(message).object(self.dir.display()));
        }
        // Written once, after the last delta. After a crash before that, the table is not used: the next start
        // deletes its directory.
        if self.plan.seq > self.table.applied()? {
            self.table.set_applied(self.plan.seq)?;
        }
        let applied = self.table.applied()?;
        if applied != self.plan.seq {
            let message = format!("the replay ended at delta {applied}, not {}", self.plan.seq);
            return Err(Error::internal(message).object(self.dir.display()));
        }
        Ok(self)
    }
}

/// The table that goes on from the files of `source`.
fn open_host(source: &Origin, fetched: &FetchedSource, resources: &TableResources) -> Result<(Table, Known)> {
    let (Some(first), Some(index)) = (source.segments.first(), &fetched.base) else {
        return Err(Error::internal("the base of a plan was not fetched"));
    };
    let table = check_base(Table::open(&fetched.dir, first.range, resources), source)?;
    // The files belong to a base that the next checkpoint refers to, as its own or as an origin's,
    // until a base is committed that was built from them (I3, see `Known`).
    let known = Known::from_base(index);
    for file in index.files.iter().filter(|file| file.name.ends_with(".sst")) {
        // Their content was checked a moment ago. RocksDB may have compacted one away since.
        if let Ok(metadata) = std::fs::metadata(fetched.dir.join(&file.name)) {
            known.remember(&file.name, Stamp::of(&metadata), file.id);
        }
    }
    Ok((table, known))
}

/// The base of another source, where it has one.
fn open_other(
    source: &Origin,
    fetched: &FetchedSource,
    resources: &TableResources,
) -> Result<Option<SourceTable>> {
    let Some(first) = source.segments.first().filter(|_| source.base.is_some()) else { return Ok(None) };
    let table = check_base(Table::open_to_read(&fetched.dir, first.range, resources), source)?;
    Ok(Some(SourceTable { table, range: first.range, owned: source.owned }))
}

/// Notes which of the table's files in `dir` were joined from `sources` under another name. Their
/// content was checked a moment ago, and is in the store, in a base that the next checkpoint refers
/// to as an origin's (I3).
fn note_joined<'a>(
    known: &Known,
    dir: &Path,
    sources: impl Iterator<Item = &'a FetchedSource>,
) -> Result<()> {
    // No other file can have the number of an inode that is still linked where it was fetched to.
    let mut checked = HashMap::new();
    for source in sources {
        let Some(index) = &source.base else { continue };
        known.also(index);
        for file in index.files.iter().filter(|file| file.name.ends_with(".sst")) {
            if let Some(inode) = std::fs::metadata(source.dir.join(&file.name)).ok().as_ref().and_then(inode)
            {
                checked.insert(inode, file.id);
            }
        }
    }
    let failed = |error| Error::disk("list the files of a table", dir, error);
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if let Ok(metadata) = entry.metadata()
            && let Some(id) = inode(&metadata).and_then(|inode| checked.get(&inode))
        {
            known.remember(&name, Stamp::of(&metadata), *id);
        }
    }
    Ok(())
}

/// The identity of a file that two links share. Without it, a file is read again before its first
/// upload.
#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn inode(_metadata: &std::fs::Metadata) -> Option<(u64, u64)> {
    None
}

/// Files must stand where the manifest says, or deltas would be replayed twice or not at all (I1).
fn check_base(table: Result<Table>, source: &Origin) -> Result<Table> {
    let Some(base) = &source.base else { return Err(Error::internal("a source without files was opened")) };
    let table = table.map_err(|error| error.object(&base.object))?;
    let applied = table.applied()?;
    if applied != base.seq {
        let message = format!("the files of the base stand at delta {applied}, not {}", base.seq);
        return Err(Error::corrupt(message).object(&base.object));
    }
    Ok(table)
}
