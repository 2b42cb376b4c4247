//! A set of keys as disjoint ranges: the tombstones of a delta.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

/// Half-open ranges of keys, disjoint, and joined where they touch: two sets of the same keys are
/// equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
}

impl RangeSet {
    /// Memory of a range besides its two keys: the node of the tree.
    const OVERHEAD: usize = 48;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Memory held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds all keys from `start` up to but without `end`; nothing if there are none.
    pub(crate) fn insert(&mut self, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        let (mut first, mut last) = (Box::<[u8]>::from(start), Box::<[u8]>::from(end));
        // Ranges are disjoint, so of those that begin at or before `end`, the last ones touch.
        while let Some((s, e)) = self.ranges.range::<[u8], _>((Unbounded, Included(&*last))).next_back() {
            if **e < *first {
                break;
            }
            let s = s.clone();
            let e = self.ranges.remove(&s).expect("it was just found");
            self.bytes -= s.len() + e.len() + Self::OVERHEAD;
            first = first.min(s);
            last = last.max(e);
        }
        self.bytes += first.len() + last.len() + Self::OVERHEAD;
        self.ranges.insert(first, last);
    }

    /// Adds all keys of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (start, end) in other.iter() {
            self.insert(start, end);
        }
    }

    /// Whether `key` is in the set.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.covering(key).is_some()
    }

    /// The range that `key` is in: start, end.
    pub(crate) fn covering(&self, key: &[u8]) -> Option<(&[u8], &[u8])> {
        let (start, end) = self.ranges.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        (key < &**end).then_some((start, end))
    }

    /// Whether more than `count` ranges begin between `start` and `end`.
    pub(crate) fn meets_more_than(&self, count: usize, start: &[u8], end: &[u8]) -> bool {
        start < end && self.ranges.range::<[u8], _>((Included(start), Excluded(end))).nth(count).is_some()
    }

    /// The ranges in order: start, end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ranges.iter().map(|(start, end)| (&**start, &**end))
    }

    /// The part of the set from `start` up to but without `end`.
    pub(crate) fn clipped(&self, start: &[u8], end: &[u8]) -> Self {
        let mut clipped = Self::new();
        if start >= end {
            return clipped;
        }
        let before = self.ranges.range::<[u8], _>((Unbounded, Included(start))).next_back();
        let within = self.ranges.range::<[u8], _>((Excluded(start), Excluded(end)));
        for (s, e) in before.into_iter().chain(within) {
            clipped.insert((&**s).max(start), (&**e).min(end));
        }
        clipped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn touching_ranges_join_and_empty_ones_vanish() {
        let mut set = RangeSet::new();
        set.insert(b"c", b"e");
        set.insert(b"a", b"b");
        set.insert(b"x", b"x");
        set.insert(b"z", b"y");
        assert_eq!(set.len(), 2);
        set.insert(b"b", b"c");
        assert_eq!(set.iter().collect::<Vec<_>>(), [(b"a".as_slice(), b"e".as_slice())]);
        assert_eq!(set.bytes(), 2 + RangeSet::OVERHEAD);
        assert!(set.contains(b"a") && set.contains(b"dzz") && !set.contains(b"e") && !set.contains(b""));
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_keys(
            ranges in prop::collection::vec((0_u8..40, 0_u8..40), 0..20),
            clip in (0_u8..40, 0_u8..40),
        ) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (start, end) in ranges {
                set.insert(&[start], &[end]);
                model.extend(start..end);
            }
            let clipped = set.clipped(&[clip.0], &[clip.1]);
            for key in 0..40 {
                prop_assert_eq!(set.contains(&[key]), model.contains(&key));
                prop_assert_eq!(clipped.contains(&[key]), model.contains(&key) && (clip.0..clip.1).contains(&key));
                if let Some((start, end)) = set.covering(&[key]) {
                    prop_assert!((start[0]..end[0]).all(|key| model.contains(&key)));
                    prop_assert!((start[0]..end[0]).contains(&key));
                }
            }
            let listed: Vec<_> = set.iter().collect();
            let count = listed.iter().filter(|(start, _)| (clip.0..clip.1).contains(&start[0])).count();
            for few in 0..4 {
                prop_assert_eq!(set.meets_more_than(few, &[clip.0], &[clip.1]), count > few);
            }
            prop_assert!(listed.iter().all(|(start, end)| start < end));
            prop_assert!(listed.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let bytes: usize = listed.iter().map(|(s, e)| s.len() + e.len() + RangeSet::OVERHEAD).sum();
            prop_assert_eq!(set.bytes(), bytes);
        }
    }
}
