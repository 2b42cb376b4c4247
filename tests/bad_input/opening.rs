//! Opening a job the wrong way.

use super::*;

#[test]
fn wrong_urls_are_refused_and_create_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let file = file.display().to_string();
    let cases = [
        "",
        "~/job",
        "ftp://host/job",
        "http://host/job",
        "nonsense://x",
        "file://host/path",
        "file:relative",
        "C:\\job",
        "s3:bucket",
        "memory:///job?x=1",
        "file:///tmp/job#part",
        "s3://user:secret@bucket/job",
        &file,
        &format!("file://{}", file.replace(' ', "%20")),
    ];
    for url in cases {
        for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::CreateOrOpen] {
            let error = Job::open(url, options(dir.path(), mode)).unwrap_err();
            assert_error(&error, ErrorKind::InvalidArgument, &[]);
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(alluvium::admin::inspect(url).is_err());
        }
    }
    assert!(!dir.path().join("local").exists(), "a refused call has made a local directory");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let prefix = Job::open((Arc::new(InMemory::new()), "a//b"), options(dir.path(), OpenMode::Create));
    assert_error(&prefix.unwrap_err(), ErrorKind::InvalidArgument, &["prefix"]);
    let location = JobLocation::url(dir.path().join("job").display().to_string()).store_option("region", "x");
    let error = Job::open(location, options(dir.path(), OpenMode::Create)).unwrap_err();
    assert_error(&error, ErrorKind::InvalidArgument, &["region"]);
    assert!(!dir.path().join("job").exists());
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let somebodys: [&[(&str, &[u8])]; 5] = [
        &[("thesis.tex", b"all of it")],
        &[("photos/2019/a.jpg", b"jpeg"), ("photos/2020/b.jpg", b"jpeg")],
        &[("manifest/notes.txt", b"not a version")],
        // Another system's names are near ours.
        &[("data/part-0.parquet", b"PAR1"), ("manifest/MANIFEST-1", b"x")],
        &[("data/00000000000000000001/00000/aa/0000000001.sst", b"sst")],
    ];
    for files in somebodys {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        let files: BTreeMap<_, _> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        alluvium_testkit::objects::write_files(&place, &files);
        for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::CreateOrOpen] {
            let url = place.display().to_string();
            let error = Job::open(&url, options(dir.path(), mode)).unwrap_err();
            assert_error(&error, ErrorKind::ForeignData, &["alluvium"]);
            let object = error.object_name().unwrap();
            assert!(files.keys().any(|name| name.starts_with(object)), "{object} is not one of {files:?}");
            assert_eq!(files_below(&place), files, "something was touched");
        }
    }
}

#[test]
fn a_job_that_must_exist_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("not/there");
    let error = Job::open(absent.display().to_string(), options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["check the path"]);
    assert!(!dir.path().join("not").exists());

    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = Job::open(empty.display().to_string(), options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["no job exists", "check the URL"]);
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "something was left in an empty place");

    let store = FaultStore::new(InMemory::new());
    let error = open(&store, options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &[]);
    assert!(store.calls().iter().all(|call| matches!(call.op, Op::List | Op::Get)), "only looked");
    let error = alluvium::admin::inspect(empty.display().to_string()).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &[]);
}

#[test]
fn a_job_that_must_not_exist_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    put(&mut stores[0], "k", b"v").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let as_dyn = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let before = objects_of(&as_dyn, PREFIX);
    let other = tempfile::tempdir().unwrap();
    let error = open(&store, options(other.path(), OpenMode::Create)).unwrap_err();
    assert_error(&error, ErrorKind::AlreadyExists, &["exists here already", "choose another place"]);
    assert_eq!(objects_of(&as_dyn, PREFIX), before);
    // The one that runs is not fenced by it.
    checkpoint(&job, &mut stores, "").unwrap();
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    store.set_conditions(Conditions::Ignored);
    for mode in [OpenMode::Create, OpenMode::CreateOrOpen] {
        let error = open(&store, options(dir.path(), mode)).unwrap_err();
        assert_error(&error, ErrorKind::UnsafeStore, &["conditional creates"]);
    }
    let names = names_of(&(Arc::clone(&store) as Arc<dyn ObjectStore>), PREFIX);
    assert_eq!(names, Vec::<String>::new(), "something was begun on an unsafe store");

    // A job that was moved there is not touched either.
    let honest = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&honest, options(dir.path(), OpenMode::Create)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    honest.set_conditions(Conditions::Ignored);
    let as_dyn = Arc::clone(&honest) as Arc<dyn ObjectStore>;
    let before = objects_of(&as_dyn, PREFIX);
    let error = open(&honest, options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::UnsafeStore, &[]);
    assert_eq!(objects_of(&as_dyn, PREFIX), before);
}

#[test]
fn two_jobs_may_live_side_by_side_but_not_one_within_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let open = |prefix: &str, name: &str| {
        Job::open((Arc::clone(&store), prefix), quiet(&dir.path().join(name), OpenMode::Create))
    };
    let mut one = open("jobs/a", "1").unwrap();
    let mut two = open("jobs/ab", "2").unwrap();
    put(&mut one.stores[0], "k", b"one").unwrap();
    put(&mut two.stores[0], "k", b"two").unwrap();
    checkpoint(&one.job, &mut one.stores, "").unwrap();
    checkpoint(&two.job, &mut two.stores, "").unwrap();
    assert_error(&open("jobs", "3").unwrap_err(), ErrorKind::ForeignData, &["(a)"]);
    drop((one, two));
    for (prefix, value) in [("jobs/a", "one"), ("jobs/ab", "two")] {
        let options = quiet(&dir.path().join("4"), OpenMode::Existing);
        let mut opened = Job::open((Arc::clone(&store), prefix), options).unwrap();
        assert_eq!(get(&mut opened.stores[0], "k"), Some(value.into()));
    }
}

#[test]
fn a_local_directory_serves_one_attempt_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let opens = |store: &FaultStore| {
        store.calls().iter().filter(|call| call.path.contains("probe/") || call.is_manifest_put()).count()
    };
    let before = opens(&store);
    for store in [Arc::clone(&store), FaultStore::new(InMemory::new())] {
        let error = open(&store, options(dir.path(), OpenMode::CreateOrOpen)).unwrap_err();
        assert_error(&error, ErrorKind::Locked, &["local", "directory of its own"]);
    }
    // Before anything else was asked: the attempt that runs is not fenced by it.
    assert_eq!(opens(&store), before);
    put(&mut stores[0], "k", b"v").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    open(&store, options(dir.path(), OpenMode::Existing)).unwrap();
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let new = || options(dir.path(), OpenMode::CreateOrOpen);
    let cases: Vec<(JobOptions, &str)> = vec![
        (new().subtasks(0), "subtask"),
        (new().subtasks(9).max_parallelism(MaxParallelism::new(8).unwrap()).memory(1 << 30), "9 subtasks"),
        (new().subtasks(200).memory(1 << 30), "200 subtasks"),
        (new().retained(0), "retained"),
        (new().memory(1000), "memory"),
        (new().memory(0), "memory"),
        (new().memory(u64::MAX), "memory"),
        (new().background_jobs(0), "background jobs"),
        (new().background_jobs(65), "background jobs"),
        (new().max_open_files(9), "open"),
        (new().rocksdb_option("comparator", "x"), "order of keys"),
        (new().rocksdb_option("compression", "kSnappyCompression"), "kZSTD"),
        (new().checkpoint_timeout(Duration::ZERO), "timeout"),
        (new().checkpoint_interval(Duration::ZERO), "interval"),
        (new().delta_bytes(1), "delta"),
    ];
    for (options, word) in cases {
        let error = open(&store, options).unwrap_err();
        assert_error(&error, ErrorKind::InvalidArgument, &[word]);
        let names = names_of(&(Arc::clone(&store) as Arc<dyn ObjectStore>), PREFIX);
        assert_eq!(names, Vec::<String>::new(), "{word}: something was begun");
    }
}

/// A job is not fenced, and its checkpoints stay, when somebody tries to open it the wrong way.
#[test]
fn what_does_not_fit_the_job_is_incompatible_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let eight = MaxParallelism::new(8).unwrap();
    let two = || options(dir.path(), OpenMode::CreateOrOpen).subtasks(2).max_parallelism(eight);
    let Opened { job, mut stores, .. } = open(&store, two()).unwrap();
    for store in &mut stores {
        let (state, group) = (state(store), store.range().first);
        store.put(state, group, b"k", b"v").unwrap();
    }
    checkpoint(&job, &mut stores, "").unwrap();
    let expected = contents(&mut stores, "words");
    let as_dyn = Arc::clone(&store) as Arc<dyn ObjectStore>;

    let other = tempfile::tempdir().unwrap();
    let sixteen = options(other.path(), OpenMode::Existing).subtasks(2);
    let before = objects_of(&as_dyn, PREFIX);
    let error = open(&store, sixteen.max_parallelism(MaxParallelism::new(16).unwrap())).unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["8", "16"]);
    assert_eq!(objects_of(&as_dyn, PREFIX), before, "nothing is written");
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));

    // Any number of subtasks that has a key group for each.
    let nine = options(other.path(), OpenMode::Existing).subtasks(9).memory(64_000_000);
    assert_error(&open(&store, nine).unwrap_err(), ErrorKind::InvalidArgument, &["9 subtasks", "8"]);
    let mut opened = open(&store, two()).unwrap();
    assert_eq!(opened.job.checkpoints().len(), 2, "a refused open has cost a checkpoint");
    assert!(contents(&mut opened.stores, "words") == expected);
}

#[test]
fn an_unknown_checkpoint_is_not_found_and_the_known_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    let first = checkpoint(&job, &mut stores, "").unwrap().id;
    for _ in 0..3 {
        checkpoint(&job, &mut stores, "").unwrap();
    }
    let last = job.checkpoints().last().unwrap().id;
    drop((job, stores));
    for unknown in [first, "1-99".parse().unwrap(), "99-1".parse().unwrap()] {
        let options = options(dir.path(), OpenMode::Existing).restore_from(RestoreFrom::Checkpoint(unknown));
        let error = open(&store, options.fallback(true)).unwrap_err();
        assert_error(&error, ErrorKind::NotFound, &[&unknown.to_string(), &last.to_string()]);
    }
    // A new job has no checkpoint to ask for.
    let fresh = FaultStore::new(InMemory::new());
    let options = options(dir.path(), OpenMode::Create).restore_from(RestoreFrom::Checkpoint(last));
    assert_error(&open(&fresh, options).unwrap_err(), ErrorKind::NotFound, &[&last.to_string()]);
}
