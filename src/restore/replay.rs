//! From fetched bytes to an open table: open a base, copy into it what other sources have where the
//! subtask was rescaled, and bring in the deltas after them, merged to the last value per key rather
//! than one by one.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::NonZero;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::fetch::{Fetched, FetchedSource, sources_beside};
use super::plan::SubtaskPlan;
use crate::delta::{DecodedDelta, DeltaReader, merge_all};
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::key_group::KeyGroupRange;
use crate::manifest::{DeltaRef, Origin, Segment};
use crate::materialize::{Known, Stamp};
use crate::table::{Table, TableResources};

/// Sealed bytes that are decoded and merged at once: what bounds the memory of a replay. Decoded they
/// are some two to four times as large.
const GROUP_BYTES: u64 = 64 << 20;

/// A subtask's table, as of its cut.
pub(super) struct Replayed {
    pub(super) plan: SubtaskPlan,
    pub(super) table: Table,
    pub(super) known: Known,
    pub(super) open: Duration,
    pub(super) join: Duration,
    pub(super) replay: Duration,
    /// Bytes of keys and values that were copied from one table to another.
    pub(super) copied: u64,
    pub(super) entries: u64,
}

/// Opens, joins and replays; blocks.
///
/// Every source owns other key groups, so their order does not matter, and each one's deltas are
/// clipped to what it owns. A crash on the way leaves half a state, in a directory that is deleted.
pub(super) fn replay(fetched: Fetched, resources: &TableResources, clock: &dyn Clock) -> Result<Replayed> {
    let Fetched { plan, dir, sources } = fetched;
    let start = clock.monotonic();
    let host = plan.host();
    let sources = || plan.sources.iter().zip(&sources).enumerate();
    let (table, known) = match sources().find(|(index, _)| Some(*index) == host) {
        Some((_, (source, fetched))) => open_host(&plan, source, fetched, resources)?,
        None => (Table::create(&dir, plan.range, resources)?, Known::default()),
    };
    let opened = clock.monotonic();
    let mut copied = 0;
    for (_, (source, fetched)) in sources().filter(|(index, _)| Some(*index) != host) {
        if let Some(first) = source.segments.first().filter(|_| source.base.is_some()) {
            let from = Table::open_to_read(&fetched.dir, first.range, resources);
            let from = check_base(from, source)?;
            copied += table.copy(&from, source.owned, &fetched.dir)?;
        }
    }
    // What was copied is not needed any more; if it stays behind, the next start removes it.
    let _ = std::fs::remove_dir_all(sources_beside(&dir));
    let joined = clock.monotonic();
    let mut entries = 0;
    for (_, (source, fetched)) in sources() {
        entries += replay_deltas(&table, source, fetched)?;
    }
    if plan.seq > table.applied()? {
        table.set_applied(plan.seq)?;
    }
    let done = clock.monotonic();
    let applied = table.applied()?;
    if applied != plan.seq {
        let message = format!("the replay ended at delta {applied}, not {}", plan.seq);
        return Err(Error::internal(message).object(dir.display()));
    }
    let open = opened.saturating_sub(start);
    let (join, replay) = (joined.saturating_sub(opened), done.saturating_sub(joined));
    Ok(Replayed { plan, table, known, open, join, replay, copied, entries })
}

/// The table that goes on from the files of `source`, without what the source does not own.
fn open_host(
    plan: &SubtaskPlan,
    source: &Origin,
    fetched: &FetchedSource,
    resources: &TableResources,
) -> Result<(Table, Known)> {
    let (Some(first), Some(index)) = (source.segments.first(), &fetched.base) else {
        return Err(Error::internal("the base of a plan was not fetched"));
    };
    let mut table = check_base(Table::open(&fetched.dir, first.range, resources), source)?;
    // The files lie within the base that the next checkpoint refers to, as its own or as an origin's,
    // until a base is committed that was built from them (I3, see `Known`).
    let known = Known::from_base(index);
    for file in &index.files {
        // Their content was checked a moment ago. RocksDB may have compacted one away since.
        if let Ok(metadata) = std::fs::metadata(fetched.dir.join(&file.name))
            && file.name.ends_with(".sst")
        {
            known.remember(&file.name, Stamp::of(&metadata), file.id);
        }
    }
    if first.range != plan.range || source.owned != plan.range {
        table.hand_over(source.owned, plan.range)?;
    }
    Ok((table, known))
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

/// Returns the number of entries that were applied.
fn replay_deltas(table: &Table, source: &Origin, fetched: &FetchedSource) -> Result<u64> {
    let deltas: Vec<_> = source.deltas().collect();
    let mut entries = 0;
    for group in groups(deltas.iter().map(|(_, delta)| delta.length)) {
        let (Some(refs), Some(bytes)) = (deltas.get(group.clone()), fetched.deltas.get(group)) else {
            return Err(Error::internal("a delta of a plan was not fetched"));
        };
        let merged = merge_all(decode_all(source.owned, refs, bytes)?)?;
        table.load(merged.tombstones().iter(), merged.iter())?;
        entries += merged.len() as u64;
    }
    Ok(entries)
}

/// Consecutive deltas that are replayed together.
fn groups(lengths: impl IntoIterator<Item = u64>) -> Vec<Range<usize>> {
    let mut groups = Vec::<Range<usize>>::new();
    let mut room = 0;
    for (index, length) in lengths.into_iter().enumerate() {
        match groups.last_mut() {
            Some(group) if length <= room => {
                group.end = index + 1;
                room -= length;
            }
            _ => {
                groups.push(index..index + 1);
                room = GROUP_BYTES.saturating_sub(length);
            }
        }
    }
    groups
}

/// Decodes on all cores, in order.
fn decode_all(
    owned: KeyGroupRange,
    refs: &[(&Segment, &DeltaRef)],
    bytes: &[Bytes],
) -> Result<Vec<DecodedDelta>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = refs.len().div_ceil(threads).max(1);
    let decode = |(refs, bytes): (&[(&Segment, &DeltaRef)], &[Bytes])| -> Result<Vec<_>> {
        refs.iter().zip(bytes).map(|((segment, delta), bytes)| decode(owned, segment, delta, bytes)).collect()
    };
    thread::scope(|scope| {
        let shares = refs.chunks(share).zip(bytes.chunks(share));
        let running: Vec<_> = shares.map(|share| scope.spawn(move || decode(share))).collect();
        let joined = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_panic| Err(Error::internal("decoding a delta came to a bad end")))
        });
        // All threads are joined before the first error is returned.
        let decoded: Vec<Result<Vec<_>>> = joined.collect();
        let decoded: Vec<Vec<_>> = decoded.into_iter().collect::<Result<_>>()?;
        Ok(decoded.into_iter().flatten().collect())
    })
}

/// The entries of the key groups that are `owned`: the delta's index says which blocks have any.
fn decode(owned: KeyGroupRange, segment: &Segment, delta: &DeltaRef, bytes: &Bytes) -> Result<DecodedDelta> {
    let read = || {
        let reader = DeltaReader::open(bytes.clone())?;
        let header = reader.header();
        let same = header.subtask == segment.subtask && header.range == segment.range;
        if !same
            || header.first != delta.first
            || header.last != delta.last
            || reader.entries() != delta.entries
        {
            return Err(Error::corrupt(format!(
                "holds deltas {}..={} of subtask {}, which does not fit the manifest's reference",
                header.first, header.last, header.subtask
            )));
        }
        reader.entries_in(owned)
    };
    read().map_err(|error| error.object(&delta.object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_and_leave_nothing_out() {
        const MIB: u64 = 1 << 20;
        assert!(groups([]).is_empty());
        assert_eq!(groups([1, 2, 3]), vec![0..3]);
        assert_eq!(groups([32 * MIB, 32 * MIB, 1, 63 * MIB, MIB]), [0..2, 2..4, 4..5]);
        assert_eq!(groups([u64::MAX, u64::MAX, 1]), [0..1, 1..2, 2..3]);
    }
}
