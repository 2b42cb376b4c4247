//! The body of a manifest in formats 2 and 3, written and read in one pass.
//!
//! A manifest of a large job names hundreds of thousands of objects, and each checkpoint names them
//! again. That cost must hardly depend on the size of the state (I5). Therefore
//!
//! - numbers are varints, and a number that follows from earlier ones is a difference or left out;
//! - a *container* (a folder of data objects, or a manifest) is spelled out where it is met first, and
//!   is a number from then on. So is the nonce of a store instance. An object is then a container, a
//!   kind, and the distance from the last object named there: one byte for most files of a base.
//!
//! ```text
//! version, nonce 16, parent 16, version - epoch, max parallelism, retained (see retained.rs), then, in a checkpoint:
//! number, mode u8, milliseconds since 1970, metadata, 0 | 1 and where the states are described, operators*, subtasks
//! operator: name, max parallelism, how many of the subtasks
//! subtask:  number, first group, groups, instance, metadata, elements*, 0 | 1 and base, origins, deltas
//! origin:   first group, groups, 0 | 1 and base, segments
//! segment:  subtask, first group, groups, delta that it follows, deltas
//! base:     object, offset, length, crc32c u32, last delta, bytes of state, files
//! delta:    object, offset, length, crc32c u32, further deltas in it, entries
//! files:    count, then as often as needed: how many, container and kind, distance of each
//! elements: state u32, spread u8, the bytes of each element
//! ```
//!
//! What has a star is in format 3 only. That is written where a format 2 would have no words for a
//! checkpoint: where operators have names, or state that is not keyed.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod decoder;
mod encoder;
mod numbering;

use crate::ids::{Epoch, Nonce, SubtaskIndex, Version};
use crate::remote::{DataKind, ObjectName};

pub(super) use decoder::decode;
pub(super) use encoder::encode;

/// Where objects lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Container {
    Folder { epoch: Epoch, subtask: SubtaskIndex, instance: Nonce },
    Manifest(Version),
}

/// What was last named in a container. The next object named is probably the one after, and the next bytes
/// of the same object are probably those that follow.
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

fn name(place: Container, kind: DataKind, n: u64) -> ObjectName {
    match place {
        Container::Manifest(version) => ObjectName::Manifest(version),
        Container::Folder { epoch, subtask, instance } => {
            ObjectName::Data { epoch, subtask, instance, n, kind }
        }
    }
}
