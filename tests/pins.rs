//! Pins from outside: what killed readers have left is seen and released, and nothing else is.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use alluvium::admin::{PinHolder, Pins, Savepoints, inspect};
use alluvium::{
    CheckpointReader, Error, ErrorKind, Job, JobOptions, OpenMode, Opened, ReaderOptions, RestoreFrom,
    SourceJob,
};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};

use alluvium_testkit::drive::{by_hand, checkpoint, materialize, noise, put_any};
use alluvium_testkit::faults::{Answer, Fault, FaultStore, Op, block_on};
use alluvium_testkit::objects::files_below;

/// A job on a disk, with a store that obeys.
struct Place {
    dir: tempfile::TempDir,
    store: Arc<FaultStore>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(dir.path().join("store")).unwrap());
        Self { dir, store }
    }

    fn dynamic(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store) as Arc<dyn ObjectStore>
    }

    fn open(&self, from: RestoreFrom) -> Opened {
        let options = JobOptions::new(self.dir.path().join("local"), OpenMode::CreateOrOpen)
            .memory(16_000_000)
            .retained(1)
            .inline_limit(0)
            .materialization(by_hand())
            .restore_from(from);
        Job::open((self.dynamic(), "job"), options).unwrap()
    }

    fn url(&self) -> String {
        self.dir.path().join("store/job").to_str().unwrap().to_owned()
    }

    fn try_read(&self) -> Result<CheckpointReader, Error> {
        let options = ReaderOptions::new().dir(self.dir.path().join("reader"));
        CheckpointReader::open((self.dynamic(), "job"), &RestoreFrom::Latest, options)
    }

    fn pins(&self) -> Pins {
        Pins::open((self.dynamic(), "job")).unwrap()
    }

    fn pin_objects(&self) -> Vec<String> {
        let names = files_below(&self.dir.path().join("store/job")).into_keys();
        names.filter(|name| name.starts_with("pin/")).collect()
    }

    fn write(&self, name: &str, bytes: &'static [u8]) {
        let store = self.dynamic();
        let path = Path::from(format!("job/{name}"));
        block_on(async move { store.put(&path, PutPayload::from_static(bytes)).await.unwrap() });
    }
}

fn change(opened: &mut Opened, n: u64) -> alluvium::CheckpointId {
    put_any(&mut opened.stores, "key", &noise(n, 3_000));
    checkpoint(&opened.job, &mut opened.stores, "").unwrap().id
}

#[test]
fn i3_what_a_killed_reader_holds_stays_until_its_pin_is_released() {
    let place = Place::new();
    let mut opened = place.open(RestoreFrom::Latest);
    let id = change(&mut opened, 1);
    std::mem::forget(place.try_read().unwrap());
    materialize(&opened.job);
    for n in 2..5 {
        change(&mut opened, n);
    }
    let pins = place.pins();
    let listed = pins.list().unwrap();
    let [pin] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((&pin.holder, pin.checkpoint), (&PinHolder::Reader, Some(id)));
    assert!(pin.full_bytes > Some(3_000) && pin.unix_millis > 1_600_000_000_000, "{pin:?}");
    assert_eq!(place.pin_objects(), [format!("pin/{}", pin.id)]);
    let seen = inspect(place.url()).unwrap();
    assert_eq!(seen.pins, listed);
    assert!(seen.held_objects >= 2 && seen.held_bytes > 3_000, "{seen:?}");

    let error = pins.release(&"0".repeat(32)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&pin.id), "{error}");
    assert_eq!(place.pin_objects().len(), 1);
    assert_eq!(pins.release(&pin.id).unwrap(), *pin);
    assert!(place.pin_objects().is_empty() && pins.list().unwrap().is_empty());
    for n in 5..7 {
        change(&mut opened, n);
    }
    opened.job.close().unwrap();
    let seen = inspect(place.url()).unwrap();
    assert_eq!((seen.held_objects, seen.held_bytes), (0, 0));
    let kept = seen.records.iter().filter_map(|record| record.checkpoint.as_ref()).map(|one| one.id);
    assert!(!kept.collect::<Vec<_>>().contains(&id));
}

#[test]
fn the_pin_of_the_newest_attempt_is_left_alone() {
    let place = Place::new();
    let mut opened = place.open(RestoreFrom::Latest);
    change(&mut opened, 1);
    Savepoints::open((place.dynamic(), "job")).unwrap().create("base", None).unwrap();
    drop(opened);
    // It depends on the savepoint until it commits, and dies before that.
    let opened = place.open(RestoreFrom::Savepoint("base".to_owned()));
    let pins = place.pins();
    let listed = pins.list().unwrap();
    let [pin] = listed.as_slice() else { panic!("{listed:?}") };
    let PinHolder::Attempt { epoch, fenced: false } = pin.holder else { panic!("{pin:?}") };
    let error = pins.release(&pin.id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("leave it"), "{error}");
    assert_eq!(place.pin_objects().len(), 1);
    drop(opened);

    let opened = place.open(RestoreFrom::Savepoint("base".to_owned()));
    let listed = pins.list().unwrap();
    let newest = listed.iter().filter(|pin| matches!(pin.holder, PinHolder::Attempt { fenced: false, .. }));
    assert_eq!(newest.count(), 1, "{listed:?}");
    let old = listed.iter().find(|pin| pin.holder == PinHolder::Attempt { epoch, fenced: true }).unwrap();
    pins.release(&old.id).unwrap();
    assert_eq!(place.pin_objects().len(), 1);
    drop(opened);
}

#[test]
fn the_pin_of_another_job_says_so() {
    let place = Place::new();
    let mut opened = place.open(RestoreFrom::Latest);
    change(&mut opened, 1);
    let source = SourceJob::new((place.dynamic(), "job"), RestoreFrom::Latest);
    let options = JobOptions::new(place.dir.path().join("other"), OpenMode::Create).memory(16_000_000);
    let other = Job::open((place.dynamic(), "other"), options.start_from(source)).unwrap();
    let listed = place.pins().list().unwrap();
    let [pin] = listed.as_slice() else { panic!("{listed:?}") };
    assert!(matches!(&pin.holder, PinHolder::OtherJob { job, .. } if job.len() == 32), "{pin:?}");
    drop(other);
}

#[test]
fn what_is_damaged_is_shown_and_can_be_released() {
    let place = Place::new();
    let mut opened = place.open(RestoreFrom::Latest);
    change(&mut opened, 1);
    let id = "ab".repeat(16);
    place.write(&format!("pin/{id}"), b"no pin");
    place.write("savepoint/broken", b"no savepoint");
    Savepoints::open((place.dynamic(), "job")).unwrap().create("good", None).unwrap();
    let seen = inspect(place.url()).unwrap();
    assert!(matches!(&seen.pins[..], [pin] if pin.id == id && pin.version.is_none()), "{seen:?}");
    let PinHolder::Damaged { problem } = &seen.pins[0].holder else { panic!("{seen:?}") };
    assert!(problem.contains(&id), "{problem}");
    assert_eq!(seen.savepoints.len(), 1);
    assert_eq!((seen.savepoints[0].name.as_str(), seen.savepoints[0].version), ("good", 2));
    assert!(matches!(&seen.damaged[..], [text] if text.contains("savepoint/broken")), "{seen:?}");
    place.pins().release(&id).unwrap();
    assert!(place.pin_objects().is_empty());
    opened.job.close().unwrap();
}

#[test]
fn a_pin_that_cannot_be_made_is_withdrawn_or_named() {
    let place = Place::new();
    let mut opened = place.open(RestoreFrom::Latest);
    change(&mut opened, 1);
    // It is made, and nobody is told.
    let of_pin = |path: &str| path.contains("job/pin/");
    place.store.rule(move |call| match call.op {
        Op::Put if of_pin(&call.path) => Fault::Answer(Answer::Lost),
        Op::Get if of_pin(&call.path) => Fault::Fail,
        _ => Fault::Pass,
    });
    let error = place.try_read().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    assert!(!error.to_string().contains("stayed behind"), "{error}");
    assert_eq!(place.pin_objects(), Vec::<String>::new());

    place.store.rule(move |call| match call.op {
        Op::Put if of_pin(&call.path) => Fault::Answer(Answer::Lost),
        Op::Get | Op::Delete if of_pin(&call.path) => Fault::Fail,
        _ => Fault::Pass,
    });
    let error = place.try_read().unwrap_err();
    let left = place.pin_objects();
    assert_eq!(left.len(), 1);
    assert!(error.to_string().contains(&left[0]) && error.to_string().contains("stayed behind"), "{error}");
    place.store.heal();
    let id = left[0].strip_prefix("pin/").unwrap();
    place.pins().release(id).unwrap();
    assert!(place.pin_objects().is_empty());
}
