//! The delta: all changes of one subtask between two cuts, one entry per key.
//!
//! It is at once the write cache for hot keys, the coalesced changelog, and a sorted run ready for
//! the table. The operator writes to an [`ActiveDelta`]; a cut makes it a [`FrozenDelta`], which is
//! sealed to bytes ([`seal`]) and applied to the table side by side; restore reads the bytes back
//! ([`DeltaReader`]) and replays many at once ([`merge_all`]).
//!
//! The algebra: a delta is a set of tombstones (key ranges) and above them one entry per key. The
//! last write wins; a merge operand after a put, after a delete or under the delta's own tombstone
//! becomes a put; a tombstone physically removes the points that came before it. Merging an older
//! delta with a newer one first removes the older's points under the newer's tombstones, then
//! unites them by the same rules. Merging is associative.

mod active;
mod arena;
mod decoded;
mod direction;
mod entry;
mod format;
mod frozen;
mod hash;
mod memtable;
mod merge;
#[cfg(test)]
mod model;
mod ordered;
mod pooled;
mod range_set;
mod recycle;
mod walk;

pub(crate) use active::ActiveDelta;
pub(crate) use decoded::DecodedDelta;
pub(crate) use direction::Direction;
pub(crate) use entry::{Entry, Lookup, MAX_FOLDED, MergeOp};
pub(crate) use format::{DeltaHeader, DeltaReader, Sealed, seal};
pub(crate) use frozen::FrozenDelta;
pub(crate) use merge::merge_all;
pub(crate) use pooled::Pooled;
pub(crate) use range_set::RangeSet;
pub(crate) use recycle::Recycler;
pub(crate) use walk::Walk;

/// How the part of the delta that belongs to one state is organised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// For states that are read and written key by key. Scans and `delete_prefix` walk over the
    /// whole delta.
    #[default]
    Hash,
    /// For states that are read in order or deleted by prefix: keys new to the delta are also put
    /// in an ordered index, which takes some 0.3 µs.
    Ordered,
}
