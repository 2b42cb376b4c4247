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

/// Keys that all groups together keep, about; see [`Heads::batch`]. They are read together at the first look.
const KEYS: usize = 8192;
/// Up to so many keys a group they may be more, as far as there is memory for them: a read of a group costs the
/// same for a few keys as for one, so where groups are many each pop would pay for most of a read.
const WORTH_A_READ: usize = 16;
/// What is set aside for each of these: a group keeps up to two batches of short keys.
const BYTES_PER_KEY: usize = 2 * (OVERHEAD + 32);
/// Bytes that all groups together keep, unless the memory is small ([`Heads::limited`]).
const BYTES: usize = 4 << 20;
/// Least of a limit.
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
    /// What is kept, and what may be.
    bytes: usize,
    limit: usize,
    /// Where the next trim is due: at the limit, and above it only where all of it is needed.
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
    /// It is this one.
    Key(KeyGroup, Vec<u8>),
    /// It is not below this one. To know more, read the group from there on and [`Heads::fill`].
    Unread(KeyGroup, Vec<u8>),
}

/// Keys that are read of a group at once where `groups` share so many bytes.
fn batch(groups: usize, bytes: usize) -> usize {
    let within = |keys: usize| keys / groups.max(1);
    let more = within(bytes / BYTES_PER_KEY).min(WORTH_A_READ);
    within(KEYS).max(more).clamp(FEWEST_PER_GROUP, MOST_PER_GROUP)
}

impl Heads {
    /// Knows nothing yet but that all keys lie at or above `from`.
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

    /// Keeps up to `bytes`, and beyond that one key and what bounds it of each group whose turn may come next: those whose
    /// first keys begin alike.
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

    /// Where the smallest key of all groups is; the smallest group first where several have it. None
    /// if there are no keys.
    pub(crate) fn head(&self) -> Option<Head> {
        let (bound, group) = self.order.first()?;
        let known = self.group(*group).is_some_and(|state| state.known.first() == Some(bound));
        Some(if known { Head::Key(*group, bound.clone()) } else { Head::Unread(*group, bound.clone()) })
    }

    /// Whether the key is there; None if that is not known.
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

    /// What was read of a group from the place on that [`Head::Unread`] named.
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

    /// Whether no group was read yet: all can be read together then, for [`Heads::fill_all`].
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// What was read of all groups that have any key, from where a new one begins.
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

    /// Where more is kept than may be: forgets what comes last, group by group.
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
            // Some room, so that this is not done at each key.
            if self.bytes <= self.limit / 4 * 3 {
                break;
            }
            self.change(group, |state| state.shrink(&head, short));
        }
        self.trim_at = self.limit.max(self.bytes + self.bytes / 3);
    }

    /// Keeps the order over a change of one group.
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
