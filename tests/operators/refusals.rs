//! What is left out, named late, or named otherwise.

use super::*;

#[test]
fn an_operator_that_is_left_out_is_refused_before_the_running_attempt_is_fenced() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    of_two(&store, &dir.path().join("first"));
    let both = [OperatorSpec::new("clicks", 1), OperatorSpec::new("joins", 1)];
    let mut running = open(&store, options(&dir.path().join("running")).operators(both)).unwrap();
    checkpoint(&running.job, &mut running.stores, "").unwrap();
    let other = || options(&dir.path().join("other"));
    let clicks = || OperatorSpec::new("clicks", 1);
    for (options, word) in [
        (other().operators([clicks()]), "\"joins\""),
        (other().operators([clicks(), OperatorSpec::new("join", 1)]), "allow_dropped_operator"),
        (other(), "JobOptions::operators"),
        (
            other().operators([clicks().max_parallelism(groups(64)), OperatorSpec::new("joins", 1)]),
            "128, not 64",
        ),
    ] {
        let error = open(&store, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    let error = open(&store, other().operators([clicks(), OperatorSpec::new("joins", 5)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("\"joins\"") && error.to_string().contains("of 4"), "{error}");
    // None of them has fenced the attempt that runs.
    checkpoint(&running.job, &mut running.stores, "").unwrap();

    let dropping = other().operators([clicks()]).allow_dropped_operator("joins");
    let mut opened = open(&store, dropping.clone()).unwrap();
    assert_eq!(get(&mut opened.stores[0], "page").unwrap(), b"of clicks");
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    // The option may stay. The state is gone: an operator of the name is a new one.
    drop(open(&store, dropping).unwrap());
    let again = other().operators([clicks(), OperatorSpec::new("joins", 8)]);
    let mut opened = open(&store, again).unwrap();
    assert!(contents(&mut opened.stores[1..], "words").is_empty());
    assert_eq!(opened.stores[1].max_parallelism().get(), 128);
}

/// What an operator goes on from is decided by the checkpoint that is restored, not by the newest.
#[test]
fn an_older_checkpoint_has_other_operators() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let both = || [OperatorSpec::new("new", 1), OperatorSpec::new("clicks", 2)];
    let mut opened = open(&store, options(dir.path()).operators([OperatorSpec::new("clicks", 1)])).unwrap();
    put_any(&mut opened.stores, "page", b"older");
    let older = checkpoint(&opened.job, &mut opened.stores, "").unwrap().id;
    drop(opened);
    let mut opened = open(&store, options(dir.path()).operators(both())).unwrap();
    put_any(&mut opened.stores[..1], "page", b"of the new one");
    put_any(&mut opened.stores[1..], "page", b"newer");
    let version = checkpoint(&opened.job, &mut opened.stores, "").unwrap().version;
    drop(opened);

    let page = |options: JobOptions| {
        let mut opened = open(&store, options.operators(both())).unwrap();
        let new = contents(&mut opened.stores[..1], "words").into_values().collect::<Vec<_>>();
        (new, contents(&mut opened.stores[1..], "words").into_values().collect::<Vec<_>>())
    };
    let (of_new, newer, old) = (b"of the new one".to_vec(), b"newer".to_vec(), b"older".to_vec());
    assert_eq!(page(options(dir.path())), (vec![of_new], vec![newer]));
    let going_back = options(dir.path()).restore_from(RestoreFrom::Checkpoint(older));
    assert_eq!(page(going_back), (vec![], vec![old.clone()]));
    // The same where the newest can't be read.
    let place: Arc<dyn ObjectStore> = Arc::clone(&store) as _;
    let all = objects_of(&place, PREFIX);
    let newest = all.keys().find(|name| name.contains(&format!("{version:020}"))).unwrap();
    let path = object_store::path::Path::from(format!("{PREFIX}/{newest}"));
    let damaged = all[newest].iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
    block_on(async move { place.put(&path, damaged.into()).await.unwrap() });
    assert_eq!(page(options(dir.path()).fallback(true)), (vec![], vec![old]));
}

#[test]
fn a_job_without_names_is_named_once() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let mut opened = open(&store, options(dir.path()).subtasks(3).max_parallelism(groups(16))).unwrap();
    put_any(&mut opened.stores, "page", b"of before");
    checkpoint(&opened.job, &mut opened.stores, "offset").unwrap();
    assert_eq!(opened.stores[0].operator(), None);
    drop(opened);

    let error = open(&store, options(dir.path()).operators([OperatorSpec::new("clicks", 3)])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("was_unnamed"), "{error}");
    let named = || {
        let clicks = OperatorSpec::new("clicks", 3).was_unnamed();
        options(dir.path()).operators([OperatorSpec::new("new", 1).max_parallelism(groups(8)), clicks])
    };
    // Twice from the unnamed checkpoint, then from its own.
    for attempt in 0..3 {
        let mut opened = open(&store, named()).unwrap();
        assert_eq!(opened.stores[0].max_parallelism().get(), 8);
        let mut clicks = opened.take_operator("clicks").unwrap();
        assert_eq!(clicks[0].max_parallelism().get(), 16);
        assert_eq!(
            clicks[0].restored_metadata().unwrap(),
            if attempt < 2 { &b"offset/0"[..] } else { b"named/1" }
        );
        assert_eq!(contents(&mut clicks, "words").into_values().collect::<Vec<_>>(), [b"of before".to_vec()]);
        opened.stores.append(&mut clicks);
        if attempt == 1 {
            checkpoint(&opened.job, &mut opened.stores, "named").unwrap();
        }
    }
    let error = open(&store, options(dir.path()).subtasks(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
}

#[test]
fn an_operator_takes_another_name_with_its_state() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    of_two(&store, dir.path());
    let operators = || [OperatorSpec::new("joins", 1), OperatorSpec::new("hits", 1).renamed_from("clicks")];
    for _ in 0..3 {
        let mut opened = open(&store, options(dir.path()).operators(operators())).unwrap();
        let mut hits = opened.take_operator("hits").unwrap();
        assert_eq!(get(&mut hits[0], "page").unwrap(), b"of clicks");
        opened.stores.append(&mut hits);
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    }
    let both = [OperatorSpec::new("joins", 1).renamed_from("hits"), OperatorSpec::new("other", 1)];
    let error = open(&store, options(dir.path()).operators(both)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
}
