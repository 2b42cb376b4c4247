//! Opening a job, in two steps: begin an attempt and restore a checkpoint ([`begin`]), start the
//! background and the coordinator and hand the stores out ([`assemble`]).

mod assemble;
mod begin;
mod fits;
mod preflight;

use std::sync::Arc;

use futures::channel::oneshot;

use crate::error::{Error, Result};
use crate::manifest::OpenMode;
use crate::remote::{Connected, JobLocation};
use crate::wait::wait;

use super::background::{Instance, start_runtime, with_upload_room};
use super::local_dir::LocalDir;
use super::{JobOptions, Opened};
pub(crate) use assemble::schemas;
use begin::Opening;

pub(super) fn open(location: &JobLocation, options: &JobOptions) -> Result<Opened> {
    let create = options.open_mode != OpenMode::Existing;
    let Connected { remote, cloud, dir: objects } = location.connect(options.env.clone(), create)?;
    // Locked before the attempt begins: a second process in this directory is refused, and must not
    // have fenced the first one by then.
    let dir = LocalDir::open(&options.dir)?;
    let earlier = dir.earlier()?;
    let runtime = start_runtime()?;
    let remote = with_upload_room(remote, options);
    let instances = options.held().map(|subtask| {
        let nonce = options.env.nonces.nonce();
        Instance { subtask, nonce, dir: dir.instance(subtask, nonce) }
    });
    let instances: Vec<_> = instances.collect();
    let max_parallelism = options.max_parallelism.unwrap_or_default();
    let mut layout = options.operators.layout(options.subtasks, max_parallelism)?;
    layout.dirs = instances.iter().map(Instance::table).collect();
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
