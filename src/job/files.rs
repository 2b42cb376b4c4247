//! How many SST files the tables of a job keep open.

use super::options::{JobOptions, LEAST_OPEN_FILES};
use crate::error::{Error, Result};

/// Files that a table has open beside its SST files: a lock, a log, a MANIFEST, directories, an empty write-ahead
/// log.
const OTHER_FILES: u64 = 8;
/// Files that the process needs to run at all: connections, files on their way, the program's own.
const SPARE_FILES: u64 = 64;
/// About what RocksDB keeps in memory for an open file beside its cached blocks.
const OPEN_FILE_BYTES: u64 = 8 << 10;
/// SST files that a table keeps open even if memory is small, because opening one again costs more than keeping it.
const FEW_FILES: u64 = 64;

/// The files that a job would like to have open.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFiles {
    subtasks: u64,
    /// SST files of all tables together.
    files: u64,
}

impl OpenFiles {
    /// As many SST files as the options say, or as the tables' memory has room for.
    pub(super) fn of(options: &JobOptions, tables_memory: u64) -> Self {
        let subtasks = u64::from(options.held_here().max(1));
        let fit = (tables_memory / 8 / OPEN_FILE_BYTES).max(FEW_FILES * subtasks);
        Self { subtasks, files: options.max_open_files.map_or(fit, u64::from) }
    }

    /// The limit of open files that allows all of them.
    pub(super) fn wanted(self) -> u64 {
        let all = (self.files + self.subtasks * OTHER_FILES).div_ceil(3) * 4;
        all.max(self.needed())
    }

    /// The lowest limit of open files.
    fn needed(self) -> u64 {
        self.subtasks * (OTHER_FILES + u64::from(LEAST_OPEN_FILES)) + SPARE_FILES
    }

    /// SST files that each table keeps open, of a process that may open `limit` files altogether. A quarter is
    /// left for compactions, uploads and the program.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the limit is too low for even a few files per table.
    pub(super) fn within(self, limit: Option<u64>) -> Result<u32> {
        let needed = self.needed();
        if let Some(limit) = limit.filter(|limit| *limit < needed) {
            return Err(Error::invalid(format!(
                "{} subtasks may need {needed} open files, and this process may open {limit}",
                self.subtasks
            ))
            .advise(format!("raise the hard limit of open files to {}: ulimit -Hn", self.wanted())));
        }
        let limit = limit.unwrap_or(u64::MAX);
        let allowed = (limit / 4 * 3).saturating_sub(self.subtasks * OTHER_FILES);
        let each = (self.files.min(allowed) / self.subtasks).max(u64::from(LEAST_OPEN_FILES));
        Ok(u32::try_from(each).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::OpenMode;

    fn options(subtasks: u32) -> JobOptions {
        JobOptions::new("/nowhere", OpenMode::Create).subtasks(subtasks)
    }

    #[test]
    fn i6_tables_keep_no_more_files_open_than_the_process_may() {
        for (subtasks, limit) in
            [(1, 256), (1, 1024), (8, 1024), (52, 1024), (64, 1216), (256, 20_000), (1000, 1 << 20)]
        {
            let files = OpenFiles::of(&options(subtasks), 1 << 40).within(Some(limit)).unwrap();
            let all = u64::from(subtasks) * (u64::from(files) + OTHER_FILES) + SPARE_FILES;
            assert!(files >= LEAST_OPEN_FILES && all <= limit, "{subtasks} subtasks, {limit}: {files}");
        }
    }

    #[test]
    fn a_table_keeps_as_many_files_open_as_its_memory_has_room_for() {
        assert_eq!(OpenFiles::of(&options(1), 384 << 20).within(Some(1 << 20)).unwrap(), 6144);
        assert_eq!(OpenFiles::of(&options(4), 1 << 20).within(None).unwrap(), 64, "however little that is");
        let asked = |subtasks, files| OpenFiles::of(&options(subtasks).max_open_files(files), 384 << 20);
        assert_eq!(asked(2, 300).within(Some(1024)).unwrap(), 150);
        assert_eq!(asked(1, 9999).within(Some(1024)).unwrap(), 760);
    }

    #[test]
    fn under_the_limit_that_is_wanted_nothing_is_given_up() {
        for (subtasks, memory) in [(1, 12 << 20), (2, 384 << 20), (64, 192 << 20), (256, 3 << 30)] {
            let files = OpenFiles::of(&options(subtasks), memory);
            let each = files.within(Some(files.wanted())).unwrap();
            assert_eq!(u64::from(each), files.files / u64::from(subtasks), "{subtasks} subtasks");
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_named_with_the_one_that_would_do() {
        let error = OpenFiles::of(&options(64), 192 << 20).within(Some(1024)).unwrap_err().to_string();
        assert!(error.contains("1216") && error.contains("1024") && error.contains("ulimit -Hn"), "{error}");
    }
}
