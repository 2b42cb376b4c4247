//! `alluvium state` as a user runs it.
#![allow(clippy::unwrap_used)]

use alluvium::{Error, Job, JobOptions, OpenMode, Opened, StateStore, ValueState};
use alluvium_testkit::clock::owner;
use alluvium_testkit::drive::checkpoint;

const KEYS: u64 = 300;

fn register(store: &mut StateStore, name: &str) -> Result<ValueState<u64>, Error> {
    store.register(ValueState::<u64>::descriptor(name))
}

fn fill(stores: &mut [StateStore], name: &str, factor: u64) {
    for key in 0..KEYS {
        let store = owner(stores, &key);
        let state = register(store, name).unwrap();
        store.set_key(&key).unwrap();
        state.put(store, &(key * factor)).unwrap();
    }
}

/// What the keys have, None if none of them has anything.
fn all(stores: &mut [StateStore], name: &str) -> Option<Vec<u64>> {
    let values = (0..KEYS).map(|key| {
        let store = owner(stores, &key);
        let state = register(store, name).unwrap();
        store.set_key(&key).unwrap();
        state.get(store).unwrap()
    });
    let values: Vec<_> = values.flatten().collect();
    assert!(values.is_empty() || values.len() as u64 == KEYS, "{} of them", values.len());
    (!values.is_empty()).then_some(values)
}

fn times(factor: u64) -> Option<Vec<u64>> {
    Some((0..KEYS).map(|key| key * factor).collect())
}

fn alluvium(arguments: &[&str]) -> (bool, String) {
    let output = crate::run::alluvium(arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn the_command_line_lists_states_and_makes_jobs_without_them_or_with_other_names() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let options =
        |name: &str| JobOptions::new(path(name), OpenMode::CreateOrOpen).subtasks(2).memory(32_000_000);
    let Opened { job, mut stores, .. } = Job::open(path("job"), options("local")).unwrap();
    fill(&mut stores, "clicks", 1);
    fill(&mut stores, "views", 2);
    checkpoint(&job, &mut stores, "offsets").unwrap();

    let (ok, text) = alluvium(&["state", "list", &path("job")]);
    assert!(ok && text.contains("clicks") && text.contains("views") && text.contains("300"), "{text}");
    let (ok, text) = alluvium(&["state", "list", &path("job"), "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        ok && listed["items"][0]["entries"] == KEYS && listed["items"][1]["state"]["name"] == "views",
        "{text}"
    );

    let (ok, text) = alluvium(&["state", "drop", &path("job"), "clicks", "--into", &path("less")]);
    assert!(ok && text.contains("views") && !text.contains("clicks"), "{text}");
    let (ok, text) = alluvium(&["state", "rename", &path("job"), "clicks=hits", "--into", &path("renamed")]);
    assert!(ok && text.contains("hits"), "{text}");
    let (ok, text) = alluvium(&["state", "drop", &path("job"), "clics", "--into", &path("none")]);
    assert!(!ok && text.contains("clicks, views"), "{text}");
    assert!(!place.path().join("none").exists(), "nothing is begun");

    // The job was not disturbed.
    checkpoint(&job, &mut stores, "goes on").unwrap();
    drop((stores, job));
    let Opened { job, mut stores, metadata, .. } = Job::open(path("less"), options("local 2")).unwrap();
    assert_eq!((all(&mut stores, "views"), all(&mut stores, "clicks")), (times(2), None));
    assert_eq!(metadata.as_deref(), Some("offsets".as_bytes()));
    assert_eq!(stores[1].restored_metadata(), Some("offsets/1".as_bytes()));
    drop((stores, job));
    let Opened { job: _job, mut stores, .. } = Job::open(path("renamed"), options("local 3")).unwrap();
    assert_eq!((all(&mut stores, "hits"), all(&mut stores, "views")), (times(1), times(2)));
}
