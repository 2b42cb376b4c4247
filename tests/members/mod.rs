//! A job whose subtasks live in several processes: everything works as in one, and whatever happens
//! to the messages between them costs time and nothing else.
#![allow(clippy::unwrap_used)]
#![allow(clippy::single_range_in_vec_init, reason = "a job may have one member")]

mod cluster;
mod faults;
mod fencing;
mod operators;
mod work;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluvium::admin::inspect;
use alluvium::{
    CheckpointMode, CheckpointReader, ErrorKind, Health, JobOptions, Member, MemberOptions, Opened, Owes,
    ReaderOptions, RestoreFrom, SourceJob, StoreState,
};
use alluvium_testkit::drive::{checkpoint, contents, noise, put, put_any};
use alluvium_testkit::faults::{Fault, Op};
use alluvium_testkit::stored::StoredJob;
use alluvium_testkit::{PATIENCE, eventually};

use cluster::{Cluster, Place};

/// Two members of two subtasks each, none at the committer.
const TWO: &[Range<u32>] = &[0..2, 2..4];

/// Everything in the state of a cluster's stores.
fn all_of(cluster: &mut Cluster) -> std::collections::BTreeMap<(alluvium::KeyGroup, Vec<u8>), Vec<u8>> {
    contents(&mut cluster.stores, "words")
}

/// Whether everything that a checkpoint needs is there and intact.
fn assert_intact(place: &Place) {
    let inspection = inspect(place.0.url()).unwrap();
    assert!(inspection.missing.is_empty(), "{:?}", inspection.missing);
    assert!(inspection.cut.is_empty() && inspection.damaged.is_empty(), "{inspection:?}");
}
