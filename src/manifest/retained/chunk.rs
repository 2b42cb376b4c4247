//! A chunk: entries that a manifest carries, and that later manifests refer to.

use super::super::carried::Carried;
use super::super::errors::newer;
use super::super::varint::{Reader, Writer};
use super::{Entry, Facts, Retained};
use crate::error::{Error, Result};
use crate::ids::{CheckpointId, Epoch, Version};
use crate::remote::Remote;

/// Version of a chunk's bytes.
pub(super) const CHUNK: u8 = 1;

/// Entries that an earlier manifest, or this one, carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) place: Carried,
    pub(super) level: u8,
    /// The last entry's.
    pub(super) last: Version,
}

impl Chunk {
    pub(super) async fn fetch(&self, remote: &Remote) -> Result<Vec<Entry>> {
        let bytes = self.place.fetch(remote).await?;
        self.decode(&bytes).map_err(|error| error.object(&self.place.object))
    }

    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Vec<Entry>> {
        let mut input = Reader(bytes);
        let version = input.byte()?;
        if version != CHUNK {
            return Err(newer(format!("a list of checkpoints has version {version}")));
        }
        let entries = read_entries(&mut input)?;
        input.end()?;
        let sorted = entries.is_sorted_by(|a, b| a.version() < b.version());
        if !sorted || entries.last().map(Entry::version) != Some(self.last) {
            return Err(Error::corrupt("a list of checkpoints is not the one that is referred to"));
        }
        Ok(entries)
    }
}

pub(super) fn write_entries(entries: &[Entry], out: &mut Writer) {
    out.count(entries.len());
    let mut before = ZERO;
    for entry in entries {
        let Retained { version, id } = entry.checkpoint;
        out.distance(version.0, before.checkpoint.version.0);
        out.distance(id.epoch.0, before.checkpoint.id.epoch.0);
        out.distance(id.number, before.checkpoint.id.number);
        out.byte(u8::from(entry.facts.is_some()));
        before.checkpoint = entry.checkpoint;
        if let (Some(facts), Some(last)) = (entry.facts, &mut before.facts) {
            out.distance(facts.unix_millis, last.unix_millis);
            out.distance(facts.full_bytes, last.full_bytes);
            *last = facts;
        }
    }
}

pub(super) fn read_entries(input: &mut Reader<'_>) -> Result<Vec<Entry>> {
    let mut before = ZERO;
    input.list(|input| {
        let Retained { version, id } = before.checkpoint;
        let version = Version(input.distance(version.0)?);
        let epoch = Epoch(input.distance(id.epoch.0)?);
        let checkpoint = Retained { version, id: CheckpointId { epoch, number: input.distance(id.number)? } };
        before.checkpoint = checkpoint;
        let facts = match (input.byte()?, &mut before.facts) {
            (0, _) => None,
            (1, Some(last)) => {
                let unix_millis = input.distance(last.unix_millis)?;
                *last = Facts { unix_millis, full_bytes: input.distance(last.full_bytes)? };
                Some(*last)
            }
            _ => return Err(Error::corrupt("a retained checkpoint says something unknown")),
        };
        Ok(Entry { checkpoint, facts })
    })
}

/// What the first entry differs from.
const ZERO: Entry = Entry {
    checkpoint: Retained { version: Version(0), id: CheckpointId { epoch: Epoch(0), number: 0 } },
    facts: Some(Facts { unix_millis: 0, full_bytes: 0 }),
};
