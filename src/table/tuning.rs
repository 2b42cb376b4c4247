//! RocksDB's own options that a host may set, under RocksDB's names.
//!
//! Options that are not on the list are refused, because a new release of RocksDB may bring options
//! that break an invariant.

use rocksdb::{BlockBasedIndexType, BlockBasedOptions, Options};

use crate::error::{Error, Result};

/// Names and values that a host has given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tuning(Vec<(String, String)>);

/// How an option gets to RocksDB.
#[derive(Clone, Copy)]
enum OptionKind {
    /// RocksDB parses it: one of a few values.
    OneOf(&'static [&'static str]),
    /// RocksDB parses it: a number from the first to the second, both included.
    Number(u64, u64),
    /// A setter of the options of blocks. RocksDB would parse them only as part of a table factory.
    Blocks(fn(&mut BlockBasedOptions, &str) -> Option<()>),
    /// A setter of the table's options. It also takes the number of tables.
    Call(fn(&mut Options, &str, usize) -> Option<()>),
}

/// The formats that every build of this library reads. A restore may open files of another build.
const COMPRESSIONS: &[&str] = &["kNoCompression", "kLZ4Compression", "kZSTD"];
const FLAG: &[&str] = &["true", "false"];

const ALLOWED: &[(&str, OptionKind)] = &[
    ("block_restart_interval", OptionKind::Blocks(restart_interval)),
    ("block_size", OptionKind::Blocks(block_size)),
    ("bottommost_compression", OptionKind::OneOf(COMPRESSIONS)),
    ("bytes_per_sync", OptionKind::Number(0, 1 << 30)),
    // A compaction holds this much memory for each file that it reads.
    ("compaction_readahead_size", OptionKind::Number(0, 16 << 20)),
    ("compression", OptionKind::OneOf(COMPRESSIONS)),
    // Writes are slowed down at 20 files, and snapshots wait at 18.
    ("level0_file_num_compaction_trigger", OptionKind::Number(1, 16)),
    ("max_bytes_for_level_base", OptionKind::Number(1 << 20, 1 << 40)),
    ("max_bytes_for_level_multiplier", OptionKind::Number(2, 100)),
    ("max_subcompactions", OptionKind::Number(1, 16)),
    ("memtable_max_range_deletions", OptionKind::Number(1, 1 << 20)),
    ("optimize_filters_for_hits", OptionKind::OneOf(FLAG)),
    ("partition_filters", OptionKind::Blocks(partition_filters)),
    ("rate_limiter_bytes_per_second", OptionKind::Call(rate_limiter)),
    ("target_file_size_base", OptionKind::Number(1 << 20, 1 << 30)),
    ("target_file_size_multiplier", OptionKind::Number(1, 10)),
    ("use_direct_io_for_flush_and_compaction", OptionKind::OneOf(FLAG)),
    ("use_direct_reads", OptionKind::OneOf(FLAG)),
];

/// Why options are refused, by parts of their names. The first part that an option's name contains
/// gives the reason.
const REFUSED: &[(&str, &str)] = &[
    ("comparator", "the order of keys is part of the format"),
    ("merge_operator", "appends are folded by the library's own"),
    ("compaction_filter", "what has expired is removed by the library's own"),
    ("user_defined_timestamps", "keys would have another form"),
    ("blob", "a checkpoint carries SST files alone"),
    ("wal", "there is no write-ahead log: the changelog is one"),
    ("compaction_style", "bases share files only between levels"),
    ("compaction_options_fifo", "it deletes state"),
    ("ttl", "it belongs to a state's descriptor"),
    ("periodic_compaction", "it belongs to a state's TTL"),
    ("disable_auto_compactions", "files would gather until writes stop"),
    ("atomic_flush", "there is one column family"),
    ("unordered_write", "a delta must be seen whole or not at all"),
    ("two_write_queues", "a delta must be seen whole or not at all"),
    ("pipelined_write", "a delta must be seen whole or not at all"),
    ("concurrent_memtable_write", "one thread writes to a table"),
    ("inplace_update", "snapshots would change"),
    ("num_levels", "a restore must open what another has written"),
    ("level_compaction_dynamic", "rescaling relies on where levels begin"),
    ("level0_slowdown", "snapshots wait below it"),
    ("level0_stop", "snapshots wait below it"),
    ("write_buffer", "it follows from JobOptions::memory"),
    ("arena_block_size", "it follows from JobOptions::memory"),
    ("cache", "it follows from JobOptions::memory"),
    ("max_open_files", "use JobOptions::max_open_files"),
    ("max_background", "use JobOptions::background_jobs"),
    ("prefix_extractor", "scans cross prefixes"),
    ("factory", "files and memtables have the form that restores read"),
    ("format_version", "a restore must open what another has written"),
    ("checksum", "every byte that is read is checked"),
    ("env", "files are hard-linked on the local file system"),
];

impl Tuning {
    /// Adds an option; the last one of a name counts.
    pub(crate) fn set(&mut self, name: String, value: String) {
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, value));
    }

    /// # Errors
    /// `InvalidArgument` with the option's name, if it may not be set or not to that.
    pub(crate) fn validate(&self) -> Result<()> {
        self.0.iter().try_for_each(|(name, value)| check(name, value))
    }

    /// Those that RocksDB reads itself, in its own form; each ends in a semicolon.
    pub(super) fn by_name(&self) -> String {
        let by_name = self.0.iter().filter(|(name, _)| way(name).is_some_and(OptionKind::is_by_name));
        by_name.map(|(name, value)| format!("{name}={value};")).collect()
    }

    /// The number that an option was set to.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(other, _)| other == name).and_then(|(_, value)| value.parse().ok())
    }

    pub(super) fn tune_blocks(&self, blocks: &mut BlockBasedOptions) {
        for (name, value) in &self.0 {
            if let Some(OptionKind::Blocks(set)) = way(name) {
                // No error: the value was checked when the job was opened.
                let _ = set(blocks, value);
            }
        }
    }

    /// Sets the options of one table, of `tables` that share rates and memory.
    pub(super) fn tune(&self, options: &mut Options, tables: usize) {
        for (name, value) in &self.0 {
            if let Some(OptionKind::Call(set)) = way(name) {
                let _ = set(options, value, tables);
            }
        }
    }

    /// For reports.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }
}

impl OptionKind {
    fn is_by_name(self) -> bool {
        matches!(self, Self::OneOf(_) | Self::Number(..))
    }
}

fn way(name: &str) -> Option<OptionKind> {
    ALLOWED.iter().find(|(allowed, _)| *allowed == name).map(|(_, way)| *way)
}

fn check(name: &str, value: &str) -> Result<()> {
    let Some(way) = way(name) else {
        let reason = REFUSED.iter().find(|(part, _)| name.contains(part)).map(|(_, reason)| *reason);
        let allowed: Vec<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
        return Err(Error::invalid(format!(
            "RocksDB's {name:?} may not be set: {}",
            reason.unwrap_or("it is not among those that were looked at")
        ))
        .advise(format!("these may be: {}", allowed.join(", "))));
    };
    let refuse =
        |reason: String| Error::invalid(format!("the RocksDB option {name} cannot be {value:?}: {reason}"));
    // A semicolon or a brace in the value could set another option as well.
    if value.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '.')) {
        return Err(refuse("letters, digits and a dot are all that is in a value".to_owned()));
    }
    let fits = match way {
        OptionKind::OneOf(values) if !values.contains(&value) => {
            return Err(refuse(format!("it is one of {}", values.join(", "))));
        }
        OptionKind::Number(least, most)
            if !value.parse().is_ok_and(|number| (least..=most).contains(&number)) =>
        {
            return Err(refuse(format!("it is a number from {least} to {most}")));
        }
        OptionKind::OneOf(_) | OptionKind::Number(..) => {
            Options::default().get_options_from_string(format!("{name}={value}")).is_ok()
        }
        OptionKind::Blocks(set) => set(&mut BlockBasedOptions::default(), value).is_some(),
        OptionKind::Call(set) => set(&mut Options::default(), value, 1).is_some(),
    };
    if fits { Ok(()) } else { Err(refuse("RocksDB does not take it".to_owned())) }
}

fn block_size(blocks: &mut BlockBasedOptions, value: &str) -> Option<()> {
    let bytes = value.parse().ok().filter(|bytes| (1 << 10..=1 << 20).contains(bytes))?;
    blocks.set_block_size(bytes);
    Some(())
}

fn restart_interval(blocks: &mut BlockBasedOptions, value: &str) -> Option<()> {
    let keys = value.parse().ok().filter(|keys| (1..=256).contains(keys))?;
    blocks.set_block_restart_interval(keys);
    Some(())
}

/// Divides index and filter into partitions that are cached one by one, for state whose indexes and
/// filters do not fit the cache.
fn partition_filters(blocks: &mut BlockBasedOptions, value: &str) -> Option<()> {
    if value.parse().ok()? {
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
    }
    Some(())
}

/// Limits what flushes and compactions of all tables together write, in bytes per second. RocksDB
/// has no limiter that tables can share from here, so each table gets an equal share.
fn rate_limiter(options: &mut Options, value: &str, tables: usize) -> Option<()> {
    let rate: i64 = value.parse().ok().filter(|rate| (1 << 20..=1 << 40).contains(rate))?;
    let share = rate / i64::try_from(tables.max(1)).ok()?;
    options.set_ratelimiter(share.max(64 << 10), 100_000, 10);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<()> {
        let mut tuning = Tuning::default();
        tuning.set(name.to_owned(), value.to_owned());
        tuning.validate()
    }

    #[test]
    fn what_is_allowed_is_taken_by_rocksdb() {
        for (name, way) in ALLOWED {
            let value = match way {
                OptionKind::OneOf(values) => values[0].to_owned(),
                OptionKind::Number(least, _) => least.to_string(),
                OptionKind::Blocks(_) if *name == "partition_filters" => "true".to_owned(),
                OptionKind::Blocks(_) => {
                    "1024".chars().take(if *name == "block_size" { 4 } else { 2 }).collect()
                }
                OptionKind::Call(_) => (1 << 20).to_string(),
            };
            one(name, &value).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
        }
    }

    #[test]
    fn what_would_break_an_invariant_is_refused_by_its_name() {
        for (name, value) in [
            ("comparator", "rocksdb.ReverseBytewiseComparator"),
            ("merge_operator", "stringappend"),
            ("file_checksum_gen_factory", "nullptr"),
            ("bottommost_file_compaction_delay", "1"),
            ("compaction_filter_factory", "x"),
            ("enable_blob_files", "true"),
            ("wal_dir", "elsewhere"),
            ("manual_wal_flush", "true"),
            ("compaction_style", "kCompactionStyleFIFO"),
            ("ttl", "1"),
            ("disable_auto_compactions", "true"),
            ("unordered_write", "true"),
            ("write_buffer_size", "1"),
            ("max_open_files", "1"),
            ("max_background_jobs", "1"),
            ("table_factory", "PlainTable"),
            ("prefix_extractor", "x"),
            ("persist_user_defined_timestamps", "false"),
            ("a new one", "1"),
            ("", ""),
        ] {
            let error = one(name, value).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        assert!(one("ttl", "1").unwrap_err().to_string().contains("descriptor"));
    }

    #[test]
    fn values_that_make_no_sense_or_hide_another_option_are_refused() {
        for (name, value) in [
            ("compression", "kSnappyCompression"),
            ("compression", "lz4"),
            ("bytes_per_sync", "many"),
            ("bytes_per_sync", "1;ttl=1"),
            ("bytes_per_sync", "{ttl=1}"),
            ("block_size", "0"),
            ("block_size", "99999999999"),
            ("partition_filters", "perhaps"),
            ("level0_file_num_compaction_trigger", "17"),
            ("level0_file_num_compaction_trigger", "-1"),
            ("memtable_max_range_deletions", "0"),
            ("rate_limiter_bytes_per_second", "0"),
            ("use_direct_reads", ""),
        ] {
            let error = one(name, value).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let mut tuning = Tuning::default();
        tuning.set("bytes_per_sync".to_owned(), "1".to_owned());
        tuning.set("compression".to_owned(), "kZSTD".to_owned());
        tuning.set("bytes_per_sync".to_owned(), "2".to_owned());
        assert_eq!(tuning.by_name(), "compression=kZSTD;bytes_per_sync=2;");
        assert_eq!((tuning.number("bytes_per_sync"), tuning.number("block_size")), (Some(2), None));
    }
}
