//! Reads a body. Total over any bytes.

use bytes::Bytes;

use super::super::carried::{Carried, States};
use super::super::elements::{Elements, Spread};
use super::super::model::{
    CheckpointMode, CheckpointRecord, Manifest, OperatorRecord, Record, RecordKind, SubtaskRecord,
};
use super::super::origin::{Origin, Segment};
use super::super::references::{BaseRef, DeltaRef};
use super::super::retained::RetainedList;
use super::super::varint::{MOST_AT_ONCE, Reader};
use super::{Container, Last, kind_of, name};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, OperatorId, StateId, SubtaskIndex, Version};
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::remote::{DataKind, ObjectName};

/// Reads what [`encode`](super::encode) wrote in `format`. What it says is yet to be validated.
pub(in crate::manifest) fn decode(kind: RecordKind, format: u16, body: &[u8]) -> Result<Manifest> {
    let mut input = Reader(body);
    let version = Version(input.number()?);
    let (nonce, parent) = (Nonce(input.fixed()?), Nonce(input.fixed()?));
    let epoch = Epoch(input.back(version.0)?);
    let max_parallelism = max_parallelism(&mut input)?;
    let retained = RetainedList::read(version, &mut input)?;
    let mut decoder =
        Decoder { input, format, version, epoch, containers: Vec::new(), instances: Vec::new() };
    let record = match kind {
        RecordKind::Open => Record::Open,
        RecordKind::Checkpoint => Record::Checkpoint(decoder.checkpoint()?),
    };
    // What is left would be something that this build passes over without a word.
    decoder.input.end()?;
    Ok(Manifest { version, nonce, parent, epoch, max_parallelism, retained, record })
}

fn max_parallelism(input: &mut Reader<'_>) -> Result<MaxParallelism> {
    let groups = input.small::<u16>()?;
    MaxParallelism::new(groups).map_err(|_| Error::corrupt(format!("max parallelism {groups} is not one")))
}

struct Decoder<'a> {
    input: Reader<'a>,
    format: u16,
    version: Version,
    epoch: Epoch,
    containers: Vec<(Container, Last)>,
    instances: Vec<Nonce>,
}

impl Decoder<'_> {
    fn checkpoint(&mut self) -> Result<CheckpointRecord> {
        let id = CheckpointId { epoch: self.epoch, number: self.input.number()? };
        let code = self.input.byte()?;
        let mode = CheckpointMode::of(code)
            .ok_or_else(|| Error::corrupt(format!("checkpoint mode {code} is unknown")))?;
        let unix_millis = self.input.number()?;
        let metadata = self.input.bytes()?.to_vec();
        let place = if self.flag()? { Some(Carried::read(self.version, &mut self.input)?) } else { None };
        let operators = if self.format >= 3 { self.list(Self::operator)? } else { Vec::new() };
        let subtasks = self.list(Self::subtask)?;
        Ok(CheckpointRecord {
            id,
            mode,
            unix_millis,
            metadata,
            operators,
            subtasks,
            states: States::at(place),
        })
    }

    fn operator(&mut self) -> Result<OperatorRecord> {
        let wrong = || Error::corrupt("an operator's name is not one");
        let name = std::str::from_utf8(self.input.bytes()?).map_err(|error| wrong().source(error))?;
        let id = OperatorId::new(name).map_err(|error| wrong().source(error))?;
        let max_parallelism = max_parallelism(&mut self.input)?;
        Ok(OperatorRecord { id, max_parallelism, subtasks: self.input.small()? })
    }

    fn elements(&mut self) -> Result<Elements> {
        let state = StateId(u32::from_le_bytes(self.input.fixed()?));
        let code = self.input.byte()?;
        let spread = Spread::of(code)
            .ok_or_else(|| Error::corrupt(format!("elements are spread in way {code}, which is unknown")))?;
        let items = self.list(|decoder| decoder.input.bytes().map(Bytes::copy_from_slice))?;
        Ok(Elements { state, spread, items })
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
        // The count comes from outside. Memory is taken as items are read, not on its word.
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
        let elements = if self.format >= 3 { self.list(Self::elements)? } else { Vec::new() };
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
        let elements = elements.into();
        Ok(SubtaskRecord { subtask, range, origins, base, deltas, seq, metadata, elements, instance })
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
        // The next number is one that was not met before: it is spelled out here.
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
            Container::Manifest(_) => 0,
            Container::Folder { .. } => self.input.distance(last.n)?,
        };
        let expected = last.expect(n);
        let (offset, length) = (self.input.distance(expected)?, self.input.number()?);
        // Damaged bytes may wrap around. The validation of the manifest refuses such a reference.
        last.end = offset.wrapping_add(length);
        *self.known(number)?.1 = last;
        Ok((name(place, kind, n), offset, length))
    }

    fn head(&mut self) -> Result<(usize, DataKind)> {
        let head = self.input.number()?;
        let number = usize::try_from(head >> 2).unwrap_or(usize::MAX);
        if number == self.containers.len() {
            let place = if self.flag()? {
                let epoch = Epoch(self.input.distance(self.epoch.0)?);
                let subtask = SubtaskIndex(self.input.small()?);
                Container::Folder { epoch, subtask, instance: self.instance()? }
            } else {
                Container::Manifest(Version(self.input.back(self.version.0)?))
            };
            self.containers.push((place, Last::default()));
        }
        Ok((number, kind_of(head)))
    }

    fn known(&mut self, number: usize) -> Result<(&Container, &mut Last)> {
        let place = self.containers.get_mut(number).map(|(place, last)| (&*place, last));
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
