//! From what a new job may start, and what is refused.

use super::*;

/// It answers again just when the new job would be created.
#[test]
fn i1_a_store_that_does_not_answer_at_first_makes_no_job_that_starts_empty() {
    let world = World::new(CheckpointMode::Changelog);
    let mut failures = 5;
    world.other.rule(move |call| match call.op {
        Op::List if failures > 0 => {
            failures -= 1;
            Fault::Fail
        }
        _ => Fault::Pass,
    });
    let error = world.try_start(&world.other, world.options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    let mut opened = world.start(&world.other, world.options());
    assert!(contents(&mut opened.stores, "words") == world.expected);
}

#[test]
fn any_retained_checkpoint_and_any_savepoint_will_do() {
    let mut world = World::new(CheckpointMode::Changelog);
    let savepoints = Savepoints::open((dynamic(&world.store), "a")).unwrap();
    savepoints.create("old", None).unwrap();
    let source = world.opened.as_mut().unwrap();
    for _ in 0..3 {
        put_any(&mut source.stores, "key 1", b"later");
        checkpoint(&source.job, &mut source.stores, "").unwrap();
    }
    let from = world.source(RestoreFrom::Savepoint("old".to_owned()));
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options().start_from(from));
    savepoints.release("old").unwrap();
    assert!(contents(&mut stores, "words") == world.expected);
    let id = checkpoint(&job, &mut stores, "").unwrap().id;
    drop((job, stores));
    // And from that one, a third.
    let from = SourceJob::new((dynamic(&world.store), "b"), RestoreFrom::Checkpoint(id));
    let options = options(world.dir.path(), "c").start_from(from);
    let Opened { job, mut stores, .. } = Job::open((dynamic(&world.other), "c"), options).unwrap();
    assert!(contents(&mut stores, "words") == world.expected);
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(job.is_independent());
}

#[test]
fn a_job_that_has_a_checkpoint_goes_on_from_its_own() {
    let mut world = World::new(CheckpointMode::Changelog);
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
    put_any(&mut stores, "own", b"1");
    checkpoint(&job, &mut stores, "").unwrap();
    let expected = contents(&mut stores, "words");
    drop((job, stores));
    let Opened { job, mut stores, .. } = world.start(&world.store, world.options());
    assert!(job.is_independent());
    assert!(contents(&mut stores, "words") == expected);
    drop((job, stores));
    world.delete_source();
    let Opened { mut stores, .. } = world.start(&world.store, world.options());
    assert!(contents(&mut stores, "words") == expected);
    drop(stores);
    let gone = SourceJob::new("/no/longer/there", RestoreFrom::Latest);
    let Opened { mut stores, .. } = world.start(&world.store, world.options().start_from(gone));
    assert!(contents(&mut stores, "words") == expected);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let world = World::new(CheckpointMode::Changelog);
    let refused = |options: JobOptions| {
        let error = world.try_start(&world.other, options).unwrap_err();
        assert_eq!(names_of(&dynamic(&world.other), "b"), Vec::<String>::new(), "{error}");
        assert_eq!(world.pins(), 0, "{error}");
        error
    };
    let fresh = |mode| {
        JobOptions::new(world.dir.path().join("b"), mode)
            .subtasks(2)
            .memory(16_000_000)
            .start_from(world.source(RestoreFrom::Latest))
    };
    let error = refused(fresh(OpenMode::Existing));
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = refused(world.options().max_parallelism(MaxParallelism::new(128).unwrap()));
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("64"), "{error}");
    let nowhere = SourceJob::new((dynamic(&world.store), "nowhere"), RestoreFrom::Latest);
    let error = refused(world.options().start_from(nowhere));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = refused(world.options().start_from(world.source(RestoreFrom::Savepoint("x".into()))));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let unknown = RestoreFrom::Checkpoint("9-9".parse().unwrap());
    let error = refused(world.options().start_from(world.source(unknown)));
    assert!(error.to_string().contains("choose one of ["), "{error}");
    let error = refused(world.options().rename_state("wrds", "hits"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("[words]"), "{error}");
    let savepoints = Savepoints::open((dynamic(&world.store), "a")).unwrap();
    savepoints.create("old", None).unwrap();
    let saved = || world.options().start_from(world.source(RestoreFrom::Savepoint("old".into())));
    let error = refused(saved().rename_state("wrds", "hits"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    savepoints.release("old").unwrap();

    // A new job must be new where that is said.
    let Opened { job, mut stores, .. } = world.start(&world.other, fresh(OpenMode::Create));
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    let error = world.try_start(&world.other, fresh(OpenMode::Create)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn an_empty_job_can_be_started_from() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    for mode in MODES {
        let prefix = format!("{mode:?}");
        let options = |name: &str| options(dir.path(), &format!("{prefix}-{name}")).mode(mode);
        let Opened { job, mut stores, .. } =
            Job::open((dynamic(&store), &prefix), options("source")).unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        let from = SourceJob::new((dynamic(&store), &prefix), RestoreFrom::Latest);
        let target = format!("{prefix}-target");
        let Opened { job, mut stores, .. } =
            Job::open((dynamic(&store), &target), options("target").start_from(from)).unwrap();
        assert!(contents(&mut stores, "words").is_empty());
        put_any(&mut stores, "a", b"b");
        checkpoint(&job, &mut stores, "").unwrap();
        assert!(job.is_independent());
        drop((job, stores));
        let Opened { mut stores, .. } = Job::open((dynamic(&store), &target), options("target")).unwrap();
        assert_eq!(contents(&mut stores, "words").len(), 1);
    }
}
