//! What the figures show, in sentences that follow from them: each is written only if its figures were
//! measured.

use std::fmt::Write;

use super::groups::Group;
use super::phrases::and;
use crate::result::metric::{self, METRICS, times};
use crate::units;

/// So many groups are compared figure by figure; of each of the others there is one sentence.
pub(crate) const IN_WORDS: usize = 2;

/// `a and b`, or once what is said of both.
fn both(a: String, b: &str) -> String {
    if a == b { a } else { format!("{a} and {b}") }
}

fn of(group: &Group<'_>, heading: &str, name: &str) -> Option<f64> {
    let figure = METRICS.iter().find(|figure| (figure.group, figure.name) == (heading, name))?;
    group.median(figure.of)
}

/// `3.4 times less`, `equal`.
fn factor(a: f64, b: f64, less: &str, more: &str) -> String {
    let ratio = a / b;
    if !ratio.is_finite() || ratio <= 0.0 {
        return "not comparable".to_owned();
    }
    let (factor, word) = if ratio < 1.0 { (1.0 / ratio, less) } else { (ratio, more) };
    if factor < 1.02 { "about the same".to_owned() } else { format!("{} {word}", times(factor)) }
}

/// Each group against the baseline, or one alone.
pub(crate) fn findings(groups: &[Group<'_>], baseline: Option<usize>) -> Vec<String> {
    let Some(base) = baseline.and_then(|index| groups.get(index)) else {
        return groups.iter().flat_map(alone).collect();
    };
    let others = || groups.iter().filter(|group| group.name != base.name);
    let checkpointed = || others().filter(|group| group.mode().takes_checkpoints());
    let mut sentences: Vec<String> =
        checkpointed().take(IN_WORDS).flat_map(|group| compared(group, base)).collect();
    sentences.extend(checkpointed().skip(IN_WORDS).filter_map(|group| briefly(group, base)));
    sentences.extend(
        others().filter(|group| !group.mode().takes_checkpoints()).filter_map(|none| ceiling(none, groups)),
    );
    sentences
}

/// What the same store does without any checkpoints.
fn ceiling(none: &Group<'_>, groups: &[Group<'_>]) -> Option<String> {
    if none.first().settings.rate > 0.0 {
        let latency = of(none, "throughput", "record latency p99")?;
        let cpu = of(none, "throughput", "CPU per million records");
        let cpu = cpu.map(|cpu| format!(" and needs {} of CPU time per million", metric::seconds(cpu)));
        return Some(format!(
            "Without any checkpoints the same store is done with 99 of 100 records within {}{}.",
            units::millis(latency),
            cpu.unwrap_or_default()
        ));
    }
    let most = none.median(|run| Some(run.records_per_s)).filter(|most| *most > 0.0)?;
    let shares: Vec<String> = groups
        .iter()
        .filter(|group| group.mode().takes_checkpoints())
        .filter_map(|group| {
            let share = group.median(|run| Some(run.records_per_s))? / most * 100.0;
            Some(format!("{} reaches {share:.0}\u{a0}%", group.name))
        })
        .collect();
    Some(format!(
        "Without any checkpoints the same store does {} records/s; {} of it.",
        units::count(most),
        and(&shares)
    ))
}

/// One group against the baseline.
fn compared(group: &Group<'_>, base: &Group<'_>) -> Vec<String> {
    let (ours, theirs) = (&group.name, &base.name);
    let pair = |heading: &str, name: &str| Some((of(group, heading, name)?, of(base, heading, name)?));
    let mut sentences = Vec::new();
    if let (Some((a50, b50)), Some((a99, b99))) =
        (pair("checkpoint", "duration p50"), pair("checkpoint", "duration p99"))
    {
        let mut text = format!(
            "A checkpoint of {ours} is durable after {} at the median and {} at the 99th percentile; one of {theirs} after \
             {} and {} ({}).",
            units::millis(a50),
            units::millis(a99),
            units::millis(b50),
            units::millis(b99),
            both(factor(a50, b50, "shorter", "longer"), &factor(a99, b99, "shorter", "longer")),
        );
        if let Some(floor) = of(group, "checkpoint", "physical limit of it, p50") {
            let _ = write!(
                text,
                " For the bytes that {ours} had still to send the store allows {} at best.",
                units::millis(floor)
            );
        }
        sentences.push(text);
    }
    if let Some((a, b)) = pair("checkpoint", "bytes p50") {
        sentences.push(format!(
            "It uploads {} at the median, {theirs} {} ({}).",
            units::bytes(a),
            units::bytes(b),
            factor(a, b, "fewer", "more")
        ));
    }
    if let Some((a, b)) = pair("object store", "bytes put, measured stretch") {
        let bases = group.median(|run| Some(run.materializations.iter().map(|m| m.bytes as f64).sum()));
        let bases = bases
            .filter(|bytes| *bytes > 0.0)
            .map(|bytes| format!(", of it {} for new bases in the background", units::bytes(bytes)));
        sentences.push(format!(
            "In all {} went to the store{}; {theirs} {} ({}).",
            units::bytes(a),
            bases.unwrap_or_default(),
            units::bytes(b),
            factor(a, b, "fewer", "more")
        ));
    }
    sentences.extend(speed(group, base));
    if let Some((a, b)) = pair("throughput", "CPU per million records") {
        sentences.push(format!(
            "A million records need {} of CPU time with {ours}, {} with {theirs} ({}).",
            metric::seconds(a),
            metric::seconds(b),
            factor(a, b, "less", "more")
        ));
    }
    if let Some((a, b)) = pair("restore into an empty directory", "total") {
        sentences.push(format!(
            "A restore took {} against {} ({}).",
            units::millis(a),
            units::millis(b),
            factor(a, b, "shorter", "longer")
        ));
    }
    sentences
}

/// The figures that weigh most, in one sentence.
fn briefly(group: &Group<'_>, base: &Group<'_>) -> Option<String> {
    let ratio = |what: &str, heading: &str, name: &str, less: &str, more: &str| {
        let (a, b) = (of(group, heading, name)?, of(base, heading, name)?);
        Some(format!("{what} {}", factor(a, b, less, more)))
    };
    let parts = [
        ratio("its checkpoints at the 99th percentile", "checkpoint", "duration p99", "shorter", "longer"),
        ratio("their bytes", "checkpoint", "bytes p50", "fewer", "more"),
        ratio("its restore", "restore into an empty directory", "total", "shorter", "longer"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("{} against {}: {}.", group.name, base.name, parts.join(", ")))
}

fn speed(group: &Group<'_>, base: &Group<'_>) -> Option<String> {
    let (a, b) = (group.median(|run| Some(run.records_per_s))?, base.median(|run| Some(run.records_per_s))?);
    let (ours, theirs) = (&group.name, &base.name);
    if group.first().settings.rate == 0.0 {
        return Some(format!(
            "{ours} processes {} records/s, {theirs} {} ({}).",
            units::count(a),
            units::count(b),
            factor(a, b, "fewer", "more")
        ));
    }
    let (a, b) =
        (of(group, "throughput", "record latency p99")?, of(base, "throughput", "record latency p99")?);
    Some(format!(
        "99 of 100 records are done within {} with {ours}, within {} with {theirs} ({}).",
        units::millis(a),
        units::millis(b),
        factor(a, b, "lower", "higher")
    ))
}

/// A group with nothing to compare it with.
fn alone(group: &Group<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    if let (Some(p50), Some(p99)) =
        (of(group, "checkpoint", "duration p50"), of(group, "checkpoint", "duration p99"))
    {
        sentences.push(format!(
            "A checkpoint is durable after {} at the median and {} at the 99th percentile.",
            units::millis(p50),
            units::millis(p99)
        ));
    }
    if let Some(bytes) = of(group, "checkpoint", "bytes p50") {
        sentences.push(format!("It uploads {} at the median.", units::bytes(bytes)));
    }
    if let Some(records) = group.median(|run| Some(run.records_per_s)) {
        sentences.push(format!("{} records/s.", units::count(records)));
    }
    if let Some(total) = of(group, "restore into an empty directory", "total") {
        sentences.push(format!("A restore into an empty directory took {}.", units::millis(total)));
    }
    sentences
        .push("There is nothing to compare it with: give the results of other modes as well.".to_owned());
    sentences
}
