//! Checkpoints that wait for the one under way, and the last one of a job.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use alluvium::{ErrorKind, Job, JobOptions, OpenMode, Opened, StateStore};
use alluvium_testkit::drive::{checkpoint, get, noise, open, put, quiet};
use alluvium_testkit::{PATIENCE, eventually};
use object_store::memory::InMemory;

struct Fixture {
    dir: tempfile::TempDir,
    store: Arc<InMemory>,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), store: Arc::new(InMemory::new()) }
    }

    fn options(&self) -> JobOptions {
        quiet(self.dir.path(), OpenMode::CreateOrOpen)
    }

    fn open(&self, options: JobOptions) -> Opened {
        open(&self.store, options).unwrap()
    }
}

/// Cuts for what is due until `done`.
fn cut_while(job: &Job, store: &mut StateStore, mut done: impl FnMut() -> bool) {
    eventually("the checkpoints are complete", PATIENCE, || {
        if let Some(id) = store.due() {
            assert_eq!(job.due(), Some(id));
            store.cut(id, "").unwrap();
        }
        done()
    });
}

#[test]
fn a_queued_checkpoint_begins_when_the_one_under_way_ends() {
    let own = Fixture::new();
    let Opened { job, mut stores, .. } = own.open(own.options());
    let store = &mut stores[0];
    let first = job.trigger("first").unwrap();
    let second = job.queue_trigger("second").unwrap();
    let third = job.queue_trigger("third").unwrap();
    assert!(first.id() < second.id() && second.id() < third.id());
    assert_eq!(job.trigger("").unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(job.due(), Some(first.id()), "the others are not due yet");
    let early = store.cut(second.id(), "").unwrap_err();
    assert_eq!(early.kind(), ErrorKind::InvalidArgument);

    let started: Vec<_> = std::iter::from_fn(|| {
        let mut due = None;
        eventually("a checkpoint is due", PATIENCE, || {
            due = store.due();
            due.is_some()
        });
        store.cut(due?, "").unwrap();
        eventually("it is complete", PATIENCE, || job.due() != due);
        due
    })
    .take(3)
    .collect();
    assert_eq!(started, [first.id(), second.id(), third.id()]);
    let versions = [first, second, third].map(|pending| pending.wait().unwrap().version);
    assert!(versions.is_sorted());
    drop((job, stores));
    let metadata = own.open(own.options()).metadata;
    assert_eq!(metadata.as_deref(), Some(&b"third"[..]));
}

#[test]
fn a_queued_checkpoint_begins_also_when_the_one_before_fails_and_can_be_aborted_itself() {
    let own = Fixture::new();
    let Opened { job, mut stores, .. } = own.open(own.options());
    let (first, second) = (job.trigger("").unwrap(), job.queue_trigger("").unwrap());
    let third = job.queue_trigger("").unwrap();
    second.abort();
    assert_eq!(second.wait().unwrap_err().kind(), ErrorKind::Aborted);
    assert_eq!(job.due(), Some(first.id()), "it never was due");
    first.abort();
    assert_eq!(first.wait().unwrap_err().kind(), ErrorKind::Aborted);
    eventually("the third one is due", PATIENCE, || job.due() == Some(third.id()));
    stores[0].cut(third.id(), "").unwrap();
    third.wait().unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
}

#[test]
fn closing_a_job_ends_what_is_queued() {
    let own = Fixture::new();
    let Opened { job, stores, .. } = own.open(own.options());
    let (first, second) = (job.trigger("").unwrap(), job.queue_trigger("").unwrap());
    job.close().unwrap();
    for pending in [first, second] {
        assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Closed);
    }
    drop(stores);
}

#[test]
fn i1_the_last_checkpoint_beside_a_schedule_has_all_and_nothing_comes_after_it() {
    let own = Fixture::new();
    let options = own.options().checkpoint_interval(Duration::from_millis(1));
    let Opened { job, mut stores, .. } = own.open(options);
    let store = &mut stores[0];
    let mut written = 0_u32;
    // Whatever the schedule is doing at that moment.
    cut_while(&job, store, || job.stats().checkpoints_completed >= 5);
    put(store, "written", b"all of it").unwrap();
    let last = job.stop_with_checkpoint("end").unwrap();
    let id = last.id();
    while job.checkpoints().last().is_none_or(|newest| newest.id < id) {
        if let Some(due) = store.due() {
            assert!(due <= id);
            store.cut(due, "").unwrap();
        }
        written += 1;
        std::thread::yield_now();
    }
    assert_eq!(last.wait().unwrap().id, id);
    assert!(written > 0);
    for error in [job.trigger("").unwrap_err(), job.queue_trigger("").unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    assert_eq!(job.due(), None);
    job.close().unwrap();
    drop(stores);

    let Opened { job, mut stores, metadata, .. } = own.open(own.options());
    assert_eq!(metadata.as_deref(), Some(&b"end"[..]));
    assert_eq!(job.checkpoints().last().map(|newest| newest.id), Some(id));
    assert_eq!(get(&mut stores[0], "written").as_deref(), Some(&b"all of it"[..]));
}

#[test]
fn if_the_last_checkpoint_fails_the_job_goes_on() {
    let own = Fixture::new();
    let Opened { job, mut stores, .. } = own.open(own.options());
    let last = job.stop_with_checkpoint("").unwrap();
    assert_eq!(job.trigger("").unwrap_err().kind(), ErrorKind::Closed);
    last.abort();
    assert_eq!(last.wait().unwrap_err().kind(), ErrorKind::Aborted);
    checkpoint(&job, &mut stores, "").unwrap();
    let last = job.stop_with_checkpoint("").unwrap();
    stores[0].cut(last.id(), "").unwrap();
    last.wait().unwrap();
}

#[test]
fn operators_are_called_ahead_of_a_trigger_that_was_announced() {
    let own = Fixture::new();
    let Opened { job, mut stores, .. } = own.open(own.options().inline_limit(1_000));
    let store = &mut stores[0];
    // More than the manifest takes, so that it is worth an upload of its own. It is far less than
    // what makes a delta full.
    put(store, "large", &noise(7, 20_000)).unwrap();
    let before = job.stats().remote.puts;
    job.expect_trigger(Duration::from_millis(100));
    eventually("the delta is uploaded before a checkpoint is due", PATIENCE, || {
        // An operator looks for calls when it writes.
        put(store, "small", b"1").unwrap();
        job.stats().remote.puts > before
    });
    assert_eq!((job.due(), job.stats().checkpoints_completed), (None, 0));
    checkpoint(&job, &mut stores, "").unwrap();
}
