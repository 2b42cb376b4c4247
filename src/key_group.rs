//! Key groups: the unit in which keyed state is spread over subtasks and moved at a rescale.
//!
//! The scheme is Apache Flink's (`KeyGroupRangeAssignment`): a key's group is a stable hash modulo
//! the job's max parallelism, and each subtask owns one contiguous range of groups.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::SubtaskIndex;

/// Largest max parallelism that a job may have.
pub const MAX_PARALLELISM_LIMIT: u16 = 32_768;

/// One key group: `hash(key) mod max parallelism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGroup(pub u16);

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Number of key groups of a job, 1 to 32,768. Fixed when the job is created; it bounds the
/// parallelism that the job can ever be given. Default 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MaxParallelism(u16);

impl MaxParallelism {
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) unless `groups` is 1 to 32,768.
    pub fn new(groups: u16) -> Result<Self> {
        if (1..=MAX_PARALLELISM_LIMIT).contains(&groups) {
            Ok(Self(groups))
        } else {
            Err(Error::invalid(format!("max parallelism must be 1 to {MAX_PARALLELISM_LIMIT}, not {groups}")))
        }
    }

    /// The number of key groups.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The group of `key`: MurmurHash3 (x86, 32 bit, seed 0) of its bytes, modulo the number of
    /// groups.
    pub fn group_of(self, key: &[u8]) -> KeyGroup {
        // The remainder is below a u16, so nothing is cut off.
        KeyGroup((murmur3_32(key) % u32::from(self.0)) as u16)
    }

    /// The range that `subtask` of `parallelism` owns, as Flink assigns it:
    /// `ceil(i·max/p) ..= ceil((i+1)·max/p) − 1`. None where there are more subtasks than groups.
    pub fn range_of(self, subtask: SubtaskIndex, parallelism: u32) -> Option<KeyGroupRange> {
        let (max, index, parallelism) = (u64::from(self.0), u64::from(subtask.0), u64::from(parallelism));
        if parallelism == 0 || index >= parallelism {
            return None;
        }
        let first = (index * max).div_ceil(parallelism);
        let end = ((index + 1) * max).div_ceil(parallelism);
        // Both are at most `max`, a u16.
        (first < end)
            .then(|| KeyGroupRange { first: KeyGroup(first as u16), last: KeyGroup((end - 1) as u16) })
    }
}

impl MaxParallelism {
    /// The subtask of `parallelism` that owns `group`: the one whose [`range_of`](Self::range_of)
    /// contains it. None for a group that the job does not have, and for a parallelism of 0 or
    /// above the number of groups.
    pub fn subtask_of(self, group: KeyGroup, parallelism: u32) -> Option<SubtaskIndex> {
        if group.0 >= self.0 || parallelism == 0 || parallelism > u32::from(self.0) {
            return None;
        }
        let index = u64::from(group.0) * u64::from(parallelism) / u64::from(self.0);
        // Below the parallelism, because the group is below the number of groups.
        u32::try_from(index).ok().map(SubtaskIndex)
    }
}

impl Default for MaxParallelism {
    fn default() -> Self {
        Self(128)
    }
}

/// A contiguous, never empty range of key groups, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first group of the range.
    pub first: KeyGroup,
    /// The last group of the range.
    pub last: KeyGroup,
}

impl KeyGroupRange {
    /// Whether `group` lies in the range.
    pub fn contains(self, group: KeyGroup) -> bool {
        self.first <= group && group <= self.last
    }

    /// Number of groups.
    pub(crate) fn count(self) -> u32 {
        u32::from(self.last.0.saturating_sub(self.first.0)) + 1
    }

    /// The groups that lie in both.
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `parts`, in this order, follow one another without gap or overlap from the first
    /// group to the last.
    pub(crate) fn is_tiled_by(self, parts: impl IntoIterator<Item = Self>) -> bool {
        let mut next = u32::from(self.first.0);
        for part in parts {
            if u32::from(part.first.0) != next || part.last < part.first {
                return false;
            }
            next = u32::from(part.last.0) + 1;
        }
        next == u32::from(self.last.0) + 1
    }

    /// For what comes from outside: the range is one, and lies below `max`.
    pub(crate) fn check(self, max: MaxParallelism) -> Result<()> {
        if self.first > self.last || self.last.0 >= max.get() {
            return Err(Error::corrupt(format!("key groups {self} do not lie below {}", max.get())));
        }
        Ok(())
    }

    /// The groups of the range in ascending order.
    pub fn groups(self) -> impl DoubleEndedIterator<Item = KeyGroup> {
        (self.first.0..=self.last.0).map(KeyGroup)
    }
}

impl fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// MurmurHash3_x86_32 with seed 0 (Austin Appleby, public domain). Part of the stored format: it
/// decides where a key lives, so it can never change.
fn murmur3_32(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |k: u32| k.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);

    let mut hash = 0_u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        hash ^= mix(u32::from_le_bytes(*word));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    if !tail.is_empty() {
        hash ^= mix(tail.iter().rev().fold(0, |k, byte| (k << 8) | u32::from(*byte)));
    }
    // The reference takes the length modulo 2^32.
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur_matches_published_vectors() {
        // From the verification values commonly published for MurmurHash3_x86_32, seed 0.
        assert_eq!(murmur3_32(b""), 0);
        assert_eq!(murmur3_32(b"test"), 0xba6b_d213);
        assert_eq!(murmur3_32(b"Hello, world!"), 0xc036_3e43);
        assert_eq!(murmur3_32(b"The quick brown fox jumps over the lazy dog"), 0x2e4f_f723);
    }

    #[test]
    fn ranges_tile_all_groups_without_gap_or_overlap() {
        for max in [1, 2, 7, 128, 32_768] {
            let max = MaxParallelism::new(max).unwrap();
            for parallelism in [1_u32, 2, 3, 5, 64, 127, 128] {
                let groups: Vec<_> = (0..parallelism)
                    .filter_map(|subtask| max.range_of(SubtaskIndex(subtask), parallelism))
                    .flat_map(KeyGroupRange::groups)
                    .collect();
                assert_eq!(groups, (0..max.get()).map(KeyGroup).collect::<Vec<_>>());
                for group in groups {
                    let owner = max.subtask_of(group, parallelism);
                    let range = owner.and_then(|owner| max.range_of(owner, parallelism));
                    let there = parallelism <= u32::from(max.get());
                    assert_eq!(
                        range.is_some_and(|range| range.contains(group)),
                        there,
                        "{owner:?} of {group}"
                    );
                }
                assert_eq!(max.subtask_of(KeyGroup(max.get()), parallelism), None);
                assert_eq!(max.subtask_of(KeyGroup(0), 0), None);
            }
        }
    }

    #[test]
    fn parts_of_a_range() {
        let range = |first, last| KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) };
        assert_eq!(range(2, 5).intersection(range(4, 9)), Some(range(4, 5)));
        assert_eq!(range(2, 5).intersection(range(6, 9)), None);
        assert_eq!((range(2, 5).count(), range(3, 3).count()), (4, 1));
        assert!(range(2, 5).is_tiled_by([range(2, 2), range(3, 5)]));
        for wrong in [
            &[][..],
            &[range(2, 4)],
            &[range(2, 6)],
            &[range(1, 5)],
            &[range(2, 3), range(5, 5)],
            &[range(2, 3), range(3, 5)],
            &[range(3, 5), range(2, 2)],
            &[range(2, 5), range(6, 5)],
        ] {
            assert!(!range(2, 5).is_tiled_by(wrong.iter().copied()), "{wrong:?}");
        }
    }

    #[test]
    fn bounds_of_max_parallelism() {
        assert!(MaxParallelism::new(0).is_err());
        assert!(MaxParallelism::new(32_769).is_err());
        assert_eq!(MaxParallelism::default().range_of(SubtaskIndex(2), 2), None);
    }
}
