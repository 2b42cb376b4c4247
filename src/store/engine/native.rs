//! Native mode: writes go straight into the table, and a cut is a flush of it.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use crate::delta::MergeOp;
use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::store::shared::StoreShared;
use crate::table::{Table, TableFiles};

use super::EngineParts;

pub(in crate::store) struct Native {
    table: Arc<Table>,
    shared: Arc<StoreShared>,
    /// Snapshots are linked into numbered directories below this one.
    dir: PathBuf,
    /// The number of the newest cut.
    seq: Cell<DeltaSeq>,
}

impl Native {
    pub(super) fn new(dir: PathBuf, parts: EngineParts) -> Self {
        Self { table: parts.table, shared: parts.shared, dir, seq: Cell::new(parts.seq) }
    }

    pub(super) fn seq(&self) -> DeltaSeq {
        self.seq.get()
    }

    #[inline]
    pub(in crate::store) fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.table.put(key, value)
    }

    #[inline]
    pub(super) fn delete(&self, key: &[u8]) -> Result<()> {
        self.table.delete(key)
    }

    #[inline]
    pub(super) fn merge(&self, op: MergeOp, key: &[u8], operand: &[u8]) -> Result<()> {
        self.table.merge(op, key, operand)
    }

    pub(super) fn delete_range(&self, start: &[u8], end: &[u8]) -> Result<()> {
        self.table.delete_range(start, end)
    }

    /// Gives the table the next number, so that the files of two cuts can be told apart.
    pub(super) fn advance(&self) -> Result<()> {
        let seq = self.seq.get().next();
        self.table.set_applied(seq)?;
        self.seq.set(seq);
        Ok(())
    }

    /// Flushes everything into files, and links them into the directory of checkpoint `number`.
    pub(super) fn flush(&self, number: u64) -> Result<TableFiles> {
        // One more file than level 0 takes would have RocksDB hold back all writes.
        self.table.wait_for_room(|| self.shared.attempt.health())?;
        // The number goes into the table first, so that the files hold it. A restore compares it with the manifest's.
        self.advance()?;
        self.table.checkpoint(&self.dir.join(format!("cut-{number}")))
    }
}
