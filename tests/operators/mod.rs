//! A job of several operators: each has key groups, states and a number of subtasks of its own, and
//! is found again by its id.
#![allow(clippy::unwrap_used)]

mod choice;
mod elements;
mod histories;
mod refusals;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use alluvium::{
    CheckpointReader, ErrorKind, Job, JobOptions, ListState, MaxParallelism, OpenMode, Opened, OperatorSpec,
    ReaderOptions, RestoreFrom, SourceJob, StateStore, ValueState,
};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use alluvium_testkit::drive::{PREFIX, checkpoint, contents, get, open, put_any, quiet};
use alluvium_testkit::faults::block_on;
use alluvium_testkit::objects::objects_of;

fn options(dir: &Path) -> JobOptions {
    quiet(dir, OpenMode::CreateOrOpen)
}

fn groups(groups: u16) -> MaxParallelism {
    MaxParallelism::new(groups).unwrap()
}

/// A job with state in two operators, closed after a checkpoint.
fn of_two(store: &Arc<impl ObjectStore>, dir: &Path) {
    let operators =
        [OperatorSpec::new("clicks", 2), OperatorSpec::new("joins", 1).max_parallelism(groups(4))];
    let mut opened = open(store, options(dir).operators(operators)).unwrap();
    put_any(&mut opened.stores[..2], "page", b"of clicks");
    put_any(&mut opened.stores[2..], "page", b"of joins");
    checkpoint(&opened.job, &mut opened.stores, "m").unwrap();
    opened.job.close().unwrap();
}
