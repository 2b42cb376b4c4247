//! From files to an open table. It opens a base and, after a rescale, brings in what other sources
//! have. Then it applies the deltas, batch by batch, merged to the last value per key rather than
//! one by one.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::batch::DeltaId;
use super::fetch::{Fetched, FetchedSource, sources_beside};
use super::plan::SubtaskPlan;
use crate::delta::{DecodedDelta, DeltaReader, merge_all};
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::key_group::KeyGroupRange;
use crate::manifest::{DeltaRef, Origin, Segment};
use crate::materialize::{Known, Stamp};
use crate::table::{Source, Table, TableResources};

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
        // What was taken over is not needed any more; if it stays behind, the next start removes it.
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
) -> Result<Option<Source>> {
    let Some(first) = source.segments.first().filter(|_| source.base.is_some()) else { return Ok(None) };
    let table = check_base(Table::open_to_read(&fetched.dir, first.range, resources), source)?;
    Ok(Some(Source { table, range: first.range, owned: source.owned }))
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

/// What a replay did.
#[derive(Debug, Default)]
struct Loaded {
    /// Entries that were applied.
    entries: u64,
    /// Bytes of decoded deltas that were held at a time, at most.
    held: usize,
}

impl Loaded {
    fn note(&mut self, decoded: &[DecodedDelta]) {
        self.held = self.held.max(decoded.iter().map(DecodedDelta::bytes).sum());
    }
}

/// Checks, decodes, merges and applies `deltas`, oldest first, in groups that take at most about
/// `limit` bytes of memory. A single delta that takes more is applied by itself, block by block.
fn load<'a>(
    table: &Table,
    owned: KeyGroupRange,
    deltas: impl Iterator<Item = ((&'a Segment, &'a DeltaRef), &'a Bytes)>,
    limit: u64,
) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut group = Vec::new();
    let mut room = limit;
    for ((segment, delta), bytes) in deltas {
        for reader in open(segment, delta, bytes)? {
            let opened = Opened { reader, delta };
            let memory = opened.reader.decoded_len(owned);
            if memory > room {
                load_group(table, owned, std::mem::take(&mut group), &mut loaded)?;
                room = limit;
            }
            if memory > limit {
                load_in_parts(table, owned, &opened, limit, &mut loaded)?;
            } else {
                group.push(opened);
                room = room.saturating_sub(memory);
            }
        }
    }
    load_group(table, owned, group, &mut loaded)?;
    Ok(loaded)
}

/// A delta that was found to be the one that the manifest refers to; its blocks are not read yet.
struct Opened<'a> {
    reader: DeltaReader,
    delta: &'a DeltaRef,
}

/// The deltas of a run, which are what the manifest says they are.
fn open(segment: &Segment, run: &DeltaRef, bytes: &Bytes) -> Result<Vec<DeltaReader>> {
    let named = |error: Error| error.object(&run.object);
    if crc32c::crc32c(bytes) != run.crc32c {
        let message = format!("deltas {}..={} do not match their checksum", run.first, run.last);
        return Err(named(Error::corrupt(message)));
    }
    let readers = DeltaReader::open_all(bytes.clone()).map_err(named)?;
    // With one delta missing or twice, the state would be one that never was (I1).
    let (mut next, mut entries) = (Some(run.first), 0_u64);
    for reader in &readers {
        let header = reader.header();
        let same = header.subtask == segment.subtask && header.range == segment.range;
        if !same || next != Some(header.first) {
            return Err(named(Error::corrupt(format!(
                "holds deltas {}..={} of subtask {}, which does not fit the manifest's reference",
                header.first, header.last, header.subtask
            ))));
        }
        next = header.last.0.checked_add(1).map(DeltaSeq);
        entries = entries.saturating_add(reader.entries());
    }
    if next != run.last.0.checked_add(1).map(DeltaSeq) || entries != run.entries {
        return Err(named(Error::corrupt(format!(
            "holds {} deltas with {entries} entries, which does not fit the manifest's reference",
            readers.len()
        ))));
    }
    Ok(readers)
}

fn load_group(
    table: &Table,
    owned: KeyGroupRange,
    group: Vec<Opened<'_>>,
    loaded: &mut Loaded,
) -> Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let decoded = decode_all(owned, &group)?;
    loaded.note(&decoded);
    let merged = merge_all(decoded)?;
    table.load(merged.tombstones().iter(), merged.iter())?;
    loaded.entries += merged.len() as u64;
    Ok(())
}

/// The keys of a delta ascend, each once, so its blocks can go in one after another, above its tombstones.
fn load_in_parts(
    table: &Table,
    owned: KeyGroupRange,
    opened: &Opened<'_>,
    limit: u64,
    loaded: &mut Loaded,
) -> Result<()> {
    for part in opened.reader.parts(owned, limit) {
        let part = part.map_err(|error| error.object(&opened.delta.object))?;
        loaded.note(std::slice::from_ref(&part));
        table.load(part.tombstones().iter(), part.iter())?;
        loaded.entries += part.len() as u64;
    }
    Ok(())
}

/// Decodes on all cores, in order: the entries of the key groups that are `owned`. The deltas' indexes
/// say which blocks have any.
fn decode_all(owned: KeyGroupRange, deltas: &[Opened<'_>]) -> Result<Vec<DecodedDelta>> {
    let threads = crate::machine::cores();
    let share = deltas.len().div_ceil(threads).max(1);
    let decode = |deltas: &[Opened<'_>]| -> Result<Vec<_>> {
        let one = |opened: &Opened<'_>| {
            opened.reader.entries_in(owned).map_err(|error| error.object(&opened.delta.object))
        };
        deltas.iter().map(one).collect()
    };
    thread::scope(|scope| {
        let running: Vec<_> = deltas.chunks(share).map(|share| scope.spawn(move || decode(share))).collect();
        let joined = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_panic| Err(Error::internal("decoding a delta came to a bad end")))
        });
        // All threads are joined before the first error is returned.
        let decoded: Vec<Result<Vec<_>>> = joined.collect();
        let decoded: Vec<Vec<_>> = decoded.into_iter().collect::<Result<_>>()?;
        Ok(decoded.into_iter().flatten().collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::{ActiveDelta, DeltaHeader, TableKind, seal};
    use crate::error::ErrorKind;
    use crate::ids::{Epoch, StateId, SubtaskIndex};
    use crate::key;
    use crate::key_group::KeyGroup;
    use crate::remote::ObjectName;

    const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };

    fn k(user: u32) -> Vec<u8> {
        let mut key = Vec::new();
        key::encode_into(&mut key, KeyGroup(user as u16 % 4), StateId(7), &user.to_be_bytes());
        key
    }

    /// The delta `seq`: `values` of 64 KiB that are all the same byte.
    fn sealed(seq: u64, values: std::ops::Range<u32>) -> (DeltaRef, Bytes) {
        let (seq, mut delta) = (DeltaSeq(seq), ActiveDelta::new());
        for user in values {
            delta.put(TableKind::Hash, &k(user), &vec![seq.0 as u8; 64 << 10]);
        }
        let header =
            DeltaHeader { epoch: Epoch(1), subtask: SubtaskIndex(0), range: RANGE, first: seq, last: seq };
        let sealed = seal(&delta.freeze(), &header, |_, entry| Some(entry));
        let delta = DeltaRef {
            object: ObjectName::manifest(crate::ids::Version(seq.0)),
            offset: 0,
            length: sealed.bytes.len() as u64,
            crc32c: sealed.crc32c,
            first: seq,
            last: seq,
            entries: sealed.entries,
        };
        (delta, sealed.bytes)
    }

    #[test]
    fn i1_a_run_must_hold_each_of_its_deltas_once_and_in_turn() {
        let segment = Segment {
            subtask: SubtaskIndex(0),
            range: RANGE,
            after: DeltaSeq(0),
            deltas: Vec::new(),
            seq: DeltaSeq(9),
        };
        let deltas: Vec<_> = (1..=4).map(|seq| sealed(seq, 0..seq as u32)).collect();
        let open_run = |parts: &[u64], change: fn(&mut DeltaRef)| {
            let parts = || parts.iter().map(|seq| &deltas[*seq as usize - 1]);
            let bytes: Vec<u8> = parts().flat_map(|(_, bytes)| bytes.to_vec()).collect();
            let mut run = DeltaRef {
                length: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
                last: DeltaSeq(4),
                entries: parts().map(|(delta, _)| delta.entries).sum(),
                ..deltas[1].0.clone()
            };
            change(&mut run);
            open(&segment, &run, &Bytes::from(bytes)).map(|readers| readers.len())
        };
        assert_eq!(open_run(&[2, 3, 4], |_| ()).unwrap(), 3);
        let wrong: [&[u64]; 6] = [&[2, 4], &[3, 4], &[2, 3], &[2, 2, 3, 4], &[2, 4, 3], &[1, 2, 3, 4]];
        for parts in wrong {
            assert_eq!(open_run(parts, |_| ()).unwrap_err().kind(), ErrorKind::Corrupt, "{parts:?}");
        }
        let changes: [fn(&mut DeltaRef); 4] = [
            |run| run.entries += 1,
            |run| run.crc32c ^= 1,
            |run| run.first = DeltaSeq(1),
            |run| run.last = DeltaSeq(u64::MAX),
        ];
        for change in changes {
            let error = open_run(&[2, 3, 4], change).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("manifest"), "names the object: {error}");
        }
    }

    #[test]
    fn i6_values_that_compress_well_do_not_take_more_memory_than_there_is() {
        const LIMIT: usize = 4 << 20;
        let dir = tempfile::tempdir().unwrap();
        let resources = TableResources::new(16 << 20, 2);
        let table = Table::create(&dir.path().join("table"), RANGE, &resources).unwrap();
        // 16 MiB in one delta, and as much in sixteen, each of which takes in the half of the one before.
        let mut deltas = vec![sealed(1, 0..256)];
        deltas.extend((0..16).map(|number| sealed(2 + u64::from(number), 8 * number..8 * number + 16)));
        let stored: u64 = deltas.iter().map(|(delta, _)| delta.length).sum();
        assert!(stored < 1 << 20, "{stored} bytes are 32 MiB");
        let segment = Segment {
            subtask: SubtaskIndex(0),
            range: RANGE,
            after: DeltaSeq(0),
            deltas: Vec::new(),
            seq: DeltaSeq(17),
        };
        let refs = || deltas.iter().map(|(delta, bytes)| ((&segment, delta), bytes));
        let loaded = load(&table, RANGE, refs(), LIMIT as u64).unwrap();
        assert!(loaded.held > LIMIT / 4 && loaded.held <= LIMIT, "{} bytes", loaded.held);
        assert!(loaded.entries >= 256 + 136, "{} entries", loaded.entries);
        for user in 0..256_u32 {
            let newest = if user < 136 { (user / 8).min(15) + 2 } else { 1 };
            let value = table.get(&k(user)).unwrap().unwrap();
            assert!(value.len() == 64 << 10 && value.iter().all(|byte| u32::from(*byte) == newest), "{user}");
        }
        let all = load(&table, RANGE, refs(), u64::MAX).unwrap();
        assert!(all.held >= 32 << 20 && all.entries == 256, "{all:?}");
    }
}
