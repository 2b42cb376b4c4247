//! Making a savepoint: from inside and outside of the job, once for each name.

use super::*;

/// However slowly a savepoint comes into being, and however many checkpoints follow meanwhile.
#[test]
fn i3_checkpoints_go_on_while_a_savepoint_is_made() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"1");
    let gate = Gate::closed();
    let held = gate.clone();
    place.store.rule(move |call| match call.op {
        Op::Put if call.path.starts_with("savepoint/") => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let pending = job.savepoint("slow", "").unwrap();
    stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
    let at_cut = contents(&mut stores, "words");
    eventually("it is being made", Duration::from_secs(20), || gate.waiting() == 1);
    for n in 0..6_u64 {
        put_any(&mut stores, "a", &noise(n, 4_000));
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    assert!(job.checkpoints().len() > 1, "what it names is retained meanwhile");
    gate.open();
    pending.wait().unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    assert_eq!(job.checkpoints().len(), 1, "and no longer");
    job.close().unwrap();
    assert!(place.read("slow") == at_cut);
}

/// The attempt that makes it may be fenced before the savepoint is there, and what it names be dropped. Then it is not
/// made, and nothing stays behind.
#[test]
fn i3_a_savepoint_that_a_fenced_attempt_has_yet_to_create_is_not_made() {
    let place = Place::new();
    let mut fenced = place.open(place.options());
    put_any(&mut fenced.stores, "a", b"1");
    let gate = Gate::closed();
    let held = gate.clone();
    place.store.rule(move |call| match call.op {
        Op::Put if call.path.starts_with("savepoint/") => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let pending = fenced.job.savepoint("slow", "").unwrap();
    fenced.stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
    eventually("it is being made", Duration::from_secs(20), || gate.waiting() == 1);
    // The later attempt's own requests pass.
    place.store.heal();
    let Opened { job, mut stores, .. } = place.open(place.options_in("elsewhere"));
    for n in 0..3_u64 {
        put_any(&mut stores, "a", &noise(n, 4_000));
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.close().unwrap();
    gate.open();
    assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(place.savepoints().list().unwrap(), []);
    assert!(!place.names().iter().any(|name| name.starts_with("pin/")), "{:?}", place.names());
}

#[test]
fn a_name_is_given_once() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().retained(2));
    for wrong in ["", "a/b", "..", "-x", &"x".repeat(101), "é"] {
        let error = job.savepoint(wrong, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(place.savepoints().create(wrong, None).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    put_any(&mut stores, "a", b"1");
    let first = savepoint(&job, &mut stores, "twice").unwrap();
    put_any(&mut stores, "a", b"2");
    let error = savepoint(&job, &mut stores, "twice").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&first.id.to_string()), "{error}");
    assert_eq!(job.checkpoints().len(), 2, "the checkpoint itself is durable");
    let error = place.savepoints().create("twice", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(place.read("twice").into_values().collect::<Vec<_>>(), [b"1"]);
    place.savepoints().release("twice").unwrap();
    place.savepoints().create("twice", None).unwrap();
    assert_eq!(place.read("twice").into_values().collect::<Vec<_>>(), [b"2"]);
    assert!(!place.names().iter().any(|name| name.starts_with("pin/")), "{:?}", place.names());
}

#[test]
fn a_savepoint_from_outside_does_not_fence_the_job() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().retained(3));
    let mut ids = Vec::new();
    for n in 0..3 {
        put_any(&mut stores, "a", format!("{n}").as_bytes());
        ids.push(checkpoint(&job, &mut stores, "").unwrap().id);
    }
    let savepoints = place.savepoints();
    assert_eq!(savepoints.create("oldest", Some(ids[0])).unwrap().checkpoint, ids[0]);
    assert_eq!(savepoints.create("newest", None).unwrap().checkpoint, ids[2]);
    for _ in 0..3 {
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.health().unwrap();
    assert_eq!(inspect(place.url()).unwrap().epochs.len(), 1);
    let error = savepoints.create("late", Some(ids[1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of ["), "{error}");
    assert_eq!(place.read("oldest").into_values().collect::<Vec<_>>(), [b"0"]);
    assert_eq!(place.read("newest").into_values().collect::<Vec<_>>(), [b"2"]);
}

#[test]
fn an_unknown_savepoint_names_those_that_there_are_and_touches_nothing() {
    let place = Place::new();
    let options = || place.options_in("elsewhere");
    let open = |name: &str| place.try_open(options().restore_from(from(name))).unwrap_err();
    let error = open("x");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(place.names(), Vec::<String>::new(), "no job was created");
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(open("x").to_string().contains("the job has no savepoints"), "{}", open("x"));
    for name in ["b", "a"] {
        place.savepoints().create(name, None).unwrap();
    }
    let before = place.names();
    drop((job, stores));
    let error = open("c");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of [a, b]"), "{error}");
    assert_eq!(open("../c").kind(), ErrorKind::InvalidArgument);
    assert_eq!(place.names(), before, "no attempt began");
    let error = place.savepoints().release("c").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("[a, b]"), "{error}");
    let nowhere = Savepoints::open(place.dir.path().join("no").to_str().unwrap());
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::NotFound);
    // A directory without a job has no savepoints because it is the wrong one.
    let empty = tempfile::tempdir().unwrap();
    let error = Savepoints::open(empty.path().to_str().unwrap()).unwrap().list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
