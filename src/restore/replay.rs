//! From fetched bytes to an open table: open the base, then bring in the deltas after it, merged to the
//! last value per key rather than one by one.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::num::NonZero;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::fetch::{Fetched, FetchedSource};
use super::plan::{Source, SubtaskPlan};
use crate::delta::{DecodedDelta, DeltaReader, merge_all};
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::manifest::DeltaRef;
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
    pub(super) replay: Duration,
    pub(super) entries: u64,
}

/// Opens and replays; blocks.
pub(super) fn replay(fetched: Fetched, resources: &TableResources, clock: &dyn Clock) -> Result<Replayed> {
    let Fetched { plan, dir, sources } = fetched;
    let ([source], [fetched]) = (plan.sources.as_slice(), sources.as_slice()) else {
        return Err(Error::internal("a plan that joins several subtasks cannot be run yet"));
    };
    let start = clock.monotonic();
    let (table, known) = match (&source.base, &fetched.base) {
        (Some(base), Some(index)) => {
            let table =
                Table::open(&dir, plan.range, resources).map_err(|error| error.object(&base.object))?;
            let applied = table.applied()?;
            if applied != base.seq {
                let message = format!("the files of the base stand at delta {applied}, not {}", base.seq);
                return Err(Error::corrupt(message).object(&base.object));
            }
            let known = Known::from_base(index);
            for file in &index.files {
                // Their content was checked a moment ago. RocksDB may have compacted one away since.
                if let Ok(metadata) = std::fs::metadata(dir.join(&file.name))
                    && file.name.ends_with(".sst")
                {
                    known.remember(&file.name, Stamp::of(&metadata), file.id);
                }
            }
            (table, known)
        }
        (None, None) => (Table::create(&dir, plan.range, resources)?, Known::default()),
        _ => return Err(Error::internal("the base of a plan was not fetched")),
    };
    let opened = clock.monotonic();
    let entries = replay_deltas(&table, source, fetched)?;
    let done = clock.monotonic();
    let applied = table.applied()?;
    if applied != plan.seq {
        return Err(Error::internal(format!("the replay ended at delta {applied}, not {}", plan.seq)));
    }
    let (open, replay) = (opened.saturating_sub(start), done.saturating_sub(opened));
    Ok(Replayed { plan, table, known, open, replay, entries })
}

/// Returns the number of entries that were applied.
fn replay_deltas(table: &Table, source: &Source, fetched: &FetchedSource) -> Result<u64> {
    let mut entries = 0;
    for group in groups(&source.deltas) {
        let (Some(refs), Some(bytes)) = (source.deltas.get(group.clone()), fetched.deltas.get(group)) else {
            return Err(Error::internal("a delta of a plan was not fetched"));
        };
        let merged = merge_all(decode_all(source, refs, bytes)?)?;
        let last = refs.last().map_or(DeltaSeq(0), |delta| delta.last);
        table.apply_bulk(last, merged.tombstones().iter(), merged.iter())?;
        entries += merged.len() as u64;
    }
    Ok(entries)
}

/// Consecutive deltas that are replayed together.
fn groups(deltas: &[DeltaRef]) -> Vec<Range<usize>> {
    let mut groups = Vec::<Range<usize>>::new();
    let mut room = 0;
    for (index, delta) in deltas.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if delta.length <= room => {
                group.end = index + 1;
                room -= delta.length;
            }
            _ => {
                groups.push(index..index + 1);
                room = GROUP_BYTES.saturating_sub(delta.length);
            }
        }
    }
    groups
}

/// Decodes on all cores, in order.
fn decode_all(source: &Source, refs: &[DeltaRef], bytes: &[Bytes]) -> Result<Vec<DecodedDelta>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = refs.len().div_ceil(threads).max(1);
    let decode = |(refs, bytes): (&[DeltaRef], &[Bytes])| -> Result<Vec<_>> {
        refs.iter().zip(bytes).map(|(delta, bytes)| decode(source, delta, bytes)).collect()
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

fn decode(source: &Source, delta: &DeltaRef, bytes: &Bytes) -> Result<DecodedDelta> {
    let read = || {
        let reader = DeltaReader::open(bytes.clone())?;
        let header = reader.header();
        let same = header.subtask == source.subtask && header.range == source.range;
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
        reader.entries_in(source.range)
    };
    read().map_err(|error| error.object(&delta.object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Version;
    use crate::remote::ObjectName;

    #[test]
    fn groups_are_bounded_and_leave_nothing_out() {
        let deltas = |lengths: &[u64]| -> Vec<DeltaRef> {
            let delta = |(index, length): (usize, &u64)| DeltaRef {
                object: ObjectName::manifest(Version(1)),
                offset: 0,
                length: *length,
                crc32c: 0,
                first: DeltaSeq(index as u64 + 1),
                last: DeltaSeq(index as u64 + 1),
                entries: 0,
            };
            lengths.iter().enumerate().map(delta).collect()
        };
        const MIB: u64 = 1 << 20;
        assert!(groups(&[]).is_empty());
        assert_eq!(groups(&deltas(&[1, 2, 3])), vec![0..3]);
        assert_eq!(groups(&deltas(&[32 * MIB, 32 * MIB, 1, 63 * MIB, MIB])), [0..2, 2..4, 4..5]);
        assert_eq!(groups(&deltas(&[u64::MAX, u64::MAX, 1])), [0..1, 1..2, 2..3]);
    }
}
