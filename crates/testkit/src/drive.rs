//! Driving a job through checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointReport, Error, Job, JobOptions, KeyGroup, MaterializationOptions, OpenMode, Opened, State,
    StateOptions, StateStore,
};
use object_store::ObjectStore;

/// Where the jobs of these tests live in their stores.
pub const PREFIX: &str = "jobs/one";

/// Options for a small job that does nothing by itself.
pub fn quiet(dir: &std::path::Path, mode: OpenMode) -> JobOptions {
    JobOptions::new(dir, mode).memory(16_000_000).materialization(by_hand())
}

/// No base is taken but on demand.
pub fn by_hand() -> MaterializationOptions {
    MaterializationOptions::on_demand()
}

pub fn open(store: &Arc<impl ObjectStore>, options: JobOptions) -> Result<Opened, Error> {
    Job::open((Arc::clone(store) as Arc<dyn ObjectStore>, PREFIX), options)
}

/// One checkpoint of all stores, waited for.
pub fn checkpoint(job: &Job, stores: &mut [StateStore], metadata: &str) -> Result<CheckpointReport, Error> {
    let pending = job.trigger(metadata)?;
    for store in stores {
        store.cut(pending.id(), format!("{metadata}/{}", store.subtask()))?;
    }
    pending.wait()
}

/// Takes a base of every subtask and waits until it is there.
pub fn materialize(job: &Job) {
    job.materialize();
    job.settle(Duration::from_secs(30)).unwrap();
}

/// The raw state that most tests write to.
pub fn state(store: &mut StateStore) -> State {
    store.state(&StateOptions::new("words")).unwrap()
}

/// Puts into the group of the key.
pub fn put(store: &mut StateStore, key: &str, value: &[u8]) -> Result<(), Error> {
    let (state, group) = (state(store), store.group_of(key.as_bytes()));
    store.put(state, group, key.as_bytes(), value)
}

/// Puts into whichever of the stores owns the key.
pub fn put_any(stores: &mut [StateStore], key: &str, value: &[u8]) {
    let owner = stores.iter_mut().find(|store| store.range().contains(store.group_of(key.as_bytes())));
    put(owner.unwrap(), key, value).unwrap();
}

pub fn get(store: &mut StateStore, key: &str) -> Option<Vec<u8>> {
    let (state, group) = (state(store), store.group_of(key.as_bytes()));
    store.get(state, group, key.as_bytes()).unwrap().map(|value| value.to_vec())
}

/// Everything in a state of some stores, by scans over all groups, each value checked by a get.
pub fn contents(stores: &mut [StateStore], name: &str) -> BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>> {
    let mut found = BTreeMap::new();
    for store in stores {
        let state = store.state(&StateOptions::new(name)).unwrap();
        for group in store.range().groups() {
            for entry in store.scan_prefix(state, group, b"").unwrap() {
                let (key, value) = entry.unwrap();
                assert_eq!(store.get(state, group, &key).unwrap().unwrap(), value, "scan and get differ");
                found.insert((group, key), value);
            }
        }
    }
    found
}

/// Bytes that do not compress, following from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
