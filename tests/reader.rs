//! Reading a checkpoint from outside: right values, nothing noticed by the job, nothing left behind.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointReader, Error, ErrorKind, Job, JobOptions, KeyGroup, KeyGroupRange, OpenMode, Opened,
    ReaderOptions, RestoreFrom, StateOptions, StateStore, SubtaskIndex,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use alluvium_testkit::drive::{by_hand, checkpoint, contents, materialize, noise, put_any};
use alluvium_testkit::eventually;
use alluvium_testkit::faults::{FaultStore, Op};
use alluvium_testkit::objects::{names_of, objects_of, store_with};

struct World {
    dir: tempfile::TempDir,
    store: Arc<FaultStore>,
    opened: Opened,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FaultStore::new(InMemory::new());
        let options = JobOptions::new(dir.path().join("local"), OpenMode::Create)
            .subtasks(3)
            .memory(24_000_000)
            .retained(2)
            .inline_limit(1_000)
            .materialization(by_hand());
        let opened = Job::open((Arc::clone(&store) as Arc<dyn ObjectStore>, "job"), options).unwrap();
        Self { dir, store, opened }
    }

    fn stores(&mut self) -> &mut [StateStore] {
        &mut self.opened.stores
    }

    /// Base, deltas as objects, deltas inline; puts, deletes and appends.
    fn fill(&mut self) {
        for n in 0..300_u64 {
            put_any(self.stores(), &format!("key {n}"), &noise(n, 50));
        }
        self.checkpoint();
        materialize(&self.opened.job);
        for n in 0..100_u64 {
            let key = format!("key {}", n * 2);
            let store = self.owner(key.as_bytes());
            let (state, group) =
                (store.state(&StateOptions::new("words")).unwrap(), store.group_of(key.as_bytes()));
            match n % 3 {
                0 => store.delete(state, group, key.as_bytes()).unwrap(),
                1 => store.append(state, group, key.as_bytes(), b"more").unwrap(),
                _ => store.put(state, group, key.as_bytes(), b"anew").unwrap(),
            }
        }
        self.checkpoint();
        for store in self.stores() {
            let other = store.state(&StateOptions::new("other")).unwrap();
            let group = store.range().first;
            // Not in the key's own group.
            store.put(other, group, b"placed", &[store.subtask().0 as u8]).unwrap();
        }
        self.checkpoint();
    }

    fn owner(&mut self, key: &[u8]) -> &mut StateStore {
        let owns = |store: &&mut StateStore| store.range().contains(store.group_of(key));
        self.opened.stores.iter_mut().find(owns).unwrap()
    }

    fn checkpoint(&mut self) -> alluvium::CheckpointId {
        checkpoint(&self.opened.job, &mut self.opened.stores, "of the job").unwrap().id
    }

    fn options(&self) -> ReaderOptions {
        ReaderOptions::new().dir(self.dir.path().join("reader")).memory(8_000_000)
    }

    fn try_read(&self, from: &RestoreFrom) -> Result<CheckpointReader, Error> {
        CheckpointReader::open((Arc::clone(&self.store) as Arc<dyn ObjectStore>, "job"), from, self.options())
    }

    fn read(&self) -> CheckpointReader {
        self.try_read(&RestoreFrom::Latest).unwrap()
    }

    fn pins(&self) -> usize {
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        names_of(&store, "job").iter().filter(|name| name.starts_with("pin/")).count()
    }
}

fn entries_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn i1_a_reader_sees_exactly_the_checkpoint() {
    let mut world = World::new();
    world.fill();
    let expected = contents(world.stores(), "words");
    // Later changes are not part of it.
    put_any(world.stores(), "key 1", b"later");
    let reader = world.read();
    assert_eq!(Some(reader.checkpoint()), world.opened.job.checkpoints().last().map(|last| last.id));
    assert_eq!(reader.metadata(), b"of the job");
    let subtasks: Vec<_> =
        reader.subtasks().map(|(subtask, range, offset)| (subtask, range, offset.to_vec())).collect();
    assert_eq!(subtasks.len(), 3);
    assert_eq!(subtasks[1].0, SubtaskIndex(1));
    assert_eq!(subtasks[1].1, world.opened.stores[1].range());
    assert_eq!(subtasks[1].2, b"of the job/1");
    let states = reader.states();
    let names: Vec<_> = states.iter().map(|state| (state.name(), state.kind())).collect();
    assert_eq!(names, [("other", "raw"), ("words", "raw")]);

    let scanned: Vec<_> = reader.scan("words", b"").unwrap().map(Result::unwrap).collect();
    let keys: Vec<_> = scanned.iter().map(|(group, key, _)| (*group, key.clone())).collect();
    assert!(keys.is_sorted(), "by group, then by key");
    let scanned: BTreeMap<_, _> =
        scanned.into_iter().map(|(group, key, value)| ((group, key), value)).collect();
    assert!(scanned == expected);

    let all: Vec<_> = (0..320).map(|n| format!("key {n}").into_bytes()).collect();
    let wanted: Vec<_> = all.iter().map(Vec::as_slice).collect();
    let values = reader.multi_get("words", &wanted).unwrap();
    for (key, value) in all.iter().zip(values) {
        let group = reader.max_parallelism().group_of(key);
        assert_eq!(value.as_ref(), expected.get(&(group, key.clone())));
        assert_eq!(reader.get("words", key).unwrap(), value);
    }
    assert!(reader.multi_get("words", &[]).unwrap().is_empty());

    let prefixed = reader.scan("words", b"key 1").unwrap().count();
    assert_eq!(prefixed, expected.keys().filter(|(_, key)| key.starts_with(b"key 1")).count());
    let range = KeyGroupRange { first: KeyGroup(40), last: KeyGroup(90) };
    let within = reader.scan_groups("words", range, b"").unwrap().map(|entry| entry.unwrap().0);
    assert!(within.eq(expected.keys().map(|(group, _)| *group).filter(|group| range.contains(*group))));

    assert_eq!(reader.get("other", b"placed").unwrap(), None, "not in its own group");
    for (index, store) in world.opened.stores.iter().enumerate() {
        let value = reader.get_in("other", store.range().first, b"placed").unwrap();
        assert_eq!(value, Some(vec![index as u8]));
    }
    reader.close().unwrap();
}

#[test]
fn a_job_is_neither_fenced_nor_disturbed_and_nothing_stays_behind() {
    let mut world = World::new();
    world.fill();
    world.store.take_calls();
    let reader = world.read();
    assert_eq!(reader.scan("words", b"").unwrap().count(), contents(world.stores(), "words").len());
    let calls = world.store.take_calls();
    let mut writes = calls.iter().filter(|call| call.writes());
    assert!(writes.next().unwrap().path.starts_with("job/pin/"));
    assert!(writes.next().is_none(), "{calls:?}");
    assert!(!calls.iter().any(|call| call.op == Op::Delete));

    assert_eq!(world.pins(), 1);
    assert_eq!(entries_in(&world.dir.path().join("reader")), 1);
    world.checkpoint();
    world.opened.job.health().unwrap();
    reader.close().unwrap();
    assert_eq!(world.pins(), 0);
    assert_eq!(entries_in(&world.dir.path().join("reader")), 0);

    // One that is dropped does so behind the caller's back.
    let reader = world.read();
    assert_eq!(world.pins(), 1);
    drop(reader);
    assert_eq!(entries_in(&world.dir.path().join("reader")), 0);
    eventually("its pin goes", Duration::from_secs(20), || world.pins() == 0);

    // Also within a caller's runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let reader = world.read();
        assert!(reader.get("words", b"key 1").unwrap().is_some());
        drop(world.read());
        reader.close().unwrap();
    });
    eventually("its pin goes", Duration::from_secs(20), || world.pins() == 0);
}

#[test]
fn i3_what_is_read_stays_while_the_job_goes_on() {
    let mut world = World::new();
    world.fill();
    let expected = contents(world.stores(), "words");
    let reader = world.read();
    for n in 0..20_u64 {
        for key in 0..40 {
            put_any(world.stores(), &format!("key {key}"), &noise(n, 300));
        }
        materialize(&world.opened.job);
        world.checkpoint();
    }
    world.opened.job.clone().close().unwrap();
    // Nothing was fetched before.
    let scanned = reader.scan("words", b"").unwrap().map(Result::unwrap);
    let scanned: BTreeMap<_, _> = scanned.map(|(group, key, value)| ((group, key), value)).collect();
    assert!(scanned == expected);
    reader.close().unwrap();
}

#[test]
fn a_point_read_fetches_one_subtask_once() {
    let mut world = World::new();
    world.fill();
    materialize(&world.opened.job);
    world.checkpoint();
    let reader = world.read();
    world.store.take_calls();
    let owner = world.owner(b"key 7").subtask();
    assert!(reader.get("words", b"key 7").unwrap().is_some());
    let of_subtask = |path: &str| path.split('/').nth(3).and_then(|part| part.parse::<u32>().ok());
    let calls = world.store.take_calls();
    let fetched: Vec<_> = calls
        .iter()
        .filter(|call| call.op == Op::Get && call.is_data())
        .map(|call| of_subtask(&call.path))
        .collect();
    assert!(!fetched.is_empty());
    assert!(fetched.iter().all(|subtask| *subtask == Some(owner.0)), "{calls:?}");
    assert!(reader.get("words", b"key 7").unwrap().is_some());
    assert!(world.store.take_calls().is_empty(), "what is here is not fetched again");
    reader.close().unwrap();
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let mut world = World::new();
    let error = world.try_read(&RestoreFrom::Latest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("no checkpoint yet"), "{error}");
    world.fill();
    let error = world.try_read(&RestoreFrom::Checkpoint("9-9".parse().unwrap())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of [1-2, 1-3]"), "{error}");
    let error = world.try_read(&RestoreFrom::Savepoint("x".to_owned())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(world.pins(), 0);
    assert_eq!(entries_in(&world.dir.path().join("reader")), 0, "nothing stays behind of a failure");

    let reader = world.read();
    let error = reader.get("word", b"a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of [other, words]"), "{error}");
    assert_eq!(reader.scan("word", b"").unwrap_err().kind(), ErrorKind::NotFound);
    let error = reader.get_in("words", KeyGroup(128), b"a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("0 to 127"), "{error}");
    reader.close().unwrap();
    let nowhere = CheckpointReader::open("/nowhere/at/all", &RestoreFrom::Latest, world.options());
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn i4_damage_is_an_error_that_names_the_object() {
    let mut world = World::new();
    world.fill();
    let store = Arc::clone(&world.store) as Arc<dyn ObjectStore>;
    let objects = objects_of(&store, "job");
    let mut seen = 0;
    for (name, bytes) in objects.iter().filter(|(name, _)| name.starts_with("data/")) {
        let mut damaged = objects.clone();
        let mut flipped = bytes.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        damaged.insert(name.clone(), flipped.into());
        let damaged = store_with(&damaged, "job");
        let reader =
            CheckpointReader::open((Arc::clone(&damaged), "job"), &RestoreFrom::Latest, world.options())
                .unwrap();
        let failed: Vec<_> = reader.scan("words", b"").unwrap().filter_map(Result::err).collect();
        // An object that only an older checkpoint needs is not looked at.
        if let [error] = failed.as_slice() {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(name.as_str()), "{error} does not name {name}");
            seen += 1;
        }
        assert!(failed.len() <= 1, "a scan ends with its failure");
        reader.close().unwrap();
    }
    let names: Vec<_> = objects.keys().collect();
    assert!(seen >= 6, "{seen} damaged objects were read of {names:#?}");
}
