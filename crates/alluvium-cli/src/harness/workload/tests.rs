use super::*;

pub(crate) fn small(operation: Operation) -> Workload {
    Workload {
        keys: 1000,
        value_bytes: 20,
        subtasks: 3,
        max_parallelism: 128,
        operation,
        distribution: Distribution::Uniform,
        seed: 0,
    }
}

#[test]
fn every_key_is_owned_once_and_loaded_first() {
    let streams = small(Operation::Put).streams().unwrap();
    let mut all: Vec<u64> = streams
        .iter()
        .flat_map(|stream| (0..stream.own_keys()).map(|j| stream.key(stream.record(j).index)))
        .collect();
    assert!(streams.iter().all(|stream| stream.own.is_sorted()));
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    for stream in &streams {
        assert_eq!(stream.index_of(stream.key(5)), Some(5));
        assert_eq!(stream.index_of(u64::MAX), None);
    }
}

#[test]
fn the_reference_stream_never_changes() {
    // Computed apart, from the formula: own[splitmix64(s·2^40 + j) mod |own|].
    let stream = &small(Operation::Put).streams().unwrap()[1];
    let j = stream.own_keys() + 7;
    let number = (1_u64 << 40) + j;
    let record = stream.record(j);
    assert_eq!(record.number, number);
    assert_eq!(record.index as u64, splitmix64(number) % stream.own_keys());
    assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
}

#[test]
fn a_value_is_its_count_and_incompressible_bytes() {
    let mut value = Vec::new();
    write_value(3, 42, 21, &mut value);
    let x1 = splitmix64(42);
    let x2 = splitmix64(x1);
    assert_eq!(value.len(), 21);
    assert_eq!(value[..8], 3_u64.to_le_bytes());
    assert_eq!(value[8..16], x1.to_le_bytes());
    assert_eq!(value[16..], x2.to_le_bytes()[..5]);
    assert_eq!(count_of(Some(&value)), 3);
    assert_eq!(count_of(None), 0);
    assert_eq!(count_of(Some(&[1, 2])), 0);
    write_value(1, 1, 8, &mut value);
    assert_eq!(value, 1_u64.to_le_bytes());
}

#[test]
fn another_seed_is_another_stream_and_a_uniform_one() {
    let base = &small(Operation::Put).streams().unwrap()[0];
    let other = &Workload { seed: 9, ..small(Operation::Put) }.streams().unwrap()[0];
    let keys = |stream: &Stream| (400..500).map(|j| stream.record(j).index).collect::<Vec<_>>();
    assert_ne!(keys(base), keys(other));
    let mut hits = vec![0_u32; base.own.len()];
    for j in base.own_keys()..base.own_keys() + 100_000 {
        hits[base.record(j).index] += 1;
    }
    let mean = 100_000 / base.own.len() as u32;
    assert!(hits.iter().all(|n| (mean / 2..mean * 2).contains(n)), "{hits:?}");
}

#[test]
fn mixed_and_append_have_their_shares() {
    let count = |operation, wanted| {
        let stream = &small(operation).streams().unwrap()[0];
        let first = stream.own_keys();
        (first..first + 64_000).filter(|j| stream.record(*j).action == wanted).count()
    };
    let near = |n: usize, share: f64| (n as f64 / 64_000.0 - share).abs() < 0.01;
    assert!(near(count(Operation::Mixed, Action::Read), 0.50));
    assert!(near(count(Operation::Mixed, Action::Increment), 0.45));
    assert!(near(count(Operation::Mixed, Action::Delete), 0.05));
    assert_eq!(count(Operation::Append, Action::Delete), 1000);
    assert_eq!(count(Operation::Append, Action::Append), 63_000);
}

#[test]
fn a_window_is_as_long_as_a_subtask_has_keys() {
    let stream = &small(Operation::Window).streams().unwrap()[2];
    let own = stream.own_keys();
    let at = |position| match stream.record(position).action {
        Action::PutInWindow { window, first } => (window, first),
        other => panic!("{other:?}"),
    };
    assert_eq!((at(0), at(1), at(own - 1)), ((0, true), (0, false), (0, false)));
    assert_eq!((at(own), at(3 * own - 1), at(3 * own)), ((1, true), (2, false), (3, true)));
    let after = |position| stream.window_after(position);
    assert_eq!((after(0), after(1), after(own), after(own + 1)), (None, Some(0), Some(0), Some(1)));
    assert_eq!(small(Operation::Put).streams().unwrap()[0].window_after(5), None);
    let all: usize = small(Operation::Put).streams().unwrap().iter().map(|s| s.groups().len()).sum();
    assert_eq!(all, 128);
}

#[test]
fn keys_are_big_endian_after_their_window() {
    assert_eq!(*KeyBytes::new(258, None), [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(*KeyBytes::new(258, Some(3)), [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
    for window in [None, Some(7)] {
        assert_eq!(KeyBytes::parse(&KeyBytes::new(258, window), window), Some(258));
        assert_eq!(KeyBytes::parse(&KeyBytes::new(258, Some(8)), window), None);
        assert_eq!(KeyBytes::parse(b"1234567", window), None);
    }
}

#[test]
fn the_workload_survives_json() {
    let workload = Workload { distribution: Distribution::Zipf(0.99), ..small(Operation::Append) };
    let json = serde_json::to_string(&workload).unwrap();
    assert!(json.contains(r#""operation":"append","distribution":"zipf:0.99""#), "{json}");
    assert_eq!(serde_json::from_str::<Workload>(&json).unwrap(), workload);
}

#[test]
fn nonsense_is_refused() {
    let refused = |change: fn(&mut Workload)| {
        let mut workload = small(Operation::Put);
        change(&mut workload);
        workload.streams().is_err()
    };
    assert!(refused(|w| w.keys = 0));
    assert!(refused(|w| w.value_bytes = 7));
    assert!(refused(|w| w.subtasks = 0));
    assert!(refused(|w| w.subtasks = 129));
    assert!(refused(|w| w.max_parallelism = 0));
    for wrong in ["", "zipf", "zipf:", "zipf:-1", "zipf:0", "zipf:NaN", "pareto"] {
        assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
    }
}
