//! Stores, readers and inspections by operator.

use alluvium::state::KeyCodec;

use super::*;

/// Whether a key lies in the store's key groups.
fn owned_by<K: KeyCodec>(store: &StateStore) -> impl Fn(&K) -> bool + use<K> {
    let (range, groups) = (store.range(), store.max_parallelism());
    move |key| range.contains(groups.group_of_key(key))
}

#[test]
fn each_operator_has_its_own_stores_keys_and_states() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let operators =
        || [OperatorSpec::new("clicks", 3), OperatorSpec::new("joins", 2).max_parallelism(groups(4))];
    let mut opened = open(&store, options(dir.path()).operators(operators())).unwrap();
    let mut clicks = opened.take_operator("clicks").unwrap();
    let error = opened.take_operator("clicks").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("[joins]"), "{error}");
    let mut joins = opened.take_operator("joins").unwrap();
    let place = |store: &StateStore| {
        let (number, of) = store.place();
        (store.subtask().0, store.operator().map(str::to_owned), number.0, of, store.max_parallelism().get())
    };
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(place(&clicks[2]), (2, named("clicks"), 2, 3, 128));
    assert_eq!(place(&joins[1]), (4, named("joins"), 1, 2, 4));

    // The same name, of another kind and another type of key.
    for store in &mut clicks {
        let count = store.register(ValueState::<u64>::descriptor("count")).unwrap();
        for key in (0..50_u32).filter(owned_by(store)) {
            store.set_key(&key).unwrap();
            count.put(store, &u64::from(key)).unwrap();
        }
    }
    for store in &mut joins {
        let count = store.register(ListState::<String>::descriptor("count")).unwrap();
        let owned = owned_by(store);
        for key in &["a", "b", "c"].map(str::to_owned) {
            if !owned(key) {
                continue;
            }
            store.set_key(key).unwrap();
            count.append(store, key).unwrap();
        }
    }
    let pending = opened.job.trigger("").unwrap();
    for store in clicks.iter_mut().chain(&mut joins) {
        store.cut(pending.id(), format!("cut {}", store.subtask())).unwrap();
    }
    pending.wait().unwrap();
    drop((clicks, joins, opened));

    // Each reads what it has written, and the metadata of its subtasks.
    let mut opened = open(&store, options(dir.path()).operators(operators())).unwrap();
    let texts = |id: &str| opened.metadata_of(id).map(|(.., text)| text.to_vec()).collect::<Vec<_>>();
    assert_eq!(texts("joins"), [b"cut 3".to_vec(), b"cut 4".to_vec()]);
    assert_eq!((texts("clicks").len(), texts("others").len()), (3, 0));
    assert_eq!(opened.stores[4].restored_metadata(), Some(&b"cut 4"[..]));
    let mut found = 0;
    for store in &mut opened.stores[..3] {
        let count = store.register(ValueState::<u64>::descriptor("count")).unwrap();
        for key in (0..50_u32).filter(owned_by(store)) {
            store.set_key(&key).unwrap();
            assert_eq!(count.get(store).unwrap(), Some(u64::from(key)));
            found += 1;
        }
    }
    assert_eq!(found, 50);
    let error = opened.stores[3].register(ValueState::<u64>::descriptor("count")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "there it is a list: {error}");
}

#[test]
fn a_reader_reads_one_operator_and_asks_which() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    of_two(&store, dir.path());
    let place = || (Arc::clone(&store) as Arc<dyn ObjectStore>, PREFIX);
    let read = |options: ReaderOptions| {
        CheckpointReader::open(place(), &RestoreFrom::Latest, options.dir(dir.path()))
    };
    let mut reader = read(ReaderOptions::new()).unwrap();
    for error in [
        reader.get("words", b"page").unwrap_err(),
        reader.scan("words", b"").map(drop).unwrap_err(),
        reader.usage("words").map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("[clicks, joins]"), "{error}");
    }
    assert_eq!((reader.states().len(), reader.subtasks().count()), (2, 3));
    let ids: Vec<_> = reader.operators().iter().map(|spec| (spec.id().to_owned(), spec.subtasks())).collect();
    assert_eq!(ids, [("clicks".to_owned(), 2), ("joins".to_owned(), 1)]);
    reader.select("joins").unwrap();
    assert_eq!(reader.get("words", b"page").unwrap().unwrap(), b"of joins");
    assert_eq!(reader.scan("words", b"").unwrap().count(), 1);
    assert_eq!((reader.states().len(), reader.subtasks().count()), (1, 1));
    assert_eq!(reader.max_parallelism().get(), 4);
    reader.select("clicks").unwrap();
    assert_eq!(reader.get("words", b"page").unwrap().unwrap(), b"of clicks");
    reader.close().unwrap();
    let reader = read(ReaderOptions::new().operator("clicks")).unwrap();
    assert_eq!(reader.get("words", b"page").unwrap().unwrap(), b"of clicks");
    reader.close().unwrap();
    let error = read(ReaderOptions::new().operator("others")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("[clicks, joins]"), "{error}");

    let inspection = alluvium::admin::inspect(place()).unwrap();
    let newest = inspection.records.iter().rev().find_map(|record| record.checkpoint.as_ref()).unwrap();
    let shown: Vec<_> = newest
        .operators
        .iter()
        .map(|operator| {
            (operator.id.as_str(), operator.max_parallelism, operator.subtasks.len(), &operator.states[..])
        })
        .collect();
    let words = ["words".to_owned()];
    assert_eq!(shown, [("clicks", 128, 2, &words[..]), ("joins", 4, 1, &words[..])]);
}

#[test]
fn states_are_dropped_and_renamed_by_operator() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    of_two(&store, dir.path());
    let operators = || {
        [
            OperatorSpec::new("clicks", 2).drop_state("words"),
            OperatorSpec::new("joins", 1).rename_state("words", "texts"),
        ]
    };
    for _ in 0..2 {
        let mut opened = open(&store, options(dir.path()).operators(operators())).unwrap();
        assert_eq!(contents(&mut opened.stores[2..], "texts").len(), 1);
        assert!(opened.stores[..2].iter_mut().all(|store| store.states().unwrap().is_empty()));
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
        opened.job.close().unwrap();
    }
    // What cannot be done says of which operator.
    let wrong = [OperatorSpec::new("clicks", 2), OperatorSpec::new("joins", 1).rename_state("x", "y")];
    let error = open(&store, options(dir.path()).operators(wrong)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("\"joins\""), "{error}");
}

#[test]
fn a_new_job_starts_from_another_ones_operators() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    of_two(&store, dir.path());
    let source = || SourceJob::new((Arc::clone(&store) as Arc<dyn ObjectStore>, PREFIX), RestoreFrom::Latest);
    let open_new = |operators: Vec<OperatorSpec>| {
        let options = quiet(&dir.path().join("new"), OpenMode::CreateOrOpen).start_from(source());
        Job::open((Arc::clone(&store) as Arc<dyn ObjectStore>, "jobs/new"), options.operators(operators))
    };
    // Refused before anything is written: the place is still empty afterwards.
    let error = open_new(vec![OperatorSpec::new("joins", 2)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    let new = (Arc::clone(&store) as Arc<dyn ObjectStore>, "jobs/new");
    assert_eq!(alluvium::admin::inspect(new).unwrap_err().kind(), ErrorKind::NotFound);
    let operators =
        || vec![OperatorSpec::new("joins", 2), OperatorSpec::new("clicks", 1), OperatorSpec::new("new", 1)];
    let mut opened = open_new(operators()).unwrap();
    assert_eq!(get(&mut opened.stores[2], "page").unwrap(), b"of clicks");
    let joins = contents(&mut opened.stores[..2], "words");
    assert_eq!(joins.into_values().collect::<Vec<_>>(), [b"of joins".to_vec()]);
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    assert!(opened.job.is_independent());
    drop(opened);
    let mut opened = open_new(operators()).unwrap();
    assert_eq!(get(&mut opened.stores[2], "page").unwrap(), b"of clicks");
    assert_eq!(opened.stores[3].range().last.0, 127);
}

#[test]
fn a_savepoint_restores_all_operators() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    of_two(&store, dir.path());
    let operators = |clicks| [OperatorSpec::new("joins", 1), OperatorSpec::new("clicks", clicks)];
    let mut opened = open(&store, options(dir.path()).operators(operators(3))).unwrap();
    let pending = opened.job.savepoint("before", "").unwrap();
    for store in &mut opened.stores {
        store.cut(pending.id(), "").unwrap();
    }
    pending.wait().unwrap();
    put_any(&mut opened.stores[1..], "page", b"later");
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    let from = RestoreFrom::Savepoint("before".into());
    let mut opened = open(&store, options(dir.path()).operators(operators(1)).restore_from(from)).unwrap();
    assert_eq!(get(&mut opened.stores[0], "page").unwrap(), b"of joins");
    assert_eq!(get(&mut opened.stores[1], "page").unwrap(), b"of clicks");
}
