//! Where the difference between two runs comes from, in sentences that follow from the figures: each
//! is written only if its figures were measured, and says so when they speak against the changelog.

use crate::result::{Percentiles, RunResult};
use crate::units;

/// Sentences about a changelog run beside a native one of the same workload.
pub(crate) fn explain(changelog: &RunResult, native: &RunResult) -> Vec<String> {
    [
        bytes_per_checkpoint(changelog, native),
        steady(changelog, native),
        pause(changelog, native),
        throughput(changelog, native),
        total_bytes(changelog, native),
        restore(changelog, native),
        caveats(changelog, native),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn size(bytes: f64) -> String {
    units::bytes(bytes)
}

fn bytes_per_checkpoint(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let (a, b) = (changelog.checkpoints.as_ref()?.bytes?, native.checkpoints.as_ref()?.bytes?);
    let mut text = format!(
        "Bytes: a native checkpoint uploads whole SST files, those of the flush and those that compaction has \
         rewritten since: {} at the median, {} at most. A changelog checkpoint uploads the changes alone: {} \
         at the median, {} at most.",
        size(b.p50),
        size(b.max),
        size(a.p50),
        size(a.max)
    );
    if a.p50 > b.p50 {
        text += " Here the changes were more than the new SST files.";
    }
    Some(text)
}

fn steady(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let (a, b) = (changelog.steady.as_ref()?, native.steady.as_ref()?);
    let spread = |bytes: Option<Percentiles>| bytes.map(|p| (p.p50, p.max));
    let say = |name: &str, quiet: Option<Percentiles>, busy: Option<Percentiles>| match (
        spread(quiet),
        spread(busy),
    ) {
        (Some((quiet, _)), Some((_, busy))) => {
            format!("{name} {} when nothing was rewritten and up to {} beside it", size(quiet), size(busy))
        }
        (Some((quiet, _)), None) => {
            format!(
                "{name} {}, and no compaction or materialization ran, so this stretch shows nothing",
                size(quiet)
            )
        }
        (None, Some((median, max))) => format!(
            "{name} {} at the median and {} at most, and SST files were being rewritten all the time",
            size(median),
            size(max)
        ),
        (None, None) => format!("{name} no checkpoint at all"),
    };
    Some(format!(
        "Steady load, {} records/s (I5: a checkpoint's bytes depend on the delta, not on compaction): {}; {}.",
        units::count(a.records_per_s),
        say("changelog", a.quiet_bytes, a.busy_bytes),
        say("native", b.quiet_bytes, b.busy_bytes)
    ))
}

fn pause(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let (a, b) = (changelog.checkpoints.as_ref()?.cut_ms?, native.checkpoints.as_ref()?.cut_ms?);
    let (worst_a, worst_b) = (changelog.operator_pause_ms?, native.operator_pause_ms?);
    Some(format!(
        "Pause: a native cut flushes the memtable on the operator's thread ({} at the median); a changelog cut \
         swaps one table for another ({}). The longest an operator stood still for any reason was {} with the \
         changelog and {} in native mode.",
        units::millis(b.p50),
        units::millis(a.p50),
        units::millis(worst_a.max),
        units::millis(worst_b.max)
    ))
}

fn throughput(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let (a, b) = (changelog.records_per_s, native.records_per_s);
    if b <= 0.0 {
        return None;
    }
    if changelog.settings.rate > 0.0 {
        return Some(format!(
            "Throughput: the load was paced at {} records/s, so it says nothing; look at the latency and the CPU.",
            units::count(changelog.settings.rate)
        ));
    }
    let cause = if a >= b {
        "the delta takes the writes in memory, keeps the last one of each key, and brings them into RocksDB \
         sorted and in bulk on another thread, where native mode writes every record into RocksDB at once"
    } else {
        "writing, sealing and applying each delta costs more here than is saved by applying the last write of \
         each key only"
    };
    let blocked = changelog.backpressure.map_or(0.0, |backpressure| backpressure.blocked_ms);
    let mut text = format!("Throughput: {}× native's; {cause}.", units::three_digits(a / b));
    if blocked > 0.0 {
        text += &format!(
            " Changelog writes waited {} at the memory bound for the applier or the upload.",
            units::millis(blocked)
        );
    }
    Some(text)
}

fn total_bytes(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let (a, b) = (changelog.store.as_ref()?.put_bytes as f64, native.store.as_ref()?.put_bytes as f64);
    let bases: u64 = changelog.materializations.iter().map(|m| m.bytes).sum();
    Some(format!(
        "All bytes put in the measured stretch: {} with the changelog, of which {} by {} materialization(s) in the \
         background; {} native.",
        size(a),
        size(bases as f64),
        changelog.materializations.len(),
        size(b)
    ))
}

fn restore(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let (a, b) = (changelog.restore.as_ref()?, native.restore.as_ref()?);
    Some(format!(
        "Restore: the changelog pays for its small checkpoints by replaying {} entries of {} delta(s) in {}; in all \
         {} against {} native.",
        units::count(a.entries_replayed? as f64),
        units::count(a.deltas? as f64),
        units::millis(a.replay_ms?),
        units::millis(a.total_ms),
        units::millis(b.total_ms)
    ))
}

fn caveats(changelog: &RunResult, native: &RunResult) -> Option<String> {
    let mut notes = vec![
        "The clock and the CPU meter stop when every delta is applied and durable and compaction has settled"
            .to_owned(),
    ];
    let store = changelog.settings.store.as_deref().unwrap_or_default();
    if changelog.store_model.is_some() {
        notes.push(
            "the object store's latency and bandwidth are modelled: there is no TLS, HTTP or signing in the CPU \
             figures, and its disk and CPU are shared with the job"
                .to_owned(),
        );
    } else if store == "file" || store == "memory" {
        notes.push(format!(
            "the object store is {} on this machine: no network, no TLS, and its disk and CPU are shared with the job",
            if store == "file" { "a directory" } else { "memory" }
        ));
    }
    match changelog.restore.as_ref().and_then(|restore| restore.page_cache_warm) {
        Some(true) => notes.push("the restore found the page cache warm".to_owned()),
        Some(false) => notes.push("the restore found the page cache cold".to_owned()),
        None => {}
    }
    let failed: u64 =
        [changelog, native].iter().filter_map(|run| Some(run.checkpoints.as_ref()?.failed)).sum();
    if failed > 0 {
        notes.push(format!("{failed} checkpoint(s) failed and are not in the durations"));
    }
    Some(format!("Mind: {}.", notes.join("; ")))
}
