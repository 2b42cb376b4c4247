//! Divides [`JobOptions::memory`](crate::JobOptions::memory) between tables, deltas, packing, uploads and a
//! restore: a pure function of the options.

use super::JobOptions;
use crate::manifest::CheckpointMode;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A delta is cut between two barriers at this size unless the options say otherwise.
const DELTA_BYTES: std::ops::RangeInclusive<u64> = MIB..=4 * MIB;
/// The most bytes of all subtasks' tails in one manifest. Beyond this, uploading them as objects is faster.
const MOST_INLINE: u64 = 4 * MIB;
/// The most memory for small deltas that wait to be packed. More than a size class of small objects and a few
/// manifests hold is never needed.
const MOST_PACKING: u64 = 32 * MIB;
/// What RocksDB keeps of the tables' memory, however little that is. With 16 MB in all and a cache of 7 the CPU of a
/// record was 1.7 times as much as without one.
const LEAST_TABLES: u64 = 16 * MIB;
/// Deltas of a subtask that no budget counts: the active one, and an applied one whose memory is reused.
const UNCOUNTED_DELTAS: u64 = 2;
/// Memory for parts of files on their way to the object store, 8 MiB each. The least keeps a fast store busy, and
/// comes on top of the job's memory.
const UPLOADS: std::ops::RangeInclusive<u64> = 64 * MIB..=512 * MIB;

/// An allocator loses memory between the pieces that it hands out: about an eighth of the memory beyond this size.
/// Losses below it are within the constant that a process may take on top.
const LOSSES_BEYOND: u64 = 1 << 30;

/// The memory of a job, divided up. All of it in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryPlan {
    /// Block cache and memtables of all tables, and caches of records, which take from it what they fill.
    pub(super) tables: u64,
    /// For each subtask: what its cache of records may take.
    pub(super) records: u64,
    /// For each subtask: memory of deltas that are not yet both applied and durable.
    pub(super) budget: u64,
    /// For durable deltas that wait to be packed, so that they need not be read back.
    pub(super) packing: u64,
    /// For each subtask: the size at which the active delta is cut.
    pub(super) delta: u64,
    /// For each subtask: bytes of its tail that may travel in a manifest.
    pub(super) inline: u64,
    /// For a restore: the changelog as it was read and as it was decoded. It uses the memory of the stores, which do
    /// not exist yet.
    pub(super) restore: u64,
    /// Parts of files on their way to the object store.
    pub(super) uploads: u64,
}

impl MemoryPlan {
    pub(super) fn of(options: &JobOptions) -> Self {
        let memory = options.memory;
        let subtasks = u64::from(options.held_here().max(1));
        let share = memory / subtasks;
        let delta = options.delta_bytes.unwrap_or_else(|| default_delta(share));
        let packing = (memory / 16).min(MOST_PACKING);
        let uploads = (memory / 16).clamp(*UPLOADS.start(), *UPLOADS.end());
        let elsewhere = uploads - UPLOADS.start() + losses(memory);
        let (tables, records) = match options.mode {
            // A delta size from the options may exceed the memory that is set aside for it.
            CheckpointMode::Changelog => {
                let uncounted = UNCOUNTED_DELTAS * delta.min(share / 16) * subtasks;
                let tables = memory / 4 * 3 - uncounted - elsewhere;
                (tables, records_limit(share, tables, subtasks))
            }
            // Native mode has no deltas, and RocksDB has all the memory for its own cache.
            CheckpointMode::NativeIncremental => (memory - elsewhere, 0),
        };
        Self {
            tables,
            records,
            budget: share / 4 - packing / subtasks,
            packing,
            delta,
            // Of all processes, because one manifest carries the tails of all.
            inline: inline_limit(options.inline_limit, share, u64::from(options.subtasks)),
            restore: memory / 4,
            uploads,
        }
    }
}

/// Bytes of one subtask's cache of records. RocksDB keeps a quarter of the tables' memory, and so much that flushes and
/// compactions of small files do not take more time than the cache saves.
fn records_limit(share: u64, tables: u64, subtasks: u64) -> u64 {
    let spare = (tables / 4 * 3).min(tables.saturating_sub(LEAST_TABLES));
    (share / 16 * 7).min(spare / subtasks)
}

fn losses(memory: u64) -> u64 {
    memory.saturating_sub(LOSSES_BEYOND) / 8
}

fn default_delta(share: u64) -> u64 {
    share.div_ceil(64).clamp(*DELTA_BYTES.start(), *DELTA_BYTES.end()).min(share / 32).max(4 * KIB)
}

/// Bytes of one subtask's tail that may travel in a manifest. This is far below the subtask's `share` of the
/// memory, because these bytes stay in memory until the commit.
fn inline_limit(wanted: u64, share: u64, subtasks: u64) -> u64 {
    wanted.min(share / 16).min(MOST_INLINE / subtasks.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::OpenMode;

    fn options(memory: u64, subtasks: u32) -> JobOptions {
        JobOptions::new("/nowhere", OpenMode::Create).memory(memory).subtasks(subtasks)
    }

    #[test]
    fn i6_nobody_is_given_what_another_has() {
        for mode in CheckpointMode::ALL.iter().copied() {
            for (memory, subtasks) in
                [(16_000_000, 1), (16_000_000, 8), (16_000_000, 16), (256_000_000, 64), (256_000_000, 256)]
                    .into_iter()
                    .chain([(4_000_000_000, 1), (4_000_000_000, 256), (u64::MAX / 2, 32_768)])
            {
                let plan = MemoryPlan::of(&options(memory, subtasks).mode(mode));
                let each = plan.budget + UNCOUNTED_DELTAS * plan.delta;
                let deltas = match mode {
                    CheckpointMode::Changelog => each * u64::from(subtasks) + plan.packing,
                    CheckpointMode::NativeIncremental => 0,
                };
                let uploads = plan.uploads - UPLOADS.start();
                let all = plan.tables + deltas + uploads + losses(memory);
                assert!(all <= memory, "{mode:?}, {memory} bytes, {subtasks} subtasks: {plan:?}");
                assert!(all >= memory / 10 * 9, "{mode:?}, {memory} bytes, {subtasks} subtasks: {plan:?}");
                assert!(plan.tables >= memory / 2 && plan.restore <= memory / 2);
                assert!(plan.records * u64::from(subtasks) <= plan.tables / 4 * 3, "{plan:?}");
                // A frozen delta is counted twice until it is sealed: without room for two, each would have to wait.
                assert!(plan.budget >= 4 * plan.delta, "{plan:?}");
            }
        }
    }

    #[test]
    fn i6_one_or_two_subtasks_have_what_they_always_had() {
        let plan = MemoryPlan::of(&options(512_000_000, 2));
        assert_eq!(
            (plan.budget + plan.packing / 2, plan.delta, plan.inline),
            (64_000_000, 4_000_000, 256 * KIB)
        );
        assert_eq!(plan.tables, 512_000_000 / 4 * 3 - 4 * 4_000_000);
        assert_eq!(plan.uploads, 64 * MIB);
    }

    #[test]
    fn i6_a_large_delta_that_was_asked_for_leaves_the_table_its_memory() {
        let plan = MemoryPlan::of(&options(16_000_000, 1).delta_bytes(1 << 30));
        assert_eq!(plan.delta, 1 << 30);
        assert!(plan.tables >= 8_000_000);
        let plan = MemoryPlan::of(&options(8_000_000_000, 1).delta_bytes(1 << 30));
        assert!(plan.records <= plan.tables / 4 * 3, "{plan:?}");
    }

    #[test]
    fn little_memory_is_not_divided_further() {
        let records = |memory, subtasks| MemoryPlan::of(&options(memory, subtasks)).records;
        assert_eq!(records(16_000_000, 1), 0);
        assert_eq!(records(512_000_000, 2), 256_000_000 / 16 * 7);
        let tables = MemoryPlan::of(&options(40_000_000, 2)).tables;
        assert_eq!(records(40_000_000, 2), (tables - LEAST_TABLES) / 2);
    }

    #[test]
    fn i5_a_manifest_stays_small_however_many_subtasks_there_are() {
        assert_eq!(inline_limit(256 * KIB, 256 << 20, 2), 256 * KIB);
        assert_eq!(inline_limit(256 * KIB, 256 << 20, 64), 64 * KIB);
        for subtasks in [1, 3, 100, 32_768] {
            assert!(inline_limit(u64::MAX, 1 << 40, subtasks) * subtasks <= MOST_INLINE);
        }
        assert_eq!(inline_limit(256 * KIB, 160 * KIB, 1), 10 * KIB, "of little memory");
    }
}
