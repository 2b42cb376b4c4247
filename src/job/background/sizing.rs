//! How many threads, background jobs and transfers a job has: pure functions of cores and subtasks.

use std::ops::RangeInclusive;

use crate::uploads::PARALLEL_DELTAS;

/// Threads of a job's own runtime, one for each core. Encoding and hashing go to its blocking pool.
const WORKERS: RangeInclusive<usize> = 2..=8;
/// Threads of the blocking pool for each core. More than one, because some wait for the disk. But the
/// allocator keeps memory for each thread, so there must not be hundreds when all subtasks cut at once.
const BLOCKING_FOR_EACH_CORE: usize = 4;
const BLOCKING: RangeInclusive<usize> = 8..=64;
/// RocksDB's background jobs (flushes and compactions) of all subtasks together, one for each core.
const BACKGROUND_JOBS: RangeInclusive<usize> = 2..=16;
/// Tables that wait for memory wait for the flush of one of them, and a flush waits for the disk. Jobs
/// with more tables than this get a second flush thread on any machine: `docs/measurements/table.md`.
const FEW_TABLES: u32 = 2;
const LEAST_FOR_MANY: usize = 4;
/// Files of one base that are uploaded at the same time.
pub(super) const PARALLEL_UPLOADS: usize = 4;
/// Objects that a restore fetches at the same time.
pub(super) const PARALLEL_DOWNLOADS: usize = 16;
/// Parts of one file that a native checkpoint sends at the same time. Otherwise its last file would be
/// alone on the link.
const NATIVE_PARTS: usize = 2;
/// The most transfers that are taken to share one link. With more, the deadline of each would be so long
/// that a transfer that hangs is noticed too late.
const MOST_SHARERS: u32 = 64;

/// Threads of the job's runtime.
pub(super) fn workers(cores: usize) -> usize {
    cores.clamp(*WORKERS.start(), *WORKERS.end())
}

/// Threads of the runtime's blocking pool.
pub(super) fn blocking_threads(cores: usize) -> usize {
    (cores * BLOCKING_FOR_EACH_CORE).clamp(*BLOCKING.start(), *BLOCKING.end())
}

/// RocksDB's flushes and compactions that run at the same time.
pub(super) fn background_jobs(subtasks: u32, cores: usize) -> usize {
    let least = if subtasks > FEW_TABLES { LEAST_FOR_MANY } else { *BACKGROUND_JOBS.start() };
    cores.clamp(least, *BACKGROUND_JOBS.end())
}

/// Parts of one file that are sent at the same time.
pub(super) fn file_parts(native: bool) -> usize {
    if native { NATIVE_PARTS } else { 1 }
}

/// Transfers that may share a link: files of all subtasks in parts, and deltas.
pub(super) fn sharers(subtasks: u32, native: bool) -> u32 {
    let each = u32::try_from(PARALLEL_UPLOADS * file_parts(native)).unwrap_or(u32::MAX);
    subtasks.saturating_mul(each).saturating_add(PARALLEL_DELTAS).min(MOST_SHARERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn background_jobs_follow_cores_and_many_tables_have_two_for_flushes() {
        assert_eq!([1, 2, 8, 64].map(|cores| background_jobs(2, cores)), [2, 2, 8, 16]);
        assert_eq!([1, 2, 8, 64].map(|cores| background_jobs(3, cores)), [4, 4, 8, 16]);
    }

    #[test]
    fn i6_a_connection_that_hangs_is_noticed_however_many_subtasks_there_are() {
        assert_eq!(sharers(1, false), 4 + PARALLEL_DELTAS);
        assert_eq!(sharers(2, true), 16 + PARALLEL_DELTAS);
        assert_eq!(sharers(u32::MAX, true), MOST_SHARERS);
    }
}
