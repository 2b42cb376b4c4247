//! [`Table`]: one RocksDB with one column family. This file opens it; `reads`, `writes` and
//! `upkeep` have what is done with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, ReadOptions, WriteOptions};

use super::filter::{Expiries, Expiry};
use super::long_lists::LongLists;
use super::memtables::Enlisted;
use super::merge::Folds;
use super::options::{self, TableResources};
use super::trouble::Trouble;
use super::{error, ffi};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::StateId;
use crate::key;
use crate::key_group::KeyGroupRange;

/// What a table is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Create,
    Open,
    Read,
    Rewrite,
}

/// The state of one subtask as of some delta. See the [module](super).
pub(crate) struct Table {
    // The first field, because fields are dropped in order. The list of memtables also holds the
    // database, which the thread that drops the table is to close.
    pub(super) memtable: Enlisted,
    pub(super) db: Arc<DB>,
    /// Bytes written one by one since the last call of [`Table::make_room`].
    pub(super) unlooked: AtomicU64,
    pub(super) dir: PathBuf,
    pub(super) resources: TableResources,
    pub(super) marker: [u8; key::PREFIX_LEN],
    pub(super) reads: ReadOptions,
    pub(super) writes: WriteOptions,
    pub(super) folds: Folds,
    pub(super) trouble: Arc<Trouble>,
    /// Sequence number of the delta that is being applied, set before the write begins, ...
    pub(super) applying: AtomicU64,
    /// ... and once it is visible. Equal while no write runs; see [`Table::get_at`].
    pub(super) applied: AtomicU64,
    /// Size of the last batch. The next one is probably about as large.
    pub(super) batch_bytes: AtomicU64,
}

impl Table {
    /// An empty table in `dir`, which must be empty or absent.
    ///
    /// # Errors
    /// `AlreadyExists` if there is something in `dir`; `Disk`.
    pub(crate) fn create(dir: &Path, range: KeyGroupRange, resources: &TableResources) -> Result<Self> {
        fs::create_dir_all(dir)
            .map_err(|source| Error::disk("create the directory of a table", dir, source))?;
        let mut content =
            fs::read_dir(dir).map_err(|source| Error::disk("list the directory of a table", dir, source))?;
        if content.next().is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "the directory for a new table is not empty")
                .object(dir.display())
                .advise("name an empty directory, or delete what is in it"));
        }
        Self::start(dir, range, resources, Access::Create)
    }

    /// The table whose files lie in `dir`, put there by [`Table::checkpoint`] or a restore.
    ///
    /// # Errors
    /// `NotFound` if there is no table, `Corrupt` if files are missing or damaged, `Locked`,
    /// `Disk`.
    pub(crate) fn open(dir: &Path, range: KeyGroupRange, resources: &TableResources) -> Result<Self> {
        Self::check_there(dir)?;
        Self::start(dir, range, resources, Access::Open)
    }

    /// As [`Table::open`], but only to read: nothing is compacted, and every write fails.
    ///
    /// # Errors
    /// As [`Table::open`].
    pub(crate) fn open_to_read(dir: &Path, range: KeyGroupRange, resources: &TableResources) -> Result<Self> {
        Self::check_there(dir)?;
        Self::start(dir, range, resources, Access::Read)
    }

    /// As [`Table::open`], but without automatic compactions, so that files stay in their levels
    /// until a compaction is asked for.
    pub(super) fn open_to_rewrite(
        dir: &Path,
        range: KeyGroupRange,
        resources: &TableResources,
    ) -> Result<Self> {
        Self::check_there(dir)?;
        Self::start(dir, range, resources, Access::Rewrite)
    }

    fn check_there(dir: &Path) -> Result<()> {
        if !dir.join("CURRENT").is_file() {
            return Err(Error::new(ErrorKind::NotFound, "there is no table in this directory")
                .object(dir.display())
                .advise("restore it from a checkpoint"));
        }
        Ok(())
    }

    fn start(dir: &Path, range: KeyGroupRange, resources: &TableResources, access: Access) -> Result<Self> {
        let failed = |source| error::map("open the table", dir, source);
        let mut options = resources.options().map_err(failed)?;
        options.create_if_missing(access == Access::Create);
        options.set_error_if_exists(access == Access::Create);
        options.set_disable_auto_compactions(access == Access::Rewrite);
        let folds = resources.install_filter(&mut options);
        let trouble = Trouble::new(resources.clock());
        ffi::listen(&mut options, Arc::clone(&trouble));
        // Opened by descriptor, because only then `DB` keeps the handle that batched reads need.
        let family = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
        let db = match access {
            Access::Read => DB::open_cf_descriptors_read_only(&options, dir, [family], false),
            Access::Create | Access::Open | Access::Rewrite => {
                DB::open_cf_descriptors(&options, dir, [family])
            }
        };
        let db = Arc::new(db.map_err(failed)?);
        let table = Self {
            memtable: resources.enlist(&db),
            unlooked: AtomicU64::new(0),
            db,
            dir: dir.to_owned(),
            resources: resources.clone(),
            marker: key::marker(range),
            reads: options::read_options(),
            writes: options::write_options(),
            folds,
            trouble,
            applying: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
        };
        let seq = table.read_marker(&table.reads)?;
        table.applying.store(seq.0, Ordering::Release);
        table.applied.store(seq.0, Ordering::Release);
        Ok(table)
    }

    /// From now on, compactions and applied deltas drop expired values of `state`.
    pub(crate) fn expire(&self, state: StateId, expiry: Expiry) -> Result<()> {
        if self.folds.expiries.set(state, expiry) {
            self.db
                .set_options(&[options::PERIODIC_COMPACTION])
                .map_err(|source| self.failed("set an option of the table", source))?;
        }
        Ok(())
    }

    /// The TTLs by which compaction removes entries.
    pub(crate) fn expiries(&self) -> &Arc<Expiries> {
        &self.folds.expiries
    }

    /// The long lists that folds have come across.
    pub(crate) fn long_lists(&self) -> &LongLists {
        &self.folds.long
    }

    pub(super) fn failed(&self, what: &str, source: rocksdb::Error) -> Error {
        let error = error::map(what, &self.dir, source);
        match self.folds.long.refused() {
            // RocksDB's status says only that a fold failed.
            Some((key, bytes)) if error.to_string().contains("Merge operator failed") => {
                let message =
                    format!("cannot {what}: what was appended to one key has come to {bytes} bytes");
                Error::new(ErrorKind::Incompatible, message)
                    .object(format!("key {}", key.escape_ascii()))
                    .advise("go on from an older checkpoint, and clear the list, or let it expire, before it grows that long")
            }
            _ => error,
        }
    }
}
