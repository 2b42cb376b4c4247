//! What tables and restores of one process may use.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::job::JobOptions;
use crate::job::files::OpenFiles;
use crate::job::memory::MemoryPlan;
use crate::machine::{self, cores};
use crate::remote::{Notice, Patience, Remote};
use crate::restore::Restorer;
use crate::runtime::BackgroundRuntime;
use crate::table::TableResources;

use super::sizing::{PARALLEL_DOWNLOADS, background_jobs, blocking_threads, workers};

/// The runtime of a process's background.
///
/// # Errors
/// `Internal` if the system gives no threads.
pub(crate) fn start_runtime() -> Result<BackgroundRuntime> {
    let cores = cores();
    BackgroundRuntime::start("alluvium", workers(cores), Some(blocking_threads(cores)))
}

/// The job's place, with the process's memory for what is on its way there.
pub(crate) fn with_upload_room(remote: Remote, options: &JobOptions) -> Arc<Remote> {
    Arc::new(remote.with_upload_room(MemoryPlan::of(options).uploads))
}

/// The tables' share of memory, files and threads.
///
/// # Errors
/// `InvalidArgument` if the process may open too few files.
pub(crate) fn table_resources(options: &JobOptions) -> Result<TableResources> {
    let plan = MemoryPlan::of(options);
    let files = OpenFiles::of(options, plan.tables);
    let files = files.within(machine::open_files(files.wanted()))?;
    let held = options.held_here();
    let jobs = options.background_jobs.unwrap_or_else(|| background_jobs(held, cores()));
    Ok(TableResources::new(plan.tables, jobs)
        .for_tables(held)
        .with_open_files(files)
        .with_tuning(options.tuning.clone())
        .with_clock(Arc::clone(&options.env.clock)))
}

/// Restores from `remote`, and waits for it as long as the options say.
pub(crate) fn restorer(options: &JobOptions, remote: &Remote, resources: &TableResources) -> Restorer {
    let notice = options.listener.clone().map(|listener| {
        let tell = move |error: &Error, waited| listener.restore_waits(error, waited);
        Arc::new(tell) as Notice
    });
    let patience = Patience::new(options.restore_patience, notice);
    Restorer {
        remote: Arc::new(remote.patient(patience)),
        resources: resources.clone(),
        parallel: PARALLEL_DOWNLOADS,
        memory: MemoryPlan::of(options).restore,
    }
}
