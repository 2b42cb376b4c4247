//! Garbage collection over a store in memory: rules one by one, and random histories of attempts,
//! commits, crashes, readers and collectors, in which nothing that is needed may ever be gone (I3).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pin::Pin;
use super::run::Collector;
use crate::error::ErrorKind;
use crate::ids::{DeltaSeq, Epoch, SubtaskIndex, Version};
use crate::manifest::samples::{base, checkpoint, delta, id, nonce, subtask};
use crate::manifest::scripted::{Put, Scripted};
use crate::manifest::{
    BaseRef, Chain, CommitDraft, DeltaRef, Inline, Manifest, OpenMode, Roots, list_chain, read_manifest,
    read_newest,
};
use crate::remote::{DataKind, ObjectName, Remote};

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
}

impl Job {
    /// Begins an attempt that restores one of the retained checkpoints.
    async fn open(remote: Arc<Remote>, pick: impl FnOnce(usize) -> usize) -> Self {
        let opened = Chain::open(Arc::clone(&remote), OpenMode::CreateOrOpen, None).await.unwrap();
        let found = opened.checkpoints.get(pick(opened.checkpoints.len()));
        let restored =
            found.map(|found| found.manifest.as_ref().unwrap().checkpoint().unwrap().subtasks[0].clone());
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
        }
    }

    async fn put(&mut self, kind: DataKind) -> ObjectName {
        self.objects += 1;
        let name = ObjectName::data(self.chain.epoch(), SubtaskIndex(0), nonce(7), kind, self.objects);
        self.remote.put_data(&name, Bytes::from(name.to_string())).await.unwrap();
        name
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
        match self.chain.commit(CommitDraft { record, inline, keep }).await {
            Ok(committed) => {
                self.deltas.clone_from(&committed.manifest.checkpoint().unwrap().subtasks[0].deltas);
                self.carried.clear();
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
        self.collector.collect(&self.remote, &roots, dropped).await.unwrap().deleted
    }

    async fn sweep(&mut self) -> Vec<String> {
        let roots = self.chain.roots();
        self.collector.sweep(&self.remote, &roots, false).await.unwrap().deleted
    }
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
    let newest = read_newest(remote).await.unwrap().unwrap();
    let mut live = pinned.to_vec();
    for retained in &newest.retained {
        live.push(read_manifest(remote, retained.version).await.unwrap().0);
    }
    for manifest in live {
        let itself = ObjectName::manifest(manifest.version);
        for name in manifest.references().chain([&itself]) {
            assert!(there.contains(name.as_str()), "I3: {itself} needs {name}, which is gone");
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
    let dry = second.collector.sweep(&remote, &roots, true).await.unwrap();
    assert_eq!((dry.deleted, dry.in_flight), (vec![orphan.to_string()], 1));
    assert!(objects(&remote).await.contains(orphan.as_str()), "a dry run deletes nothing");
    assert_eq!(second.sweep().await, [orphan.to_string()]);
    assert!(objects(&remote).await.contains(in_flight.as_str()));
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
    let report = Collector::new().sweep(&outside, &roots, false).await.unwrap();
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
    let (pin, manifest) = Pin::take(store.remote(2), Version(2)).await.unwrap();
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        job.collect().await;
        check_live(&remote, std::slice::from_ref(&manifest)).await;
    }
    assert_eq!(Pin::take(store.remote(3), Version(3)).await.unwrap_err().kind(), ErrorKind::NotFound);
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
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(damaged.as_str())));
    assert_eq!(objects(&remote).await, before);

    remote.delete(vec![damaged.clone()]).await.unwrap();
    remote.put_data(&damaged, whole).await.unwrap();
    let pin = ObjectName::pin(nonce(1));
    remote.put_data(&pin, Bytes::from_static(b"mine")).await.unwrap();
    let roots = Roots::read(&remote).await.unwrap().unwrap();
    let error = Collector::new().sweep(&remote, &roots, false).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(pin.as_str())));
    remote.delete(vec![pin]).await.unwrap();
    assert_eq!(job.sweep().await.len(), 1);
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
        assert!(objects(&remote).await.contains(damaged.as_str()), "it may be an open record");
        check_live(&remote, &[]).await;
    }
}

/// A collection that was planned for by an attempt, and may run at any time after.
struct Paused {
    job: Job,
    roots: Roots,
    dropped: Vec<Arc<Manifest>>,
}

async fn random_history(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let store = Scripted::new();
    let outside = store.remote(seed * 1000);
    let mut attempts = 1;
    let mut job = Job::open(store.remote(seed * 1000 + attempts), |_| 0).await;
    let mut readers: Vec<(Pin, Manifest)> = Vec::new();
    let mut paused: Vec<Paused> = Vec::new();
    for _ in 0..80 {
        match rng.random_range(0..16) {
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
            6 => job.materialize(&mut rng).await,
            7 => drop(job.put(DataKind::Sst).await),
            8 | 9 => drop(job.collect().await),
            10 => drop(job.sweep().await),
            11 => {
                let newest = read_newest(&outside).await.unwrap().unwrap();
                if let Some(retained) = newest.retained.first() {
                    attempts += 1;
                    let pin = Pin::take(store.remote(seed * 1000 + attempts), retained.version).await;
                    readers.push(pin.unwrap());
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
                collector.collect(&job.remote, &roots, dropped).await.unwrap();
                collector.sweep(&job.remote, &roots, false).await.unwrap();
                job.cut();
                assert!(!job.commit(1).await, "I2: fenced, however late");
            }
            15 => {
                store.deliver().await;
                let roots = Roots::read(&outside).await.unwrap().unwrap();
                Collector::new().sweep(&outside, &roots, false).await.unwrap();
            }
            _ => {}
        }
        let pinned: Vec<_> = readers.iter().map(|(_, manifest)| manifest.clone()).collect();
        check_live(&outside, &pinned).await;
    }

    // In the end nothing is left over but what is needed, and the records of attempts.
    for (pin, _) in readers {
        pin.release().await.unwrap();
    }
    store.deliver().await;
    let mut last = Job::open(store.remote(seed * 1000 + 999), |count| count.saturating_sub(1)).await;
    last.sweep().await;
    let newest = read_newest(&outside).await.unwrap().unwrap();
    let mut needed = BTreeSet::new();
    for retained in &newest.retained {
        let (manifest, _) = read_manifest(&outside, retained.version).await.unwrap();
        needed.insert(ObjectName::manifest(retained.version).to_string());
        needed.extend(manifest.references().map(ToString::to_string));
    }
    for name in objects(&outside).await.difference(&needed) {
        let Some(crate::remote::ParsedName::Manifest(version)) = ObjectName::parse(name) else {
            panic!("{name} is left over");
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
