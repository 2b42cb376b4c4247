//! The smallest keys of an ordered state over all key groups of a store, without holding all keys:
//! for each group a few of its first keys, and up to which key these are complete.
//!
//! The table orders keys by group first, so the smallest key of all groups is the smallest of the
//! groups' heads. [`Heads`] keeps those in order. It is only a cache: it starts out empty, is told
//! of every change, and says which group has to be read when it does not know.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod group;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::key_group::{KeyGroup, KeyGroupRange};

use super::first_keys::{Batch, FirstKeys, SHORT};
use group::{Group, OVERHEAD};

/// About how many keys all groups together keep, see [`Heads::batch`]. The first look reads them
/// together.
const KEYS: usize = 8192;
/// With many groups, [`KEYS`] leaves each of them very few. A group then keeps up to this many, as
/// far as memory allows, because a read costs the same for a few keys as for one.
const WORTH_A_READ: usize = 16;
/// Memory reserved for each key of a batch. A group keeps up to two batches of short keys.
const BYTES_PER_KEY: usize = 2 * (OVERHEAD + 32);
/// Bytes that all groups together keep, unless the memory is small ([`Heads::limited`]).
const BYTES: usize = 4 << 20;
/// The smallest limit.
const MIN_BYTES: usize = 64 << 10;
const FEWEST_PER_GROUP: usize = 2;
const MOST_PER_GROUP: usize = 256;

/// The first keys of each group. All keys are the user's part of encoded keys.
#[derive(Debug)]
pub(crate) struct Heads {
    first: KeyGroup,
    groups: Vec<Group>,
    /// The bound of each group that has one.
    order: BTreeSet<(Vec<u8>, KeyGroup)>,
    batch: usize,
    /// Bytes of the kept keys, and the most that they may take.
    bytes: usize,
    limit: usize,
    /// At how many bytes the next trim is due. This is the limit, unless a trim found that more is
    /// needed.
    trim_at: usize,
    short: usize,
    /// Whether no group was read yet.
    is_new: bool,
    /// How often a group was read.
    #[cfg(test)]
    reads: usize,
}

/// Where the smallest key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// This key.
    Key(KeyGroup, Vec<u8>),
    /// A key at or above this one. To learn it, read the group from there on and [`Heads::fill`].
    Unread(KeyGroup, Vec<u8>),
}

/// How many keys of a group are read at once if `groups` groups share `bytes` bytes.
fn batch(groups: usize, bytes: usize) -> usize {
    let within = |keys: usize| keys / groups.max(1);
    let more = within(bytes / BYTES_PER_KEY).min(WORTH_A_READ);
    within(KEYS).max(more).clamp(FEWEST_PER_GROUP, MOST_PER_GROUP)
}

impl Heads {
    /// An empty cache. All keys of the state lie at or above `from`.
    pub(crate) fn new(range: KeyGroupRange, from: &[u8]) -> Self {
        let groups =
            range.groups().map(|_| Group { known: BTreeSet::new(), unread: Some(from.to_vec()), bytes: 0 });
        let groups: Vec<_> = groups.collect();
        let order = range.groups().map(|group| (from.to_vec(), group)).collect();
        let batch = batch(groups.len(), BYTES);
        let bytes = groups.iter().map(Group::weight).sum();
        Self {
            first: range.first,
            groups,
            order,
            batch,
            bytes,
            limit: BYTES,
            trim_at: BYTES,
            short: SHORT,
            is_new: true,
            #[cfg(test)]
            reads: 0,
        }
    }

    /// Limits the cache to `bytes`. Groups whose first keys begin alike may each keep one key and
    /// its bound beyond the limit, because any of them may be the next.
    #[must_use]
    pub(crate) fn limited(mut self, bytes: usize) -> Self {
        self.limit = bytes.clamp(MIN_BYTES, BYTES);
        self.batch = batch(self.groups.len(), self.limit);
        self.trim_at = self.limit;
        self
    }

    /// How much of a group to read at once. It keeps up to twice as many keys.
    pub(crate) fn batch(&self) -> Batch {
        Batch { keys: self.batch, bytes: self.limit / 2 }
    }

    /// Where the smallest key of all groups is. If several groups have it, the smallest group comes
    /// first. None if there are no keys.
    pub(crate) fn head(&self) -> Option<Head> {
        let (bound, group) = self.order.first()?;
        // The bound is a known key, or where the unread keys begin.
        let known = self.group(*group).is_some_and(|state| state.known.first() == Some(bound));
        Some(if known { Head::Key(*group, bound.clone()) } else { Head::Unread(*group, bound.clone()) })
    }

    /// Whether the state has the key. None if the cache does not know.
    pub(crate) fn contains(&self, group: KeyGroup, key: &[u8]) -> Option<bool> {
        let state = self.group(group)?;
        state.knows(key).then(|| state.known.contains(key))
    }

    /// The key was added to the state.
    pub(crate) fn insert(&mut self, group: KeyGroup, key: &[u8]) {
        let limit = 2 * self.batch;
        self.change(group, |state| {
            if !state.knows(key) {
                return;
            }
            state.insert(key.to_vec());
            if state.known.len() > limit {
                state.forget_last();
            }
        });
        self.trim();
    }

    /// The key was removed from the state.
    pub(crate) fn remove(&mut self, group: KeyGroup, key: &[u8]) {
        self.change(group, |state| state.remove(key));
    }

    /// Takes in the result of a read that began where [`Head::Unread`] said.
    pub(crate) fn fill(&mut self, group: KeyGroup, read: FirstKeys) {
        #[cfg(test)]
        {
            self.reads += 1;
        }
        self.is_new = false;
        self.change(group, |state| {
            read.keys.into_iter().for_each(|key| state.insert(key));
            state.unread = read.next;
        });
        self.trim();
    }

    /// True before the first read. Then all groups can be read together, for [`Heads::fill_all`].
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Takes in a read of all groups from their beginning. Groups without keys need not be named.
    pub(crate) fn fill_all(&mut self, read: impl IntoIterator<Item = (KeyGroup, FirstKeys)>) {
        let mut read: BTreeMap<_, _> = read.into_iter().collect();
        for index in 0..self.groups.len() {
            let group = KeyGroup(self.first.0 + index as u16);
            self.fill(group, read.remove(&group).unwrap_or_default());
        }
    }

    #[cfg(test)]
    pub(crate) fn reads(&self) -> usize {
        self.reads
    }

    /// Keys that are kept, those of all groups together.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.groups.iter().map(|group| group.known.len()).sum()
    }

    fn index(&self, group: KeyGroup) -> Option<usize> {
        group.0.checked_sub(self.first.0).map(usize::from)
    }

    fn group(&self, group: KeyGroup) -> Option<&Group> {
        self.groups.get(self.index(group)?)
    }

    /// Above the limit, forgets the last keys of the groups whose turn comes last.
    fn trim(&mut self) {
        if self.bytes <= self.limit {
            self.trim_at = self.limit;
        }
        if self.bytes <= self.trim_at {
            return;
        }
        let Some((head, _)) = self.order.first().cloned() else { return };
        let groups: Vec<_> = self.order.iter().rev().map(|(_, group)| *group).collect();
        let short = self.short;
        for group in groups {
            // Down to three quarters of the limit, so that not every insert trims.
            if self.bytes <= self.limit / 4 * 3 {
                break;
            }
            self.change(group, |state| state.shrink(&head, short));
        }
        self.trim_at = self.limit.max(self.bytes + self.bytes / 3);
    }

    /// Changes one group, and updates its place in the order.
    fn change(&mut self, group: KeyGroup, change: impl FnOnce(&mut Group)) {
        let index = self.index(group);
        let Some(state) = index.and_then(|index| self.groups.get_mut(index)) else { return };
        let before = state.bound().cloned();
        self.bytes -= state.weight();
        change(state);
        self.bytes += state.weight();
        let after = state.bound();
        if before.as_ref() == after {
            return;
        }
        let after = after.cloned();
        if let Some(bound) = before {
            self.order.remove(&(bound, group));
        }
        self.order.extend(after.map(|bound| (bound, group)));
    }
}
