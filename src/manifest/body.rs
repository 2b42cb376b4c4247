//! The body of a manifest in format 2, written and read in one pass.
//!
//! A manifest of a large job names hundreds of thousands of objects, and each checkpoint names them
//! again. That cost must hardly depend on the size of the state (I5). Therefore
//!
//! - numbers are varints, and a number that follows from earlier ones is a difference or left out;
//! - a *place* (a folder of data objects, or a manifest) is spelled out where it is met first, and
//!   is a number from then on, and so is the nonce of a store instance. An object is then a place,
//!   a kind, and the distance from the last object named there: one byte for most files of a base.
//!
//! ```text
//! version, nonce 16, parent 16, version - epoch, max parallelism, retained (see retained.rs), then, in a checkpoint:
//! number, mode u8, milliseconds since 1970, metadata, 0 | 1 and where the states are described, subtasks
//! subtask:  number, first group, groups, instance, metadata, 0 | 1 and base, origins, deltas
//! origin:   first group, groups, 0 | 1 and base, segments
//! segment:  subtask, first group, groups, delta that it follows, deltas
//! base:     object, offset, length, crc32c u32, last delta, bytes of state, files
//! delta:    object, offset, length, crc32c u32, further deltas in it, entries
//! files:    count, then as often as needed: how many, place and kind, distance of each
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use std::hash::Hash;

use super::carried::{Carried, States};
use super::model::{
    BaseRef, CheckpointMode, CheckpointRecord, DeltaRef, Manifest, Record, RecordKind, SubtaskRecord,
};
use super::origin::{Origin, Segment};
use super::retained::RetainedList;
use super::varint::{MOST_AT_ONCE, Reader, Writer};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, SubtaskIndex, Version};
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::remote::{DataKind, ObjectName};

/// The body of a manifest that was validated.
pub(super) fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let mut encoder = Encoder {
        out: Writer::default(),
        version: manifest.version,
        epoch: manifest.epoch,
        places: Table::default(),
        instances: Table::default(),
    };
    encoder.manifest(manifest)?;
    Ok(encoder.out.0)
}

/// Reads what [`encode`] wrote. What it says is yet to be validated.
pub(super) fn decode(kind: RecordKind, body: &[u8]) -> Result<Manifest> {
    let mut input = Reader(body);
    let version = Version(input.number()?);
    let (nonce, parent) = (Nonce(input.fixed()?), Nonce(input.fixed()?));
    let epoch = Epoch(input.back(version.0)?);
    let groups = input.small::<u16>()?;
    let max_parallelism = MaxParallelism::new(groups)
        .map_err(|_| Error::corrupt(format!("max parallelism {groups} is not one")))?;
    let retained = RetainedList::read(version, &mut input)?;
    let mut decoder = Decoder { input, version, epoch, places: Vec::new(), instances: Vec::new() };
    let record = match kind {
        RecordKind::Open => Record::Open,
        RecordKind::Checkpoint => Record::Checkpoint(decoder.checkpoint()?),
    };
    decoder.input.end()?;
    Ok(Manifest { version, nonce, parent, epoch, max_parallelism, retained, record })
}

/// Where objects lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Folder { epoch: Epoch, subtask: SubtaskIndex, instance: Nonce },
    Manifest(Version),
}

/// What was last named in a place: the next object is probably the one after, and the next bytes of the same
/// object those that follow.
#[derive(Clone, Copy, Default)]
struct Last {
    n: u64,
    end: u64,
}

impl Last {
    /// Where bytes of object `n` are expected; notes that it was named.
    fn expect(&mut self, n: u64) -> u64 {
        let expected = if n == self.n { self.end } else { 0 };
        *self = Self { n, end: 0 };
        expected
    }
}

/// Numbers for what is met, in that order.
struct Table<T, V> {
    list: Vec<(T, V)>,
    numbers: foldhash::HashMap<T, usize>,
    /// Most are met several times in a row.
    recent: usize,
}

impl<T, V> Default for Table<T, V> {
    fn default() -> Self {
        Self { list: Vec::new(), numbers: foldhash::HashMap::default(), recent: 0 }
    }
}

impl<T: Copy + Eq + Hash, V: Default> Table<T, V> {
    /// The number of `item`, and whether it is new.
    fn number(&mut self, item: T) -> (usize, bool) {
        if self.list.get(self.recent).is_some_and(|(recent, _)| *recent == item) {
            return (self.recent, false);
        }
        let next = self.list.len();
        self.recent = *self.numbers.entry(item).or_insert(next);
        if self.recent == next {
            self.list.push((item, V::default()));
        }
        (self.recent, self.recent == next)
    }

    fn value(&mut self, number: usize) -> Result<&mut V> {
        let value = self.list.get_mut(number).map(|(_, value)| value);
        value.ok_or_else(|| Error::internal("a manifest names a place that it does not know"))
    }
}

struct Encoder {
    out: Writer,
    version: Version,
    epoch: Epoch,
    places: Table<Place, Last>,
    instances: Table<Nonce, ()>,
}

impl Encoder {
    fn manifest(&mut self, manifest: &Manifest) -> Result<()> {
        self.out.number(manifest.version.0);
        self.out.fixed(manifest.nonce.0);
        self.out.fixed(manifest.parent.0);
        self.out.back(manifest.epoch.0, manifest.version.0);
        self.out.number(manifest.max_parallelism.get().into());
        manifest.retained.write(manifest.version, &mut self.out)?;
        match &manifest.record {
            Record::Open => Ok(()),
            Record::Checkpoint(record) => self.checkpoint(record),
        }
    }

    fn checkpoint(&mut self, record: &CheckpointRecord) -> Result<()> {
        self.out.number(record.id.number);
        self.out.byte(match record.mode {
            CheckpointMode::Changelog => 0,
            CheckpointMode::NativeIncremental => 1,
        });
        self.out.number(record.unix_millis);
        self.out.bytes(&record.metadata);
        match (&record.states.place, record.states.known()) {
            (Some(place), _) => {
                self.out.byte(1);
                place.write(self.version, &mut self.out)?;
            }
            (None, Some(list)) if list.is_empty() => self.out.byte(0),
            (None, _) => return Err(Error::internal("no manifest carries the states of a checkpoint")),
        }
        self.list(&record.subtasks, Self::subtask)
    }

    fn list<T>(&mut self, items: &[T], mut one: impl FnMut(&mut Self, &T) -> Result<()>) -> Result<()> {
        self.out.count(items.len());
        items.iter().try_for_each(|item| one(self, item))
    }

    fn subtask(&mut self, record: &SubtaskRecord) -> Result<()> {
        self.out.number(record.subtask.0.into());
        self.range(record.range);
        self.instance(record.instance);
        self.out.bytes(&record.metadata);
        self.base(record.base.as_ref())?;
        self.list(&record.origins, |encoder, origin| {
            encoder.range(origin.owned);
            encoder.base(origin.base.as_ref())?;
            encoder.list(&origin.segments, Self::segment)
        })?;
        self.list(&record.deltas, Self::delta)
    }

    fn segment(&mut self, segment: &Segment) -> Result<()> {
        self.out.number(segment.subtask.0.into());
        self.range(segment.range);
        self.out.number(segment.after.0);
        self.list(&segment.deltas, Self::delta)
    }

    fn base(&mut self, base: Option<&BaseRef>) -> Result<()> {
        self.out.byte(base.is_some().into());
        let Some(base) = base else { return Ok(()) };
        self.place(&base.object, base.offset, base.length)?;
        self.out.fixed(base.crc32c.to_le_bytes());
        self.out.number(base.seq.0);
        self.out.number(base.state_bytes);
        self.files(&base.files)
    }

    /// Each follows the one before without a gap, so it need not say where it begins.
    fn delta(&mut self, delta: &DeltaRef) -> Result<()> {
        self.place(&delta.object, delta.offset, delta.length)?;
        self.out.fixed(delta.crc32c.to_le_bytes());
        self.out.number(delta.last.0.saturating_sub(delta.first.0));
        self.out.number(delta.entries);
        Ok(())
    }

    fn range(&mut self, range: KeyGroupRange) {
        self.out.number(range.first.0.into());
        self.out.number((range.count() - 1).into());
    }

    fn instance(&mut self, instance: Nonce) {
        let (number, new) = self.instances.number(instance);
        self.out.count(number);
        if new {
            self.out.fixed(instance.0);
        }
    }

    fn place(&mut self, object: &ObjectName, offset: u64, length: u64) -> Result<()> {
        let (place, kind, n) = match *object {
            ObjectName::Manifest(version) => (Place::Manifest(version), 0, None),
            ObjectName::Data { epoch, subtask, instance, n, kind } => {
                (Place::Folder { epoch, subtask, instance }, code_of(kind), Some(n))
            }
            _ => return Err(Error::internal("a manifest cannot refer to such an object").object(object)),
        };
        let number = self.head(place, kind);
        let last = self.places.value(number)?;
        if let Some(n) = n {
            self.out.distance(n, last.n);
        }
        let expected = last.expect(n.unwrap_or_default());
        last.end = offset.wrapping_add(length);
        self.out.distance(offset, expected);
        self.out.number(length);
        Ok(())
    }

    /// A place and a kind; the place in full where it is new.
    fn head(&mut self, place: Place, kind: u8) -> usize {
        let (number, new) = self.places.number(place);
        self.out.number((number as u64) << 2 | u64::from(kind));
        if new {
            match place {
                Place::Manifest(version) => {
                    self.out.byte(0);
                    self.out.back(version.0, self.version.0);
                }
                Place::Folder { epoch, subtask, instance } => {
                    self.out.byte(1);
                    self.out.distance(epoch.0, self.epoch.0);
                    self.out.number(subtask.0.into());
                    self.instance(instance);
                }
            }
        }
        number
    }

    fn files(&mut self, files: &[ObjectName]) -> Result<()> {
        self.out.count(files.len());
        for group in files.chunk_by(in_one_folder) {
            let Some(ObjectName::Data { epoch, subtask, instance, kind, .. }) = group.first() else {
                return Err(Error::internal("a file of a base lies outside of the data"));
            };
            let folder = Place::Folder { epoch: *epoch, subtask: *subtask, instance: *instance };
            self.out.count(group.len());
            let number = self.head(folder, code_of(*kind));
            let last = self.places.value(number)?;
            for file in group {
                if let ObjectName::Data { n, .. } = file {
                    self.out.distance(*n, last.n);
                    last.n = *n;
                }
            }
            last.end = 0;
        }
        Ok(())
    }
}

fn in_one_folder(a: &ObjectName, b: &ObjectName) -> bool {
    let of = |name: &ObjectName| match *name {
        ObjectName::Data { epoch, subtask, instance, kind, .. } => Some((epoch, subtask, instance, kind)),
        _ => None,
    };
    of(a) == of(b)
}

fn code_of(kind: DataKind) -> u8 {
    match kind {
        DataKind::Delta => 0,
        DataKind::Pack => 1,
        DataKind::Sst => 2,
        DataKind::Base => 3,
    }
}

fn kind_of(code: u64) -> DataKind {
    match code & 3 {
        0 => DataKind::Delta,
        1 => DataKind::Pack,
        2 => DataKind::Sst,
        _ => DataKind::Base,
    }
}

struct Decoder<'a> {
    input: Reader<'a>,
    version: Version,
    epoch: Epoch,
    places: Vec<(Place, Last)>,
    instances: Vec<Nonce>,
}

impl Decoder<'_> {
    fn checkpoint(&mut self) -> Result<CheckpointRecord> {
        let id = CheckpointId { epoch: self.epoch, number: self.input.number()? };
        let mode = match self.input.byte()? {
            0 => CheckpointMode::Changelog,
            1 => CheckpointMode::NativeIncremental,
            other => return Err(Error::corrupt(format!("checkpoint mode {other} is unknown"))),
        };
        let unix_millis = self.input.number()?;
        let metadata = self.input.bytes()?.to_vec();
        let place = if self.flag()? { Some(Carried::read(self.version, &mut self.input)?) } else { None };
        let subtasks = self.list(Self::subtask)?;
        Ok(CheckpointRecord { id, mode, unix_millis, metadata, subtasks, states: States::at(place) })
    }

    fn flag(&mut self) -> Result<bool> {
        match self.input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::corrupt("the manifest says neither yes nor no")),
        }
    }

    /// As [`Reader::list`].
    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.count()?;
        let mut items = Vec::with_capacity(count.min(MOST_AT_ONCE));
        for _ in 0..count {
            items.push(one(self)?);
        }
        Ok(items)
    }

    /// Of things that take a byte each, at least.
    fn count(&mut self) -> Result<usize> {
        let count = self.input.small::<usize>()?;
        if count > self.input.0.len() {
            return Err(Error::corrupt("the manifest names more than it has room for"));
        }
        Ok(count)
    }

    fn subtask(&mut self) -> Result<SubtaskRecord> {
        let (subtask, range) = (SubtaskIndex(self.input.small()?), self.range()?);
        let (instance, metadata) = (self.instance()?, self.input.bytes()?.to_vec());
        let base = self.base()?;
        let origins = self.list(|decoder| {
            Ok(Origin {
                owned: decoder.range()?,
                base: decoder.base()?,
                segments: decoder.list(Self::segment)?,
            })
        })?;
        let after = base.as_ref().map(|base| base.seq).or_else(|| origins.iter().map(Origin::seq).max());
        let (deltas, seq) = self.deltas(after.unwrap_or_default())?;
        Ok(SubtaskRecord { subtask, range, origins, base, deltas, seq, metadata, instance })
    }

    fn segment(&mut self) -> Result<Segment> {
        let (subtask, range) = (SubtaskIndex(self.input.small()?), self.range()?);
        let after = DeltaSeq(self.input.number()?);
        let (deltas, seq) = self.deltas(after)?;
        Ok(Segment { subtask, range, after, deltas, seq })
    }

    fn base(&mut self) -> Result<Option<BaseRef>> {
        if !self.flag()? {
            return Ok(None);
        }
        let (object, offset, length) = self.place()?;
        let crc32c = u32::from_le_bytes(self.input.fixed()?);
        let (seq, state_bytes) = (DeltaSeq(self.input.number()?), self.input.number()?);
        Ok(Some(BaseRef { object, offset, length, crc32c, seq, state_bytes, files: self.files()? }))
    }

    /// Deltas that follow `after`, and the last one's number.
    fn deltas(&mut self, after: DeltaSeq) -> Result<(Vec<DeltaRef>, DeltaSeq)> {
        let mut last = after;
        let deltas = self.list(|decoder| {
            let (object, offset, length) = decoder.place()?;
            let crc32c = u32::from_le_bytes(decoder.input.fixed()?);
            let further = decoder.input.number()?;
            let first = last.0.checked_add(1);
            let end = first.and_then(|first| first.checked_add(further));
            let (Some(first), Some(end)) = (first, end) else {
                return Err(Error::corrupt("a changelog has more deltas than there can be"));
            };
            last = DeltaSeq(end);
            let entries = decoder.input.number()?;
            Ok(DeltaRef { object, offset, length, crc32c, first: DeltaSeq(first), last, entries })
        })?;
        Ok((deltas, last))
    }

    fn range(&mut self) -> Result<KeyGroupRange> {
        let (first, further) = (self.input.small::<u16>()?, self.input.small::<u16>()?);
        let last = first.checked_add(further).ok_or_else(|| Error::corrupt("key groups end nowhere"))?;
        Ok(KeyGroupRange { first: KeyGroup(first), last: KeyGroup(last) })
    }

    fn instance(&mut self) -> Result<Nonce> {
        let number = self.input.small::<usize>()?;
        if number == self.instances.len() {
            self.instances.push(Nonce(self.input.fixed()?));
        }
        let instance = self.instances.get(number).copied();
        instance.ok_or_else(|| Error::corrupt("the manifest refers to a store that it does not name"))
    }

    fn place(&mut self) -> Result<(ObjectName, u64, u64)> {
        let (number, kind) = self.head()?;
        let (place, last) = self.known(number)?;
        let (place, mut last) = (*place, *last);
        let n = match place {
            Place::Manifest(_) => 0,
            Place::Folder { .. } => self.input.distance(last.n)?,
        };
        let expected = last.expect(n);
        let (offset, length) = (self.input.distance(expected)?, self.input.number()?);
        last.end = offset.wrapping_add(length);
        *self.known(number)?.1 = last;
        Ok((name(place, kind, n), offset, length))
    }

    fn head(&mut self) -> Result<(usize, DataKind)> {
        let head = self.input.number()?;
        let number = usize::try_from(head >> 2).unwrap_or(usize::MAX);
        if number == self.places.len() {
            let place = if self.flag()? {
                let epoch = Epoch(self.input.distance(self.epoch.0)?);
                let subtask = SubtaskIndex(self.input.small()?);
                Place::Folder { epoch, subtask, instance: self.instance()? }
            } else {
                Place::Manifest(Version(self.input.back(self.version.0)?))
            };
            self.places.push((place, Last::default()));
        }
        Ok((number, kind_of(head)))
    }

    fn known(&mut self, number: usize) -> Result<(&Place, &mut Last)> {
        let place = self.places.get_mut(number).map(|(place, last)| (&*place, last));
        place.ok_or_else(|| Error::corrupt("the manifest refers to a place that it does not name"))
    }

    fn files(&mut self) -> Result<Vec<ObjectName>> {
        let count = self.count()?;
        let mut files = Vec::with_capacity(count.min(MOST_AT_ONCE));
        while files.len() < count {
            let group = self.count()?;
            let (number, kind) = self.head()?;
            let (place, last) = self.known(number)?;
            let (place, mut n) = (*place, last.n);
            if group == 0 || group > count - files.len() {
                return Err(Error::corrupt("a base has other files than it says"));
            }
            for _ in 0..group {
                n = self.input.distance(n)?;
                files.push(name(place, kind, n));
            }
            *self.known(number)?.1 = Last { n, end: 0 };
        }
        Ok(files)
    }
}

fn name(place: Place, kind: DataKind, n: u64) -> ObjectName {
    match place {
        Place::Manifest(version) => ObjectName::Manifest(version),
        Place::Folder { epoch, subtask, instance } => ObjectName::Data { epoch, subtask, instance, n, kind },
    }
}
