//! Restore against the real table and materialization, over stores that fail.

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
use crate::ids::{CheckpointId, DeltaSeq, Epoch, Nonce, StateId, SubtaskIndex, Version};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::manifest::{
    BaseRef, CheckpointMode, CheckpointRecord, DeltaRef, Found, Manifest, Origin, Record, Retained,
    SubtaskRecord,
};
use crate::materialize::{FileId, Known, NameSource, Uploaded, Uploader};
use crate::remote::faulty::{Fault, Faulty, Op};
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
            limiter: None,
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
            instance: self.uploader.names.instance(),
        };
        let record = CheckpointRecord {
            id,
            mode: CheckpointMode::Changelog,
            unix_millis: 0,
            metadata: Vec::new(),
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
        Target { subtask: SubtaskIndex(1), range: RANGE, dir: self.dir.path().join(name) }
    }

    async fn restore(
        &self,
        found: &[Found],
        fallback: bool,
        local: &[PathBuf],
    ) -> crate::Result<Restoration> {
        let target = self.target("restored");
        self.restorer().restore(found, fallback, std::slice::from_ref(&target), local).await
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

#[tokio::test]
async fn i1_any_history_restores_to_the_state_at_its_cut() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        let mut number = 0;
        for _ in 0..6 {
            // From a batch for each delta, that goes in block by block, to one for all of them.
            world.memory = 1 << world.rng.random_range(0..24);
            let (deltas, changes) = (world.rng.random_range(0..5), world.rng.random_range(0..80));
            world.pack(deltas, changes).await;
            if world.rng.random_bool(0.4) && world.seq > DeltaSeq(0) {
                world.materialize().await;
            }
            let (deltas, changes) = (world.rng.random_range(0..3), world.rng.random_range(0..80));
            world.pack(deltas, changes).await;
            if world.rng.random_bool(0.5) {
                world.table.compact_all().unwrap();
            }
            number += 1;
            let found = world.cut(number);
            let (cut, seq) = (world.model.clone(), world.seq);
            // What comes after the cut must not be seen (the last delta is lost with the crash).
            world.change(10);
            let name = format!("table-{number}");
            let target = world.target(&name);
            let restored = world.restorer().restore(&[found], false, &[target], &[]).await.unwrap();
            let report = restored.report;
            assert_eq!(report.checkpoint, Some(CheckpointId { epoch: Epoch(1), number }));
            assert_eq!(report.deltas, world.deltas.len() as u64);
            let restored = restored.subtasks.into_iter().next().unwrap();
            assert_eq!(restored.seq, seq);
            assert_eq!(restored.metadata.as_deref(), Some(format!("offset {number}").as_bytes()));
            assert_eq!(contents(&restored.table), cut);
            restored.table.compact_all().unwrap();
            assert_eq!(contents(&restored.table), cut, "after a full compaction");
            world.model = cut;
            world.go_on(restored);
        }
    }
}

#[tokio::test]
async fn without_checkpoint_the_state_is_empty() {
    let world = World::new(0);
    let target = world.target("restored");
    fs::create_dir_all(&target.dir).unwrap();
    fs::write(target.dir.join("leftover"), b"x").unwrap();
    let restored = world.restore(&[], true, &[]).await.unwrap();
    assert!(restored.manifest.is_none());
    assert_eq!(restored.report, RestoreReport::default());
    assert!(contents(&restored.subtasks[0].table).is_empty());
    assert_eq!(restored.subtasks[0].seq, DeltaSeq(0));
    assert_eq!(restored.subtasks[0].metadata, None);
    assert!(!target.dir.join("leftover").exists());
}

#[tokio::test]
async fn local_files_are_reused_by_content() {
    let mut world = World::new(1);
    world.pack(4, 200).await;
    world.materialize().await;
    world.pack(1, 20).await;
    let found = [world.cut(1)];
    let all = world.restore(&found, false, &[]).await.unwrap();
    assert_eq!(all.report.bytes_reused, 0);
    drop(all);

    let old = world.snapshot().dir;
    let reused = world.restore(&found, false, std::slice::from_ref(&old)).await.unwrap();
    assert!(reused.report.bytes_reused > 0);
    assert_eq!(contents(&reused.subtasks[0].table), world.model);
    // What goes on in the restored table does not reach the old one's files.
    reused.subtasks[0].table.compact_all().unwrap();
    drop(reused);
    assert_eq!(contents(&world.table), world.model);

    // Files of the right name and size, but with other content, are not believed.
    let wrong = world.dir.path().join("wrong");
    fs::create_dir(&wrong).unwrap();
    for entry in fs::read_dir(&old).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            // The table is open: a file that RocksDB has just begun is empty.
            bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
            fs::write(wrong.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
    let doubted = world.restore(&found, false, &[wrong]).await.unwrap();
    assert_eq!(doubted.report.bytes_reused, 0);
    assert_eq!(contents(&doubted.subtasks[0].table), world.model);
}

/// A world with so many files in its base, and a remote that gives up at once.
async fn of_files(files: usize, seed: u64) -> (Arc<Faulty>, World) {
    let faulty = Faulty::new(InMemory::new());
    let mut world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>, seed);
    for _ in 0..files {
        world.pack(1, 50).await;
        world.materialize().await;
    }
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let remote = Remote::new(Arc::clone(&world.store), "job".into(), Env::default()).with_retry(retry);
    world.remote = Arc::new(remote);
    (faulty, world)
}

#[tokio::test]
async fn i6_a_restore_that_the_store_fails_keeps_what_it_has_fetched() {
    let (faulty, world) = of_files(5, 31).await;
    let (found, restorer) = ([world.cut(1)], Restorer { parallel: 1, ..world.restorer() });
    let restore = async |target: &str, local: &[PathBuf]| {
        restorer.restore(&found, false, &[world.target(target)], local).await
    };
    // The index and two files come through.
    for fault in [Fault::Chunks, Fault::Chunks, Fault::Chunks, Fault::Before] {
        faulty.plan(Op::Get, fault);
    }
    let error = restore("first-try/table", &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    let kept = world.dir.path().join("first-try");
    let before = world.remote.counters();
    let restored = restore("second-try/table", &[kept]).await.unwrap();
    assert_eq!((world.remote.counters() - before).gets, 1 + 3, "the index and the other three files");
    assert!(restored.report.bytes_reused > 0);
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
}

#[tokio::test]
async fn i6_what_is_not_needed_makes_room_before_anything_is_fetched() {
    let (faulty, world) = of_files(3, 32).await;
    let old = world.dir.path().join("00000-old");
    fs::create_dir_all(old.join("table")).unwrap();
    fs::write(old.join("table/000003.sst"), vec![0; 100_000]).unwrap();
    let needed = world.base.as_ref().unwrap().files[0].clone();
    let needed = world.bytes_of(&needed).await;
    fs::write(old.join("table/000004.sst"), &needed).unwrap();
    for fault in [Fault::Chunks, Fault::Before] {
        faulty.plan(Op::Get, fault);
    }
    let found = [world.cut(1)];
    let targets = [world.target("new/table")];
    let restorer = Restorer { parallel: 1, ..world.restorer() };
    let error = restorer.restore(&found, false, &targets, std::slice::from_ref(&old)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "no file was fetched: {error}");
    assert!(!old.join("table/000003.sst").exists(), "nobody needs it");
    assert!(old.join("table/000004.sst").exists());
    let restored = restorer.restore(&found, false, &targets, &[old]).await.unwrap();
    assert_eq!(restored.report.bytes_reused, needed.len() as u64);
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
}

/// A clock that goes on by a second whenever somebody looks.
#[derive(Debug, Default)]
struct Impatient(AtomicU64);

impl Clock for Impatient {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_millis(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn i6_a_restore_waits_out_an_outage_of_minutes_and_says_so() {
    let (faulty, mut world) = of_files(2, 33).await;
    let env = Env { clock: Arc::new(Impatient::default()), ..Env::default() };
    let retry = RetryPolicy { attempts: 2, first_pause: Duration::ZERO, max_pause: Duration::ZERO };
    let remote = Remote::new(Arc::clone(&world.store), "job".into(), env).with_retry(retry);
    let told = Arc::new(Mutex::new(Vec::new()));
    let notice: Notice = {
        let (told, faulty) = (Arc::clone(&told), Arc::clone(&faulty));
        Arc::new(move |error: &crate::Error, waited| {
            let mut told = told.lock().unwrap();
            told.push((error.kind(), waited));
            // The outage is over when this has been said so often.
            faulty.set_outage(told.len() < 30);
        })
    };
    let patient = |seconds| {
        let patience = Patience::new(Duration::from_secs(seconds), Some(Arc::clone(&notice)));
        Arc::new(remote.patient(patience))
    };
    let found = [world.cut(1)];
    world.remote = patient(600);
    faulty.set_outage(true);
    let restored = world.restore(&found, false, &[]).await.unwrap();
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
    // The next restore empties the same directory, in which an open table would go on writing.
    drop(restored);
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told.len(), 30);
    assert!(told.iter().all(|(kind, _)| *kind == ErrorKind::StoreUnavailable));
    assert!(told.last().unwrap().1 >= Duration::from_secs(290), "every 10 s: {told:?}");

    // Not for ever, ...
    world.remote = patient(60);
    faulty.set_outage(true);
    let before = world.remote.counters();
    let error = world.restore(&found, false, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    let tries = (world.remote.counters() - before).failures;
    assert!((20..=60).contains(&tries), "{tries}");
    // ... and not for what will not pass.
    faulty.set_outage(false);
    faulty.plan(Op::Get, Fault::Denied);
    let before = world.remote.counters();
    assert!(world.restore(&found, false, &[]).await.is_err());
    assert_eq!((world.remote.counters() - before).retries, 0);
}

#[tokio::test]
async fn i4_a_flip_or_a_loss_in_any_object_is_an_error_that_names_it() {
    let mut world = World::new(2);
    world.pack(3, 100).await;
    world.materialize().await;
    world.pack(2, 50).await;
    world.pack(1, 50).await;
    let found = [world.cut(1)];
    let base = world.base.clone().unwrap();
    let mut objects = base.files.clone();
    objects.push(base.object.clone());
    objects.extend(world.deltas.iter().map(|delta| delta.object.clone()));
    objects.dedup();
    assert!(objects.len() >= 4);
    for object in &objects {
        let good = world.bytes_of(object).await;
        // Deltas do not begin at the start of their objects; what lies between is nobody's.
        let used = world.deltas.iter().filter(|delta| delta.object == *object);
        let (from, to) = used.fold((good.len(), 0), |(from, to), delta| {
            (from.min(delta.offset as usize), to.max((delta.offset + delta.length) as usize))
        });
        let (from, to) = if from < to { (from, to) } else { (0, good.len()) };
        let mut places = vec![from, to - 1];
        places.extend((0..8).map(|_| world.rng.random_range(from..to)));
        for at in places {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << world.rng.random_range(0..8);
            world.overwrite(object, bad).await;
            let error = world.restore(&found, false, &[]).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{object} at {at}: {error}");
            assert!(error.to_string().contains(object.to_string().as_str()), "{error}");
        }
        world.overwrite(object, good[..to - 1].to_vec()).await;
        let error = world.restore(&found, false, &[]).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{object} cut short: {error}");
        assert!(error.to_string().contains(object.to_string().as_str()), "{error}");

        world.remote.delete(vec![object.clone()]).await.unwrap();
        let error = world.restore(&found, false, &[]).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::MissingObject, "{object}: {error}");
        assert!(error.to_string().contains(object.to_string().as_str()), "{error}");
        world.overwrite(object, good.to_vec()).await;
    }
    let restored = world.restore(&found, false, &[]).await.unwrap();
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
}

#[tokio::test]
async fn references_that_do_not_fit_their_objects_are_corrupt() {
    let mut world = World::new(3);
    world.pack(1, 50).await;
    world.materialize().await;
    world.pack(2, 50).await;
    let restore = async |change: fn(&mut SubtaskRecord)| {
        let found = world.cut(1);
        let mut manifest = Manifest::clone(found.manifest.as_ref().unwrap());
        let Record::Checkpoint(record) = &mut manifest.record else { unreachable!() };
        change(&mut record.subtasks[0]);
        let found = Found { manifest: Some(Arc::new(manifest)), ..found };
        world.restore(&[found], false, &[]).await.err().map(|error| error.kind())
    };
    assert_eq!(restore(|_| {}).await, None);
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].entries += 1).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].crc32c ^= 1).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].length = 0).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].offset = u64::MAX).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[1].last = DeltaSeq(9)).await, corrupt);
    assert_eq!(restore(|subtask| subtask.base.as_mut().unwrap().crc32c ^= 1).await, corrupt);
    assert_eq!(restore(|subtask| subtask.base.as_mut().unwrap().files.clear()).await, corrupt);
    assert_eq!(restore(|subtask| subtask.base.as_mut().unwrap().seq = DeltaSeq(0)).await, corrupt);
    // Both deltas are whole and in place, but the other way round.
    let swapped = restore(|subtask| {
        let [a, b] = &mut subtask.deltas[..] else { unreachable!() };
        (a.offset, b.offset) = (b.offset, a.offset);
        (a.length, b.length) = (b.length, a.length);
        (a.crc32c, b.crc32c) = (b.crc32c, a.crc32c);
        (a.entries, b.entries) = (b.entries, a.entries);
    });
    assert_eq!(swapped.await, corrupt);
}

#[tokio::test]
async fn i1_a_base_that_stands_elsewhere_than_it_says_is_corrupt() {
    let mut world = World::new(13);
    world.pack(2, 50).await;
    let dir = world.snapshot();
    // Index and manifest agree that the files stand at delta 1, but they contain 2: replaying 2 over
    // them would append twice.
    let uploader = &world.uploader;
    let uploaded = uploader.upload(&dir, RANGE, DeltaSeq(1), OPERATOR_NAME, &world.known).await.unwrap();
    world.base = Some(uploader.publish(&uploaded).await.unwrap());
    world.deltas.remove(0);
    let error = world.restore(&[world.cut(1)], false, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("stand at delta 2, not 1"), "{error}");
    assert_eq!(error.object_name(), Some(world.base.unwrap().object.to_string().as_str()));
}

#[tokio::test]
async fn a_base_of_another_merge_operator_is_incompatible() {
    let mut world = World::new(4);
    world.pack(1, 50).await;
    let dir = world.snapshot();
    let uploaded = world.uploader.upload(&dir, RANGE, world.seq, "other.merge", &world.known).await.unwrap();
    world.base = Some(world.uploader.publish(&uploaded).await.unwrap());
    world.deltas.clear();
    let error = world.restore(&[world.cut(1)], true, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("other.merge"), "{error}");
}

#[tokio::test]
async fn falls_back_only_with_permission_and_says_so() {
    let mut world = World::new(5);
    world.pack(1, 50).await;
    world.materialize().await;
    let first = world.cut(1);
    let state = world.model.clone();
    world.pack(1, 50).await;
    let second = world.cut(2);
    let lost = world.deltas[0].object.clone();
    world.remote.delete(vec![lost.clone()]).await.unwrap();
    let damaged = ObjectName::manifest(Version(3));
    world.remote.put_data(&damaged, bytes::Bytes::from_static(b"flipped")).await.unwrap();
    let unreadable = Found { manifest: None, ..world.cut(3) };
    let found = [first.clone(), second.clone(), unreadable];

    let error = world.restore(&found, false, &[]).await.err().unwrap();
    assert_eq!(error.object_name(), Some(damaged.to_string().as_str()));
    let restored = world.restore(&found, true, &[]).await.unwrap();
    assert_eq!(contents(&restored.subtasks[0].table), state);
    assert_eq!(restored.manifest.unwrap().version, Version(1));
    assert_eq!(restored.report.checkpoint.unwrap().number, 1);
    let skipped: Vec<_> = restored.report.skipped.iter().map(|(id, _)| id.number).collect();
    assert_eq!(skipped, [3, 2]);
    assert!(
        restored.report.skipped[1].1.contains(lost.to_string().as_str()),
        "{:?}",
        restored.report.skipped
    );
    drop(restored.subtasks);

    // Where nothing is left, the newest failure is told, and no empty state is made of it.
    let error = world.restore(&[second], true, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::MissingObject);
}

#[tokio::test]
async fn i8_a_restore_asks_once_for_each_object() {
    let mut world = World::new(6);
    world.pack(1, 100).await;
    world.materialize().await;
    world.pack(20, 20).await;
    world.pack(20, 20).await;
    let files = world.base.as_ref().unwrap().files.len() as u64;
    let before = world.remote.counters();
    let restored = world.restore(&[world.cut(1)], false, &[]).await.unwrap();
    let spent = world.remote.counters() - before;
    assert_eq!(spent.gets, files + 1 + 2);
    assert_eq!(restored.report.objects, files + 1 + 2);
    assert_eq!(restored.report.bytes_downloaded, spent.get_bytes);
    assert_eq!(restored.report.deltas, 40);
    // Merged: no more than there are keys, however many deltas touched them.
    assert!(restored.report.entries_replayed <= 4 * 60, "{}", restored.report.entries_replayed);
}

#[tokio::test]
async fn key_groups_that_nobody_had_are_refused_and_nothing_is_touched() {
    let mut world = World::new(7);
    world.pack(1, 10).await;
    let range = KeyGroupRange { first: KeyGroup(4), last: KeyGroup(9) };
    let target = Target { range, ..world.target("first") };
    let error = world.restorer().restore(&[world.cut(1)], true, &[target], &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert_eq!(contents(&world.table), world.model, "the directory is as it was");
}

#[tokio::test]
async fn materialization_sends_only_what_is_new() {
    let mut world = World::new(8);
    world.pack(1, 300).await;
    let first = world.materialize().await;
    assert!(first.new_files > 0 && first.reused_files == 0);
    world.pack(1, 5).await;
    let second = world.materialize().await;
    assert_eq!(second.reused_bytes, first.new_bytes);
    assert_eq!(second.reused_files, first.new_files);
    assert!(second.new_bytes < first.new_bytes && second.new_files > 0);

    // A restored table goes on from the base it was restored from, without reading the files again.
    let found = world.cut(1);
    let restored = world.restore(&[found], false, &[]).await.unwrap().subtasks.into_iter().next().unwrap();
    world.go_on(restored);
    let third = world.materialize().await;
    assert_eq!((third.new_files, third.reused_files), (0, 2));
    assert_eq!(third.index.objects(), second.index.objects());
}

#[tokio::test]
async fn a_file_is_known_by_its_content_and_not_by_its_name() {
    let world = World::new(9);
    let dir = world.dir.path().join("fake");
    fs::create_dir(&dir).unwrap();
    let upload = async |content: &[u8], known: &Known| {
        fs::write(dir.join("000007.sst"), content).unwrap();
        world.uploader.upload(&TableFiles::of_dir(&dir), RANGE, DeltaSeq(1), "", known).await.unwrap()
    };
    let known = Known::default();
    let one = upload(b"one", &known).await;
    // Same name, same size, other content, as after a failover to an older checkpoint: a new database
    // starts with what the base it was restored from lists, and with no memo.
    let known = Known::from_base(&one.index);
    let two = upload(b"two", &known).await;
    assert_eq!((two.new_files, two.reused_files), (1, 0));
    assert_ne!(one.index.objects(), two.index.objects());
    let objects = two.index.objects();
    assert_eq!(world.bytes_of(&objects[0]).await, &b"two"[..]);
}

#[tokio::test]
async fn i6_a_failed_run_is_resumed_without_sending_anything_twice() {
    let faulty = Faulty::new(InMemory::new());
    let mut world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>, 10);
    let root = object_store::path::Path::from("job");
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let remote = Remote::new(Arc::clone(&world.store), root, Env::default()).with_retry(retry);
    world.uploader.remote = Arc::new(remote);
    world.uploader.parallel = 3;
    let dir = world.dir.path().join("fake");
    fs::create_dir(&dir).unwrap();
    for n in 0..5 {
        fs::write(dir.join(format!("{n:06}.sst")), vec![n; 1000 + usize::from(n)]).unwrap();
    }
    faulty.plan(Op::Put, Fault::Before);
    let files = TableFiles::of_dir(&dir);
    let upload = async || world.uploader.upload(&files, RANGE, DeltaSeq(1), "", &world.known).await;
    let error = upload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    let through = world.known.len();
    assert_eq!(through, 2, "what was under way beside the failure is known");
    let before = world.uploader.remote.counters();
    let done = upload().await.unwrap();
    assert_eq!((done.new_files, done.reused_files), (3, 2));
    assert_eq!((world.uploader.remote.counters() - before).puts, 3);
    for file in &done.index.files {
        let crate::materialize::Place::Object(object) = &file.place else { panic!("{file:?}") };
        assert_eq!(FileId::of_bytes(&world.bytes_of(object).await), file.id);
    }
}

#[tokio::test]
async fn i8_subtasks_share_requests() {
    let mut world = World::new(11);
    world.pack(2, 50).await;
    let found = world.cut(1);
    // Twice the same subtask: two parts of a job that lie in one object.
    let targets = [world.target("a"), world.target("b")];
    let before = world.remote.counters();
    let restored = world.restorer().restore(&[found], false, &targets, &[]).await.unwrap();
    assert_eq!((world.remote.counters() - before).gets, 1);
    assert_eq!(restored.subtasks.len(), 2);
    for restored in &restored.subtasks {
        assert_eq!(contents(&restored.table), world.model);
    }
}

#[tokio::test]
async fn a_full_disk_directory_is_an_error_and_not_a_fallback() {
    let mut world = World::new(12);
    world.pack(1, 10).await;
    let found = [world.cut(1), world.cut(2)];
    fs::write(world.dir.path().join("file"), b"").unwrap();
    let target = world.target("file/table");
    let error = world.restorer().restore(&found, true, &[target], &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert!(Path::new(error.object_name().unwrap()).ends_with("file/table"));
}
