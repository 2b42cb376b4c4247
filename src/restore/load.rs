//! Applies a batch of deltas to a table: checked, decoded on all cores, and merged to one write for each
//! key.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::thread;

use bytes::Bytes;

use crate::delta::{DecodedDelta, DeltaReader, merge_all};
use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::key_group::KeyGroupRange;
use crate::manifest::{DeltaRef, Segment};
use crate::table::Table;

/// What a replay did.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Entries that were applied.
    pub(super) entries: u64,
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
pub(super) fn load<'a>(
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
    use crate::table::TableResources;

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
