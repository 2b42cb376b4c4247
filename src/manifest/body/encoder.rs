//! Writes a body.

use super::super::elements::Elements;
use super::super::model::{CheckpointRecord, Manifest, OperatorRecord, Record, SubtaskRecord};
use super::super::origin::Segment;
use super::super::references::{BaseRef, DeltaRef};
use super::super::varint::Writer;
use super::numbering::Table;
use super::{Container, Last, code_of};
use crate::error::{Error, Result};
use crate::ids::{Epoch, Nonce, Version};
use crate::key_group::KeyGroupRange;
use crate::remote::ObjectName;

/// The body of a manifest that was validated, in `format`.
pub(in crate::manifest) fn encode(manifest: &Manifest, format: u16) -> Result<Vec<u8>> {
    let mut encoder = Encoder {
        out: Writer::default(),
        format,
        version: manifest.version,
        epoch: manifest.epoch,
        containers: Table::default(),
        instances: Table::default(),
    };
    encoder.manifest(manifest)?;
    Ok(encoder.out.0)
}

struct Encoder {
    out: Writer,
    format: u16,
    version: Version,
    epoch: Epoch,
    containers: Table<Container, Last>,
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
        self.out.byte(record.mode.code());
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
        if self.format >= 3 {
            self.list(&record.operators, Self::operator)?;
        }
        self.list(&record.subtasks, Self::subtask)
    }

    fn operator(&mut self, operator: &OperatorRecord) -> Result<()> {
        self.out.bytes(operator.id.as_str().as_bytes());
        self.out.number(operator.max_parallelism.get().into());
        self.out.number(operator.subtasks.into());
        Ok(())
    }

    fn elements(&mut self, elements: &Elements) -> Result<()> {
        self.out.fixed(elements.state.0.to_le_bytes());
        self.out.byte(elements.spread.code());
        self.out.count(elements.items.len());
        elements.items.iter().for_each(|item| self.out.bytes(item));
        Ok(())
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
        if self.format >= 3 {
            self.list(&record.elements, Self::elements)?;
        }
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
            ObjectName::Manifest(version) => (Container::Manifest(version), 0, None),
            ObjectName::Data { epoch, subtask, instance, n, kind } => {
                (Container::Folder { epoch, subtask, instance }, code_of(kind), Some(n))
            }
            _ => return Err(Error::internal("a manifest cannot refer to such an object").object(object)),
        };
        let number = self.head(place, kind);
        let last = self.containers.value(number)?;
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
    fn head(&mut self, place: Container, kind: u8) -> usize {
        let (number, new) = self.containers.number(place);
        self.out.number((number as u64) << 2 | u64::from(kind));
        if new {
            match place {
                Container::Manifest(version) => {
                    self.out.byte(0);
                    self.out.back(version.0, self.version.0);
                }
                Container::Folder { epoch, subtask, instance } => {
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
            let folder = Container::Folder { epoch: *epoch, subtask: *subtask, instance: *instance };
            self.out.count(group.len());
            let number = self.head(folder, code_of(*kind));
            let last = self.containers.value(number)?;
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
