//! How a store's frozen deltas get into its table: in order, each in one atomic step with its
//! sequence number. Snapshots for materialization are taken between two deltas, so that their flush
//! blocks no other thread.

use std::path::PathBuf;

use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::table::{Table, TableFiles};

use super::layer::ChargedLayer;
use super::shared::StoreShared;

/// Work that a store has for its applier.
pub(crate) enum Work {
    Apply(ChargedLayer),
    Snapshot(SnapshotOrder),
}

/// A snapshot, and the delta that it stands at.
pub(crate) type Taken = Result<(DeltaSeq, TableFiles)>;

/// Hard-link the table's files into `dir` and tell `done` of them, and which delta they stand at.
pub(crate) struct SnapshotOrder {
    pub(crate) dir: PathBuf,
    pub(crate) done: Box<dyn FnOnce(Taken) + Send>,
}

/// How a table is doing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TableLoad {
    /// Level 0 is so full that RocksDB would hold back a snapshot's flush.
    crowded: bool,
    /// RocksDB would hold back a write until flush or compaction has caught up, ...
    stopped: bool,
    /// ... or slow it down.
    pub(super) delayed: bool,
    /// The attempt has failed: nothing is written any more.
    failed: bool,
}

impl TableLoad {
    pub(super) fn at(table: &Table, shared: &StoreShared) -> Self {
        Self {
            crowded: table.is_crowded(),
            stopped: table.is_stopped(),
            delayed: table.is_delayed(),
            failed: shared.attempt.health().is_err(),
        }
    }
}

/// What a store does with its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Snapshot,
    Apply,
    /// Something is to be done, but not now.
    Wait,
    Nothing,
}

/// The next step of a store that has a snapshot to take or deltas to apply. `busy`: no more threads
/// may be occupied by slow steps.
pub(super) fn next(snapshot: bool, deltas: bool, load: TableLoad, busy: bool) -> Step {
    // While level 0 is crowded, RocksDB would hold back a snapshot's flush, and with it every later
    // delta. So the snapshot waits, and deltas go on.
    if snapshot && !load.crowded && !busy {
        return Step::Snapshot;
    }
    // Work that is left after a failure is discarded.
    if deltas && (load.failed || !(load.stopped || load.delayed && busy)) {
        return Step::Apply;
    }
    if snapshot || deltas { Step::Wait } else { Step::Nothing }
}

/// Brings a delta into the table.
pub(super) fn apply(held: ChargedLayer, table: &Table, shared: &StoreShared) {
    let layer = &held.layer;
    let failed = || shared.attempt.health().is_err();
    // After a failure nothing may follow: a later delta without this one would be a hole.
    if failed() {
        return;
    }
    // The operator never waits for memtables: it has its own bound, which this delta counts
    // towards.
    table.make_room(layer.delta.bytes() as u64, failed);
    let tombstones = layer.delta.tombstones().iter();
    match table.apply(layer.seq, tombstones, layer.delta.iter()) {
        Ok(()) => {
            layer.set_applied();
            let seq = layer.seq;
            // Freed before the store is notified, so that a waiting writer finds the memory.
            drop(held);
            shared.set_applied(seq);
        }
        Err(error) => shared.fail(error),
    }
}

impl SnapshotOrder {
    pub(super) fn carry_out(self, table: &Table) {
        (self.done)(table.applied().and_then(|seq| Ok((seq, table.checkpoint(&self.dir)?))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: TableLoad = TableLoad { crowded: false, stopped: false, delayed: false, failed: false };

    #[test]
    fn i6_deltas_go_past_a_snapshot_that_waits_and_nothing_passes_one_that_need_not() {
        assert_eq!(next(true, true, QUIET, false), Step::Snapshot);
        let crowded = TableLoad { crowded: true, ..QUIET };
        assert_eq!(next(true, true, crowded, false), Step::Apply);
        assert_eq!(next(true, false, crowded, false), Step::Wait);
        assert_eq!(next(true, true, QUIET, true), Step::Apply, "it would be slow");
        assert_eq!(next(false, false, QUIET, false), Step::Nothing);
    }

    #[test]
    fn i6_a_table_that_takes_no_writes_takes_no_thread_either() {
        let stopped = TableLoad { stopped: true, ..QUIET };
        assert_eq!(next(false, true, stopped, false), Step::Wait);
        assert_eq!(next(true, true, stopped, false), Step::Snapshot);
        let delayed = TableLoad { delayed: true, ..QUIET };
        assert_eq!(next(false, true, delayed, false), Step::Apply);
        assert_eq!(next(false, true, delayed, true), Step::Wait, "others are slow already");
        assert_eq!(next(false, true, QUIET, true), Step::Apply);
        let failed = TableLoad { failed: true, stopped: true, ..QUIET };
        assert_eq!(next(false, true, failed, true), Step::Apply, "which throws it away");
    }
}
