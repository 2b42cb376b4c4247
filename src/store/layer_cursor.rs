//! [`LayerCursor`]: a position in one layer above the table, within a range.

use std::sync::Arc;

use crate::delta::{Direction, Entry, MergeOp, Pooled, RangeSet, Walk};
use crate::ids::DeltaSeq;

use super::layer::Layer;

/// Stands at an entry of a layer, or behind the last one in its direction. It knows nothing of the
/// scan's bounds but where it was told to seek.
#[derive(Debug)]
pub(super) struct LayerCursor {
    /// The number of a frozen layer. None for newer layers.
    pub(super) seq: Option<DeltaSeq>,
    content: Content,
    direction: Direction,
}

#[derive(Debug)]
enum Content {
    /// A copy of the range: if it has few entries, or if its keys are not sorted yet.
    Copied { entries: Vec<(Vec<u8>, Change)>, at: usize, tombstones: RangeSet },
    /// A table whose ordered keys are all there is in the range, and which stays as it is while it
    /// is held.
    Walked { table: Arc<Pooled>, walk: Walk },
    /// A frozen layer whose keys are sorted already. `at` is how many of them lie below the place.
    Sorted { layer: Arc<Layer>, at: usize },
}

/// An entry of its own.
#[derive(Debug)]
pub(super) enum Change {
    Put(Vec<u8>),
    Delete,
    Merge(MergeOp, Vec<u8>),
}

impl Change {
    /// Without the value, for scans that want no values.
    pub(super) fn of_key(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Put(_) | Entry::Merge { .. } => Self::Put(Vec::new()),
            Entry::Delete => Self::Delete,
        }
    }

    pub(super) fn of(entry: Entry<'_>) -> Self {
        match entry {
            Entry::Put(value) => Self::Put(value.to_vec()),
            Entry::Delete => Self::Delete,
            Entry::Merge { op, operand } => Self::Merge(op, operand.to_vec()),
        }
    }

    fn entry(&self) -> Entry<'_> {
        match self {
            Self::Put(value) => Entry::Put(value),
            Self::Delete => Entry::Delete,
            Self::Merge(op, operand) => Entry::Merge { op: *op, operand },
        }
    }
}

impl LayerCursor {
    /// Of a copy of all that the layer has in a range. None if that is nothing.
    pub(super) fn copied<'a>(
        seq: Option<DeltaSeq>,
        entries: impl Iterator<Item = (&'a [u8], Entry<'a>)>,
        tombstones: RangeSet,
    ) -> Option<Self> {
        let entries: Vec<_> = entries.map(|(key, entry)| (key.to_vec(), Change::of(entry))).collect();
        // Each layer costs every step of the scan a comparison.
        if entries.is_empty() && tombstones.is_empty() {
            return None;
        }
        Some(Self {
            seq,
            content: Content::Copied { entries, at: 0, tombstones },
            direction: Direction::Forward,
        })
    }

    /// Of a table with nothing but ordered keys in the range.
    pub(super) fn walked(seq: Option<DeltaSeq>, table: Arc<Pooled>) -> Self {
        let walk = Walk::nowhere();
        Self { seq, content: Content::Walked { table, walk }, direction: Direction::Forward }
    }

    /// Of a layer whose keys are sorted.
    pub(super) fn sorted(layer: Arc<Layer>) -> Self {
        Self {
            seq: Some(layer.seq),
            content: Content::Sorted { layer, at: 0 },
            direction: Direction::Forward,
        }
    }

    /// Goes to the first entry from `bound` on, or to the last one below it.
    pub(super) fn seek(&mut self, direction: Direction, bound: &[u8]) {
        self.direction = direction;
        match &mut self.content {
            Content::Copied { entries, at, .. } => {
                *at = entries.partition_point(|(key, _)| key.as_slice() < bound);
            }
            Content::Walked { table, walk } => *walk = Walk::new(table, direction, bound),
            // The position is known, because such a cursor is made only for a sorted delta.
            Content::Sorted { layer, at } => *at = layer.delta.position(bound).unwrap_or_default(),
        }
    }

    pub(super) fn peek(&self) -> Option<(&[u8], Entry<'_>)> {
        let index = |at: usize| match self.direction {
            Direction::Forward => Some(at),
            Direction::Backward => at.checked_sub(1),
        };
        match &self.content {
            Content::Copied { entries, at, .. } => {
                let (key, change) = entries.get(index(*at)?)?;
                Some((key, change.entry()))
            }
            Content::Walked { table, walk } => walk.position().map(|pos| table.point(pos)),
            Content::Sorted { layer, at } => layer.delta.nth(index(*at)?),
        }
    }

    /// Steps to the next entry in its direction.
    pub(super) fn advance(&mut self) {
        match (&mut self.content, self.direction) {
            (Content::Walked { table, walk }, _) => walk.advance(table),
            (Content::Copied { at, .. } | Content::Sorted { at, .. }, Direction::Forward) => *at += 1,
            (Content::Copied { at, .. } | Content::Sorted { at, .. }, Direction::Backward) => {
                *at = at.saturating_sub(1);
            }
        }
    }

    /// Entries that were copied for it.
    #[cfg(test)]
    pub(super) fn copies(&self) -> usize {
        match &self.content {
            Content::Copied { entries, .. } => entries.len(),
            Content::Walked { .. } | Content::Sorted { .. } => 0,
        }
    }

    /// The range deleted in this layer that hides `key` in those below: start, end.
    pub(super) fn hiding(&self, key: &[u8]) -> Option<(&[u8], &[u8])> {
        let tombstones = match &self.content {
            Content::Copied { tombstones, .. } => tombstones,
            Content::Walked { table, .. } => table.tombstones(),
            Content::Sorted { layer, .. } => layer.delta.tombstones(),
        };
        // Most layers have none.
        if tombstones.is_empty() { None } else { tombstones.covering(key) }
    }
}
