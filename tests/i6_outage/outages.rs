//! Outages: while a job runs, in a row, in a base, and at the open.

use super::*;

/// Several checkpoints in a row fail; none of what they had cut is lost, and their ids are not
/// reused.
#[test]
fn i6_checkpoints_given_up_in_a_row_lose_nothing() {
    #[derive(Debug, Default)]
    struct Log(Mutex<Vec<(CheckpointId, bool)>>);
    impl CheckpointListener for Log {
        fn completed(&self, report: &CheckpointReport) {
            self.0.lock().unwrap().push((report.id, true));
        }
        fn failed(&self, id: CheckpointId, _error: &Error) {
            self.0.lock().unwrap().push((id, false));
        }
    }
    for inline_limit in [0, 100_000] {
        let line = Line::new();
        let log = Arc::new(Log::default());
        let options = || {
            let listener = Arc::clone(&log) as Arc<dyn CheckpointListener>;
            line.options()
                .inline_limit(inline_limit)
                .checkpoint_timeout(Duration::from_millis(200))
                .listener(listener)
        };
        let Opened { job, mut stores, .. } = line.open(options().subtasks(2));
        let mut ids = Vec::new();
        checkpoint(&job, &mut stores, "").unwrap();
        line.cut();
        for n in 0..4 {
            put_any(&mut stores, &format!("key {n}"), &noise(n, 300));
            let pending = job.trigger("").unwrap();
            ids.push(pending.id());
            for store in &mut stores {
                store.cut(pending.id(), "").unwrap();
            }
            assert!(passing(&pending.wait().unwrap_err()));
        }
        line.mend();
        put_any(&mut stores, "last", b"x");
        checkpoint_at_last(&job, &mut stores, "last");
        let expected = contents(&mut stores, "words");
        assert_eq!(expected.len(), 5);
        drop((job, stores));
        let mut after = line.open(options().subtasks(2));
        assert!(contents(&mut after.stores, "words") == expected);
        let log = log.0.lock().unwrap();
        assert!(ids.iter().all(|id| log.contains(&(*id, false))), "the listener heard of each failure");
        let mut unique: Vec<_> = log.iter().map(|(id, _)| *id).collect();
        unique.dedup();
        assert_eq!(unique.len(), log.len(), "an id was given twice: {log:?}");
    }
}

/// An outage that falls into a materialization: it ends without harm, and a later one succeeds
/// without sending again what was sent.
#[test]
fn i6_a_materialization_survives_an_outage() {
    #[derive(Debug, Default)]
    struct Bases(Mutex<Vec<MaterializationReport>>);
    impl CheckpointListener for Bases {
        fn materialized(&self, report: &MaterializationReport) {
            self.0.lock().unwrap().push(report.clone());
        }
    }
    let line = Line::new();
    let bases = Arc::new(Bases::default());
    let listener = Arc::clone(&bases) as Arc<dyn CheckpointListener>;
    let Opened { job, mut stores, .. } = line.open(line.options().listener(listener));
    for n in 0..500 {
        put(&mut stores[0], &format!("key {n}"), &noise(n, 500)).unwrap();
    }
    checkpoint(&job, &mut stores, "").unwrap();
    let down = Arc::clone(&line.down);
    line.store.rule(move |call| {
        let lost = call.path.ends_with(".base") || down.load(Ordering::Relaxed);
        if lost && call.writes() { Fault::Fail } else { Fault::Pass }
    });
    job.materialize();
    job.settle(LONG).unwrap();
    job.health().unwrap();
    assert!(bases.0.lock().unwrap().is_empty(), "a base without its index");
    // Meanwhile the changelog carries on.
    put(&mut stores[0], "meanwhile", b"x").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();

    line.store.heal();
    line.store.take_calls();
    job.materialize();
    let there = || !bases.0.lock().unwrap().is_empty();
    eventually("a base", LONG, there);
    checkpoint(&job, &mut stores, "with a base").unwrap();
    let expected = contents(&mut stores, "words");
    let sent: u64 = line.store.take_calls().iter().filter(|call| call.writes()).map(|call| call.bytes).sum();
    assert!(sent < 200_000, "{sent} bytes: what had been uploaded before was sent again");
    drop((job, stores));
    let mut after = line.open(line.options());
    assert!(contents(&mut after.stores, "words") == expected);
}

/// A store that fails every few requests, and is slow now and then, for as long as the job runs.
#[test]
fn i6_a_flaky_store_costs_time_only() {
    let line = Line::new();
    let options =
        || line.options().checkpoint_timeout(Duration::from_secs(20)).inline_limit(2_000).subtasks(2);
    let Opened { job, mut stores, .. } = line.open(options());
    let mut fates = StdRng::seed_from_u64(6);
    line.store.rule(move |_| match fates.random_range(0..20) {
        0..3 => Fault::Fail,
        3 => Fault::Answer(Answer::Lost),
        4 | 5 => Fault::Delay(Duration::from_millis(30)),
        _ => Fault::Pass,
    });
    for round in 0..25_u64 {
        for n in 0..40 {
            put_any(&mut stores, &format!("key {}", (round * 31 + n) % 300), &noise(round * 100 + n, 200));
        }
        if round % 8 == 7 {
            job.materialize();
        }
        checkpoint_at_last(&job, &mut stores, &round.to_string());
        job.health().unwrap();
    }
    let expected = contents(&mut stores, "words");
    assert!(job.stats().remote.retries > 5, "{:?}", job.stats().remote);
    drop((job, stores));
    line.store.heal();
    let mut after = line.open(options());
    assert_eq!(after.metadata.as_deref(), Some(b"24".as_slice()));
    assert!(contents(&mut after.stores, "words") == expected);
}

/// At the start there is nobody yet whose work must go on: an error in good time, and nothing is
/// left behind that would be in the way later.
#[test]
fn i6_an_outage_at_the_open_is_an_error_and_leaves_nothing() {
    let line = Line::new();
    line.cut();
    let error = open(&line.store, line.options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    line.mend();
    let Opened { job, mut stores, .. } = line.open(line.options());
    put(&mut stores[0], "k", b"v").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));

    // In the middle of an open: whichever request is the first to fail.
    for healthy in [1, 2, 4, 6, 9] {
        let mut left = healthy;
        line.store.rule(move |_| {
            left -= 1;
            if left >= 0 { Fault::Pass } else { Fault::Fail }
        });
        match open(&line.store, line.options()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{healthy}: {error}"),
        }
        line.store.heal();
        let mut opened = line.open(line.options());
        assert_eq!(get(&mut opened.stores[0], "k"), Some(b"v".to_vec()));
    }

    // A refusal that will not pass is told at once.
    line.store.rule(|_| Fault::Denied);
    line.store.take_calls();
    let error = open(&line.store, line.options()).unwrap_err();
    assert!(error.to_string().contains("permission"), "{error}");
    // One look for the job, and one by the opening itself; neither is tried again.
    let calls = line.store.take_calls();
    assert!(calls.len() <= 2, "a permanent refusal was met {} times: {calls:?}", calls.len());
}
