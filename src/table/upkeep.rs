//! Flushes and compactions of a table, and whether it can take more.

use std::path::Path;
use std::time::Duration;

use rocksdb::{WaitForCompactOptions, properties};

use super::stats::TableStats;
use super::{Table, error, ffi, options};
use crate::error::{Error, ErrorKind, Result};

/// How often a caller that waits for compaction looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Table {
    /// Where the table's files lie.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether level 0 is so full that a flush for [`Table::checkpoint`] would have writes held
    /// back.
    pub(crate) fn is_crowded(&self) -> bool {
        let files = self.db.property_int_value(properties::num_files_at_level(0)).ok().flatten();
        files.is_some_and(|files| files >= options::CROWDED_L0)
    }

    /// Whether RocksDB would hold back a write until flush or compaction has caught up.
    pub(crate) fn is_stopped(&self) -> bool {
        self.db.property_int_value(properties::IS_WRITE_STOPPED).ok().flatten().is_some_and(|is| is != 0)
    }

    /// Whether RocksDB slows writes down.
    pub(crate) fn is_delayed(&self) -> bool {
        let rate = self.db.property_int_value(properties::ACTUAL_DELAYED_WRITE_RATE);
        rate.ok().flatten().is_some_and(|rate| rate != 0)
    }

    /// Keeps files in level 0 from here on.
    #[cfg(test)]
    pub(crate) fn hold_compactions(&self) {
        self.db.set_options(&[("disable_auto_compactions", "true")]).unwrap();
    }

    /// From here on two files in level 0 stop all writes, or none do.
    #[cfg(test)]
    pub(crate) fn stop_writes(&self, stop: bool) {
        let files = if stop { "2" } else { "2000" };
        let options =
            ["level0_slowdown_writes_trigger", "level0_stop_writes_trigger"].map(|name| (name, files));
        self.db.set_options(&[("level0_file_num_compaction_trigger", "1000")]).unwrap();
        self.db.set_options(&options).unwrap();
    }

    /// Blocks until compaction has made room in level 0. Ends with an error if compaction fails, or
    /// if `go_on` returns one, as when the attempt has ended.
    ///
    /// # Errors
    /// [`Table::trouble`]; the error of `go_on`.
    pub(crate) fn wait_for_room(&self, go_on: impl Fn() -> Result<()>) -> Result<()> {
        while self.is_crowded() {
            self.trouble().map_or(Ok(()), Err)?;
            go_on()?;
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Why compactions and flushes are failing at the moment, mostly because the disk is full.
    /// Writes may still succeed for a while.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let (status, stood) = self.trouble.now()?;
        let error = error::map("compact or flush the table", &self.dir, status);
        // The attempt goes on, so the advice differs from that of a failed write.
        let advice = format!("free disk space: it has failed for {stood:.0?}, and goes on by itself then");
        Some(if error.kind() == ErrorKind::Disk { error.advise(advice) } else { error })
    }

    pub(super) fn memtable_is_empty(&self) -> Result<bool> {
        for name in [properties::NUM_ENTRIES_ACTIVE_MEM_TABLE, properties::NUM_ENTRIES_IMM_MEM_TABLES] {
            let entries = self
                .db
                .property_int_value(name)
                .map_err(|source| self.failed("read a property of the table", source))?;
            // An unknown number counts as not empty, which costs no more than a flush.
            if entries != Some(0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the memtable into an SST file and waits for it.
    pub(crate) fn flush(&self) -> Result<()> {
        self.db.flush().map_err(|source| self.failed("flush the table", source))
    }

    /// Rewrites all files into the last level, and waits for it.
    pub(crate) fn compact_all(&self) -> Result<()> {
        self.flush()?;
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options::compact_options());
        // A manual compaction reports no status; a failure shows as a background error.
        match TableStats::read(&self.db).background_errors {
            0 => Ok(()),
            _ => self.flush(),
        }
    }

    /// Flushes, and waits until no flush or compaction is due any more. False if `timeout` passed
    /// first.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> Result<bool> {
        let mut wait = WaitForCompactOptions::default();
        wait.set_flush(true);
        // RocksDB takes 0 for no timeout.
        wait.set_timeout(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX).max(1));
        match self.db.wait_for_compact(&wait) {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == rocksdb::ErrorKind::TimedOut => Ok(false),
            Err(source) => Err(self.failed("wait for compaction", source)),
        }
    }

    /// About how many bytes of files hold keys of these half-open ranges. Memtables do not count.
    pub(crate) fn bytes_within(&self, ranges: &[(Vec<u8>, Vec<u8>)]) -> u64 {
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| rocksdb::Range::new(start, end)).collect();
        self.db.get_approximate_sizes(&ranges).into_iter().fold(0, u64::saturating_add)
    }

    /// Prepares for a drop that may lose what no checkpoint has. Flushes and compactions stop,
    /// closing the table writes nothing, and a write that RocksDB holds back ends with an error.
    /// Reads still work.
    pub(crate) fn abandon(&self) {
        // Without it the memtable would be flushed first, however long that takes.
        if let Err(error) = ffi::set_db_option(&self.db, c"avoid_flush_during_shutdown", c"true") {
            tracing::debug!(%error, "the table will be flushed before it is closed");
        }
        self.db.cancel_all_background_work(false);
    }

    /// The table's current statistics.
    pub(crate) fn stats(&self) -> TableStats {
        TableStats::read(&self.db)
    }
}
