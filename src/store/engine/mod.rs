//! Where a store's writes go. The checkpoint mode decides it once, when the store is made: into
//! deltas ([`Changelog`]), or straight into the table ([`Native`]).
//!
//! Every method is one exhaustive `match`, so the compiler finds what a third mode has to answer.

mod background;
mod changelog;
mod early_cuts;
mod found;
mod native;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::{CacheMemory, RecordCache};
use crate::delta::{MergeOp, TableKind};
use crate::env::Clock;
use crate::error::Result;
use crate::ids::DeltaSeq;
use crate::table::{Table, TableFiles};

use super::appliers::Applier;
use super::event::EventSender;
use super::scan::ScanBuilder;
use super::shared::StoreShared;

use background::Background;
pub(super) use changelog::Changelog;
pub(super) use found::Found;
pub(super) use native::Native;

/// What a mode needs beside the parts that all stores have.
pub(crate) enum Mode {
    /// `records`: memory for the cache of records, which all stores share.
    Changelog {
        applier: Applier,
        records: Arc<CacheMemory>,
        delta_bytes: usize,
        inline_limit: usize,
    },
    Native {
        dir: PathBuf,
    },
}

/// What every engine works with.
pub(super) struct EngineParts {
    pub(super) table: Arc<Table>,
    pub(super) shared: Arc<StoreShared>,
    pub(super) events: EventSender,
    pub(super) clock: Arc<dyn Clock>,
    /// The newest delta of the restored checkpoint.
    pub(super) seq: DeltaSeq,
}

pub(super) enum Engine {
    Changelog(Box<Changelog>),
    Native(Native),
}

/// What a cut leaves to the store's task.
pub(super) enum CutState {
    /// The state up to this delta, which is frozen.
    Delta(DeltaSeq),
    /// The table's files, which hold the state up to this number.
    Files(DeltaSeq, TableFiles),
}

impl Engine {
    pub(super) fn new(mode: Mode, parts: EngineParts) -> Self {
        match mode {
            Mode::Changelog { applier, records, delta_bytes, inline_limit } => {
                let recycler = Arc::clone(&parts.shared.recycler);
                let background = Background::new(applier, parts);
                let changelog = Changelog::new(
                    background,
                    &recycler,
                    RecordCache::new(records),
                    delta_bytes,
                    inline_limit,
                );
                Self::Changelog(Box::new(changelog))
            }
            Mode::Native { dir } => Self::Native(Native::new(dir, parts)),
        }
    }

    /// The newest delta that was frozen; in native mode, the number of the newest cut.
    pub(super) fn seq(&self) -> DeltaSeq {
        match self {
            Self::Changelog(changelog) => changelog.seq(),
            Self::Native(native) => native.seq(),
        }
    }

    #[inline]
    pub(super) fn put(&mut self, kind: TableKind, key: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Changelog(changelog) => {
                changelog.put(kind, key, value);
                Ok(())
            }
            Self::Native(native) => native.put(key, value),
        }
    }

    #[inline]
    pub(super) fn delete(&mut self, kind: TableKind, key: &[u8]) -> Result<()> {
        match self {
            Self::Changelog(changelog) => {
                changelog.delete(kind, key);
                Ok(())
            }
            Self::Native(native) => native.delete(key),
        }
    }

    #[inline]
    pub(super) fn merge(&mut self, kind: TableKind, op: MergeOp, key: &[u8], operand: &[u8]) -> Result<()> {
        match self {
            Self::Changelog(changelog) => {
                changelog.merge(kind, op, key, operand);
                Ok(())
            }
            Self::Native(native) => native.merge(op, key, operand),
        }
    }

    pub(super) fn delete_range(&mut self, start: &[u8], end: &[u8]) -> Result<()> {
        match self {
            Self::Changelog(changelog) => {
                changelog.delete_range(start, end);
                Ok(())
            }
            Self::Native(native) => native.delete_range(start, end),
        }
    }

    /// What memory knows of a key. The table has the rest.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Found<'_> {
        match self {
            Self::Changelog(changelog) => changelog.find(key),
            Self::Native(_) => Found::Nothing,
        }
    }

    /// The table has answered a read of this key.
    #[inline]
    pub(super) fn offer(&self, key: &[u8], value: Option<&[u8]>) {
        match self {
            Self::Changelog(changelog) => changelog.offer(key, value),
            // RocksDB has the memory for its own cache.
            Self::Native(_) => {}
        }
    }

    /// Takes in what [`Engine::offer`] was given, as every write does.
    #[inline]
    pub(super) fn settle(&mut self) {
        match self {
            Self::Changelog(changelog) => changelog.settle(),
            Self::Native(_) => {}
        }
    }

    /// Adds what lies above the table to a scan.
    pub(super) fn scan(&self, builder: &mut ScanBuilder) {
        match self {
            Self::Changelog(changelog) => changelog.scan(builder),
            Self::Native(_) => {}
        }
    }

    /// Called before each write: waits where memory is at its bound.
    #[inline]
    pub(super) fn make_room(&mut self) -> Result<()> {
        match self {
            Self::Changelog(changelog) => changelog.make_room(),
            // RocksDB bounds its memtables, and holds writes back itself.
            Self::Native(_) => Ok(()),
        }
    }

    /// As [`Engine::make_room`], but never waits. False if the write that follows would have to.
    pub(super) fn freeze_if_due(&mut self) -> bool {
        match self {
            Self::Changelog(changelog) => changelog.freeze_if_due(),
            Self::Native(_) => true,
        }
    }

    /// Cuts for checkpoint `number`.
    ///
    /// # Errors
    /// The local disk's, in native mode.
    pub(super) fn cut(&mut self, number: u64) -> Result<CutState> {
        match self {
            Self::Changelog(changelog) => {
                changelog.freeze();
                Ok(CutState::Delta(changelog.seq()))
            }
            Self::Native(native) => {
                let files = native.flush(number)?;
                Ok(CutState::Files(native.seq(), files))
            }
        }
    }

    /// The last cut of a store that finishes. Returns its number.
    ///
    /// # Errors
    /// As [`Engine::cut`].
    pub(super) fn finish(&mut self) -> Result<DeltaSeq> {
        match self {
            Self::Changelog(changelog) => changelog.freeze(),
            Self::Native(native) => native.advance()?,
        }
        Ok(self.seq())
    }

    /// Entries of the active delta, and its bytes.
    pub(super) fn active_size(&self) -> (u64, u64) {
        match self {
            Self::Changelog(changelog) => (changelog.active.len() as u64, changelog.active.bytes() as u64),
            Self::Native(_) => (0, 0),
        }
    }

    /// Holds back what the table is to take in, of all stores of the job, or lets it go.
    #[cfg(test)]
    pub(super) fn hold_applies(&self, held: bool) {
        match self {
            Self::Changelog(changelog) => changelog.hold_applies(held),
            Self::Native(_) => {}
        }
    }

    /// Ranges deleted in the active delta.
    #[cfg(test)]
    pub(super) fn active_tombstones(&self) -> usize {
        match self {
            Self::Changelog(changelog) => {
                changelog.active.tables().map(|table| table.tombstones().len()).sum()
            }
            Self::Native(_) => 0,
        }
    }
}
