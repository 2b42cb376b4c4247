//! Deltas that lie side by side in one object: how they are laid out, and the references to them.

use std::any::Any;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::ids::{DeltaSeq, SubtaskIndex};
use crate::manifest::DeltaRef;
use crate::remote::ObjectName;

/// Objects of this size justify a request of their own, and are not packed for their size.
pub(crate) const LARGE: u64 = 2 << 20;

/// Bytes of deltas that one reference may stand for. A restore reads and decodes at least this much
/// at a time.
const MAX_RUN: u64 = LARGE;

/// The budget that sealed bytes count against. They are given back when the last holder drops this.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// A delta on its way to an object.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// The same as `last`, but for one that was read back as a run.
    pub(crate) first: DeltaSeq,
    pub(crate) last: DeltaSeq,
    pub(crate) bytes: Bytes,
    pub(crate) crc32c: u32,
    pub(crate) entries: u64,
    /// None where the bytes count elsewhere, or were read back.
    pub(crate) _hold: Option<Hold>,
}

impl Upload {
    pub(crate) fn weight(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// What one subtask has in an object, oldest first.
#[derive(Debug, Clone)]
pub(crate) struct Portion {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) deltas: Vec<Upload>,
}

/// Deltas of one subtask that lie in another object from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) deltas: Vec<DeltaRef>,
    /// References to several of them at once.
    pub(crate) runs: Vec<DeltaRef>,
    /// Whether the object is so small that it will be packed.
    pub(crate) small: bool,
}

/// The bytes of all deltas, one after the other.
pub(crate) fn join(portions: &[Portion]) -> Bytes {
    let deltas = || portions.iter().flat_map(|portion| &portion.deltas);
    let mut all = deltas();
    // One alone need not be copied.
    if let (Some(only), None) = (all.next(), all.next()) {
        return only.bytes.clone();
    }
    let mut payload = BytesMut::with_capacity(deltas().map(|delta| delta.bytes.len()).sum());
    deltas().for_each(|delta| payload.extend_from_slice(&delta.bytes));
    payload.freeze()
}

/// The references to `portions` as [`join`] lays them into `object`.
pub(crate) fn lay_out(portions: &[Portion], object: &ObjectName) -> Vec<(SubtaskIndex, Moved)> {
    let mut offset = 0;
    let mut place = |delta: &Upload| {
        let length = delta.weight();
        let (crc32c, entries) = (delta.crc32c, delta.entries);
        let (first, last) = (delta.first, delta.last);
        let placed = DeltaRef { object: object.clone(), offset, length, crc32c, first, last, entries };
        offset += length;
        placed
    };
    let mut moved: Vec<_> = portions
        .iter()
        .map(|Portion { subtask, deltas }| {
            let deltas: Vec<_> = deltas.iter().map(&mut place).collect();
            let runs = runs(&deltas);
            (*subtask, Moved { deltas, runs, small: false })
        })
        .collect();
    moved.iter_mut().for_each(|(_, moved)| moved.small = offset < LARGE);
    moved
}

/// The runs that one subtask's `deltas` form in the object, in the object's order: several deltas
/// that follow each other without a gap.
fn runs(deltas: &[DeltaRef]) -> Vec<DeltaRef> {
    let mut bytes = 0;
    let together = |a: &DeltaRef, b: &DeltaRef| {
        // From the first on, or anew after one that did not fit.
        bytes = if bytes == 0 { a.length } else { bytes }.saturating_add(b.length);
        let adjacent = a.offset.checked_add(a.length) == Some(b.offset) && a.last.next() == b.first;
        let together = adjacent && bytes <= MAX_RUN;
        bytes = if together { bytes } else { 0 };
        together
    };
    let run = |deltas: &[DeltaRef]| {
        let ([first, rest @ ..], [.., last]) = (deltas, deltas) else { return None };
        if rest.is_empty() {
            return None;
        }
        let mut run = DeltaRef { last: last.last, ..first.clone() };
        for delta in rest {
            let length = usize::try_from(delta.length).ok()?;
            run.crc32c = crc32c::crc32c_combine(run.crc32c, delta.crc32c, length);
            run.length += delta.length;
            run.entries += delta.entries;
        }
        Some(run)
    };
    deltas.chunk_by(together).filter_map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Nonce};
    use crate::remote::DataKind;

    fn object() -> ObjectName {
        ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce::default(), DataKind::Pack, 9)
    }

    fn upload(seq: u64, bytes: Vec<u8>) -> Upload {
        let crc32c = crc32c::crc32c(&bytes);
        let seq = DeltaSeq(seq);
        Upload { first: seq, last: seq, bytes: bytes.into(), crc32c, entries: 2, _hold: None }
    }

    fn portion(subtask: u32, deltas: Vec<Upload>) -> Portion {
        Portion { subtask: SubtaskIndex(subtask), deltas }
    }

    #[test]
    fn every_delta_lies_where_its_reference_says() {
        let portions = [
            portion(3, vec![upload(1, vec![1; 10]), upload(2, vec![2; 20])]),
            portion(7, vec![upload(9, vec![3; 30])]),
        ];
        let payload = join(&portions);
        let moved = lay_out(&portions, &object());
        assert_eq!(moved.iter().map(|(subtask, _)| subtask.0).collect::<Vec<_>>(), [3, 7]);
        for (_, moved) in &moved {
            assert!(moved.small);
            for delta in moved.deltas.iter().chain(&moved.runs) {
                let (from, to) = (delta.offset as usize, (delta.offset + delta.length) as usize);
                assert_eq!(crc32c::crc32c(&payload[from..to]), delta.crc32c, "{delta:?}");
            }
        }
        let [run] = &moved[0].1.runs[..] else { panic!("one run") };
        assert_eq!((run.first.0, run.last.0, run.offset, run.length, run.entries), (1, 2, 0, 30, 4));
        assert!(moved[1].1.runs.is_empty(), "one alone is no run");
        let large = [portion(0, vec![upload(1, vec![0; LARGE as usize])])];
        assert!(!lay_out(&large, &object())[0].1.small);
    }

    #[test]
    fn a_run_is_what_follows_without_a_gap_up_to_a_size() {
        let pack: Vec<u8> = (0..5 << 20).map(|n: u32| (n * 7 / 3) as u8).collect();
        let mut deltas: Vec<DeltaRef> = Vec::new();
        let mut add = |last: u64, gap: u64, length: u64| {
            let first = deltas.last().map_or(1, |delta: &DeltaRef| delta.last.0 + 1);
            let offset = deltas.last().map_or(10, |delta| delta.offset + delta.length) + gap;
            deltas.push(DeltaRef {
                object: object(),
                offset,
                length,
                crc32c: crc32c::crc32c(&pack[offset as usize..(offset + length) as usize]),
                first: DeltaSeq(first),
                last: DeltaSeq(last),
                entries: 1,
            });
        };
        add(1, 0, 10);
        // Was packed before.
        add(7, 0, 30);
        add(8, 0, 20);
        add(9, 1, 20);
        // What would make a run too large begins the next one.
        add(10, 0, MAX_RUN - 30);
        add(11, 0, 40);
        add(12, 0, MAX_RUN);
        deltas[6].first = DeltaSeq(13);
        deltas[6].last = DeltaSeq(13);
        let run = |first, last, offset: u64, length: u64, entries| DeltaRef {
            object: object(),
            first: DeltaSeq(first),
            last: DeltaSeq(last),
            offset,
            length,
            crc32c: crc32c::crc32c(&pack[offset as usize..(offset + length) as usize]),
            entries,
        };
        assert_eq!(runs(&deltas), [run(1, 8, 10, 60, 3), run(9, 10, 71, MAX_RUN - 10, 2)]);
        assert_eq!(runs(&deltas[..1]), []);
        assert_eq!(runs(&[]), []);
    }
}
