//! State that is not keyed: lists that are dealt to the subtasks, and maps that each has in full.

use alluvium::{BroadcastState, CheckpointMode, OperatorListState, StateDescriptor};
use alluvium_testkit::numbers::fill;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

type Offsets = OperatorListState<(u32, u64)>;
type Rules = BroadcastState<String, u64>;

fn offsets() -> StateDescriptor<Offsets> {
    Offsets::descriptor("offsets")
}

fn rules() -> StateDescriptor<Rules> {
    Rules::descriptor("rules")
}

/// The elements of each store.
fn lists(stores: &mut [StateStore]) -> Vec<Vec<(u32, u64)>> {
    let list = |store: &mut StateStore| {
        let offsets = store.register(offsets()).unwrap();
        offsets.get(store).unwrap()
    };
    stores.iter_mut().map(list).collect()
}

/// Whatever happens, every partition is somebody's and only one's, and all know all rules.
#[test]
fn i9_elements_are_dealt_and_copied_through_any_history() {
    for seed in 0..6 {
        let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut positions, mut known) = (BTreeMap::new(), BTreeMap::new());
        for attempt in 0..8_u64 {
            let native = rng.random_ratio(1, 3);
            let mode = if native { CheckpointMode::NativeIncremental } else { CheckpointMode::Changelog };
            let (sources, others) = (rng.random_range(1..=4), rng.random_range(1..=3));
            let operators = [OperatorSpec::new("others", others), OperatorSpec::new("source", sources)];
            let options = options(dir.path()).memory(40_000_000).mode(mode).operators(operators);
            let mut opened = open(&store, options).unwrap();
            let mut stores = opened.take_operator("source").unwrap();
            let dealt = lists(&mut stores);
            let mut all: Vec<_> = dealt.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, positions.clone().into_iter().collect::<Vec<_>>(), "seed {seed}");
            for store in &mut stores {
                let offsets = store.register(offsets()).unwrap();
                let mut restored = offsets.restored(store).unwrap();
                restored.sort_unstable();
                assert_eq!(restored, all, "everybody sees what all had");
                let rules = store.register(rules()).unwrap();
                let entries = rules.entries(store).unwrap();
                assert_eq!(entries, known.clone().into_iter().collect::<Vec<_>>(), "seed {seed}");
            }
            // Not the other operator's.
            assert!(lists(&mut opened.stores).concat().is_empty());

            // Each source moves on in its partitions, and one finds a new one. All hear of a rule.
            if attempt == 0 {
                let first = stores[0].register(offsets()).unwrap();
                first.set(&mut stores[0], &[(1000, 0), (1001, 0), (1002, 0)]).unwrap();
            }
            let rule = (format!("rule {}", rng.random_range(0..4)), attempt);
            for store in &mut stores {
                let offsets = store.register(offsets()).unwrap();
                let moved: Vec<_> = offsets.get(store).unwrap().iter().map(|(p, at)| (*p, at + 1)).collect();
                offsets.set(store, &moved).unwrap();
                let rules = store.register(rules()).unwrap();
                rules.put(store, &rule.0, &rule.1).unwrap();
                if attempt == 5 {
                    rules.remove(store, "rule 0").unwrap();
                }
            }
            let chosen = rng.random_range(0..stores.len());
            let offsets = stores[chosen].register(offsets()).unwrap();
            offsets.add(&mut stores[chosen], &(u32::try_from(attempt).unwrap(), 0)).unwrap();
            opened.stores.append(&mut stores);
            if rng.random_ratio(3, 4) {
                fill(&mut opened.stores[..others as usize], "counts", attempt);
                checkpoint(&opened.job, &mut opened.stores, "").unwrap();
                positions = lists(&mut opened.stores).concat().into_iter().collect();
                known.insert(rule.0, rule.1);
                if attempt == 5 {
                    known.remove("rule 0");
                }
            }
            // And crash.
        }
    }
}

#[test]
fn a_source_that_has_finished_keeps_its_elements_through_a_rescale() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let operators = |sources| [OperatorSpec::new("source", sources), OperatorSpec::new("counts", 1)];
    let mut opened = open(&store, options(dir.path()).operators(operators(3))).unwrap();
    let mut sources = opened.take_operator("source").unwrap();
    for (number, source) in (0..).zip(&mut sources) {
        let offsets = source.register(offsets()).unwrap();
        offsets.set(source, &[(number, 7), (number + 10, 7)]).unwrap();
        let rules = source.register(rules()).unwrap();
        rules.put(source, "limit", &1).unwrap();
    }
    // Two come to their end, and are no longer waited for. The third hears of another rule.
    for source in sources.drain(..2) {
        source.finish("").unwrap();
    }
    let last = sources[0].register(rules()).unwrap();
    last.put(&mut sources[0], "limit", &2).unwrap();
    for _ in 0..2 {
        let pending = opened.job.trigger("").unwrap();
        sources[0].cut(pending.id(), "").unwrap();
        opened.stores[0].cut(pending.id(), "").unwrap();
        pending.wait().unwrap();
    }
    drop((sources, opened));
    let mut opened = open(&store, options(dir.path()).operators(operators(2))).unwrap();
    let dealt = lists(&mut opened.stores[..2]);
    assert_eq!(dealt, [vec![(0, 7), (10, 7), (1, 7)], vec![(11, 7), (2, 7), (12, 7)]]);
    for store in &mut opened.stores[..2] {
        let rules = store.register(rules()).unwrap();
        assert_eq!(rules.get(store, "limit").unwrap(), Some(2), "the copy of one that went on");
    }
}

#[test]
fn what_a_program_does_not_register_is_dealt_all_the_same() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let mut opened = open(&store, options(dir.path())).unwrap();
    let list = opened.stores[0].register(offsets()).unwrap();
    list.set(&mut opened.stores[0], &[(0, 1), (1, 1), (2, 1)]).unwrap();
    let rules = opened.stores[0].register(rules()).unwrap();
    rules.put(&mut opened.stores[0], "limit", &1).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    for subtasks in [2, 3, 5] {
        let mut opened = open(&store, options(dir.path()).subtasks(subtasks)).unwrap();
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    }
    let mut opened = open(&store, options(dir.path()).subtasks(2)).unwrap();
    assert_eq!(lists(&mut opened.stores), [vec![(0, 1), (1, 1)], vec![(2, 1)]]);
    let rules = opened.stores[1].register(self::rules()).unwrap();
    assert_eq!(rules.get(&opened.stores[1], "limit").unwrap(), Some(1));
}

#[test]
fn elements_travel_with_savepoints_into_new_jobs_and_are_read_from_outside() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let place = |name: &'static str| (Arc::clone(&store) as Arc<dyn ObjectStore>, name);
    // Without named operators as well.
    let mut opened = open(&store, options(dir.path()).subtasks(2)).unwrap();
    for (number, one) in (0..).zip(&mut opened.stores) {
        let offsets = one.register(offsets()).unwrap();
        offsets.set(one, &[(number, 5)]).unwrap();
        let rules = one.register(rules()).unwrap();
        rules.put(one, "b", &2).unwrap();
        rules.put(one, "a", &1).unwrap();
        assert_eq!(rules.get(one, "c").unwrap(), None);
        let usage = one.states().unwrap();
        let of = |name: &str| usage.iter().find(|usage| usage.state.name() == name).unwrap();
        assert_eq!((of("rules").entries, of("rules").state.kind()), (Some(2), "broadcast"));
        assert!(of("offsets").bytes > 0 && !of("offsets").state.is_keyed());
    }
    let pending = opened.job.savepoint("before", "").unwrap();
    for one in &mut opened.stores {
        one.cut(pending.id(), "").unwrap();
    }
    pending.wait().unwrap();
    opened.job.close().unwrap();

    let from = RestoreFrom::Savepoint("before".into());
    let reader = CheckpointReader::open(place(PREFIX), &from, ReaderOptions::new().dir(dir.path())).unwrap();
    assert_eq!(reader.operator_list(offsets()).unwrap(), [(0, 5), (1, 5)]);
    assert_eq!(reader.broadcast(rules()).unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(reader.usage("rules").unwrap().entries, Some(2));
    for error in [reader.get("rules", b"a").unwrap_err(), reader.scan("offsets", b"").map(drop).unwrap_err()]
    {
        assert!(error.to_string().contains("CheckpointReader::broadcast"), "{error}");
    }
    let other = Offsets::descriptor("rules");
    assert_eq!(reader.operator_list(other).unwrap_err().kind(), ErrorKind::Incompatible);
    reader.close().unwrap();

    let source = SourceJob::new(place(PREFIX), from);
    let named = [OperatorSpec::new("new", 1), OperatorSpec::new("source", 1).was_unnamed()];
    let options = quiet(&dir.path().join("new"), OpenMode::Create).start_from(source).operators(named);
    let mut opened = Job::open(place("jobs/new"), options).unwrap();
    assert_eq!(lists(&mut opened.stores), [vec![], vec![(0, 5), (1, 5)]]);
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
}

#[test]
fn what_cannot_be_one_state_is_refused() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let mut opened = open(&store, options(dir.path()).subtasks(2)).unwrap();
    let one = &mut opened.stores[0];
    let offsets = one.register(offsets()).unwrap();
    assert_eq!(
        one.register(ValueState::<u64>::descriptor("offsets")).unwrap_err().kind(),
        ErrorKind::Incompatible
    );
    // A limit, because each checkpoint has it whole.
    let large = one.register(OperatorListState::<Vec<u8>>::descriptor("large")).unwrap();
    let error = large.add(one, &vec![0; 1 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    assert!(large.get(one).unwrap().is_empty());
    offsets.add(one, &(1, 2)).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();

    // Rules that only one of two has heard of at the barrier.
    let rules = opened.stores[1].register(rules()).unwrap();
    rules.put(&mut opened.stores[1], "limit", &1).unwrap();
    let error = checkpoint(&opened.job, &mut opened.stores, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    assert!(
        error.to_string().contains("\"rules\"") && error.to_string().contains("subtasks 0 and 1"),
        "{error}"
    );
    assert!(opened.job.health().is_err());
}

#[test]
fn their_types_migrate_and_they_are_dropped_and_renamed_like_others() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let mut opened = open(&store, options(dir.path())).unwrap();
    let one = &mut opened.stores[0];
    let old = one.register(OperatorListState::<u32>::descriptor("offsets")).unwrap();
    old.set(one, &[7, 8]).unwrap();
    let rules = one.register(rules()).unwrap();
    rules.put(one, "limit", &1).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);

    let options = || options(dir.path()).rename_state("offsets", "places").drop_state("rules");
    for round in 0..2 {
        let mut opened = open(&store, options()).unwrap();
        let one = &mut opened.stores[0];
        let changed = OperatorListState::<(u32, u64)>::descriptor("places");
        assert_eq!(one.register(changed.clone()).unwrap_err().kind(), ErrorKind::Incompatible);
        let changed = changed.schema(1).migrate(|_, bytes| {
            let partition: u32 = alluvium::state::Codec::decode(&alluvium::state::Postcard, bytes)?;
            Ok((partition, 0))
        });
        let places = one.register(changed).unwrap();
        let expected = [vec![(7, 0), (8, 0)], vec![(7, 0), (8, 0), (9, 9)]];
        assert_eq!(places.get(one).unwrap(), expected[round]);
        places.add(one, &(9, 9)).unwrap();
        assert!(one.states().unwrap().iter().all(|usage| usage.state.name() != "rules"));
        checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    }
    // What was dropped does not come back with its name.
    let mut opened = open(&store, quiet(dir.path(), OpenMode::Existing)).unwrap();
    let rules = opened.stores[0].register(self::rules()).unwrap();
    assert!(rules.entries(&opened.stores[0]).unwrap().is_empty());
}

/// A checkpoint has a broadcast state once, so more subtasks do not make it larger.
#[test]
fn i9_a_large_broadcast_state_goes_to_many_subtasks() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Arc::new(InMemory::new()));
    let models = || BroadcastState::<String, Vec<u8>>::descriptor("models");
    let model = vec![7; 1_000_000];
    let mut opened = open(&store, options(dir.path())).unwrap();
    let state = opened.stores[0].register(models()).unwrap();
    state.put(&mut opened.stores[0], "large", &model).unwrap();
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
    drop(opened);
    // 17 MB, if each counted all of it.
    let mut opened = open(&store, options(dir.path()).memory(40_000_000).subtasks(17)).unwrap();
    for store in &mut opened.stores {
        let state = store.register(models()).unwrap();
        assert!(state.get(store, "large").unwrap().as_ref() == Some(&model));
    }
    checkpoint(&opened.job, &mut opened.stores, "").unwrap();
}
