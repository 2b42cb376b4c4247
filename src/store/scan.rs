//! An ordered scan through all layers: active delta, frozen deltas, table.

mod builder;

use std::sync::Arc;

use crate::delta::{Direction, MergeOp};
use crate::error::Result;
use crate::key;
use crate::key_group::KeyGroup;
use crate::table::{OwnedCursor, Table};

use super::layer_cursor::{Change, LayerCursor};
pub(super) use builder::ScanBuilder;

/// Keys in turn that a range deleted above them has hidden, before the scan jumps to its end: a
/// jump costs about as much as this many steps.
const STEPS_BEFORE_A_JUMP: usize = 8;

/// An iterator over the keys and values of a state within one key group, in the order of the keys'
/// bytes, from both ends. It is a snapshot of the moment when it was made: it does not see later
/// writes, and borrows nothing from the store, so a program may write while it iterates.
///
/// It is lazy: creating it and taking the first entries costs the same however many entries there
/// are. Changing the end from which entries are taken costs one more search.
///
/// A scan keeps memory and files alive that no memory bound counts, at most as much as the store
/// held at that moment. Drop it when done.
#[derive(Debug)]
pub struct Scan {
    /// Newest first.
    layers: Vec<LayerCursor>,
    table: OwnedCursor,
    /// The entries that were not taken yet begin here, ...
    start: Vec<u8>,
    /// ... and end before this key.
    end: Vec<u8>,
    /// In which direction the cursors stand; None before the first step.
    direction: Option<Direction>,
    /// Keys in turn that some layer's tombstones have hidden.
    hidden: usize,
    /// Whether values are wanted.
    values: bool,
    /// Keys that turned out deleted and may be stepped over before the scan gives up.
    patience: usize,
    /// Set after an error. Then the scan ends, because the layers without the table would show a
    /// wrong state (I4).
    failed: bool,
}

/// A key and its value, None if it turns out deleted.
type Step = (Vec<u8>, Option<Vec<u8>>);

impl Scan {
    fn new(layers: Vec<LayerCursor>, table: OwnedCursor, start: Vec<u8>, end: Vec<u8>) -> Self {
        Self {
            layers,
            table,
            start,
            end,
            direction: None,
            hidden: 0,
            values: true,
            patience: usize::MAX,
            failed: false,
        }
    }

    /// A scan of the encoded keys `start..end` of a table that nothing lies above.
    pub(crate) fn of_table(table: Arc<Table>, start: &[u8], end: &[u8]) -> Result<Self> {
        let (table, _) = OwnedCursor::unplaced(table, start, end)?;
        Ok(Self::new(Vec::new(), table, start.to_vec(), end.to_vec()))
    }

    /// Yields keys with empty values from here on, so that none is copied.
    pub(crate) fn without_values(&mut self) {
        self.values = false;
    }

    /// Goes to another part of the range that it was made for.
    pub(crate) fn restrict(&mut self, start: &[u8], end: &[u8]) {
        start.clone_into(&mut self.start);
        end.clone_into(&mut self.end);
        self.direction = None;
    }

    /// Forward and at the end of a part: the group of the next key that any layer has behind it,
    /// whether it turns out deleted or not.
    pub(crate) fn group_behind(&self) -> Option<KeyGroup> {
        self.heads().min().and_then(key::group_of)
    }

    /// Leaves out the keys below the encoded key `start`, as if they had been taken.
    pub(crate) fn skip_to(&mut self, start: &[u8]) {
        if start > self.start.as_slice() {
            self.start.clear();
            self.start.extend_from_slice(start);
            if self.direction == Some(Direction::Forward) {
                self.direction = None;
            }
        }
    }

    /// Leaves out all keys that begin as the encoded key `prefix` does, which is where it stands.
    pub(crate) fn skip_all_of(&mut self, direction: Direction, prefix: &[u8]) {
        let Some(successor) = key::successor(prefix) else { return };
        match direction {
            Direction::Forward => self.skip_to(&successor),
            Direction::Backward if prefix < self.end.as_slice() => {
                prefix.clone_into(&mut self.end);
                self.direction = None;
            }
            Direction::Backward => {}
        }
    }

    /// Ends the scan after this many deleted keys.
    pub(crate) fn set_patience(&mut self, patience: usize) {
        self.patience = patience;
    }

    /// How many more deleted keys it would step over. 0 if it has ended for that reason.
    pub(crate) fn patience(&self) -> usize {
        self.patience
    }

    /// Takes the next entry, with its encoded key.
    pub(crate) fn take_from(&mut self, direction: Direction) -> Option<Result<(Vec<u8>, Vec<u8>)>> {
        while !self.failed && self.patience > 0 {
            match self.step(direction).transpose()? {
                Ok((key, Some(value))) => return Some(Ok((key, value))),
                Ok((_, None)) => self.patience -= 1,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// Moves past the next key of all layers.
    fn step(&mut self, direction: Direction) -> Result<Option<Step>> {
        #[cfg(test)]
        super::scan_work::count(1);
        if self.direction != Some(direction) {
            self.seek(direction)?;
        }
        let Some(key) = self.next_key(direction) else { return Ok(None) };
        // From the newest layer down, until one has a value or a delete, below which nothing
        // matters.
        let mut operands: Vec<(MergeOp, Vec<u8>)> = Vec::new();
        let mut base = None;
        let (mut settled, mut hiding) = (false, None);
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let mine = layer.peek().filter(|(head, _)| *head == key);
            let mine = mine.map(|(_, entry)| match (settled, self.values) {
                (true, _) => None,
                (false, true) => Some(Change::of(entry)),
                (false, false) => Some(Change::of_key(entry)),
            });
            match mine {
                Some(change) => {
                    // Every layer steps past the key, also those below the one that settles it.
                    layer.advance();
                    match change {
                        Some(Change::Put(value)) => (base, settled) = (Some(value), true),
                        Some(Change::Delete) => settled = true,
                        Some(Change::Merge(op, operand)) => operands.push((op, operand)),
                        None => {}
                    }
                }
                // A tombstone lies below the entries of its own layer, and hides those of older
                // layers.
                None if !settled && layer.hiding(&key).is_some() => {
                    settled = true;
                    hiding = Some(index);
                }
                None => {}
            }
        }
        if let Some((head, value)) = self.table.entry()
            && head == key
        {
            if !settled {
                base = Some(if self.values { value.to_vec() } else { Vec::new() });
            }
            self.table.advance()?;
        }
        self.leave(direction, &key);
        let value = fold(base, operands);
        match hiding.filter(|_| value.is_none()) {
            Some(index) => self.pass_hidden(direction, index, &key)?,
            None => self.hidden = 0,
        }
        Ok(Some((key, value)))
    }

    /// Puts all cursors at the first entry that was not taken.
    fn seek(&mut self, direction: Direction) -> Result<()> {
        #[cfg(test)]
        super::scan_work::count(1);
        let bound = match direction {
            Direction::Forward => &self.start,
            Direction::Backward => &self.end,
        };
        // Lazily, because a scan that is never stepped should not search.
        self.layers.iter_mut().for_each(|layer| layer.seek(direction, bound));
        self.table.seek(direction, bound)?;
        self.direction = Some(direction);
        self.hidden = 0;
        Ok(())
    }

    /// The next key that any layer has.
    fn next_key(&self, direction: Direction) -> Option<Vec<u8>> {
        let key = match direction {
            Direction::Forward => self.heads().min().filter(|key| *key < self.end.as_slice()),
            Direction::Backward => self.heads().max().filter(|key| *key >= self.start.as_slice()),
        };
        key.map(<[u8]>::to_vec)
    }

    /// The keys that the cursors stand at.
    fn heads(&self) -> impl Iterator<Item = &[u8]> {
        let heads = self.layers.iter().filter_map(|layer| layer.peek().map(|(key, _)| key));
        heads.chain(self.table.entry().map(|(key, _)| key))
    }

    /// Moves the bound past a key that was taken.
    fn leave(&mut self, direction: Direction, key: &[u8]) {
        let bound = match direction {
            Direction::Forward => &mut self.start,
            Direction::Backward => &mut self.end,
        };
        bound.clear();
        bound.extend_from_slice(key);
        if direction == Direction::Forward {
            bound.push(0);
        }
    }

    /// A tombstone of a layer hides the key. After some hidden keys the layers below jump to the
    /// end of the tombstone, which may hide any number of keys.
    fn pass_hidden(&mut self, direction: Direction, layer: usize, key: &[u8]) -> Result<()> {
        self.hidden += 1;
        if self.hidden <= STEPS_BEFORE_A_JUMP {
            return Ok(());
        }
        self.hidden = 0;
        let (above, below) = self.layers.split_at_mut(layer + 1);
        let Some((first, end)) = above.last().and_then(|layer| layer.hiding(key)) else { return Ok(()) };
        let bound = match direction {
            Direction::Forward => end.min(&self.end),
            Direction::Backward => first.max(&self.start),
        };
        below.iter_mut().for_each(|layer| layer.seek(direction, bound));
        self.table.seek(direction, bound)
    }
}

/// Folds operands, newest first, into a base.
pub(super) fn fold(base: Option<Vec<u8>>, operands: Vec<(MergeOp, Vec<u8>)>) -> Option<Vec<u8>> {
    operands
        .into_iter()
        .rev()
        .fold(base, |value, (op, operand)| Some(op.fold(value.as_deref(), [operand.as_slice()])))
}

/// With the user's part of its key.
fn for_user(entry: Result<(Vec<u8>, Vec<u8>)>) -> Result<(Vec<u8>, Vec<u8>)> {
    entry.map(|(mut key, value)| {
        key.drain(..key::PREFIX_LEN.min(key.len()));
        (key, value)
    })
}

impl Iterator for Scan {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take_from(Direction::Forward).map(for_user)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take_from(Direction::Backward).map(for_user)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::delta::{Entry, RangeSet};
    use crate::ids::{DeltaSeq, StateId};
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
        let mut scan = builder.build(&table).unwrap();
        let read: Vec<_> = scan.by_ref().collect();
        let (last, before) = read.split_last().unwrap();
        assert!(last.is_err(), "damage is noticed");
        assert!(before.len() < 2000 && before.iter().all(|entry| entry.as_ref().unwrap().1.len() == 101));
        assert!(scan.next().is_none(), "nothing comes after the error");
    }
}
