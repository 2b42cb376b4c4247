//! The lines of the table of settings.

use super::phrases::{machine, model, rate, span};
use crate::result::RunResult;
use crate::units;

/// One line of the table of settings.
pub(crate) type Setting = (&'static str, fn(&RunResult) -> Option<String>);

pub(crate) const SETTINGS: &[Setting] = &[
    ("label", |r| r.label.clone()),
    ("scenario", |r| r.settings.scenario.clone()),
    ("system", |r| Some(format!("{} {}", r.system, r.version))),
    ("started", |r| r.started_at.clone()),
    ("machine", |r| machine(r)),
    ("load average before the run", |r| r.machine.load_average_before.map(units::three_digits)),
    ("operation", |r| Some(r.workload.operation.clone())),
    ("distribution", |r| Some(r.workload.distribution.clone())),
    ("keys", |r| Some(units::count(r.workload.keys as f64))),
    ("value", |r| Some(units::bytes(r.workload.value_bytes as f64))),
    ("subtasks", |r| Some(r.workload.subtasks.to_string())),
    ("seed", |r| Some(r.workload.seed.to_string())),
    ("rate", |r| Some(rate(r))),
    ("warm-up", |r| Some(span(r.settings.warm_up_s))),
    ("measured stretch", |r| Some(span(r.measured_s))),
    ("checkpoint interval", |r| r.settings.checkpoint_interval_ms.map(|ms| span(ms / 1e3))),
    ("materialization interval", |r| r.settings.materialization_interval_ms.map(|ms| span(ms / 1e3))),
    ("memory", |r| Some(units::bytes(r.settings.memory_bytes as f64))),
    ("read cache", |r| r.settings.read_cache_bytes.map(|bytes| units::bytes(bytes as f64))),
    ("object store", |r| r.settings.store.clone()),
    ("store model", |r| r.store_model.as_ref().map(model)),
];
