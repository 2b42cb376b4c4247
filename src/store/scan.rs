//! An ordered scan through all layers: active delta, frozen deltas, table.

use std::sync::Arc;

use crate::delta::{Entry, MergeOp, RangeSet};
use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::key;
use crate::table::OwnedCursor;

use super::shared::Layer;

/// An iterator over the keys and values of a state within one key group, in the order of the keys'
/// bytes. It is a snapshot of the moment it was made: writes that come after it are not seen, and it
/// borrows nothing from the store, so that a program may write while it iterates.
///
/// A snapshot keeps memory and files alive, which no bound on memory counts (at most what the store may
/// hold at that moment): drop it when done.
#[derive(Debug)]
pub struct Scan {
    /// Newest first: the active delta's part, then the frozen layers.
    layers: Vec<Part>,
    table: OwnedCursor,
}

/// What one layer has to say about the range.
#[derive(Debug)]
enum Part {
    /// A copy of the range: of the active delta, which goes on changing, or of a frozen one whose
    /// order is not known yet. `seq` is that of the frozen one.
    Copied {
        seq: Option<DeltaSeq>,
        entries: std::vec::IntoIter<(Vec<u8>, Change)>,
        next: Option<(Vec<u8>, Change)>,
        tombstones: RangeSet,
    },
    Frozen {
        layer: Arc<Layer>,
        at: usize,
        end: Vec<u8>,
    },
}

/// An entry of its own.
#[derive(Debug)]
enum Change {
    Put(Vec<u8>),
    Delete,
    Merge(MergeOp, Vec<u8>),
}

impl Change {
    fn of(entry: Entry<'_>) -> Self {
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

impl Part {
    fn peek(&self) -> Option<(&[u8], Entry<'_>)> {
        match self {
            Self::Copied { next, .. } => next.as_ref().map(|(key, change)| (key.as_slice(), change.entry())),
            Self::Frozen { layer, at, end } => layer.delta.nth(*at).filter(|(key, _)| *key < end.as_slice()),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Copied { entries, next, .. } => *next = entries.next(),
            Self::Frozen { at, .. } => *at += 1,
        }
    }

    fn hides(&self, key: &[u8]) -> bool {
        match self {
            Self::Copied { tombstones, .. } => tombstones.contains(key),
            Self::Frozen { layer, .. } => layer.delta.tombstones().contains(key),
        }
    }
}

/// Gathers the layers of a scan, newest first.
#[derive(Debug)]
pub(super) struct ScanBuilder {
    start: Vec<u8>,
    end: Vec<u8>,
    layers: Vec<Part>,
}

impl ScanBuilder {
    /// A scan of the encoded keys `start..end`.
    pub(super) fn new(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: end.to_vec(), layers: Vec::new() }
    }

    /// Adds a copy of a layer's part.
    pub(super) fn copied<'a>(
        &mut self,
        seq: Option<DeltaSeq>,
        entries: impl Iterator<Item = (&'a [u8], Entry<'a>)>,
        tombstones: &RangeSet,
    ) {
        let entries: Vec<_> = entries.map(|(key, entry)| (key.to_vec(), Change::of(entry))).collect();
        let mut entries = entries.into_iter();
        let next = entries.next();
        let tombstones = tombstones.clipped(&self.start, &self.end);
        self.layers.push(Part::Copied { seq, entries, next, tombstones });
    }

    pub(super) fn frozen(&mut self, layer: &Arc<Layer>) {
        if let Some(at) = layer.delta.position(&self.start) {
            self.layers.push(Part::Frozen { layer: Arc::clone(layer), at, end: self.end.clone() });
        } else {
            let (start, end) = (self.start.clone(), self.end.clone());
            self.copied(Some(layer.seq), layer.delta.range(&start, &end), layer.delta.tombstones());
        }
    }

    /// `applied` is the delta that the table's snapshot stands at: layers up to it are in the table
    /// already, and would fold their operands a second time.
    pub(super) fn build(mut self, table: OwnedCursor, applied: DeltaSeq) -> Scan {
        self.layers.retain(|part| match part {
            Part::Copied { seq, .. } => seq.is_none_or(|seq| seq > applied),
            Part::Frozen { layer, .. } => layer.seq > applied,
        });
        Scan { layers: self.layers, table }
    }
}

/// A key and its value, None if it turns out deleted.
type Step = (Vec<u8>, Option<Vec<u8>>);

impl Scan {
    /// Moves past the smallest key of all layers.
    fn step(&mut self) -> Option<Result<Step>> {
        let heads = self.layers.iter().filter_map(|part| part.peek().map(|(key, _)| key));
        let key = heads.chain(self.table.entry().map(|(key, _)| key)).min()?.to_vec();

        // From the newest layer down, until one settles what the value stands on.
        let mut operands: Vec<(MergeOp, Vec<u8>)> = Vec::new();
        let mut base = None;
        let mut settled = false;
        for part in &mut self.layers {
            let mine = part.peek().filter(|(head, _)| *head == key).map(|(_, entry)| Change::of(entry));
            if mine.is_some() {
                part.advance();
            }
            if settled {
                continue;
            }
            match mine {
                Some(Change::Put(value)) => {
                    base = Some(value);
                    settled = true;
                }
                Some(Change::Delete) => settled = true,
                Some(Change::Merge(op, operand)) => operands.push((op, operand)),
                None => settled = part.hides(&key),
            }
        }
        if let Some((head, value)) = self.table.entry()
            && head == key
        {
            if !settled {
                base = Some(value.to_vec());
            }
            if let Err(error) = self.table.advance() {
                return Some(Err(error));
            }
        }
        Some(Ok((key, fold(base, operands))))
    }
}

/// Folds operands, newest first, into a base.
pub(super) fn fold(base: Option<Vec<u8>>, operands: Vec<(MergeOp, Vec<u8>)>) -> Option<Vec<u8>> {
    operands
        .into_iter()
        .rev()
        .fold(base, |value, (op, operand)| Some(op.fold(value.as_deref(), [operand.as_slice()])))
}

impl Iterator for Scan {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                Ok((key, Some(value))) => return Some(Ok((key::user_key(&key).to_vec(), value))),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
