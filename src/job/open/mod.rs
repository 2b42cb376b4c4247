//! Opening a job, in three steps: begin an attempt and restore a checkpoint ([`begin`]), start a store
//! for each subtask ([`stores`]), start the background and hand the stores out ([`assemble`]).

mod assemble;
mod begin;
mod fits;
mod preflight;
mod sizing;
mod stores;

use std::path::PathBuf;
use std::sync::Arc;

use futures::channel::oneshot;

use crate::error::{Error, Result};
use crate::ids::{Nonce, SubtaskIndex};
use crate::machine::cores;
use crate::manifest::OpenMode;
use crate::remote::{Connected, JobLocation};
use crate::runtime::BackgroundRuntime;
use crate::wait::wait;

use super::local_dir::LocalDir;
use super::memory::MemoryPlan;
use super::{JobOptions, Opened};
use begin::Opening;

/// The table's directory within its instance's.
const TABLE: &str = "table";

pub(super) fn open(location: &JobLocation, options: &JobOptions) -> Result<Opened> {
    let create = options.open_mode != OpenMode::Existing;
    let Connected { remote, cloud, dir: objects } = location.connect(options.env.clone(), create)?;
    // Locked before the attempt begins: a second process in this directory is refused, and must not
    // have fenced the first one by then.
    let dir = LocalDir::open(&options.dir)?;
    let earlier = dir.earlier()?;
    let cores = cores();
    let runtime =
        BackgroundRuntime::start("alluvium", sizing::workers(cores), Some(sizing::blocking_threads(cores)))?;
    let remote = Arc::new(remote.with_upload_room(MemoryPlan::of(options).uploads));
    let instances = (0..options.subtasks).map(|subtask| {
        let nonce = options.env.nonces.nonce();
        Instance { nonce, dir: dir.instance(SubtaskIndex(subtask), nonce) }
    });
    let instances: Vec<_> = instances.collect();
    let max_parallelism = options.max_parallelism.unwrap_or_default();
    let mut layout = options.operators.layout(options.subtasks, max_parallelism)?;
    layout.dirs = (0..).map(SubtaskIndex).zip(instances.iter().map(|one| one.dir.join(TABLE))).collect();
    let opening =
        Opening { remote: Arc::clone(&remote), cloud, objects, options: options.clone(), layout, earlier };
    let (reply, opened) = oneshot::channel();
    runtime.spawn(async move {
        // The receiver waits below, so this is never lost.
        let _ = reply.send(opening.begin().await);
    });
    let begun = wait(opened).unwrap_or_else(|_| Err(Error::internal("opening the job came to a bad end")))?;
    assemble::assemble(begun, instances, runtime, remote, dir, options)
}

/// A new store instance.
#[derive(Clone)]
struct Instance {
    nonce: Nonce,
    dir: PathBuf,
}
