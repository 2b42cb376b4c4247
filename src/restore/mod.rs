mod plan;
mod report;
pub(crate) use plan::{Source, SubtaskPlan, plan};
pub use report::RestoreReport;
