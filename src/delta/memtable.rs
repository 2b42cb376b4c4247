//! The table that an active and a frozen delta share: records, the two indexes over them, and
//! tombstones.
//!
//! Every key is in the hash index, so a point operation costs the same for every state. Keys of
//! states with an ordered table are in the ordered index as well, which is touched only when a key
//! is new to the delta.

use std::iter::Peekable;

use super::TableKind;
use super::arena::{Arena, Pos};
use super::entry::{Entry, Lookup, MergeOp};
use super::hash::{self, HashIndex, SpareShards};
use super::ordered::{self, OrderedIndex};
use super::range_set::RangeSet;
use crate::ids::StateId;
use crate::key::{PREFIX_LEN, successor};
use crate::state_map::StateMap;

/// Keys to entries, and tombstones that lie below all of them.
pub(crate) struct Memtable {
    arena: Arena,
    points: HashIndex,
    ordered: OrderedIndex,
    tombstones: RangeSet,
    /// States that have keys outside the ordered index.
    unordered: StateSet,
}

impl Memtable {
    pub(crate) fn new(arena: Arena, points: HashIndex) -> Self {
        Self {
            arena,
            points,
            ordered: OrderedIndex::default(),
            tombstones: RangeSet::new(),
            unordered: StateSet::default(),
        }
    }

    /// A table without any memory, which nothing may be written to.
    pub(crate) fn hollow() -> Self {
        Self::new(Arena::default(), HashIndex::hollow())
    }

    pub(crate) fn is_hollow(&self) -> bool {
        self.points.is_hollow()
    }

    #[inline]
    pub(crate) fn put(&mut self, kind: TableKind, key: &[u8], value: &[u8]) {
        self.set(kind, key, Entry::Put(value));
    }

    #[inline]
    pub(crate) fn delete(&mut self, kind: TableKind, key: &[u8]) {
        self.set(kind, key, Entry::Delete);
    }

    #[inline]
    fn set(&mut self, kind: TableKind, key: &[u8], entry: Entry<'_>) {
        let hash = self.points.hash(key);
        match self.points.find(hash, key, &self.arena) {
            Some(pos) => self.arena.set(pos, entry),
            None => self.insert(kind, hash, key, entry),
        }
    }

    /// Folds `operand` into the delta's entry of the key.
    pub(crate) fn merge(&mut self, kind: TableKind, op: MergeOp, key: &[u8], operand: &[u8]) {
        let hash = self.points.hash(key);
        if let Some(pos) = self.points.find(hash, key, &self.arena) {
            match self.arena.entry(pos) {
                // An append to a deleted value begins a new one.
                Entry::Delete => self.arena.set(pos, Entry::Put(operand)),
                // A state has one operator for life, so operands of two never meet.
                Entry::Put(_) | Entry::Merge { .. } => match op {
                    MergeOp::ListAppend => self.arena.append(pos, operand),
                },
            }
        } else if self.tombstones.contains(key) {
            // A tombstone of this delta hides all older bases.
            self.insert(kind, hash, key, Entry::Put(operand));
        } else {
            self.insert(kind, hash, key, Entry::Merge { op, operand });
        }
    }

    #[inline]
    fn insert(&mut self, kind: TableKind, hash: hash::KeyHash, key: &[u8], entry: Entry<'_>) {
        let pos = self.arena.push(key, entry, kind == TableKind::Ordered);
        self.points.insert(hash, pos);
        match kind {
            // Noted, so that a scan of ordered states need not look for keys outside the ordered
            // index.
            TableKind::Hash => self.unordered.insert(key),
            TableKind::Ordered => self.ordered.insert(key, pos, &self.arena),
        }
    }

    /// Adds a tombstone and removes the points that it covers.
    pub(crate) fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        if start >= end {
            return;
        }
        let mut covered = self.ordered.remove_range(start, end, &self.arena);
        // Walks the whole delta, but only if a hash state has keys in the range.
        covered.extend(self.unordered_in(start, end));
        for pos in covered {
            self.points.remove(pos, &self.arena);
            self.arena.remove(pos);
        }
        self.tombstones.insert(start, end);
    }

    /// Repeats the changes of a newer table.
    pub(crate) fn absorb(&mut self, newer: &Self) {
        // Tombstones first: they lie below the entries of their own table.
        for (start, end) in newer.tombstones.iter() {
            self.delete_range(start, end);
        }
        for pos in newer.arena.positions() {
            let kind = if newer.arena.is_ordered(pos) { TableKind::Ordered } else { TableKind::Hash };
            match newer.point(pos) {
                (key, Entry::Put(value)) => self.put(kind, key, value),
                (key, Entry::Delete) => self.delete(kind, key),
                (key, Entry::Merge { op, operand }) => self.merge(kind, op, key, operand),
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Lookup<'_> {
        match self.points.find(self.points.hash(key), key, &self.arena) {
            Some(pos) => match self.arena.entry(pos) {
                Entry::Put(value) => Lookup::Value(value),
                Entry::Delete => Lookup::Deleted,
                Entry::Merge { op, operand } => Lookup::Operand { op, operand },
            },
            // Most deltas have no tombstones, and then a miss costs one probe.
            None if !self.tombstones.is_empty() && self.tombstones.contains(key) => Lookup::Deleted,
            None => Lookup::Unknown,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.points.len() == 0 && self.tombstones.is_empty()
    }

    /// Memory held, with the garbage of overwritten values. It depends only on what was written, so
    /// that a size limit cuts a repeated run at the same places.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.arena.used()
            + self.points.len() * hash::BYTES_PER_ENTRY
            + self.ordered.len() * ordered::BYTES_PER_ENTRY
            + self.tombstones.bytes()
    }

    /// Memory as the allocator has it. For a small table it is much more than [`Memtable::bytes`].
    pub(crate) fn memory(&self) -> usize {
        self.arena.memory()
            + self.points.memory()
            + self.ordered.len() * ordered::BYTES_PER_ENTRY
            + self.tombstones.bytes()
    }

    pub(crate) fn tombstones(&self) -> &RangeSet {
        &self.tombstones
    }

    pub(crate) fn point(&self, pos: Pos) -> (&[u8], Entry<'_>) {
        (self.arena.key(pos), self.arena.entry(pos))
    }

    /// Fetches the records that are needed next into the cache.
    pub(crate) fn fetch(&self, positions: &[Pos]) {
        self.arena.fetch(positions);
    }

    /// The positions of all keys from `start` up to but without `end`, in order. Keys of hash
    /// states are found by a walk over the whole delta and sorted.
    pub(crate) fn range<'a>(
        &'a self,
        start: &[u8],
        end: &'a [u8],
    ) -> Positions<'a, impl Iterator<Item = Pos>> {
        let below_end = move |pos: &Pos| self.arena.key(*pos) < end;
        let ordered = self.ordered.range_from(start, &self.arena).take_while(below_end);
        self.merged(ordered, self.unordered_in(start, end).collect())
    }

    /// Whether a walk along the ordered index meets all keys of the range.
    pub(crate) fn is_in_order(&self, start: &[u8], end: &[u8]) -> bool {
        !self.unordered.may_meet(start, end)
    }

    /// Whether there are more than `few` ordered keys in the range, or tombstones that overlap it.
    /// The cost does not grow with their number.
    pub(crate) fn has_many_in(&self, start: &[u8], end: &[u8], few: usize) -> bool {
        let key = self.ordered.range_from(start, &self.arena).nth(few);
        key.is_some_and(|pos| self.arena.key(pos) < end) || self.tombstones.meets_more_than(few, start, end)
    }

    /// The keys of ordered states, for a [`Walk`](super::walk::Walk).
    pub(super) fn ordered(&self) -> (&OrderedIndex, &Arena) {
        (&self.ordered, &self.arena)
    }

    /// The entries of ordered states from `start` up to but without `end`, in order.
    pub(crate) fn ordered_range<'a>(
        &'a self,
        start: &[u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], Entry<'a>)> {
        let points = self.ordered.range_from(start, &self.arena).map(|pos| self.point(pos));
        points.take_while(move |(key, _)| *key < end)
    }

    /// The positions of all keys in order.
    pub(crate) fn all(&self) -> Positions<'_, impl Iterator<Item = Pos>> {
        let unordered = match self.unordered.is_empty() {
            // Without hash states the ordered index has everything.
            true => Vec::new(),
            false => self.arena.positions().filter(|pos| !self.arena.is_ordered(*pos)).collect(),
        };
        self.merged(self.ordered.range_from(&[], &self.arena), unordered)
    }

    fn merged<I: Iterator<Item = Pos>>(&self, ordered: I, mut unordered: Vec<Pos>) -> Positions<'_, I> {
        sort_by_key(&mut unordered, &self.arena);
        Positions {
            arena: &self.arena,
            ordered: ordered.peekable(),
            unordered: unordered.into_iter().peekable(),
        }
    }

    /// The positions of keys in the range that are not in the ordered index, in any order.
    fn unordered_in(&self, start: &[u8], end: &[u8]) -> impl Iterator<Item = Pos> {
        let within = move |pos: &Pos| {
            let key = self.arena.key(*pos);
            start <= key && key < end && !self.arena.is_ordered(*pos)
        };
        self.unordered
            .may_meet(start, end)
            .then(|| self.arena.positions().filter(within))
            .into_iter()
            .flatten()
    }

    /// Chunks of memory in use.
    pub(crate) fn filled_chunks(&self) -> usize {
        self.arena.chunks()
    }

    /// An empty table made from this one's memory. The cost grows with the size of the table.
    pub(crate) fn emptied(self) -> Self {
        let (chunks, shards) = self.into_spare();
        Self::new(Arena::with_spare(chunks), HashIndex::with_hint(0, shards))
    }

    /// The memory that the next delta can use.
    pub(crate) fn into_spare(self) -> (Vec<Vec<u8>>, Option<SpareShards>) {
        (self.arena.into_spare(), self.points.into_spare())
    }
}

/// Positions of the ordered index and sorted ones of hash states, as one sequence in key order.
pub(crate) struct Positions<'a, I: Iterator<Item = Pos>> {
    arena: &'a Arena,
    ordered: Peekable<I>,
    unordered: Peekable<std::vec::IntoIter<Pos>>,
}

impl<I: Iterator<Item = Pos>> Iterator for Positions<'_, I> {
    type Item = Pos;

    fn next(&mut self) -> Option<Pos> {
        match (self.ordered.peek(), self.unordered.peek()) {
            (Some(a), Some(b)) if self.arena.key(*a) < self.arena.key(*b) => self.ordered.next(),
            (Some(_), None) => self.ordered.next(),
            _ => self.unordered.next(),
        }
    }
}

/// Sorts by key. The first 16 bytes of each key, which for keys of up to 10 bytes is all and for
/// longer ones nearly always decides, are fetched once.
fn sort_by_key(positions: &mut Vec<Pos>, arena: &Arena) {
    let mut keyed: Vec<(u128, Pos)> = positions.iter().map(|pos| (head(arena.key(*pos)), *pos)).collect();
    keyed.sort_unstable_by(|(a_head, a), (b_head, b)| {
        a_head.cmp(b_head).then_with(|| arena.key(*a).cmp(arena.key(*b)))
    });
    positions.clear();
    positions.extend(keyed.iter().map(|(_, pos)| pos));
}

/// The first 16 bytes of a key as a number that compares as they do; shorter ones are filled up
/// with 0.
fn head(key: &[u8]) -> u128 {
    if let Some(first) = key.first_chunk() {
        return u128::from_be_bytes(*first);
    }
    let mut first = [0; 16];
    first[..key.len()].copy_from_slice(key);
    u128::from_be_bytes(first)
}

/// The states of some keys.
#[derive(Default)]
struct StateSet {
    /// The state met last. The next key is nearly always of the same state.
    last: Option<[u8; 4]>,
    states: StateMap<()>,
}

impl StateSet {
    /// Adds the state of an encoded key.
    #[inline]
    fn insert(&mut self, key: &[u8]) {
        let state = state_of(key);
        if self.last != Some(state) {
            self.last = Some(state);
            self.states.insert(StateId(u32::from_be_bytes(state)), ());
        }
    }

    fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Whether a key of one of the states may lie in the range.
    fn may_meet(&self, start: &[u8], end: &[u8]) -> bool {
        // Most ranges lie within one state of one key group.
        let prefix = start.get(..PREFIX_LEN);
        let within_one = prefix.filter(|prefix| successor(prefix).is_none_or(|after| end <= &*after));
        match within_one {
            Some(prefix) => self.states.get(StateId(u32::from_be_bytes(state_of(prefix)))).is_some(),
            None => !self.states.is_empty(),
        }
    }
}

/// The state in an encoded key. Keys too short to name one share the reserved state.
#[inline]
fn state_of(key: &[u8]) -> [u8; 4] {
    key.get(2..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default()
}
