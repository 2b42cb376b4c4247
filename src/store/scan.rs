//! An ordered scan through all layers: active delta, frozen deltas, table.

use std::sync::Arc;

use crate::delta::{Entry, MergeOp, RangeSet};
use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::key;
use crate::table::{OwnedCursor, Table};

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
    /// After an error there is nothing more: without the table the layers alone would tell half-truths (I4).
    failed: bool,
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
        Scan { layers: self.layers, table, failed: false }
    }
}

/// A key and its value, None if it turns out deleted.
type Step = (Vec<u8>, Option<Vec<u8>>);

impl Scan {
    /// A scan of the encoded keys `start..end` of a table that nothing lies above.
    pub(crate) fn of_table(table: Arc<Table>, start: &[u8], end: &[u8]) -> Result<Self> {
        let (table, _) = OwnedCursor::new(table, start, end)?;
        Ok(Self { layers: Vec::new(), table, failed: false })
    }

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
        while !self.failed {
            match self.step()? {
                Ok((key, Some(value))) => return Some(Ok((key::user_key(&key).to_vec(), value))),
                Ok((_, None)) => {}
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ids::StateId;
    use crate::key_group::{KeyGroup, KeyGroupRange};
    use crate::table::{Table, TableResources};

    const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(0), last: KeyGroup(3) };

    fn encoded(n: u32) -> Vec<u8> {
        let mut key = Vec::new();
        key::encode_into(&mut key, KeyGroup(1), StateId::of("state"), &n.to_be_bytes());
        key
    }

    /// The layers go on where the table is damaged; what they say alone would be operands without
    /// what these stand on.
    #[test]
    fn i4_a_scan_ends_with_its_first_error() {
        let dir = tempfile::tempdir().unwrap();
        let (first, copy) = (dir.path().join("first"), dir.path().join("copy"));
        let table = Table::create(&first, RANGE, &TableResources::new(8 << 20, 1)).unwrap();
        let keys: Vec<_> = (0..2000).map(encoded).collect();
        let value: Vec<u8> = (0..100_u32).map(|n| (n * 31 % 251) as u8).collect();
        let entries = keys.iter().map(|key| (key.as_slice(), Entry::Put(&value)));
        table.apply(DeltaSeq(1), [], entries).unwrap();
        table.checkpoint(&copy).unwrap();
        let file = fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "sst")).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        // In the middle of the data blocks, which come first and are most of the file.
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x10;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();

        let table = Arc::new(Table::open(&copy, RANGE, &TableResources::new(8 << 20, 1)).unwrap());
        let (start, end) = (encoded(0), encoded(2000));
        let mut builder = ScanBuilder::new(&start, &end);
        let operand = Entry::Merge { op: MergeOp::ListAppend, operand: b"+" };
        builder.copied(None, keys.iter().map(|key| (key.as_slice(), operand)), &RangeSet::new());
        let (cursor, applied) = OwnedCursor::new(table, &start, &end).unwrap();
        let mut scan = builder.build(cursor, applied);
        let read: Vec<_> = scan.by_ref().collect();
        let (last, before) = read.split_last().unwrap();
        assert!(last.is_err(), "damage is noticed");
        assert!(before.len() < 2000 && before.iter().all(|entry| entry.as_ref().unwrap().1.len() == 101));
        assert!(scan.next().is_none(), "nothing comes after the error");
    }
}
