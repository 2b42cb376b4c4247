//! Restore against the real table and materialization, over stores that fail.

mod damage;
mod histories;
mod materialization;
mod outages;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::run::Restored;
use super::*;
use crate::delta::{ActiveDelta, DeltaHeader, MergeOp, TableKind, seal};
use crate::env::{Clock, Env};
use crate::error::ErrorKind;
use crate::fault_store::{Fault, FaultStore, Gate, Op};
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::manifest::{
    BaseRef, CheckpointMode, CheckpointRecord, DeltaRef, Found, Manifest, Origin, Record, Retained,
    SubtaskRecord,
};
use crate::materialize::{FileId, Known, NameSource, Uploaded, Uploader};
use crate::remote::{DataKind, Notice, ObjectName, Patience, Remote, RetryPolicy};
use crate::table::{OPERATOR_NAME, Table, TableFiles, TableResources};

const RANGE: KeyGroupRange = KeyGroupRange { first: KeyGroup(4), last: KeyGroup(7) };

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// One subtask of a job, and the store it writes to.
struct World {
    dir: TempDir,
    store: Arc<dyn ObjectStore>,
    remote: Arc<Remote>,
    resources: TableResources,
    /// For the changelog of a restore.
    memory: u64,
    rng: StdRng,
    uploader: Uploader,
    known: Known,
    table: Table,
    /// What the table must hold.
    model: State,
    seq: DeltaSeq,
    origins: Vec<Origin>,
    base: Option<BaseRef>,
    deltas: Vec<DeltaRef>,
    snapshots: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::on(Arc::new(InMemory::new()), seed)
    }

    fn on(store: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = object_store::path::Path::from("job");
        let remote = Arc::new(Remote::new(Arc::clone(&store), root, Env::default()));
        let resources = TableResources::new(16 << 20, 2);
        let names = NameSource::new(Epoch(1), SubtaskIndex(1), Nonce([9; 16]));
        let uploader = Uploader {
            remote: Arc::clone(&remote),
            names: Arc::new(names),
            traffic: None,
            parallel: 4,
            parts: 1,
            sharers: 1,
            copies: None,
        };
        Self {
            table: Table::create(&dir.path().join("first"), RANGE, &resources).unwrap(),
            dir,
            store,
            remote,
            resources,
            memory: 16 << 20,
            rng: StdRng::seed_from_u64(seed),
            uploader,
            known: Known::default(),
            model: State::new(),
            seq: DeltaSeq(0),
            origins: Vec::new(),
            base: None,
            deltas: Vec::new(),
            snapshots: 0,
        }
    }

    fn key(&mut self) -> Vec<u8> {
        let group = KeyGroup(self.rng.random_range(RANGE.first.0..=RANGE.last.0));
        let mut key = Vec::new();
        let user = format!("key{:03}", self.rng.random_range(0..60));
        key::encode_into(&mut key, group, StateId::of("state"), user.as_bytes());
        key
    }

    /// One delta of random changes, applied to the table and the model; sealed.
    fn change(&mut self, changes: usize) -> Bytes {
        let mut delta = ActiveDelta::new();
        for _ in 0..changes {
            let key = self.key();
            let value: Vec<u8> = (0..self.rng.random_range(0..40)).map(|_| self.rng.random()).collect();
            match self.rng.random_range(0..20) {
                0..10 => {
                    delta.put(TableKind::Hash, &key, &value);
                    self.model.insert(key, value);
                }
                10..13 => {
                    delta.delete(TableKind::Hash, &key);
                    self.model.remove(&key);
                }
                13..19 => {
                    delta.merge(TableKind::Hash, MergeOp::ListAppend, &key, &value);
                    self.model.entry(key).or_default().extend(value);
                }
                _ => {
                    let end = key::successor(&key[..key.len() - 1]).unwrap();
                    delta.delete_range(&key, &end);
                    self.model.retain(|other, _| *other < key || *other >= end);
                }
            }
        }
        self.seq = self.seq.next();
        let header = DeltaHeader {
            epoch: Epoch(1),
            subtask: SubtaskIndex(1),
            range: RANGE,
            first: self.seq,
            last: self.seq,
        };
        let frozen = delta.freeze();
        self.table.apply(self.seq, frozen.tombstones().iter(), frozen.iter()).unwrap();
        seal(&frozen, &header, |_, entry| Some(entry)).bytes
    }

    /// Some deltas, all in one object.
    async fn pack(&mut self, deltas: usize, changes: usize) {
        let object = self.uploader.names.next(DataKind::Pack);
        let mut payload = BytesMut::from(&b"something before"[..]);
        for _ in 0..deltas {
            let bytes = self.change(changes);
            let entries = crate::delta::DeltaReader::open(bytes.clone()).unwrap().entries();
            self.deltas.push(DeltaRef {
                object: object.clone(),
                offset: payload.len() as u64,
                length: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
                first: self.seq,
                last: self.seq,
                entries,
            });
            payload.extend_from_slice(&bytes);
        }
        self.remote.put_data(&object, payload.freeze()).await.unwrap();
    }

    fn snapshot(&mut self) -> TableFiles {
        self.snapshots += 1;
        let dir = self.dir.path().join(format!("snapshot-{}", self.snapshots));
        self.table.checkpoint(&dir).unwrap()
    }

    async fn upload(&mut self) -> Result<Uploaded, crate::Error> {
        let dir = self.snapshot();
        self.uploader.upload(&dir, RANGE, self.seq, OPERATOR_NAME, &self.known).await
    }

    async fn materialize(&mut self) -> Uploaded {
        let uploaded = self.upload().await.unwrap();
        self.base = Some(self.uploader.publish(&uploaded).await.unwrap());
        self.origins.clear();
        self.deltas.clear();
        uploaded
    }

    /// A checkpoint of the state as it is now.
    fn cut(&self, number: u64) -> Found {
        let id = CheckpointId { epoch: Epoch(1), number };
        let subtask = SubtaskRecord {
            subtask: SubtaskIndex(1),
            range: RANGE,
            origins: self.origins.clone(),
            base: self.base.clone(),
            deltas: self.deltas.clone(),
            seq: self.seq,
            metadata: format!("offset {number}").into_bytes(),
            elements: [].into(),
            instance: self.uploader.names.instance(),
        };
        let record = CheckpointRecord {
            id,
            mode: CheckpointMode::Changelog,
            unix_millis: 0,
            metadata: Vec::new(),
            operators: Vec::new(),
            subtasks: vec![subtask],
            states: Default::default(),
        };
        let retained = Retained { version: Version(number), id };
        let manifest = Manifest {
            version: Version(number),
            nonce: Nonce([1; 16]),
            parent: Nonce([0; 16]),
            epoch: Epoch(1),
            max_parallelism: MaxParallelism::default(),
            retained: Default::default(),
            record: Record::Checkpoint(record),
        };
        Found { retained, manifest: Some(Arc::new(manifest)) }
    }

    fn restorer(&self) -> Restorer {
        let (remote, resources) = (Arc::clone(&self.remote), self.resources.clone());
        Restorer { remote, resources, parallel: 4, memory: self.memory }
    }

    fn target(&self, name: &str) -> Target {
        Target {
            subtask: SubtaskIndex(1),
            operator: 0,
            number: 1,
            parallelism: 2,
            from: Some(0),
            max_parallelism: MaxParallelism::default(),
            range: RANGE,
            dir: self.dir.path().join(name),
        }
    }

    async fn restore(
        &self,
        found: &[Found],
        fallback: bool,
        local: &[PathBuf],
    ) -> crate::Result<Restoration> {
        let target = self.target("restored");
        self.restorer().restore(found, fallback, &[target], local).await
    }

    /// Goes on from a restored table, as the next attempt would.
    fn go_on(&mut self, restored: Restored) {
        self.table = restored.table;
        self.known = restored.known;
        self.origins = restored.origins;
        self.base = restored.base;
        self.deltas = restored.deltas;
        self.seq = restored.seq;
    }

    async fn bytes_of(&self, object: &ObjectName) -> Bytes {
        self.remote.get(object).await.unwrap()
    }

    async fn overwrite(&self, object: &ObjectName, bytes: Vec<u8>) {
        let path = object_store::path::Path::from(format!("job/{object}"));
        self.store.put(&path, bytes.into()).await.unwrap();
    }
}

/// Everything but Alluvium's own keys.
fn contents(table: &Table) -> State {
    let (start, end) = key::bounds_of(RANGE);
    let marker = key::marker(RANGE);
    let snapshot = table.snapshot();
    let entries = snapshot.iter(&start, &end).unwrap().map(|entry| entry.unwrap());
    entries.map(|(key, value)| (key.to_vec(), value.to_vec())).filter(|(key, _)| **key != marker).collect()
}
