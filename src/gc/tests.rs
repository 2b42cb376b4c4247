//! Garbage collection over a store in memory: rules one by one, and random histories of attempts,
//! commits, crashes, readers and collectors, in which nothing that is needed may ever be gone (I3).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pin::{Holder, Pin, release_earlier};
use super::run::{Collection, Collector, GcReport};
use super::savepoint;
use crate::env::Env;
use crate::error::ErrorKind;
use crate::ids::{DeltaSeq, Epoch, SubtaskIndex, Version};
use crate::manifest::samples::{base, checkpoint, delta, id, nonce, subtask};
use crate::manifest::scripted::{Put, Scripted};
use crate::manifest::{
    BaseRef, Chain, CheckpointRecord, CommitDraft, DeltaRef, Inline, Manifest, OpenMode, RestoreFrom,
    Retained, Roots, StateInfo, States, list_chain, read_manifest, read_newest, retained_now,
};
use crate::remote::faulty::{Fault, Faulty, Op};
use crate::remote::{DataKind, Generation, ObjectName, Remote, SavepointName};

/// A job of one subtask, as far as its checkpoints' references go.
struct Job {
    remote: Arc<Remote>,
    chain: Chain,
    collector: Collector,
    seq: u64,
    checkpoint: u64,
    objects: u64,
    base: Option<BaseRef>,
    /// Durable ones, and those that the next commit carries.
    deltas: Vec<DeltaRef>,
    carried: Vec<u64>,
    states: States,
    /// The savepoint that it goes on from, pinned until the first commit.
    origin: Option<(Pin, Manifest)>,
}

impl Job {
    /// Begins an attempt that restores one of the retained checkpoints.
    async fn open(remote: Arc<Remote>, pick: impl FnOnce(usize) -> usize) -> Self {
        let opened = Chain::open(Arc::clone(&remote), OpenMode::CreateOrOpen, None).await.unwrap();
        let found = opened.checkpoints.get(pick(opened.checkpoints.len()));
        let restored = match found {
            Some(found) => Some(found.read(&remote).await.unwrap().checkpoint().unwrap().subtasks[0].clone()),
            None => None,
        };
        Self {
            remote,
            chain: opened.chain,
            collector: Collector::new(),
            seq: restored.as_ref().map_or(0, |record| record.seq.0),
            checkpoint: 0,
            objects: 0,
            base: restored.as_ref().and_then(|record| record.base.clone()),
            deltas: restored.map_or_else(Vec::new, |record| record.deltas),
            carried: Vec::new(),
            states: States::default(),
            origin: None,
        }
    }

    /// Begins an attempt that goes on from a savepoint, as an attempt of a real job does.
    async fn open_savepoint(remote: Arc<Remote>, name: &str) -> Self {
        let mut job = Self::open(remote, |_| usize::MAX).await;
        let from = RestoreFrom::Savepoint(name.to_owned());
        let (pin, found) = Pin::take(&job.remote, &from, Holder::Attempt(job.chain.epoch())).await.unwrap();
        let manifest = found.manifest.unwrap();
        let restored = manifest.checkpoint().unwrap().subtasks[0].clone();
        (job.seq, job.base, job.deltas) = (restored.seq.0, restored.base, restored.deltas);
        job.origin = Some((pin, (*manifest).clone()));
        job
    }

    async fn put(&mut self, kind: DataKind) -> ObjectName {
        self.objects += 1;
        let name = ObjectName::data(self.chain.epoch(), SubtaskIndex(0), nonce(7), kind, self.objects);
        self.remote.put_data(&name, Bytes::from(name.to_string())).await.unwrap();
        name
    }

    /// The program registers a state of this kind instead of what it had. Its description is long.
    fn describe(&mut self, kind: u16) {
        let states = checkpoint(id(1, 1), Vec::new()).states;
        let info = StateInfo { kind, name: "x".repeat(2_000), ..states.known().unwrap()[0].clone() };
        self.states = States::new([info].into());
    }

    /// Another delta, to be carried by the next manifest.
    fn cut(&mut self) {
        self.seq += 1;
        self.carried.push(self.seq);
    }

    /// The deltas that are carried become an object of their own.
    async fn persist(&mut self) {
        if let (Some(first), Some(last)) = (self.carried.first().copied(), self.carried.last().copied()) {
            self.carried.clear();
            let object = self.put(DataKind::Delta).await;
            self.deltas.push(delta(object, 0, 5, first, last));
        }
    }

    /// All durable deltas become one.
    async fn pack(&mut self) {
        if self.deltas.len() > 1 {
            let (first, last) = (self.deltas[0].first.0, self.deltas[self.deltas.len() - 1].last.0);
            let object = self.put(DataKind::Pack).await;
            self.deltas = vec![delta(object, 0, 5, first, last)];
        }
    }

    /// A base of all that is durable; some files of the last committed one are used again.
    async fn materialize(&mut self, rng: &mut StdRng) {
        let Some(seq) = self.deltas.last().map(|delta| delta.last) else { return };
        let committed = self.chain.head().checkpoint().and_then(|record| record.subtasks[0].base.clone());
        let mut files = committed.map_or_else(Vec::new, |base| base.files);
        files.retain(|_| rng.random_bool(0.6));
        files.push(self.put(DataKind::Sst).await);
        let object = self.put(DataKind::Base).await;
        self.base = Some(BaseRef { object, ..base(1, 1, seq.0, files) });
        self.deltas.clear();
    }

    async fn commit(&mut self, keep: usize) -> bool {
        self.checkpoint += 1;
        let here = ObjectName::manifest(self.chain.next_version());
        let mut inline = Inline::new();
        let mut deltas = self.deltas.clone();
        for seq in &self.carried {
            let offset = inline.push(Bytes::from_static(b"delta"));
            deltas.push(delta(here.clone(), offset, 5, *seq, *seq));
        }
        let mut record = subtask(self.base.clone(), deltas);
        record.seq = DeltaSeq(self.seq);
        let record = checkpoint(id(self.chain.epoch().0, self.checkpoint), vec![record]);
        let record = CheckpointRecord { states: self.states.clone(), ..record };
        match self.chain.commit(CommitDraft { record, inline, keep }).await {
            Ok(committed) => {
                self.deltas.clone_from(&committed.manifest.checkpoint().unwrap().subtasks[0].deltas);
                self.carried.clear();
                if let Some((pin, _)) = self.origin.take() {
                    pin.release().await.unwrap();
                }
                true
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::StoreUnavailable | ErrorKind::Fenced), "{error}");
                false
            }
        }
    }

    async fn collect(&mut self) -> Vec<String> {
        let (roots, dropped) = (self.chain.roots(), self.chain.take_dropped());
        done(self.collector.collect(&self.remote, &roots, dropped).await.unwrap()).deleted
    }

    async fn sweep(&mut self) -> Vec<String> {
        let roots = self.chain.roots();
        done(self.collector.sweep(&self.remote, &roots, false).await.unwrap()).deleted
    }

    /// A collection and a sweep that find out that the attempt was overtaken.
    async fn collect_in_vain(&mut self) {
        let (roots, dropped) = (self.chain.roots(), self.chain.take_dropped());
        let before = objects(&self.remote).await;
        let collected = self.collector.collect(&self.remote, &roots, dropped).await.unwrap();
        // Where there is nothing to delete it does not look.
        assert!(matches!(collected, Collection::Overtaken(_)) || done(collected).deleted.is_empty());
        let swept = self.collector.sweep(&self.remote, &roots, false).await.unwrap();
        assert!(matches!(swept, Collection::Overtaken(_)), "{swept:?}");
        assert_eq!(objects(&self.remote).await, before);
    }
}

fn done(collection: Collection) -> GcReport {
    match collection {
        Collection::Done(report) => report,
        Collection::Overtaken(by) => panic!("overtaken by {by}"),
    }
}

/// A reader's pin.
async fn pin(remote: &Arc<Remote>, from: &RestoreFrom) -> crate::Result<(Pin, Manifest)> {
    let (pin, found) = Pin::take(remote, from, Holder::Reader).await?;
    Ok((pin, (*found.manifest.unwrap()).clone()))
}

fn the_checkpoint(epoch: u64, number: u64) -> RestoreFrom {
    RestoreFrom::Checkpoint(id(epoch, number))
}

fn the_savepoint(name: &str) -> RestoreFrom {
    RestoreFrom::Savepoint(name.to_owned())
}

async fn objects(remote: &Remote) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ObjectName::FOLDERS {
        names.extend(remote.list(folder).await.unwrap().into_iter().map(|listed| listed.name));
    }
    names
}

/// I3 for all that can be restored now.
async fn check_live(remote: &Remote, pinned: &[Manifest]) {
    let there = objects(remote).await;
    let mut live = pinned.to_vec();
    for retained in retained_now(remote).await {
        live.push(read_manifest(remote, retained.version).await.unwrap().0);
    }
    for manifest in live {
        let itself = ObjectName::manifest(manifest.version);
        for name in manifest.references().chain([&itself]) {
            assert!(there.contains(name.to_string().as_str()), "I3: {itself} needs {name}, which is gone");
        }
    }
}

#[tokio::test]
async fn a_commit_that_drops_frees_what_it_alone_kept() {
    let remote = Scripted::new().remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        assert!(job.commit(1).await);
    }
    // The first manifest is dropped; its delta is still part of the second.
    assert_eq!(job.collect().await, [ObjectName::manifest(Version(2)).to_string()]);
    job.pack().await;
    assert!(job.commit(1).await);
    let gone = job.collect().await;
    assert_eq!(gone[0], ObjectName::manifest(Version(3)).to_string(), "manifests first");
    assert_eq!(gone.len(), 3, "{gone:?}");
    check_live(&remote, &[]).await;
    assert!(job.sweep().await.is_empty());
}

#[tokio::test]
async fn i3_a_manifest_lives_as_long_as_states_are_described_in_it() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    let there =
        async |version| objects(&remote).await.contains(&ObjectName::manifest(Version(version)).to_string());
    job.describe(1);
    for _ in 0..4 {
        job.commit(1).await;
        job.collect().await;
    }
    assert!(there(2).await && !there(3).await && !there(4).await, "all refer to the first");
    check_live(&remote, &[]).await;
    // The same again is nothing new; another one is carried anew.
    job.describe(1);
    job.commit(1).await;
    job.collect().await;
    assert!(there(2).await);
    job.describe(2);
    job.commit(1).await;
    job.collect().await;
    assert!(!there(2).await && there(7).await);

    // The next attempt describes them anew, and the last one's go.
    let mut next = Job::open(store.remote(2), |_| 0).await;
    next.describe(2);
    next.commit(1).await;
    next.collect().await;
    next.sweep().await;
    assert!(!there(7).await && there(9).await);
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn a_manifest_lives_as_long_as_it_carries() {
    let remote = Scripted::new().remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..3 {
        job.cut();
        assert!(job.commit(1).await);
        assert!(job.collect().await.is_empty(), "each manifest carries a delta that is needed");
        check_live(&remote, &[]).await;
    }
    job.pack().await;
    assert!(job.commit(1).await);
    assert_eq!(job.collect().await.len(), 3);
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn orphans_of_an_earlier_attempt_go_and_those_in_flight_stay() {
    let store = Scripted::new();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    assert!(first.commit(1).await);
    let orphan = first.put(DataKind::Sst).await;
    assert!(first.sweep().await.is_empty(), "it may be on its way into a checkpoint");

    let remote = store.remote(2);
    let mut second = Job::open(Arc::clone(&remote), |_| 0).await;
    let in_flight = second.put(DataKind::Sst).await;
    let roots = second.chain.roots();
    let dry = done(second.collector.sweep(&remote, &roots, true).await.unwrap());
    assert_eq!((dry.deleted, dry.in_flight), (vec![orphan.to_string()], 1));
    assert!(objects(&remote).await.contains(orphan.to_string().as_str()), "a dry run deletes nothing");
    assert_eq!(second.sweep().await, [orphan.to_string()]);
    assert!(objects(&remote).await.contains(in_flight.to_string().as_str()));
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn someone_from_outside_can_sweep() {
    let store = Scripted::new();
    let remote = store.remote(1);
    assert!(Roots::read(&remote).await.unwrap().is_none());
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    let orphan = job.put(DataKind::Delta).await;
    for _ in 0..3 {
        job.cut();
        job.persist().await;
        assert!(job.commit(1).await);
    }
    Job::open(store.remote(2), |_| 0).await;
    let outside = store.remote(3);
    let roots = Roots::read(&outside).await.unwrap().unwrap();
    assert_eq!(roots.epoch, Epoch(5));
    let report = done(Collector::new().sweep(&outside, &roots, false).await.unwrap());
    let gone = [ObjectName::manifest(Version(2)), ObjectName::manifest(Version(3)), orphan];
    assert_eq!(report.deleted, gone.map(|name| name.to_string()));
    let chain: Vec<_> = list_chain(&outside).await.unwrap().iter().map(|entry| entry.version.0).collect();
    assert_eq!(chain, [1, 4, 5]);
    check_live(&outside, &[]).await;
}

#[tokio::test]
async fn i3_a_pin_keeps_a_checkpoint_until_it_is_released() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    job.cut();
    job.persist().await;
    assert!(job.commit(1).await);
    let (pin, manifest) = pin(&store.remote(2), &the_checkpoint(1, 1)).await.unwrap();
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        job.collect().await;
        check_live(&remote, std::slice::from_ref(&manifest)).await;
    }
    let error = pin_error(&store.remote(3), &the_checkpoint(1, 2)).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of [1-3]"), "{error}");
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 1, "the pin in vain is withdrawn");
    pin.release().await.unwrap();
    // Kept in mind: the next collection finds it, though no commit dropped anything since.
    let gone = job.collect().await;
    assert!(gone.contains(&ObjectName::manifest(Version(2)).to_string()), "{gone:?}");
    assert!(job.sweep().await.is_empty());
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn i3_nothing_goes_while_it_is_not_known_what_is_needed() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..3 {
        job.cut();
        job.persist().await;
        assert!(job.commit(2).await);
    }
    let damaged = ObjectName::manifest(Version(3));
    let whole = remote.get(&damaged).await.unwrap();
    remote.delete(vec![damaged.clone()]).await.unwrap();
    remote.put_data(&damaged, Bytes::from_static(b"?")).await.unwrap();
    let before = objects(&remote).await;
    let roots = Roots::read(&remote).await.unwrap().unwrap();
    let error = Collector::new().sweep(&remote, &roots, false).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(damaged.to_string().as_str())));
    assert_eq!(objects(&remote).await, before);

    remote.delete(vec![damaged.clone()]).await.unwrap();
    remote.put_data(&damaged, whole).await.unwrap();
    let pin = ObjectName::pin(nonce(1));
    remote.put_data(&pin, Bytes::from_static(b"mine")).await.unwrap();
    let roots = Roots::read(&remote).await.unwrap().unwrap();
    let error = Collector::new().sweep(&remote, &roots, false).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(pin.to_string().as_str())));
    remote.delete(vec![pin]).await.unwrap();
    assert_eq!(job.sweep().await.len(), 1);
}

#[tokio::test]
async fn i3_a_savepoint_outlives_checkpoints_and_attempts_and_goes_when_it_is_released() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let name = "kept".parse().unwrap();
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    job.cut();
    job.persist().await;
    job.cut();
    assert!(job.commit(1).await);
    let newest = read_newest(&remote).await.unwrap().unwrap();
    let record =
        savepoint::create(&store.remote(2), &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap();
    assert_eq!(savepoint::list(&remote).await.unwrap(), [(name.clone(), record)]);
    let error =
        savepoint::create(&store.remote(2), &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);

    for attempt in 3..6 {
        for _ in 0..3 {
            job.cut();
            job.persist().await;
            job.pack().await;
            assert!(job.commit(1).await);
            job.collect().await;
            job.sweep().await;
            check_live(&remote, std::slice::from_ref(&newest)).await;
        }
        job = Job::open(store.remote(attempt), |_| 0).await;
    }
    // What is dropped already can no longer be made a savepoint of.
    let other = "late".parse().unwrap();
    let error =
        savepoint::create(&store.remote(7), &other, &the_checkpoint(1, 1), Holder::Reader).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(savepoint::list(&remote).await.unwrap().len(), 1, "the one in vain is withdrawn");

    job.cut();
    assert!(job.commit(1).await);
    job.sweep().await;
    assert!(!job.collector.sweep_is_due(&job.chain.roots()));
    savepoint::release(&store.remote(8), &name).await.unwrap();
    assert_eq!(savepoint::release(&remote, &name).await.unwrap_err().kind(), ErrorKind::NotFound);
    job.cut();
    job.persist().await;
    assert!(job.commit(1).await);
    job.collect().await;
    assert!(job.collector.sweep_is_due(&job.chain.roots()), "it may have kept objects of earlier attempts");
    let gone = job.sweep().await;
    assert!(gone.contains(&ObjectName::manifest(newest.version).to_string()), "{gone:?}");
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn i3_what_an_attempt_goes_on_from_stays_until_it_commits_though_the_savepoint_is_released() {
    let store = Scripted::new();
    let name = "old".parse().unwrap();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    first.persist().await;
    assert!(first.commit(1).await);
    let newest = read_newest(&first.remote).await.unwrap().unwrap();
    savepoint::create(&first.remote, &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap();
    first.pack().await;
    first.cut();
    first.persist().await;
    first.pack().await;
    assert!(first.commit(1).await);

    let mut second = Job::open_savepoint(store.remote(2), "old").await;
    savepoint::release(&store.remote(3), &name).await.unwrap();
    // Fenced collectors, outside ones and its own: none takes it.
    first.collect_in_vain().await;
    second.sweep().await;
    let roots = Roots::read(&store.remote(4)).await.unwrap().unwrap();
    done(Collector::new().sweep(&store.remote(4), &roots, false).await.unwrap());
    check_live(&second.remote, std::slice::from_ref(&newest)).await;
    second.cut();
    assert!(second.commit(1).await);
    assert!(second.remote.list(ObjectName::PINS).await.unwrap().is_empty(), "the commit takes over");
    second.collect().await;
    second.sweep().await;
    check_live(&second.remote, &[]).await;

    // One that never commits leaves its pin, which the next attempt takes away.
    savepoint::create(&second.remote, &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap();
    let third = Job::open_savepoint(store.remote(5), "old").await;
    drop(third);
    let mut fourth = Job::open(store.remote(6), |_| 0).await;
    assert_eq!(fourth.remote.list(ObjectName::PINS).await.unwrap().len(), 1);
    fourth.sweep().await;
    assert!(fourth.remote.list(ObjectName::PINS).await.unwrap().is_empty());
}

#[tokio::test]
async fn i3_the_pin_of_another_job_stays_until_its_next_attempt_removes_it() {
    let store = Scripted::new();
    let mut job = Job::open(store.remote(1), |_| 0).await;
    job.cut();
    job.persist().await;
    assert!(job.commit(1).await);
    let newest = read_newest(&job.remote).await.unwrap().unwrap();
    let (other, another) = (nonce(1), nonce(2));
    for (seed, who, epoch) in [(2, other, 1), (3, other, 4), (4, another, 1)] {
        let holder = Holder::Other(who, Epoch(epoch));
        Pin::take(&store.remote(seed), &RestoreFrom::Latest, holder).await.unwrap();
    }
    // Epochs of other jobs say nothing here.
    let mut job = Job::open(store.remote(9), |_| 0).await;
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        job.collect().await;
        job.sweep().await;
    }
    check_live(&job.remote, std::slice::from_ref(&newest)).await;
    let pins = async || job.remote.list(ObjectName::PINS).await.unwrap().len();
    assert_eq!(pins().await, 3);
    release_earlier(&job.remote, other, Epoch(4)).await.unwrap();
    assert_eq!(pins().await, 2);
    release_earlier(&job.remote, other, Epoch(5)).await.unwrap();
    release_earlier(&job.remote, another, Epoch(5)).await.unwrap();
    assert_eq!(pins().await, 0);
}

#[tokio::test]
async fn i3_a_damaged_savepoint_stops_the_collection_and_can_be_released() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        assert!(job.commit(1).await);
    }
    let name = "hurt".parse().unwrap();
    let object = ObjectName::savepoint(&name, Generation(0));
    remote.put_data(&object, Bytes::from_static(b"ALVS?")).await.unwrap();
    let (roots, dropped) = (job.chain.roots(), job.chain.take_dropped());
    let error = job.collector.collect(&remote, &roots, dropped).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(object.to_string().as_str())));
    let error = pin_error(&remote, &the_savepoint("hurt")).await;
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(object.to_string().as_str())));
    savepoint::release(&remote, &name).await.unwrap();
    assert_eq!(job.sweep().await.len(), 1);
}

#[tokio::test]
async fn what_is_not_there_is_said_with_what_is() {
    let store = Scripted::new();
    let remote = store.remote(1);
    for from in [RestoreFrom::Latest, the_checkpoint(1, 1), the_savepoint("x")] {
        assert_eq!(pin_error(&remote, &from).await.kind(), ErrorKind::NotFound);
    }
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    assert!(pin_error(&remote, &RestoreFrom::Latest).await.to_string().contains("no checkpoint yet"));
    job.cut();
    assert!(job.commit(1).await);
    for name in ["b", "a"] {
        savepoint::create(&remote, &name.parse().unwrap(), &RestoreFrom::Latest, Holder::Reader)
            .await
            .unwrap();
    }
    let error = pin_error(&remote, &the_savepoint("c")).await;
    assert!(error.to_string().contains("choose one of [a, b]"), "{error}");
    let error = pin_error(&remote, &the_savepoint("../c")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(remote.list(ObjectName::PINS).await.unwrap().is_empty(), "no pin stays behind");
}

async fn pin_error(remote: &Arc<Remote>, from: &RestoreFrom) -> crate::Error {
    match Pin::take(remote, from, Holder::Reader).await {
        Ok(_) => panic!("{from:?} was pinned"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_damaged_manifest_that_nothing_needs_does_not_keep_the_others() {
    for damage in [&b"?"[..], &[0xff; 64]] {
        let store = Scripted::new();
        let mut first = Job::open(store.remote(1), |_| 0).await;
        for _ in 0..4 {
            first.cut();
            first.persist().await;
            first.pack().await;
            assert!(first.commit(1).await);
        }
        let damaged = ObjectName::manifest(Version(3));
        first.remote.delete(vec![damaged.clone()]).await.unwrap();
        first.remote.put_data(&damaged, Bytes::from_static(damage)).await.unwrap();

        let remote = store.remote(2);
        let mut second = Job::open(Arc::clone(&remote), |_| 0).await;
        let gone = second.sweep().await;
        let manifests = [2, 4].map(|version| ObjectName::manifest(Version(version)).to_string());
        assert!(gone.starts_with(&manifests) && gone.len() > 2, "{gone:?}");
        assert!(objects(&remote).await.contains(damaged.to_string().as_str()), "it may be an open record");
        check_live(&remote, &[]).await;
    }
}

/// Open records are for ever, but not every attempt reads them all.
#[tokio::test]
async fn a_sweep_costs_the_same_however_many_starts_there_were() {
    let store = Scripted::new();
    let gets = async |seed: u64, commit: bool| {
        let mut job = Job::open(store.remote(seed), |_| usize::MAX).await;
        if !commit {
            return 0;
        }
        job.cut();
        assert!(job.commit(1).await);
        let before = job.remote.counters().gets;
        job.sweep().await;
        job.remote.counters().gets - before
    };
    let mut most = 0;
    for seed in 0..200 {
        most = most.max(gets(seed, true).await);
    }
    assert!(most < 20, "{most} reads in a sweep after 200 starts");
    // Starts that come to nothing are looked at once.
    for seed in 200..400 {
        gets(seed, false).await;
    }
    assert!(gets(400, true).await > 200);
    let after = gets(401, true).await;
    assert!(after < 20, "{after} reads in a sweep after 400 starts");
    let memos = store.remote(402).list(ObjectName::OPENED).await.unwrap();
    assert!(memos.len() <= 2, "{memos:?}");

    // A damaged one costs time, and nothing else.
    let name = ObjectName::try_from(memos.last().unwrap().name.as_str()).unwrap();
    let remote = store.remote(403);
    remote.delete(vec![name.clone()]).await.unwrap();
    remote.put_data(&name, Bytes::from_static(b"ALVO?")).await.unwrap();
    assert!(gets(404, true).await > 400);
    assert!(gets(405, true).await < 20);
    let opens = async || {
        let chain = list_chain(&remote).await.unwrap();
        let mut opens = 0;
        for entry in chain {
            let (manifest, _) = read_manifest(&remote, entry.version).await.unwrap();
            opens += usize::from(manifest.checkpoint().is_none());
        }
        opens
    };
    assert_eq!(opens().await, 404, "I2: open records are never deleted");
}

#[tokio::test]
async fn what_openers_have_left_goes() {
    let store = Scripted::new();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    assert!(first.commit(1).await);
    let mut second = Job::open(store.remote(2), |_| 0).await;
    let remote = Arc::clone(&second.remote);
    // Of attempts that have opened or come to nothing; of one that is about to open; of an unknown one.
    for (wanted, byte) in [(1, 1), (2, 2), (3, 3), (4, 4), (0, 5)] {
        let name = ObjectName::probe(Version(wanted), nonce(byte));
        remote.put_data(&name, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(second.sweep().await.len(), 3);
    let left: Vec<_> = remote.list(ObjectName::PROBES).await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A store that keeps what it has by its own rules is not asked for all of it again after each commit.
#[tokio::test]
async fn a_store_that_refuses_is_asked_for_one_object_until_it_gives_way() {
    let faulty = Faulty::new(InMemory::new());
    let remote = Remote::new(Arc::clone(&faulty) as _, "job".into(), Env::default());
    let mut job = Job::open(Arc::new(remote), |_| 0).await;
    let mut asked = Vec::new();
    for round in 0..8 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        // One that met nothing to delete is still to come.
        if round < 7 && faulty.planned() == 0 {
            faulty.plan(Op::Delete, Fault::Denied);
        }
        let (roots, dropped) = (job.chain.roots(), job.chain.take_dropped());
        let before = job.remote.counters().deletes;
        let report = done(job.collector.run(&job.remote, &roots, dropped).await.unwrap());
        let deletes = job.remote.counters().deletes - before;
        asked.push((deletes, report.refused as u64));
    }
    let (last, refused) = asked.split_last().unwrap();
    // The first rounds have nothing to delete, and then one asks for all there is.
    let all = refused.iter().position(|(_, refused)| *refused > 0).unwrap();
    assert!(refused[all..].iter().any(|(_, refused)| *refused > 3), "it becomes more: {asked:?}");
    assert!(refused[all + 1..].iter().all(|(deletes, _)| *deletes == 1), "{asked:?}");
    assert!(last.0 > 3 && last.1 == 0, "now all of it goes: {asked:?}");
}

/// What cannot be collected for long is not kept in mind without end.
#[tokio::test]
async fn i6_what_is_still_to_be_deleted_is_bounded() {
    let store = Scripted::new();
    let mut job = Job::open(store.remote(1), |_| 0).await;
    job.cut();
    assert!(job.commit(1).await);
    let pin = ObjectName::pin(nonce(1));
    job.remote.put_data(&pin, Bytes::from_static(b"mine")).await.unwrap();
    let mut most = 0;
    for round in 0..120_u64 {
        let object = |n| ObjectName::data(Epoch(1), SubtaskIndex(0), nonce(9), DataKind::Delta, n);
        job.collector.retire((round * 1_000..(round + 1) * 1_000).map(object).collect());
        let roots = job.chain.roots();
        let collected = job.collector.run(&job.remote, &roots, Vec::new()).await;
        assert_eq!(collected.unwrap_err().kind(), ErrorKind::Corrupt);
        most = most.max(job.collector.dead());
    }
    assert!((60_000..75_000).contains(&most), "{most} names");
}

/// An attempt that dies, or is fenced, while it makes a savepoint leaves a pin. It keeps what it names until nothing can come
/// of the savepoint any more.
#[tokio::test]
async fn i3_the_pin_of_a_savepoint_that_was_not_finished_goes_once_the_savepoint_is_decided() {
    let store = Scripted::new();
    let name: SavepointName = "daily".parse().unwrap();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    first.persist().await;
    assert!(first.commit(1).await);
    let newest = read_newest(&first.remote).await.unwrap().unwrap();
    let saving = Holder::Saving(first.chain.epoch(), name.clone());
    // It has pinned, and found out which object to create.
    let (_pin, _) = Pin::take(&first.remote, &RestoreFrom::Latest, saving.clone()).await.unwrap();
    let late = ObjectName::savepoint(&name, Generation(0));

    let mut second = Job::open(store.remote(2), |_| 0).await;
    for _ in 0..2 {
        second.cut();
        second.persist().await;
        second.pack().await;
        assert!(second.commit(1).await);
    }
    let (remote, collector) = (Arc::clone(&second.remote), &mut second.collector);
    let roots = second.chain.roots();
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 1);
    done(collector.run(&remote, &roots, second.chain.take_dropped()).await.unwrap());
    check_live(&remote, std::slice::from_ref(&newest)).await;
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 0, "it is decided");
    // Too late.
    let record = Bytes::from_static(b"a savepoint");
    let _ = remote.put_data(&late, record).await;
    assert_eq!(savepoint::find(&remote, &name).await.unwrap(), None);
    let error = savepoint::create(&first.remote, &name, &RestoreFrom::Latest, saving).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 0);
    // What it kept goes, and the name can be given.
    done(collector.run(&remote, &roots, Vec::new()).await.unwrap());
    assert!(!objects(&remote).await.contains(&ObjectName::manifest(newest.version).to_string()));
    let saving = Holder::Saving(second.chain.epoch(), name.clone());
    savepoint::create(&remote, &name, &RestoreFrom::Latest, saving.clone()).await.unwrap();

    // One that was made in time stays.
    let (_pin, _) = Pin::take(&remote, &RestoreFrom::Latest, saving).await.unwrap();
    let kept = read_newest(&remote).await.unwrap().unwrap();
    let mut third = Job::open(store.remote(3), |_| 0).await;
    for _ in 0..2 {
        third.cut();
        third.persist().await;
        third.pack().await;
        assert!(third.commit(1).await);
        let (roots, dropped) = (third.chain.roots(), third.chain.take_dropped());
        done(third.collector.run(&remote, &roots, dropped).await.unwrap());
        check_live(&remote, std::slice::from_ref(&kept)).await;
    }
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 0);
    assert_eq!(savepoint::names(&remote).await.unwrap(), [name]);
}

/// A collection that was planned for by an attempt, and may run at any time after.
struct Paused {
    job: Job,
    roots: Roots,
    dropped: Vec<Retained>,
}

async fn random_history(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let store = Scripted::new();
    let outside = store.remote(seed * 1000);
    let mut attempts = 1;
    let mut job = Job::open(store.remote(seed * 1000 + attempts), |_| 0).await;
    let mut readers: Vec<(Pin, Manifest)> = Vec::new();
    let mut saved: Vec<(String, Manifest)> = Vec::new();
    let mut paused: Vec<Paused> = Vec::new();
    for _ in 0..100 {
        match rng.random_range(0..21) {
            0..5 => {
                job.cut();
                if rng.random_bool(0.3) {
                    job.persist().await;
                }
                if rng.random_bool(0.2) {
                    store.script([[Put::Lost, Put::AnswerLost, Put::Late][rng.random_range(0..3)]]);
                    store.fail_reads(rng.random_range(0..9));
                }
                job.commit(rng.random_range(1..4)).await;
                store.fail_reads(0);
            }
            5 => job.pack().await,
            6 => {
                job.describe(rng.random_range(0..3));
                job.materialize(&mut rng).await;
            }
            7 => drop(job.put(DataKind::Sst).await),
            8 | 9 => drop(job.collect().await),
            10 => drop(job.sweep().await),
            11 => {
                if let Some(retained) = retained_now(&outside).await.first() {
                    attempts += 1;
                    let from = RestoreFrom::Checkpoint(retained.id);
                    readers.push(pin(&store.remote(seed * 1000 + attempts), &from).await.unwrap());
                }
            }
            12 if !readers.is_empty() => {
                let (pin, _) = readers.swap_remove(rng.random_range(0..readers.len()));
                pin.release().await.unwrap();
            }
            13 => {
                // Another attempt takes over, while this one's collection is still to come.
                attempts += 1;
                let remote = store.remote(seed * 1000 + attempts);
                let next = Job::open(remote, |count| rng.random_range(0..count.max(1))).await;
                let mut old = std::mem::replace(&mut job, next);
                let (roots, dropped) = (old.chain.roots(), old.chain.take_dropped());
                paused.push(Paused { job: old, roots, dropped });
            }
            14 if !paused.is_empty() => {
                let index = rng.random_range(0..paused.len());
                let Paused { mut job, roots, dropped } = paused.swap_remove(index);
                let collector = &mut job.collector;
                let _ = collector.collect(&job.remote, &roots, dropped).await.unwrap();
                let swept = collector.sweep(&job.remote, &roots, false).await.unwrap();
                assert!(matches!(swept, Collection::Overtaken(_)), "{swept:?}");
                job.cut();
                assert!(!job.commit(1).await, "I2: fenced, however late");
            }
            16 => {
                if let Some(retained) = retained_now(&outside).await.first() {
                    // Few names, so that they are given again.
                    let (name, version) = (format!("s{}", rng.random_range(0..4)), retained.version);
                    let from = RestoreFrom::Checkpoint(retained.id);
                    let taken = saved.iter().any(|(there, _)| *there == name);
                    let made =
                        savepoint::create(&outside, &name.parse().unwrap(), &from, Holder::Reader).await;
                    match made {
                        Ok(_) => saved.push((name, read_manifest(&outside, version).await.unwrap().0)),
                        Err(error) => assert!(taken && error.kind() == ErrorKind::AlreadyExists, "{error}"),
                    }
                }
            }
            17 if !saved.is_empty() => {
                let (name, _) = saved.swap_remove(rng.random_range(0..saved.len()));
                savepoint::release(&outside, &name.parse().unwrap()).await.unwrap();
            }
            18 if !saved.is_empty() => {
                let (name, _) = &saved[rng.random_range(0..saved.len())];
                readers.push(pin(&outside, &the_savepoint(name)).await.unwrap());
            }
            19 if !saved.is_empty() => {
                // An attempt goes back to a savepoint, however old.
                let (name, _) = &saved[rng.random_range(0..saved.len())];
                attempts += 1;
                let next = Job::open_savepoint(store.remote(seed * 1000 + attempts), name).await;
                let mut old = std::mem::replace(&mut job, next);
                let (roots, dropped) = (old.chain.roots(), old.chain.take_dropped());
                paused.push(Paused { job: old, roots, dropped });
            }
            15 => {
                store.deliver().await;
                store.deliver_deletes().await;
                let roots = Roots::read(&outside).await.unwrap().unwrap();
                done(Collector::new().sweep(&outside, &roots, false).await.unwrap());
            }
            20 if !saved.is_empty() => {
                // A switch: an attempt goes back to a savepoint and commits; then its user releases it.
                let (name, _) = saved.swap_remove(rng.random_range(0..saved.len()));
                attempts += 1;
                let next = Job::open_savepoint(store.remote(seed * 1000 + attempts), &name).await;
                let mut old = std::mem::replace(&mut job, next);
                let (roots, dropped) = (old.chain.roots(), old.chain.take_dropped());
                paused.push(Paused { job: old, roots, dropped });
                job.cut();
                assert!(job.commit(1).await);
                savepoint::release(&outside, &name.parse().unwrap()).await.unwrap();
            }
            _ => {}
        }
        let mut pinned: Vec<_> = readers.iter().map(|(_, manifest)| manifest.clone()).collect();
        pinned.extend(saved.iter().map(|(_, manifest)| manifest.clone()));
        pinned.extend(job.origin.iter().map(|(_, manifest)| manifest.clone()));
        check_live(&outside, &pinned).await;
    }

    // In the end nothing is left over but what is needed, and the records of attempts.
    for (pin, _) in readers {
        pin.release().await.unwrap();
    }
    for (name, _) in saved {
        savepoint::release(&outside, &name.parse().unwrap()).await.unwrap();
    }
    store.deliver().await;
    let mut last = Job::open(store.remote(seed * 1000 + 999), |count| count.saturating_sub(1)).await;
    last.sweep().await;
    let mut needed = BTreeSet::new();
    for retained in retained_now(&outside).await {
        let (manifest, _) = read_manifest(&outside, retained.version).await.unwrap();
        needed.insert(ObjectName::manifest(retained.version).to_string());
        needed.extend(manifest.references().map(ToString::to_string));
    }
    for name in objects(&outside).await.difference(&needed) {
        let version = match ObjectName::parse(name) {
            Some(ObjectName::Manifest(version)) => version,
            Some(ObjectName::Opened(_)) => continue,
            // That a name was released is remembered for ever.
            Some(ObjectName::Savepoint(_, Generation(1 | 3 | 5 | 7 | 9 | 11 | 13))) => continue,
            _ => panic!("{name} is left over"),
        };
        let (manifest, _) = read_manifest(&outside, version).await.unwrap();
        assert!(manifest.checkpoint().is_none(), "{name} is left over");
    }
}

#[tokio::test]
async fn i3_random_histories_never_lose_what_is_needed_and_leave_nothing_behind() {
    for seed in 0..60 {
        println!("seed {seed}");
        random_history(seed).await;
    }
}
