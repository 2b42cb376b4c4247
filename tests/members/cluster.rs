//! A committer and its members in one program, connected by a post that tests can interrupt.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use alluvium::{
    Assignment, CheckpointListener, CheckpointReport, Error, Job, JobOptions, MaterializationReport, Member,
    MemberOptions, Opened, OpenedMember, RestoreReport, StateStore,
};
use alluvium_testkit::drive::{noise, put, put_any};
use alluvium_testkit::stored::StoredJob;
use alluvium_testkit::{PATIENCE, eventually};
use bytes::Bytes;
use object_store::ObjectStore;

/// What carries the messages between a committer and all of its members.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// Everything is lost.
    silent: AtomicBool,
    ended: AtomicBool,
    pub(super) lost: AtomicU64,
}

impl Post {
    pub(super) fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Release);
    }

    /// Carries `frames` to where they are delivered, until the end.
    fn carry(
        self: &Arc<Self>,
        frames: mpsc::Receiver<Bytes>,
        deliver: impl Fn(&[u8]) -> Result<(), Error> + Send + 'static,
    ) -> JoinHandle<()> {
        let post = Arc::clone(self);
        thread::spawn(move || {
            while !post.ended.load(Ordering::Acquire) {
                let Ok(frame) = frames.recv_timeout(Duration::from_millis(10)) else { continue };
                if post.silent.load(Ordering::Acquire) {
                    post.lost.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                deliver(&frame).unwrap();
            }
        })
    }
}

/// Counts bases.
#[derive(Debug, Default)]
struct Bases(AtomicU64);

impl CheckpointListener for Bases {
    fn materialized(&self, _: &MaterializationReport) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// An attempt: a committer, its members, and all of their stores.
pub(super) struct Cluster {
    pub(super) job: Job,
    pub(super) members: Vec<Member>,
    /// In the order of the subtasks.
    pub(super) stores: Vec<StateStore>,
    /// The committer's own first.
    pub(super) restored: Vec<RestoreReport>,
    pub(super) assignments: Vec<Assignment>,
    pub(super) post: Arc<Post>,
    bases: Arc<Bases>,
    carriers: Vec<JoinHandle<()>>,
}

/// A job with its objects in one directory, and local files in one for each process.
pub(super) struct Place(pub(super) Arc<StoredJob>, &'static str);

impl Place {
    pub(super) fn new() -> Self {
        Self(Arc::new(StoredJob::new()), "one")
    }

    /// The same job for processes with other local directories.
    pub(super) fn beside(&self) -> Self {
        Self(Arc::clone(&self.0), "other")
    }

    pub(super) fn options(&self) -> JobOptions {
        self.0.options_in(&format!("{}-committer", self.1)).retained(2).inline_limit(2_000)
    }

    /// The directory of a member's local files.
    pub(super) fn dir(&self, member: usize) -> PathBuf {
        self.0.dir.path().join(format!("{}-member-{member}", self.1))
    }

    pub(super) fn member_options(&self, member: usize) -> MemberOptions {
        MemberOptions::new(self.dir(member)).memory(16_000_000)
    }

    pub(super) fn location(&self) -> (Arc<dyn ObjectStore>, &'static str) {
        (Arc::clone(&self.0.store) as Arc<dyn ObjectStore>, "")
    }

    /// Starts an attempt of `subtasks`, of which members hold these ranges.
    pub(super) fn start(&self, subtasks: u32, members: &[Range<u32>]) -> Cluster {
        self.start_with(subtasks, members, |options| options)
    }

    pub(super) fn start_with(
        &self,
        subtasks: u32,
        members: &[Range<u32>],
        change: impl FnOnce(JobOptions) -> JobOptions,
    ) -> Cluster {
        let bases = Arc::new(Bases::default());
        let options = self.options().subtasks(subtasks).members(members.to_vec());
        let options = change(options).listener(Arc::clone(&bases) as Arc<dyn CheckpointListener>);
        let Opened { job, mut stores, restored, assignments, .. } = self.0.open(options);
        let (mut all, mut restored) = (Vec::new(), vec![restored]);
        let (post, mut carriers) = (Arc::new(Post::default()), Vec::new());
        for (number, assignment) in assignments.iter().enumerate() {
            assert_eq!((assignment.member(), assignment.subtasks()), (number, members[number].clone()));
            // As it comes to another process.
            let assignment = Assignment::from_bytes(&assignment.to_bytes().unwrap()).unwrap();
            let (to_job, from_member) = mpsc::channel();
            let (to_member, from_job) = mpsc::channel();
            let outbox = move |frame| drop(to_job.send(frame));
            let own = self.member_options(number);
            let opened = Member::open(&assignment, self.location(), own, outbox).unwrap();
            let OpenedMember { member, stores: more, restored: report, .. } = opened;
            job.connect(number, move |frame| drop(to_member.send(frame))).unwrap();
            let (ear, mouth) = (job.clone(), member.clone());
            carriers.push(post.carry(from_member, move |frame| ear.deliver(number, frame)));
            carriers.push(post.carry(from_job, move |frame| mouth.deliver(frame)));
            stores.extend(more);
            restored.push(report);
            all.push(member);
        }
        stores.sort_by_key(StateStore::subtask);
        assert!(stores.iter().map(|store| store.subtask().0).eq(0..subtasks), "each subtask has one store");
        Cluster { job, members: all, stores, restored, assignments, post, bases, carriers }
    }
}

impl Cluster {
    /// All stores cut for the next checkpoint.
    pub(super) fn checkpoint(&mut self) -> Result<CheckpointReport, Error> {
        let pending = self.job.trigger("coordinator")?;
        for store in &mut self.stores {
            store.cut(pending.id(), format!("of {}", store.subtask()))?;
        }
        pending.wait()
    }

    pub(super) fn put(&mut self, key: &str, value: &[u8]) {
        put_any(&mut self.stores, key, value);
    }

    /// Puts keys with these numbers.
    pub(super) fn fill(&mut self, keys: Range<u32>, value: &[u8]) {
        keys.for_each(|key| self.put(&format!("key {key}"), value));
    }

    /// Puts keys with these numbers, each with so many bytes that do not compress.
    pub(super) fn fill_noise(&mut self, keys: Range<u32>, seed: u64, len: usize) {
        for key in keys {
            self.put(&format!("key {key}"), &noise(seed << 32 | u64::from(key), len));
        }
    }

    /// Puts a key that the first of the stores owns.
    pub(super) fn put_first(&mut self, value: &[u8]) {
        let store = &mut self.stores[0];
        let mut keys = (0..).map(|n| format!("first {n}"));
        let key = keys.find(|key| store.range().contains(store.group_of(key.as_bytes()))).unwrap();
        put(store, &key, value).unwrap();
    }

    /// Takes a base of every subtask, each of which has state, and waits until the committer has
    /// heard of all of them.
    pub(super) fn materialize(&self) {
        let wanted = self.bases.0.load(Ordering::Acquire) + self.stores.len() as u64;
        self.job.materialize();
        eventually("a base of every subtask", PATIENCE, || self.bases.0.load(Ordering::Acquire) >= wanted);
        self.settle();
    }

    /// Waits until the background of all processes has nothing to do.
    pub(super) fn settle(&self) {
        self.job.settle(PATIENCE).unwrap();
        self.members.iter().for_each(|member| member.settle(PATIENCE).unwrap());
    }
}

impl Drop for Cluster {
    /// As if all processes were killed.
    fn drop(&mut self) {
        self.post.ended.store(true, Ordering::Release);
        self.carriers.drain(..).for_each(|carrier| carrier.join().unwrap());
    }
}
