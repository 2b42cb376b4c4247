//! Garbage collection over a store in memory: rules one by one, and random histories of attempts,
//! commits, crashes, readers and collectors, in which nothing that is needed may ever be gone (I3).

mod histories;
mod pins;
mod rules;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::collector::{Collection, Collector, GcReport};
use super::pin::{Holder, Pin, release_earlier};
use super::savepoint;
use crate::env::Env;
use crate::error::ErrorKind;
use crate::fault_store::{Fault, FaultStore, Op};
use crate::ids::{DeltaSeq, Epoch, SubtaskIndex, Version};
use crate::manifest::samples::{base, checkpoint, delta, id, nonce, subtask};
use crate::manifest::scripted::{Put, Scripted};
use crate::manifest::{
    BaseRef, Chain, CheckpointRecord, CommitDraft, DeltaRef, Inline, Manifest, OpenMode, RestoreFrom,
    Retained, Roots, StateInfo, StateLists, States, list_chain, read_manifest, read_newest, retained_now,
};
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
        let info = StateInfo { kind, name: "x".repeat(2_000), ..states.known().unwrap().of(0)[0].clone() };
        self.states = States::new(StateLists::new(vec![[info].into()]));
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
