//! References to bytes in objects: a delta's, and a base's.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::DeltaSeq;
use crate::remote::ObjectName;

/// A run of a subtask's changelog: one delta, or several packed into one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeltaRef {
    /// A data object, or the manifest that carries the bytes inline.
    pub object: ObjectName,
    pub offset: u64,
    pub length: u64,
    /// Of exactly these bytes.
    pub crc32c: u32,
    pub first: DeltaSeq,
    pub last: DeltaSeq,
    pub entries: u64,
}

/// A materialized snapshot of a subtask's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseRef {
    /// Holds the base's index.
    pub object: ObjectName,
    pub offset: u64,
    pub length: u64,
    /// Checksum of the index.
    pub crc32c: u32,
    /// The last delta that the base contains.
    pub seq: DeltaSeq,
    pub state_bytes: u64,
    /// Every object that the index refers to, so that reachability can be told without reading it.
    pub files: Vec<ObjectName>,
}

impl DeltaRef {
    /// Whether `part` is a piece of the same run, and lies in the same object.
    pub(crate) fn has(&self, part: &Self) -> bool {
        part.object == self.object && part.first >= self.first && part.last <= self.last
    }

    pub(super) fn validate(&self) -> Result<()> {
        place_is_sound(&self.object, self.offset, self.length)?;
        if self.first.0 == 0 || self.first > self.last {
            return Err(Error::corrupt(format!("delta range {}..={} is not one", self.first, self.last)));
        }
        Ok(())
    }
}

impl BaseRef {
    pub(super) fn validate(&self) -> Result<()> {
        place_is_sound(&self.object, self.offset, self.length)?;
        match self.files.iter().find(|file| !matches!(file, ObjectName::Data { .. })) {
            Some(file) => Err(Error::corrupt(format!("{file} cannot be a file of a base"))),
            None => Ok(()),
        }
    }
}

/// A place is in a data object or a manifest, not empty, and ends below 2^64.
fn place_is_sound(object: &ObjectName, offset: u64, length: u64) -> Result<()> {
    if !matches!(object, ObjectName::Data { .. } | ObjectName::Manifest(_)) {
        return Err(Error::corrupt(format!("{object} cannot hold data")));
    }
    if length == 0 || offset.checked_add(length).is_none() {
        return Err(Error::corrupt(format!("{length} bytes at {offset} of {object} is no place")));
    }
    Ok(())
}
