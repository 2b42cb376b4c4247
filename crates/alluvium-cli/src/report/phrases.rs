//! Words for single values, from which sentences and tables are made.

use std::fmt::Write;

use crate::result::{RunResult, StoreModelSpec, metric};
use crate::units;

/// `250 ms`, `90 s`, `10 min`.
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        s if s >= 300.0 => {
            format!("{} min", units::three_digits(s / 60.0).trim_end_matches(".00").trim_end_matches(".0"))
        }
        0.0 => "0 s".to_owned(),
        s if s >= 1.0 && s.fract() == 0.0 => format!("{s} s"),
        s => units::millis(s * 1e3).replace(".0 ", " "),
    }
}

pub(crate) fn rate(run: &RunResult) -> String {
    match run.settings.rate {
        rate if rate > 0.0 => format!("{} records/s", units::count(rate)),
        _ => "full speed".to_owned(),
    }
}

pub(crate) fn machine(run: &RunResult) -> Option<String> {
    let cores = run.machine.cores.map(|cores| format!("{cores} cores"));
    let memory = run.machine.memory.map(|memory| format!("{} of memory", units::bytes(memory as f64)));
    let parts: Vec<String> = [cores, memory].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

pub(crate) fn model(model: &StoreModelSpec) -> String {
    let mut text = format!("{} a request", units::millis(model.latency_ms));
    let bandwidth = |rate: f64| format!("{}/s", units::bytes(rate));
    if let Some(p99) = model.latency_p99_ms {
        let _ = write!(text, " at the median and {} at the 99th percentile", units::millis(p99));
    }
    if let Some(rate) = model.stream_bytes_per_s {
        let _ = write!(text, ", {} a stream", bandwidth(rate));
    }
    if let Some(rate) = model.shared_bytes_per_s {
        let _ = write!(text, ", {} for all together", bandwidth(rate));
    }
    if let Some(rate) = model.error_rate.filter(|rate| *rate > 0.0) {
        let _ = write!(text, ", {} % of requests fail", units::three_digits(rate * 100.0));
    }
    for outage in &model.outages {
        let _ = write!(
            text,
            ", no answer from {} to {}",
            metric::seconds(outage.start_s),
            metric::seconds(outage.end_s)
        );
    }
    text
}

/// `a, b and c`.
pub(crate) fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
