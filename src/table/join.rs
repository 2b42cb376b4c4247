//! Which tables can be joined into one as the files that they are: a pure function of where their
//! files lie.
//!
//! RocksDB ingests a file of another database under the sequence numbers in it, so it cannot tell
//! which of two databases' entries of one key is newer. Therefore **no part may have anything where
//! another part has something, or owns key groups**: neither old values nor tombstones nor markers.
//! The parts of a new table were written by subtasks that owned disjoint key groups, so this holds
//! unless files contain foreign key groups from an earlier rescale. Such files are rewritten first,
//! or the part is copied, whichever writes less.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::ffi::LiveFile;
use super::marker::is_own;
use crate::key;
use crate::key_group::KeyGroupRange;

/// One of the tables that a new table is made of: its files, and the keys that count.
#[derive(Debug, Clone)]
pub(super) struct JoinInput {
    /// The half-open range of keys that count.
    start: Vec<u8>,
    end: Vec<u8>,
    /// In the order of [`live_files`](super::ffi::live_files).
    files: Vec<LiveFile>,
}

impl JoinInput {
    /// The host, the table that the others are joined into. All of its files count, because all of
    /// them stay.
    pub(super) fn host(kept: KeyGroupRange, files: Vec<LiveFile>) -> Self {
        let (start, end) = key::bounds_of(kept);
        Self { start, end, files }
    }

    /// A source. Only its files that overlap `owned` count, because only these are taken.
    pub(super) fn source(owned: KeyGroupRange, mut files: Vec<LiveFile>) -> Self {
        let (start, end) = key::bounds_of(owned);
        files.retain(|file| file.last >= start && file.first < end);
        Self { start, end, files }
    }

    /// The files in the order in which they must be ingested: older entries first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = &LiveFile> {
        self.files.iter().rev()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether there is no file to ingest.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The least and the greatest key in any of the files.
    fn hull(&self) -> Option<(&[u8], &[u8])> {
        let first = self.files.iter().map(|file| file.first.as_slice()).min()?;
        let last = self.files.iter().map(|file| file.last.as_slice()).max()?;
        Some((first, last))
    }

    /// Whether its files may overlap the files or the owned range of `other`.
    fn intrudes(&self, other: &Self) -> bool {
        let Some((first, last)) = self.hull() else { return false };
        let owned = last >= other.start.as_slice() && first < other.end.as_slice();
        owned || other.hull().is_some_and(|(least, greatest)| last >= least && first <= greatest)
    }

    /// Whether a file may be one that `SstFileWriter` made: its entries have sequence number 0, and
    /// the effective number, the same for all of them, is in the MANIFEST alone. In other files
    /// each entry has a number of its own, unless all are 0. A file with nothing but a marker also
    /// has one number, and is excepted, because a copy contains no key of Alluvium's own.
    fn has_assigned_seqs(&self) -> bool {
        let assigned = |file: &LiveFile| {
            let marker = file.first == file.last && is_own(&file.first);
            file.seqs.0 == file.seqs.1 && file.seqs.0 != 0 && !marker
        };
        self.files.iter().any(assigned)
    }

    /// About how many bytes a compaction writes that removes everything outside the range.
    fn rewritten(&self) -> u64 {
        let outside = |file: &LiveFile| file.first < self.start || file.last >= self.end;
        let (newest, lower): (Vec<_>, Vec<_>) = self.files.iter().partition(|file| file.level == 0);
        // A file of level 0 is compacted together with all files of level 0 that it overlaps, and
        // these with all that they overlap.
        let (mut taken, mut left): (Vec<_>, Vec<_>) = newest.into_iter().partition(|file| outside(file));
        loop {
            let overlaps = |file: &&LiveFile| taken.iter().any(|other| file.overlaps(other));
            let (more, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(overlaps);
            left = rest;
            if more.is_empty() {
                break;
            }
            taken.extend(more);
        }
        // They are merged into the first level below, with all files there that they overlap.
        let first = lower.iter().map(|file| file.level).min();
        let merged = |file: &&LiveFile| {
            outside(file) || (Some(file.level) == first && taken.iter().any(|newer| file.overlaps(newer)))
        };
        let lower: u64 = lower.into_iter().filter(merged).map(|file| file.bytes).sum();
        taken.iter().map(|file| file.bytes).sum::<u64>() + lower
    }
}

/// Which of the parts are rewritten by a compaction before anything is joined. The host is the
/// first part. A part is rewritten if its files overlap another part, and the compaction writes
/// less than a copy would.
pub(super) fn to_rewrite(parts: &[JoinInput]) -> Vec<bool> {
    let others = |at: usize| parts.iter().enumerate().filter(move |(other, _)| *other != at);
    let decide = |(at, part): (usize, &JoinInput)| {
        // The host cannot be copied. If it stands in the way, all other parts have to be.
        let copied = if at == 0 { others(0).map(|(_, part)| part.bytes()).sum() } else { part.bytes() };
        others(at).any(|(_, other)| part.intrudes(other))
            && !part.has_assigned_seqs()
            // Half, because a copy reads and folds every entry, though on several threads.
            && part.rewritten() <= copied / 2
    };
    parts.iter().enumerate().map(decide).collect()
}

/// Which of the parts are joined as files. The first, the host, never is, because its files are
/// there already. Larger parts are considered first, since two parts may exclude each other.
/// `base_level` is the first level below 0 that the host fills. `room` is how many more files level
/// 0 may take before they slow down writes.
pub(super) fn to_join(parts: &[JoinInput], base_level: usize, mut room: usize) -> Vec<bool> {
    let mut joined = vec![false; parts.len()];
    let mut order: Vec<_> = parts.iter().enumerate().skip(1).collect();
    order.sort_by_key(|(_, part)| std::cmp::Reverse(part.bytes()));
    let mut taken: Vec<_> = parts.first().into_iter().collect();
    for (at, part) in order {
        let into_newest = part.files.iter().filter(|file| file.level < base_level.max(1)).count();
        let apart = || taken.iter().all(|other| !part.intrudes(other) && !other.intrudes(part));
        if into_newest <= room && !part.has_assigned_seqs() && apart() {
            room -= into_newest;
            taken.push(part);
            joined.get_mut(at).into_iter().for_each(|joined| *joined = true);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StateId;
    use crate::key_group::KeyGroup;

    /// A file of some level from one group to another, of 100 bytes.
    fn file(level: usize, first: u16, last: u16) -> LiveFile {
        let key = |group| key::prefix(KeyGroup(group), StateId(7)).to_vec();
        LiveFile {
            path: format!("{level}-{first}-{last}").into(),
            level,
            bytes: 100,
            first: key(first),
            last: key(last),
            seqs: (3, 9),
        }
    }

    fn part(first: u16, last: u16, files: &[LiveFile]) -> JoinInput {
        JoinInput::source(KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) }, files.to_vec())
    }

    fn joined(parts: &[JoinInput]) -> Vec<bool> {
        to_join(parts, 6, 10)
    }

    #[test]
    fn parts_that_lie_apart_are_joined() {
        let host = part(10, 19, &[file(0, 10, 19), file(6, 10, 25)]);
        // Data in key groups that no subtask owns does no harm.
        let below = part(5, 9, &[file(0, 0, 9), file(6, 4, 9), file(6, 0, 3)]);
        assert_eq!(below.files.len(), 2, "nothing of the last file counts");
        assert_eq!(joined(&[host.clone(), below.clone()]), [false, true]);
        assert_eq!(to_rewrite(&[host, below]), [false, false]);
    }

    #[test]
    fn what_lies_where_another_owns_or_has_something_is_not_joined() {
        let host = part(10, 19, &[file(6, 12, 15)]);
        let owned = part(5, 9, &[file(6, 5, 10)]);
        assert_eq!(joined(&[host.clone(), owned.clone()]), [false, false], "group 10 is the host's");
        assert_eq!(joined(&[part(10, 19, &[file(6, 9, 15)]), part(5, 9, &[file(6, 5, 6)])]), [false, false]);
        // Between two parts that are not the host as well.
        let left = part(20, 24, &[file(6, 20, 25)]);
        let right = part(25, 29, &[file(6, 26, 29), file(5, 26, 29)]);
        assert_eq!(joined(&[host.clone(), left, right]), [false, false, true], "the larger one");
        // Where neither owns anything.
        let left = part(20, 24, &[file(6, 24, 27)]);
        let right = part(28, 29, &[file(6, 26, 29), file(5, 26, 29)]);
        assert_eq!(joined(&[host, left, right]), [false, false, true]);
    }

    /// RocksDB would take in what lies beside it, and show the other's keys as well.
    #[test]
    fn a_file_of_the_host_that_lies_within_anothers_range_is_in_the_way() {
        let (kept, files) = (KeyGroupRange { first: KeyGroup(10), last: KeyGroup(19) }, [file(0, 5, 5)]);
        let host = JoinInput::host(kept, files.to_vec());
        assert_eq!(joined(&[host, part(5, 9, &[file(6, 7, 8)])]), [false, false]);
    }

    #[test]
    fn a_tombstones_end_counts() {
        let mut tombstone = file(0, 5, 9);
        tombstone.last = key::bounds_of(KeyGroupRange { first: KeyGroup(5), last: KeyGroup(9) }).1;
        let host = part(10, 19, &[file(6, 12, 15)]);
        assert_eq!(joined(&[host, part(5, 9, &[tombstone])]), [false, false]);
    }

    #[test]
    fn files_whose_keys_do_not_have_their_own_sequence_numbers_are_never_joined() {
        let host = part(10, 19, &[file(6, 12, 15)]);
        for (seqs, ok) in [((7, 7), false), ((0, 0), true), ((0, 7), true)] {
            let source = part(5, 9, &[LiveFile { seqs, ..file(6, 6, 8) }]);
            assert_eq!(joined(&[host.clone(), source.clone()]), [false, ok], "{seqs:?}");
            assert_eq!(to_rewrite(&[host.clone(), source]), [false, false]);
        }
        let marker = key::marker(KeyGroupRange { first: KeyGroup(5), last: KeyGroup(9) }).to_vec();
        let alone = LiveFile { first: marker.clone(), last: marker, seqs: (7, 7), ..file(0, 5, 5) };
        assert_eq!(joined(&[host, part(5, 9, &[alone])]), [false, true]);
    }

    #[test]
    fn level_0_is_not_flooded() {
        let host = part(10, 19, &[file(6, 12, 15)]);
        let many = part(5, 9, &[file(0, 5, 9), file(0, 5, 9), file(5, 5, 7), file(6, 5, 9)]);
        for (base_level, room, ok) in [(6, 3, true), (6, 2, false), (5, 2, true), (5, 1, false)] {
            assert_eq!(to_join(&[host.clone(), many.clone()], base_level, room), [false, ok]);
        }
    }

    #[test]
    fn a_part_is_rewritten_where_that_is_less_than_to_copy_it() {
        let host = part(10, 19, &[file(6, 12, 15)]);
        let lower = [file(6, 0, 5), file(6, 5, 6), file(6, 7, 8), file(6, 8, 11)];
        // Two of four files lie across a border.
        assert_eq!(to_rewrite(&[host.clone(), part(5, 9, &lower)]), [false, true]);
        assert_eq!(to_rewrite(&[host.clone(), part(5, 9, &lower[2..])]), [false, true]);
        assert_eq!(to_rewrite(&[host.clone(), part(5, 9, &lower[3..])]), [false, false]);
        // Files in level 0 take along what they overlap.
        let with_newest = |newest: &[LiveFile]| part(5, 9, &[newest, &lower].concat());
        assert_eq!(to_rewrite(&[host.clone(), with_newest(&[file(0, 0, 11)])]), [false, false]);
        let apart = [file(0, 3, 5), file(0, 7, 8), file(0, 9, 9)];
        assert_eq!(
            with_newest(&apart).rewritten(),
            400,
            "the first, two below it, and one across the other border"
        );
        assert_eq!(with_newest(&[file(0, 3, 7), file(0, 7, 8), file(0, 9, 9)]).rewritten(), 600);
        // The host, if it stands in the way of more than it takes.
        let host = part(10, 19, &[file(6, 9, 15), file(6, 16, 18)]);
        assert_eq!(to_rewrite(&[host.clone(), part(5, 9, &lower[1..3])]), [true, false]);
        assert_eq!(to_rewrite(&[host, part(5, 9, &lower[2..3])]), [false, false]);
    }
}
